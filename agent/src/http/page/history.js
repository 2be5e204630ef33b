// SPDX-License-Identifier: Apache-2.0 OR MIT
// What each session had moved at each moment: the agent's own timeline to begin with, then what the events tell.

const LIMIT = 1200;
const WINDOW_NS = 2e9;

/** The window of the rates, for people. */
export const WINDOW = "over 2 s";

const pointOf = (at, figures) => ({
  at,
  state: figures.state,
  pending: figures.pending_bytes,
  data: figures.data_bytes,
  dirty: figures.dirty_bytes ?? figures.dirty?.bytes,
});

/** The points of a session as `/api/v1/sessions/ID` gives them. */
export const pointsOf = (session) => session.timeline.map((point) => pointOf(point.at_monotonic_ns, point));

/** How fast a sum grew from one point to another, in its unit per second; undefined while unknown. */
function slope(from, to, what) {
  const [a, b] = [from?.[what], to?.[what]];
  if (a === null || a === undefined || b === null || b === undefined || to.at <= from.at) return undefined;
  return ((b - a) / (to.at - from.at)) * 1e9;
}

/** The rate of a sum at the end of the points, over the window. */
export function rateNow(points, what) {
  const last = points.at(-1);
  if (!last) return undefined;
  const first = points.find((point) => point.at >= last.at - WINDOW_NS);
  return slope(first, last, what);
}

/** The rate of a sum over time: points `{at, value}`, each over a fiftieth of the whole. */
export function rates(points, what) {
  const step = Math.max((points.at(-1)?.at - points[0]?.at) / 50, 1e8);
  const found = [];
  let from = points[0];
  for (const to of points) {
    if (to.at - from.at < step) continue;
    found.push({ at: to.at, value: slope(from, to, what) });
    from = to;
  }
  return found;
}

export class Histories {
  #sessions = new Map();

  /** `onTold` is called when the agent has told the timeline of a session. */
  constructor(onTold) {
    this.onTold = onTold;
  }

  /** Points of a session that is in sight. Asks the agent for its timeline when it is new and once more when it has ended. */
  of(session, now, state) {
    let history = this.#sessions.get(session.id);
    if (!history) {
      history = { points: [], asked: undefined };
      this.#sessions.set(session.id, history);
    }
    const phase = session.result ? "ended" : "running";
    if (history.asked !== phase) {
      history.asked = phase;
      this.#seed(session.id, history);
    }
    if (phase === "running" && now > (history.points.at(-1)?.at ?? 0)) {
      history.points.push(pointOf(now, { ...session, state }));
      if (history.points.length > LIMIT) history.points = history.points.filter((_, index) => index % 2 === 0);
    }
    return history.points;
  }

  async #seed(id, history) {
    try {
      const answer = await fetch(`api/v1/sessions/${id}`);
      if (!answer.ok) return;
      const points = pointsOf(await answer.json());
      const last = points.at(-1)?.at ?? 0;
      history.points = points.concat(history.points.filter((point) => point.at > last));
      this.onTold();
    } catch {
      // The connection says what is wrong; the plot begins with what comes.
    }
  }

  /** Forgets all but these sessions. */
  keep(ids) {
    for (const id of this.#sessions.keys()) if (!ids.has(id)) this.#sessions.delete(id);
  }
}
