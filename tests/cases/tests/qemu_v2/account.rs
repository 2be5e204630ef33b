// SPDX-License-Identifier: Apache-2.0 OR MIT
//! What the agent tells, and how it is held against QEMU's traces.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::OnceLock;
use std::thread::sleep;
use std::time::{Duration, Instant};

use cases::demo::agent::Agent;
use cases::guest::{load_modules, measured};
use cases::mdev::Mtty;
use cases::session::PATIENCE;
use cases::vmm::Trace;
use cases::vmm::trace::Change;
use migrator::clock::monotonic_ns;
use migscope_abi::v2::MigState;
use rustix::time::{ClockId, clock_gettime};
use serde_json::Value;

/// In front of what a packet of multifd carries: version, number and flags (QEMU, `VFIODeviceStatePacket`).
pub(crate) const PACKET_HEAD_BYTES: u64 = 12;
/// How much of a trace's time is cut off, and what the two clocks may be read apart.
const CLOCK_NS: u64 = 100_000;

/// The one agent of all tests, with the probes of the v2 protocol in place. It ends with the guest.
pub(crate) fn agent() -> &'static Agent {
    static AGENT: OnceLock<Agent> = OnceLock::new();
    AGENT.get_or_init(|| {
        load_modules(&["mtty", "vfio_iommu_type1"]);
        let agent =
            Agent::start(SocketAddr::from(([127, 0, 0, 1], 10479))).expect("the agent starts");
        let deadline = Instant::now() + PATIENCE;
        while !agent.get("/readyz").expect("it answers").contains("probe data_read: attached") {
            assert!(Instant::now() < deadline, "the probes are not attached");
            sleep(Duration::from_millis(50));
        }
        agent
    })
}

/// What the agent tells of one device.
pub(crate) struct Account<'a>(&'a Mtty);

impl<'a> Account<'a> {
    pub(crate) fn of(device: &'a Mtty) -> Self {
        Self(device)
    }

    fn sessions(&self) -> Vec<Value> {
        let text = agent().get("/api/v1/sessions").expect("the agent answers");
        let mut told: Value = serde_json::from_str(&text).expect("JSON");
        let Value::Array(all) = told["sessions"].take() else { panic!("no list: {text}") };
        all.into_iter().filter(|session| session["device"] == self.0.uuid()).collect()
    }

    /// Its sessions, once so many have ended.
    pub(crate) fn ended(&self, count: usize) -> Vec<Value> {
        self.until(&format!("{count} ended sessions"), |sessions| {
            let ended = sessions.iter().filter(|session| !session["result"].is_null()).count();
            (ended >= count).then(|| sessions.to_vec())
        })
    }

    /// The session under way, once the device is in this state.
    pub(crate) fn under_way(&self, state: &str) -> Value {
        self.until(&format!("a session in {state}"), |sessions| {
            sessions.iter().find(|session| is_in(session, state)).cloned()
        })
    }

    /// Whether a session is under way in this state.
    pub(crate) fn is_in(&self, state: &str) -> bool {
        self.sessions().iter().any(|session| is_in(session, state))
    }

    fn until<T>(&self, what: &str, found: impl Fn(&[Value]) -> Option<T>) -> T {
        let deadline = Instant::now() + PATIENCE;
        loop {
            let sessions = self.sessions();
            if let Some(value) = found(&sessions) {
                return value;
            }
            assert!(Instant::now() < deadline, "{what}: not in {sessions:#?}");
            sleep(Duration::from_millis(20));
        }
    }

    /// The ended migration of the machine that is this process.
    pub(crate) fn migration(&self, pid: u32) -> Value {
        let deadline = Instant::now() + PATIENCE;
        loop {
            let text = agent().get("/api/v1/snapshot").expect("the agent answers");
            let snapshot: Value = serde_json::from_str(&text).expect("JSON");
            let migrations = snapshot["migrations"].as_array().expect("a list");
            let mut of_process = migrations.iter().filter(|migration| migration["pid"] == pid);
            if let Some(migration) = of_process.find(|migration| !migration["result"].is_null()) {
                return migration.clone();
            }
            assert!(Instant::now() < deadline, "{}: {migrations:#?}", self.0.uuid());
            sleep(Duration::from_millis(20));
        }
    }
}

fn is_in(session: &Value, state: &str) -> bool {
    let last = session["transitions"].as_array().and_then(|all| all.last());
    session["result"].is_null() && last.is_some_and(|last| last["now"] == state)
}

/// Runs of its programs that the agent says the kernel left out.
pub(crate) fn skipped_runs() -> f64 {
    let scrape = agent().scrape().expect("the agent answers");
    let labels = [("reason", "skipped")];
    scrape.sum("migscope_events_lost_total", &labels).expect("this kernel tells")
}

