// SPDX-License-Identifier: Apache-2.0 OR MIT
// The table of sessions that have ended, the last first; each can be opened.

import { downtimeOf, whole } from "./downtime.js";
import { element, pill } from "./element.js";
import { bytes, duration, shown } from "./format.js";
import { pointsOf } from "./history.js";
import { Plot } from "./plot.js";

function transitionsOf(session) {
  const row = (change) => {
    const at = change.at_monotonic_ns - change.duration_ns - session.began_monotonic_ns;
    const refused = change.result === "refused" ? ` (refused, stayed in ${change.now})` : "";
    return element(
      "li", {}, element("b", {}, `+${duration(Math.max(at, 0))}`),
      ` ${change.from} → ${change.to}${refused} by ${change.cause}, took ${duration(change.duration_ns)}`,
    );
  };
  const more = session.transitions_left_out
    ? [element("p", { class: "muted" }, `and ${session.transitions_left_out} more changes that were not kept`)]
    : [];
  return element("div", {}, element("p", {}, element("b", {}, "Changes of state")), element("ol", { class: "changes" }, ...session.transitions.map(row)), ...more);
}

class Row {
  constructor(session, peerOf) {
    const id = `details-${session.id}`;
    this.session = session;
    this.peerOf = peerOf;
    this.button = element("button", { type: "button", "aria-expanded": "false", "aria-controls": id }, `${session.id}`);
    this.button.addEventListener("click", () => this.#toggle());
    const total = whole(session);
    const cell = (label, content, kind = "") => element("td", { "data-label": label, class: kind }, content);
    this.summary = element(
      "tr", { "data-session": session.id },
      cell("Session", this.button), cell("Device", session.device), cell("Role", session.role),
      cell("Result", pill(element("span"), session.result)), cell("Duration", duration(session.duration_ns), "number"),
      cell("Downtime", total ? duration(total.ns) : "unknown", "number"),
      cell("Moved", shown(session.data_bytes, bytes), "number"), cell("Account", session.exact ? "exact" : "⚠ not exact"),
    );
    this.details = element("td", { colspan: 8 });
    this.more = element("tr", { id, class: "details" }, this.details);
    this.more.hidden = true;
  }

  async #toggle() {
    const open = this.more.hidden;
    this.more.hidden = !open;
    this.button.setAttribute("aria-expanded", open);
    if (!open) return;
    try {
      const answer = await fetch(`api/v1/sessions/${this.session.id}`);
      if (!answer.ok) throw new Error(await answer.text());
      const session = await answer.json();
      const plot = new Plot();
      plot.draw(pointsOf(session));
      const downtime = downtimeOf(session, this.peerOf(session));
      this.details.replaceChildren(transitionsOf(session), ...(downtime ? [downtime] : []), plot.node);
    } catch (error) {
      this.details.replaceChildren(`Its details are not to be had: ${error.message}`);
    }
  }
}

export class Sessions {
  #rows = new Map();
  #all = [];

  constructor(section, body) {
    this.section = section;
    this.body = body;
  }

  forget() {
    this.#rows.clear();
    this.body.replaceChildren();
  }

  update(sessions) {
    this.#all = sessions;
    const ended = sessions.filter((session) => session.result);
    this.section.hidden = ended.length === 0;
    const ids = new Set(ended.map((session) => session.id));
    for (const [id, row] of this.#rows) {
      if (ids.has(id)) continue;
      row.summary.remove();
      row.more.remove();
      this.#rows.delete(id);
    }
    for (const session of ended) {
      const text = JSON.stringify(session);
      const old = this.#rows.get(session.id);
      // An end learns of its peer a moment after it has ended; an open row is left as it is.
      if (old && (old.text === text || !old.more.hidden)) continue;
      const row = new Row(session, (found) => this.#all.find((other) => other.id === found.peer));
      row.text = text;
      this.#rows.set(session.id, row);
      if (old) {
        const focused = old.button === document.activeElement;
        old.more.replaceWith(row.more);
        old.summary.replaceWith(row.summary);
        if (focused) row.button.focus();
      } else {
        this.body.prepend(row.summary, row.more);
      }
    }
  }
}
