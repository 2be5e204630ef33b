// SPDX-License-Identifier: Apache-2.0 OR MIT
// Where the downtime of a session went: a bar of the parts that follow each other, and a list of all that is known.

import { element, say } from "./element.js";
import { duration, isKnown } from "./format.js";

// Of `downtime` in a session, in the order of time. `load` overlaps the others, so it is listed and not in the bar.
const PARTS = [
  ["stop_ns", "stop", "the write that stopped the device"],
  ["final_dirty_ns", "last dirty pages", "the last dirty queries"],
  ["final_data_ns", "last device data", "reading the last device data"],
  ["transfer_gap_ns", "transfer gap", "the wire, the VMM and its memory"],
  ["start_ns", "start", "the write that started the destination"],
];

/** The whole downtime that is known of a session, and what it spans. */
export function whole(session) {
  const { total_ns, source_ns, destination_ns } = session.downtime;
  if (isKnown(total_ns)) return { ns: total_ns, of: "both ends" };
  if (isKnown(source_ns)) return { ns: source_ns, of: "source only" };
  if (isKnown(destination_ns)) return { ns: destination_ns, of: "destination only" };
  return undefined;
}

/** Parts of both ends of one migration, as far as they are known. */
function joined(session, peer) {
  const parts = { ...session.downtime };
  for (const [name, ns] of Object.entries(peer?.downtime ?? {})) parts[name] ??= ns;
  return parts;
}

/** The bar with its list; undefined where no downtime is known. */
export function downtimeOf(session, peer) {
  const total = whole(session);
  if (!total) return undefined;
  const known = joined(session, peer);
  const parts = PARTS.filter(([name]) => isKnown(known[name])).map(([name, ...words]) => [known[name], ...words]);
  const sum = parts.reduce((ns, part) => ns + part[0], 0);
  const complete = total.of === "both ends";
  if (complete && sum < total.ns) parts.push([total.ns - sum, "between", "the VMM: vCPUs, other devices"]);
  const bar = element("div", { class: "bar", role: "img", "aria-label": `${parts.length} parts, listed below` });
  const list = element("ol", { class: "parts" });
  const scale = Math.max(sum, total.ns);
  for (const [index, [ns, name, meaning]] of parts.entries()) {
    const segment = element("span", { title: `${name}: ${duration(ns)}` });
    segment.style.width = `${(ns / scale) * 100}%`;
    if (ns / scale > 0.04) say(segment, String(index + 1));
    if (complete) bar.append(segment);
    list.append(element("li", { title: meaning }, `${name} `, element("b", {}, duration(ns))));
  }
  bar.hidden = !complete || sum > total.ns;
  const title = element("p", {}, "Downtime ", element("b", {}, duration(total.ns)), ` (${total.of})`);
  const load = isKnown(known.load_ns)
    ? [element("p", { class: "muted" }, `The destination's driver was busy for ${duration(known.load_ns)} taking data in, pre-copy included.`)]
    : [];
  return element("div", { class: "downtime" }, title, bar, list, ...load);
}