/// Labels of the device's info series: machine, its UUID, driver, protocol.
pub(crate) fn info(device: &Mtty) -> [String; 4] {
    let text = agent().get("/metrics").expect("the agent answers");
    let start = format!("vfio_migration_device_info{{device=\"{}\"", device.uuid());
    let line = text.lines().find(|line| line.starts_with(&start)).expect("the device is told of");
    ["vm", "vm_uuid", "driver", "protocol"].map(|label| {
        let (_, rest) = line.split_once(&format!(",{label}=\"")).expect("a label");
        rest.split('"').next().unwrap_or_default().to_owned()
    })
}

/// What the device last said that it has to move once it stands, as it is exported.
pub(crate) fn stop_copy_bytes(device: &Mtty) -> Option<f64> {
    let scrape = agent().scrape().expect("the agent answers");
    scrape.sum("vfio_migration_stop_copy_bytes", &[("device", device.uuid())])
}

/// The clock of QEMU's traces, beside the agent's.
pub(crate) struct Clock {
    /// `CLOCK_REALTIME` less `CLOCK_MONOTONIC`, in nanoseconds.
    ahead_ns: u64,
}

impl Clock {
    /// Reads both; nobody sets the guest's clock.
    pub(crate) fn now() -> Self {
        // What lies between two readings is the error.
        let reading = || {
            let before_ns = monotonic_ns();
            let now = clock_gettime(ClockId::Realtime);
            let after_ns = monotonic_ns();
            let seconds = u64::try_from(now.tv_sec).expect("after 1970");
            let ns = u64::try_from(now.tv_nsec).expect("not negative");
            (after_ns - before_ns, seconds * 1_000_000_000 + ns - before_ns)
        };
        let readings = std::iter::repeat_with(reading).take(32);
        let (_, ahead_ns) = readings.min().expect("there are some");
        Self { ahead_ns }
    }

    fn monotonic_ns(&self, realtime_ns: u64) -> u64 {
        realtime_ns - self.ahead_ns
    }
}

/// Holds an ended session against QEMU's trace of that end: its states are those that QEMU asked for, in their order and with none
/// between them, each at its time; nothing is missing, and no rule was broken.
pub(crate) fn assert_told(
    session: &Value,
    (role, result): (&str, &str),
    trace: &Trace,
    clock: &Clock,
) {
    assert_eq!(
        (&session["role"], &session["result"]),
        (&role.into(), &result.into()),
        "{session:#}"
    );
    assert_eq!(session["protocol"], "v2");
    assert_eq!(session["exact"], true, "{session:#}");
    let device = session["device"].as_str().expect("a name");
    let changes = trace.changes(device);
    let all = session["transitions"].as_array().expect("a list");
    // What a process's end does to a device, QEMU does not trace.
    let asked = all.iter().filter(|transition| transition["cause"] == "write");
    let mut next = None;
    for transition in asked {
        assert_eq!(transition["result"], "ok", "{session:#}");
        let at = changes.iter().position(|change| contains(change, transition, clock));
        let at = at.unwrap_or_else(|| panic!("{transition:#} is not one of {changes:#?}"));
        assert_eq!(transition["now"], name(changes[at].state), "{changes:#?}");
        assert_eq!(at, next.unwrap_or(at), "one is missing in {session:#}: {changes:#?}");
        next = Some(at + 1);
    }
    assert_eq!(all[0]["now"], if role == "source" { "pre_copy" } else { "resuming" });
}

/// Whether the agent's change of state lies within what QEMU saw of this one.
fn contains(change: &Change, transition: &Value, clock: &Clock) -> bool {
    let at_ns = transition["at_monotonic_ns"].as_u64().expect("it has a time");
    let began_ns = at_ns - transition["duration_ns"].as_u64().expect("it took a time");
    clock.monotonic_ns(change.asked_ns) <= began_ns + CLOCK_NS
        && at_ns <= clock.monotonic_ns(change.answered_ns) + CLOCK_NS
}

/// Holds the counters of changes of state against QEMU's trace from the machine's start: sessions or not.
pub(crate) fn assert_transitions(device: &Mtty, trace: &Trace) {
    let mut expected: BTreeMap<(&str, &str), u64> = BTreeMap::new();
    let mut from = MigState::Running;
    for change in trace.changes(device.uuid()) {
        *expected.entry((name(from), name(change.state))).or_default() += 1;
        from = change.state;
    }
    let scrape = agent().scrape().expect("the agent answers");
    let metric = "vfio_migration_state_transitions_total";
    for ((from, to), count) in &expected {
        let labels = [("device", device.uuid()), ("from", *from), ("to", *to), ("result", "ok")];
        assert_eq!(scrape.sum(metric, &labels), Some(*count as f64), "{from} to {to}");
    }
    let all: u64 = expected.values().sum();
    assert_eq!(scrape.sum(metric, &[("device", device.uuid())]), Some(all as f64), "no others");
}

