// SPDX-License-Identifier: Apache-2.0 OR MIT
// The stream of events, and what to do when there is none.
//
//   connecting ──snapshot──▶ live ──error, silence──▶ reconnecting ──6 s──▶ gone
//        ▲                    ▲                           │ the agent answers, but all streams are taken
//        └── seen again ── paused (not in sight)          └──▶ polling, every 5 s

const SILENCE_MS = 40_000; // the agent breaks it every 15 s
const GONE_MS = 6_000;
const POLL_MS = 5_000;
const RETRY_MS = 2_000;

/** Calls `onSnapshot(snapshot, isFirst)` with what comes and `onState()` when `state` has changed. */
export class Connection {
  state = "connecting";
  heardAt = performance.now();
  #lostAt = performance.now();
  #first = true;

  constructor({ onSnapshot, onState }) {
    this.onSnapshot = onSnapshot;
    this.onState = onState;
    document.addEventListener("visibilitychange", () => {
      if (document.hidden) {
        this.#close();
        this.#become("paused");
      } else if (this.state === "paused") {
        this.#lost("connecting");
        this.#open();
      }
    });
    setInterval(() => this.#watch(), 1000);
    this.#open();
  }

  get isCurrent() {
    return this.state === "live" || this.state === "polling";
  }

  #open() {
    this.#close();
    // Who polls has been told already.
    this.#first = this.state !== "polling";
    const source = new EventSource("api/v1/events");
    this.source = source;
    source.addEventListener("snapshot", (event) => {
      this.#take(JSON.parse(event.data), "live");
    });
    source.addEventListener("alive", () => {
      this.heardAt = performance.now();
    });
    source.addEventListener("stopping", () => this.#lost("reconnecting"));
    source.addEventListener("error", () => {
      if (this.state !== "polling") {
        this.#first = true;
        this.#lost("reconnecting");
      }
      // Refused for good, as the browser sees it: it does not try again, so we do.
      if (source.readyState === EventSource.CLOSED) this.#poll();
    });
  }

  #close() {
    clearTimeout(this.later);
    this.source?.close();
  }

  #take(snapshot, state) {
    this.heardAt = performance.now();
    const first = this.#first;
    this.#first = false;
    this.#become(state);
    this.onSnapshot(snapshot, first);
  }

  async #poll() {
    try {
      const answer = await fetch("api/v1/snapshot");
      if (!answer.ok) throw new Error(`HTTP ${answer.status}`);
      this.#take(await answer.json(), "polling");
    } catch {
      this.#lost("reconnecting");
    }
    if (document.hidden) return;
    this.later = setTimeout(() => this.#open(), this.state === "polling" ? POLL_MS : RETRY_MS);
  }

  #lost(state) {
    if (this.isCurrent || this.state === "paused") this.#lostAt = performance.now();
    if (this.state !== "gone") this.#become(state);
  }

  #watch() {
    const now = performance.now();
    if (this.state === "live" && now - this.heardAt > SILENCE_MS) {
      this.#lost("reconnecting");
      this.#open();
    }
    const waiting = this.state === "reconnecting" || this.state === "connecting";
    if (waiting && now - this.#lostAt > GONE_MS) this.#become("gone");
  }

  #become(state) {
    if (this.state === state) return;
    this.state = state;
    this.onState();
  }
}
