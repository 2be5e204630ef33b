// SPDX-License-Identifier: Apache-2.0 OR MIT
// Numbers for people. What is not known is shown as such: null never becomes 0.

export const UNKNOWN = "unknown";
const UNITS = ["B", "KiB", "MiB", "GiB", "TiB", "PiB"];

export const isKnown = (value) => value !== null && value !== undefined && value !== "";

/** `format` of a value, or that it is unknown. */
export const shown = (value, format = String) => (isKnown(value) ? format(value) : UNKNOWN);

/** Three digits that matter. */
const digits = (n) => (n >= 100 ? n.toFixed(0) : n >= 10 ? n.toFixed(1) : n.toFixed(2));

export function bytes(n) {
  let unit = 0;
  while (n >= 1023.5 && unit < UNITS.length - 1) {
    n /= 1024;
    unit += 1;
  }
  return `${unit === 0 ? Math.round(n) : digits(n)} ${UNITS[unit]}`;
}

export const rate = (bytesPerSecond) => `${bytes(bytesPerSecond)}/s`;

export const count = (n) => n.toLocaleString("en");

/** Nanoseconds. */
export function duration(ns) {
  if (ns < 1e3) return `${Math.round(ns)} ns`;
  if (ns < 1e6) return `${digits(ns / 1e3)} µs`;
  if (ns < 1e9) return `${digits(ns / 1e6)} ms`;
  const seconds = ns / 1e9;
  if (seconds < 60) return `${seconds.toFixed(seconds < 10 ? 2 : 1)} s`;
  const whole = Math.floor(seconds);
  const two = (n) => String(n).padStart(2, "0");
  if (whole < 3600) return `${Math.floor(whole / 60)} min ${two(whole % 60)} s`;
  if (whole < 86400) return `${Math.floor(whole / 3600)} h ${two(Math.floor(whole / 60) % 60)} min`;
  return `${Math.floor(whole / 86400)} d ${two(Math.floor(whole / 3600) % 24)} h`;
}

/** A running time, in steps that do not flicker. */
export const ticking = (ns) => (ns < 60e9 ? `${(Math.max(ns, 0) / 1e9).toFixed(1)} s` : duration(ns));
