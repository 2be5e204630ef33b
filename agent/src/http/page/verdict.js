// SPDX-License-Identifier: Apache-2.0 OR MIT
// Whether a migration will end, and why not: the only place that knows what an outlook looks like.
//
// `outlook` of a session: { verdict, remaining and downtime: {expected_ns, low_ns, high_ns}, blocked: [{ reason, explanation,
// runbook }, …] } and more. Without one nothing is claimed.

import { element } from "./element.js";
import { duration, isKnown } from "./format.js";

const VERDICTS = {
  converging: ["✓", "converges"],
  not_converging: ["✕", "does not converge"],
  unknown: ["?", "whether it converges cannot be told yet"],
};

/** A rate that the agent tells, "throughput" of device data or how fast memory becomes "dirty": { bytes_per_second, window_ns }. */
export function estimated(session, what) {
  const [bytes_per_second, window_ns] =
    what === "throughput"
      ? [session.outlook?.throughput_bytes_per_second, session.outlook?.throughput_window_ns]
      : [session.memory_dirty_bytes_per_second, session.memory_dirty_window_ns];
  return isKnown(bytes_per_second) ? { bytes_per_second, window_ns } : undefined;
}

const headline = ({ verdict }) => (VERDICTS[verdict] ?? VERDICTS.unknown).join(" ");

/** When it ends, `format` says how exactly. Where nobody can tell whether it does, that comes first. */
function ending({ verdict, remaining }, format) {
  if (!remaining) return "";
  return `${verdict === "converging" ? ", ends" : "; if it does, it ends"} in about ${format(remaining)}`;
}

/** An outlook in some words. */
export const summaryOf = (outlook) => headline(outlook) + ending(outlook, ({ expected_ns }) => duration(expected_ns));

const band = ({ expected_ns, low_ns, high_ns }) =>
  `${duration(expected_ns)} (${duration(low_ns)} ${isKnown(high_ns) ? `to ${duration(high_ns)}` : "or more"})`;

function reasonOf({ explanation, runbook }) {
  const page = runbook.replace(/\.md$/, "");
  const link = element("a", { href: `runbooks/${encodeURIComponent(page)}` }, "what to do");
  return element("li", {}, explanation, " – ", link);
}

export class Verdict {
  #told = "";

  constructor() {
    this.node = element("div", { class: "verdict" });
    this.node.hidden = true;
  }

  update(outlook) {
    this.node.hidden = !outlook;
    // Anew only when it says something else, so that a link keeps its focus.
    const told = JSON.stringify([outlook?.verdict, outlook?.blocked, outlook?.remaining, outlook?.downtime]);
    if (!outlook || told === this.#told) return;
    this.#told = told;
    const title = element("p", { "data-verdict": outlook.verdict }, element("b", {}, headline(outlook)));
    const { downtime } = outlook;
    title.append(ending(outlook, band));
    if (downtime) title.append(`; expected downtime ${band(downtime)}`);
    const held = this.node.contains(document.activeElement) ? document.activeElement.getAttribute("href") : null;
    this.node.replaceChildren(title, element("ul", {}, ...(outlook.blocked ?? []).map(reasonOf)));
    if (held) [...this.node.querySelectorAll("a")].find((link) => link.getAttribute("href") === held)?.focus();
  }
}
