// SPDX-License-Identifier: Apache-2.0 OR MIT
// Two small plots over the time of one session: what is pending, and how fast data moves and memory becomes dirty.
//
// The drawing is stretched to its place, so texts are HTML around it. Gaps are what is unknown.

import { drawn, element, mark, say } from "./element.js";
import { bytes, duration, rate } from "./format.js";
import { rates } from "./history.js";

const [WIDTH, HEIGHT] = [1000, 100];
const isStopped = (state) => ["stop_and_copy", "running_p2p", "pre_copy_p2p"].includes(state);

/** A path through `{at, value}`; as steps where a value holds until the next one. */
function path(points, x, y, stepped) {
  let text = "";
  let pen = false;
  for (const { at, value } of points) {
    if (value === null || value === undefined) {
      pen = false;
      continue;
    }
    const [px, py] = [x(at).toFixed(1), y(value).toFixed(1)];
    text += !pen ? `M${px} ${py}` : stepped ? `H${px}V${py}` : `L${px} ${py}`;
    pen = true;
  }
  return text;
}

class Panel {
  constructor(title, lines) {
    this.title = title;
    this.peak = element("span", { class: "muted" });
    this.stops = drawn("path", { class: "stop" });
    this.lines = lines.map((line) => drawn("path", { class: `line ${line}` }));
    this.svg = drawn(
      "svg",
      { viewBox: `0 0 ${WIDTH} ${HEIGHT}`, preserveAspectRatio: "none", role: "img" },
      this.stops,
      drawn("path", { class: "axis", d: `M0 ${HEIGHT - 0.5}H${WIDTH}` }),
      ...this.lines,
    );
    // One line is what the title says.
    const names = lines.length > 1 ? lines.map((line) => element("span", { class: `key ${line}` }, line)) : [];
    this.node = element("div", { class: "panel" }, element("p", {}, element("b", {}, title), ...names, this.peak), this.svg);
  }

  draw(series, stops, x, format, stepped) {
    const known = series.map((points) => points.map(({ value }) => value).filter((value) => Number.isFinite(value)));
    const values = known.flat();
    const top = Math.max(...values, 0);
    const y = (value) => HEIGHT - 2 - (top > 0 ? (value / top) * (HEIGHT - 8) : 0);
    series.forEach((points, index) => mark(this.lines[index], "d", path(points, x, y, stepped)));
    mark(this.stops, "d", stops);
    // Nothing is drawn of what nobody knows, and of one value no line.
    this.node.hidden = known.every((values) => values.length < 2);
    const told = values.length ? `peak ${format(top)}` : "unknown";
    say(this.peak, told);
    mark(this.svg, "aria-label", `${this.title} over time: ${told}`);
  }
}

export class Plot {
  constructor() {
    this.pending = new Panel("Pending", ["pending"]);
    this.rates = new Panel("Rates", ["throughput", "dirty"]);
    this.span = element("span");
    const caption = element("figcaption", { class: "muted" }, "over ", this.span, "; shaded: the device stands still");
    this.node = element("figure", { class: "plot" }, this.pending.node, this.rates.node, caption);
  }

  draw(points) {
    const newest = `${points.length} ${points.at(-1)?.at}`;
    if (this.newest === newest) return;
    this.newest = newest;
    this.node.hidden = points.length < 2;
    if (this.node.hidden) return;
    const [first, last] = [points[0].at, points.at(-1).at];
    const x = (at) => ((at - first) / (last - first || 1)) * WIDTH;
    let stops = "";
    points.forEach((point, index) => {
      const next = points[index + 1];
      if (next && isStopped(point.state)) {
        stops += `M${x(point.at).toFixed(1)} 0H${x(next.at).toFixed(1)}V${HEIGHT}H${x(point.at).toFixed(1)}Z`;
      }
    });
    const pending = points.map(({ at, pending: value }) => ({ at, value }));
    this.pending.draw([pending], stops, x, bytes, true);
    this.rates.draw([rates(points, "data"), rates(points, "dirty")], stops, x, rate, false);
    say(this.span, duration(last - first));
    this.node.hidden = this.pending.node.hidden && this.rates.node.hidden;
  }
}
