// SPDX-License-Identifier: Apache-2.0 OR MIT
// Making and changing elements. Texts become text nodes: whatever a machine calls itself, it is never markup.

const SVG = "http://www.w3.org/2000/svg";

// Nor does it turn a line around, end it, or hide in it (agent/src/harmless.rs).
const harmless = (text) => String(text).replace(/[\p{Cc}\p{Cf}\p{Zl}\p{Zp}]/gu, "\ufffd");

function filled(node, attributes, children) {
  for (const [name, value] of Object.entries(attributes)) node.setAttribute(name, harmless(value));
  node.append(...children.map((child) => (child instanceof Node ? child : harmless(child))));
  return node;
}

/** An HTML element with these attributes and children (elements or texts). */
export const element = (tag, attributes = {}, ...children) => filled(document.createElement(tag), attributes, children);

/** An SVG element. */
export const drawn = (tag, attributes = {}, ...children) =>
  filled(document.createElementNS(SVG, tag), attributes, children);

/** Changes a text, unless it is that already: selections and screen readers shall not be disturbed. */
export function say(node, text) {
  const shown = harmless(text);
  if (node.textContent !== shown) node.textContent = shown;
}

/** Changes an attribute, in the same way. */
export function mark(node, name, value) {
  const shown = harmless(value);
  if (node.getAttribute(name) !== shown) node.setAttribute(name, shown);
}

const MARKS = {
  running: "▶", running_p2p: "▶", pre_copy: "»", pre_copy_p2p: "»", stop_and_copy: "‖", resuming: "«", stopped: "■",
  error: "✕", closed: "○", completed: "✓", cancelled: "↩", failed: "✕",
};

/** Shows a state or result in a pill, by word and sign; its colour is an addition. */
export function pill(node, name) {
  mark(node, "class", "pill");
  mark(node, "data-state", name ?? "unknown");
  say(node, `${MARKS[name] ?? "?"} ${name ?? "unknown"}`);
  return node;
}

/** A list of names with values: `[[name, node], …]`. */
export const facts = (pairs) =>
  element("dl", { class: "facts" }, ...pairs.map(([name, node]) => element("div", {}, element("dt", {}, name), node)));
