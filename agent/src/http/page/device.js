// SPDX-License-Identifier: Apache-2.0 OR MIT
// The card of one device: its state, and the session that runs or that was its last.

import { downtimeOf } from "./downtime.js";
import { element, facts, mark, pill, say } from "./element.js";
import { bytes, count, duration, isKnown, rate, shown, ticking, UNKNOWN } from "./format.js";
import { rateNow, WINDOW } from "./history.js";
import { Plot } from "./plot.js";
import { estimated, Verdict } from "./verdict.js";

const FIELDS = [
  ["pending", "Pending"], ["moved", "Moved"], ["throughput", "Throughput"], ["dirty", "Dirty rate"],
  ["pages", "Dirty pages"], ["iterations", "Iterations"], ["violations", "Rules broken"],
];

/** Share of what is known to have to move, 0 to 1. A destination is never told what is to come, so its peer is asked. */
export function progressOf(session, pending) {
  if (session.result === "completed") return 1;
  const moved = session.data_bytes;
  if (!isKnown(moved) || !isKnown(pending) || moved + pending === 0) return undefined;
  return moved / (moved + pending);
}

/** How often a rule of the protocol was broken, as far as anybody watched for it. */
function brokenRules({ refusals_by_rule: refusals, conduct_by_rule: conduct }) {
  if (!refusals && !conduct) return null;
  const counts = [...Object.values(refusals ?? {}), ...Object.values(conduct ?? {})];
  return counts.reduce((sum, times) => sum + times, 0);
}

export class Card {
  #since;
  #began;
  #downtimeOf;

  constructor(address) {
    this.state = element("span");
    this.inState = element("span", { class: "muted", "data-field": "in-state" });
    this.about = element("p", { class: "muted" });
    this.role = element("span", { "data-field": "role" });
    this.result = element("span");
    this.runs = element("span", { class: "muted" });
    this.fill = element("div", { class: "fill" });
    this.progress = element("div", { class: "progress", role: "progressbar", "aria-valuemin": 0, "aria-valuemax": 100 }, this.fill);
    this.share = element("span", { class: "muted" });
    this.values = Object.fromEntries(FIELDS.map(([name]) => [name, element("dd", { "data-field": name })]));
    // Over which time a rate is told.
    this.windows = { throughput: element("span"), dirty: element("span") };
    this.verdict = new Verdict();
    this.plot = new Plot();
    this.downtime = element("div");
    this.inexact = element("p", { class: "warning" }, "⚠ Not exact: records were lost, or the agent came too late to see its beginning.");
    this.session = element(
      "div",
      {},
      element("p", { class: "session" }, this.role, " ", this.result, " ", this.runs),
      element("div", { class: "progress-line" }, this.progress, this.share),
      this.verdict.node,
      facts(FIELDS.map(([name, label]) => [element("span", {}, label, " ", this.windows[name] ?? ""), this.values[name]])),
      this.inexact,
      this.plot.node,
      this.downtime,
    );
    this.idle = element("p", { class: "muted" }, "No migration of it has been seen.");
    const title = element("h3", { id: `device-${address}` }, address);
    this.node = element(
      "article",
      { class: "card", "data-device": address, "aria-labelledby": `device-${address}` },
      element("div", { class: "title" }, title, this.state, this.inState),
      this.about,
      this.idle,
      this.session,
    );
  }

  /** `session` runs or was the last, `peer` is the other end of it, both may be missing; `points` are its history. */
  update(device, session, peer, points) {
    pill(this.state, device.state);
    this.#since = device.since_monotonic_ns;
    const words = [
      device.driver && `driver ${device.driver}`, device.iommu_group && `IOMMU group ${device.iommu_group}`,
      session && `protocol ${session.protocol}`,
    ];
    say(this.about, words.filter(Boolean).join(" · "));
    this.idle.hidden = Boolean(session);
    this.session.hidden = !session;
    if (session) this.#showSession(device, session, peer, points);
  }

  #showSession(device, session, peer, points) {
    const runs = !session.result;
    this.#began = runs ? session.began_monotonic_ns : undefined;
    say(this.role, `${session.role} · session ${session.id}`);
    this.result.hidden = runs;
    if (!runs) pill(this.result, session.result);
    if (!runs) say(this.runs, `after ${duration(session.duration_ns)}`);
    this.inexact.hidden = session.exact;
    this.#showProgress(session, session.pending_bytes ?? peer?.pending_bytes);
    const { pending, moved, throughput, dirty, pages, iterations, violations } = this.values;
    const outlook = runs ? session.outlook : undefined;
    // The rates of a session that has ended are those of its whole.
    const rateOf = (what, sum, total) => {
      if (!runs) return ["mean", shown(total, () => rate((total / (session.duration_ns || 1)) * 1e9))];
      const told = estimated(session, what);
      if (told) return [`over ${duration(told.window_ns)}`, rate(told.bytes_per_second)];
      return [WINDOW, shown(rateNow(points, sum), rate)];
    };
    const sayRate = (name, node, [window, value]) => {
      say(this.windows[name], window);
      say(node, value);
    };
    say(pending, shown(session.pending_bytes, bytes));
    say(moved, shown(session.data_bytes, bytes));
    sayRate("throughput", throughput, rateOf("throughput", "data", session.data_bytes));
    sayRate("dirty", dirty, rateOf("dirty", "dirty", session.dirty?.bytes));
    say(pages, shown(session.dirty?.pages, count));
    say(iterations, shown(session.iterations, count));
    say(violations, shown(brokenRules(session), count));
    this.verdict.update(outlook);
    this.plot.draw(points);
    const shownDowntime = runs ? "" : JSON.stringify([session.id, session.downtime, peer?.downtime]);
    if (shownDowntime !== this.#downtimeOf) {
      this.#downtimeOf = shownDowntime;
      const parts = runs ? undefined : downtimeOf(session, peer);
      this.downtime.replaceChildren(...(parts ? [parts] : []));
    }
  }

  #showProgress(session, pending) {
    const share = progressOf(session, pending);
    const percent = share === undefined ? undefined : Math.floor(share * 100);
    const text = percent === undefined ? `progress ${UNKNOWN}` : `${percent} %`;
    this.progress.classList.toggle("unknown", percent === undefined);
    this.progress.dataset.result = session.result ?? "";
    this.fill.style.width = `${percent ?? 0}%`;
    mark(this.progress, "aria-valuetext", text);
    mark(this.progress, "aria-label", "Device data moved, of what is known now");
    if (percent === undefined) this.progress.removeAttribute("aria-valuenow");
    else mark(this.progress, "aria-valuenow", percent);
    say(this.share, text);
  }

  /** What time alone changes; `now` is the agent's clock in nanoseconds. */
  tick(now) {
    say(this.inState, isKnown(this.#since) ? `for ${ticking(now - this.#since)}` : "");
    if (isKnown(this.#began)) say(this.runs, `for ${ticking(now - this.#began)}`);
  }
}
