// SPDX-License-Identifier: Apache-2.0 OR MIT
// The live page: what the events tell, put where it belongs.
//
//   connection ──snapshot──▶ machines ──▶ cards of devices (device.js: verdict, plot, downtime)
//                       ├──▶ probes
//                       ├──▶ migrating
//                       └──▶ ended sessions

import { Connection } from "./connection.js";
import { Card } from "./device.js";
import { element, mark, pill, say } from "./element.js";
import { bytes, duration, isKnown, shown } from "./format.js";
import { Histories } from "./history.js";
import { Migrating } from "./migrating.js";
import { Sessions } from "./sessions.js";

const byId = (id) => document.getElementById(id);
const histories = new Histories(() => connection.isCurrent && showDevices(last));
const migrating = new Migrating(byId("migrating"), byId("migrating-devices"));
const sessions = new Sessions(byId("sessions"), byId("ended"));
const cards = new Map();
const machines = new Map();
const states = new Map();
/** The agent's clock minus ours, in nanoseconds: of all frames, the one that was under way for the shortest time knows best. */
let clock = -Infinity;

const localNow = () => performance.now() * 1e6;
// What is stale does not tick.
const agentNow = () => (connection.isCurrent ? localNow() : connection.heardAt * 1e6) + clock;

function showProbes({ probes, lost }) {
  const missing = probes.filter((probe) => !probe.attached);
  const attached = `${probes.length - missing.length} of ${probes.length} probes attached`;
  const losses = lost === 0 ? "" : `, records lost: ${shown(lost)}`;
  say(byId("probes"), probes.length === 0 ? "the probes have not been tried yet" : attached + losses);
  byId("missing").hidden = missing.length === 0;
  const text = JSON.stringify(missing);
  if (byId("missing-probes").dataset.told === text) return;
  byId("missing-probes").dataset.told = text;
  // One that is not there for the same reason as the next is told together with it.
  const groups = Map.groupBy(missing, (probe) => `${probe.why}\n${probe.remedy}`);
  const line = (group) => element(
    "li", {}, element("b", {}, group.map((probe) => probe.name).join(", ")), `: ${group[0].why}. `,
    element("span", { class: "remedy" }, `To mend it: ${group[0].remedy}`),
  );
  byId("missing-probes").replaceChildren(...[...groups.values()].map(line));
}

/** The section of one machine; a machine is a process. */
function machineOf(key) {
  let machine = machines.get(key);
  if (!machine) {
    const title = element("h2", { id: `machine-${key}` });
    const migrations = element("ul", { class: "migrations" });
    const devices = element("div", { class: "cards" });
    const node = element("section", { class: "machine", "aria-labelledby": title.id }, title, migrations, devices);
    machine = { title, migrations, devices, node };
    machines.set(key, machine);
    byId("machines").append(node);
  }
  return machine;
}

function showMigrations(machine, migrations) {
  // The last of each role.
  const last = [...new Map(migrations.map((migration) => [migration.role, migration])).values()];
  const text = JSON.stringify(last);
  if (machine.told === text) return;
  machine.told = text;
  machine.migrations.replaceChildren(...last.map((migration) => {
    const many = migration.sessions.length;
    const words = [`${migration.role} of a migration of ${many} device${many === 1 ? "" : "s"}`];
    if (migration.result) {
      words.push(`took ${duration(migration.ended_monotonic_ns - migration.began_monotonic_ns)}`);
      // The devices of a destination stand from the beginning, most of the time while the source still runs: that is no downtime.
      if (migration.role === "source") words.push(`devices stood for ${shown(migration.downtime_ns, duration)}`);
      words.push(`${shown(migration.data_bytes, bytes)} moved`);
    }
    const node = migration.result ? pill(element("span"), migration.result) : element("b", {}, "under way");
    return element("li", {}, node, " ", words.join(", "), migration.exact ? "" : " (not exact)");
  }));
}

function showDevices(snapshot) {
  const { devices, migrations } = snapshot;
  byId("empty").hidden = devices.length > 0;
  const [inSight, addresses, keys] = [new Set(), new Set(), new Set()];
  for (const device of devices) {
    const key = device.pid ?? "none";
    keys.add(key);
    const machine = machineOf(key);
    const name = device.vm || (device.pid ? `Process ${device.pid}` : "Not open");
    say(machine.title, device.vm ? `${name} (process ${device.pid})` : name);
    showMigrations(machine, migrations.filter((migration) => migration.pid === device.pid));
    const session = device.session ?? snapshot.sessions.findLast((found) => found.device === device.device);
    const peer = session && snapshot.sessions.find((found) => found.id === session.peer);
    const points = session ? histories.of(session, snapshot.monotonic_ns, device.state) : [];
    if (session) inSight.add(session.id);
    let card = cards.get(device.device);
    if (!card) {
      card = new Card(device.device);
      cards.set(device.device, card);
    }
    addresses.add(device.device);
    if (card.node.parentNode !== machine.devices) machine.devices.append(card.node);
    card.update(device, session, peer, points);
  }
  histories.keep(inSight);
  for (const [address, card] of cards) {
    if (addresses.has(address)) continue;
    card.node.remove();
    cards.delete(address);
  }
  for (const [key, machine] of machines) {
    if (keys.has(key)) continue;
    machine.node.remove();
    machines.delete(key);
  }
  const running = devices.filter((device) => device.session).length;
  document.title = running ? `${running} migrating – migscope` : "migscope";
}

/** Tells those who do not see the page which device changed its state; not what is there when it opens. */
function announce({ devices }, first) {
  const news = [];
  for (const { device, state } of devices) {
    if (!first && states.get(device) !== state) news.push(`${device} is ${state ?? "in an unknown state"}`);
    states.set(device, state);
  }
  if (news.length) say(byId("news"), news.join("; "));
}

let last;

function onSnapshot(snapshot, first) {
  if (first) {
    // The agent may be another one, with a clock and sessions of its own.
    clock = -Infinity;
    histories.keep(new Set());
    sessions.forget();
  }
  last = snapshot;
  clock = Math.max(clock, snapshot.monotonic_ns - localNow());
  say(byId("version"), snapshot.version);
  showProbes(snapshot);
  migrating.update(snapshot);
  showDevices(snapshot);
  sessions.update(snapshot.sessions);
  announce(snapshot, first);
  tick();
}

const STATES = {
  connecting: "connecting", live: "live", polling: "polling", reconnecting: "reconnecting", gone: "agent gone", paused: "paused",
};

function tick() {
  const now = agentNow();
  for (const card of cards.values()) card.tick(now);
  const ageNs = localNow() - connection.heardAt * 1e6;
  const age = `${Math.floor(ageNs / 1e9)} s`;
  const live = connection.state === "live";
  const busy = connection.state === "polling" ? "all streams are taken; " : "";
  // What has just changed needs no age.
  const quiet = !last || (live && ageNs < 2e9);
  say(byId("connection-detail"), quiet ? "" : live ? `heard ${age} ago` : `${busy}data ${age} old`);
}

function onState() {
  say(byId("connection-state"), STATES[connection.state]);
  mark(byId("connection"), "data-state", connection.state);
  document.body.classList.toggle("stale", isKnown(last) && !connection.isCurrent);
  tick();
}

const connection = new Connection({ onSnapshot, onState });
setInterval(tick, matchMedia("(prefers-reduced-motion: reduce)").matches ? 1000 : 200);
