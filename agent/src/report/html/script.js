// SPDX-License-Identifier: Apache-2.0 OR MIT
// What the pointer is on: a line, and the values there. The words are in the page; nothing is made up and nothing is fetched.
"use strict";
for (const area of document.querySelectorAll(".area")) {
  const lines = JSON.parse(area.querySelector("script").textContent);
  const cross = document.createElement("div");
  const tip = document.createElement("div");
  cross.className = "cross";
  tip.className = "tip";
  cross.hidden = tip.hidden = true;
  area.append(cross, tip);
  const hide = () => { cross.hidden = tip.hidden = true; };
  const nearest = (dots, x) => {
    let best = null;
    for (const dot of dots) if (!best || Math.abs(dot[0] - x) < Math.abs(best[0] - x)) best = dot;
    return best;
  };
  area.addEventListener("pointerleave", hide);
  area.addEventListener("pointermove", (event) => {
    const box = area.getBoundingClientRect();
    const x = (event.clientX - box.left) / box.width;
    const found = lines.map((line) => [line, nearest(line.dots, x)]).filter(([, dot]) => dot);
    if (!found.length) return hide();
    const at = nearest(found.map(([, dot]) => dot), x);
    tip.replaceChildren();
    const row = (text, name) => {
      const div = document.createElement("div");
      div.textContent = text;
      div.className = name;
      tip.append(div);
    };
    row(at[1], "");
    for (const [line, dot] of found) row(`${line.name}: ${dot[2]}`, `c${line.colour}`);
    cross.hidden = tip.hidden = false;
    cross.style.left = `${at[0] * 100}%`;
    const right = at[0] > 0.5;
    tip.style.left = right ? "auto" : `calc(${at[0] * 100}% + .6rem)`;
    tip.style.right = right ? `calc(${(1 - at[0]) * 100}% + .6rem)` : "auto";
  });
}
