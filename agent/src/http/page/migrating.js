// SPDX-License-Identifier: Apache-2.0 OR MIT
// Which devices migrate, how far each is, and whether it gets there: a line each above all machines, and the way to its card.

import { progressOf } from "./device.js";
import { element, pill, say } from "./element.js";
import { summaryOf } from "./verdict.js";

/** As many cards stand side by side at the top; with more devices, one that migrates may be far below. */
const IN_SIGHT = 2;

export class Migrating {
  #lines = new Map();

  constructor(node, list) {
    this.node = node;
    this.list = list;
  }

  update({ devices, sessions }) {
    const running = devices.filter(({ session }) => session);
    this.node.hidden = running.length === 0 || devices.length <= IN_SIGHT;
    for (const { device, vm, state, session } of running) {
      let line = this.#lines.get(device);
      if (!line) {
        line = { state: element("span"), words: element("span") };
        line.node = element("li", {}, element("a", { href: `#device-${device}` }, device), " ", line.state, " ", line.words);
        this.#lines.set(device, line);
        this.list.append(line.node);
      }
      pill(line.state, state);
      const peer = sessions.find((found) => found.id === session.peer);
      const share = progressOf(session, session.pending_bytes ?? peer?.pending_bytes);
      const words = [vm, session.role, share !== undefined && `${Math.floor(share * 100)} %`, session.outlook && summaryOf(session.outlook)];
      say(line.words, words.filter(Boolean).join(", "));
    }
    const here = new Set(running.map(({ device }) => device));
    for (const [device, { node }] of this.#lines) {
      if (here.has(device)) continue;
      node.remove();
      this.#lines.delete(device);
    }
  }
}