/// How long things stood, in nanoseconds.
pub(crate) struct Stood {
    /// QEMU's downtime.
    machine_ns: u64,
    /// The part of it that the source's device was busy with.
    device_ns: u64,
    /// The agent's, from the source's stop until the destination runs, where it knows which belong together.
    pub(crate) total_ns: Option<u64>,
}

impl Stood {
    /// Records it in the tests' output.
    pub(crate) fn record(&self, name: &str) {
        for (part, ns) in [("", self.machine_ns), ("_of_the_device", self.device_ns)] {
            measured(&format!("{name}_downtime{part}"), format!("{:.3}", ms(ns)), "ms");
        }
    }
}

/// Holds the parts of the downtime against QEMU's checkpoints of both ends; see the head of the tests.
pub(crate) fn assert_downtime(
    [source, destination]: [&Value; 2],
    traces: &[Trace; 2],
    clock: &Clock,
) -> Stood {
    let checkpoint = |name: &str| {
        let at_ns = traces[0].checkpoint(name);
        clock.monotonic_ns(at_ns.unwrap_or_else(|| panic!("no checkpoint {name}")))
    };
    let ns = |value: &Value| value.as_u64().unwrap_or_else(|| panic!("unknown in {source:#}"));
    let (began_ns, stood_ns) =
        (all_of(source, "pre_copy_p2p").0, all_of(source, "stop_and_copy").1);
    let (start_ns, stopped_ns) = (checkpoint("src-downtime-start"), checkpoint("src-vm-stopped"));
    assert!(start_ns <= began_ns + CLOCK_NS && stood_ns <= stopped_ns + CLOCK_NS, "{source:#}");
    // The rest of the data, after the stop and before QEMU's account is closed.
    let end_ns = checkpoint("src-downtime-end");
    let data_ns = ns(&source["downtime"]["final_data_ns"]);
    assert!(data_ns > 0 && data_ns <= end_ns - stopped_ns + CLOCK_NS, "{source:#}");
    let runs = all_of(destination, "running");
    let total_ns = source["downtime"]["total_ns"].as_u64();
    if let Some(total_ns) = total_ns {
        assert_eq!(source["peer"], destination["id"]);
        assert_eq!(total_ns, runs.1 - began_ns, "{source:#}");
    }
    Stood { machine_ns: end_ns - start_ns, device_ns: stood_ns - began_ns + data_ns, total_ns }
}

/// Holds QEMU's own figure, in whole milliseconds, against its checkpoints: those are what the rest is held against.
pub(crate) fn assert_qemu_downtime(qemu: &Value, trace: &Trace) {
    let at = |name| trace.checkpoint(name).expect("a checkpoint");
    let traced = ms(at("src-downtime-end") - at("src-downtime-start"));
    let told = qemu["downtime"].as_f64().expect("it is told");
    assert!((told - traced).abs() <= 2.0, "{told} ms told, {traced} ms traced");
}

/// When the change to a state began, and when it was over.
fn all_of(session: &Value, state: &str) -> (u64, u64) {
    let all = session["transitions"].as_array().expect("a list");
    let found = all.iter().find(|transition| transition["now"] == state);
    let found = found.unwrap_or_else(|| panic!("no {state} in {session:#}"));
    let at_ns = found["at_monotonic_ns"].as_u64().expect("it has a time");
    (at_ns - found["duration_ns"].as_u64().expect("it took a time"), at_ns)
}

fn ms(ns: u64) -> f64 {
    Duration::from_nanos(ns).as_secs_f64() * 1e3
}

/// A state in the agent's words.
fn name(state: MigState) -> &'static str {
    migscope::state::State::from(state).name()
}

/// A state in the words of QEMU's `qapi/vfio.json`.
pub(crate) fn qapi_name(state: MigState) -> &'static str {
    match state {
        MigState::Error => "error",
        MigState::Stop => "stop",
        MigState::Running => "running",
        MigState::StopCopy => "stop-copy",
        MigState::Resuming => "resuming",
        MigState::RunningP2p => "running-p2p",
        MigState::PreCopy => "pre-copy",
        MigState::PreCopyP2p => "pre-copy-p2p",
    }
}
