// SPDX-License-Identifier: Apache-2.0 OR MIT
//! The migration region seen from outside: two agents beside each other on one migration, one by our driver's tracepoints and one by
//! vfio's functions alone, and their accounts against each other.
//!
//! ```text
//!   client ──▶ vfio_device_fops_read, _write ──▶ driver
//!                        │ functions               │ tracepoints
//!                     agent "outside"           agent "told"      ──▶ every count equal, times within a bound
//! ```

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::os::fd::AsFd as _;
use std::process::ExitCode;
use std::thread::sleep;
use std::time::{Duration, Instant};

use cases::demo::agent::Agent;
use cases::guest;
use cases::session::{PATIENCE, Session, memory};
use migrator::live::{self, Options, Transport};
use migrator::region::DataAccess;
use migrator::region_info::RegionInfo;
use migrator::source::PreCopy;
use migscope_abi::region::{Field, HEADER_BYTES};
use migscope_abi::rule::Rule;
use migscope_abi::state::State;
use serde_json::Value;
use workload::Spec;

fn main() -> ExitCode {
    guest::run(&[
        ("both_accounts_of_a_migration_are_equal", || undisturbed(whole)),
        ("both_accounts_of_refusals_and_of_breaches_are_equal", || undisturbed(refused)),
        ("a_bitmap_that_went_by_a_mapping_is_unknown_and_not_zero", || undisturbed(mapped)),
        ("an_agent_that_comes_late_learns_of_the_region_when_it_is_asked_for", late),
        ("a_device_that_is_reset_or_closed_in_the_middle_has_failed", || undisturbed(failed)),
        ("probes_are_attached_only_while_a_device_is_open", on_demand),
    ])
}

/// By how much a time of one account may differ from the other's: the way from the system call to the driver and back, under emulation.
const BOUND: f64 = 0.05;

/// Counts that both ways to look must agree on, to the last one.
const COUNTS: &[&str] = &[
    "vfio_migration_state_transitions_total",
    "vfio_migration_state_transition_duration_seconds_count",
    "vfio_migration_pending_bytes",
    "vfio_migration_data_bytes_total",
    "vfio_migration_iterations_total",
    "vfio_migration_region_accesses_total",
    "vfio_migration_region_access_duration_seconds_count",
    "vfio_migration_dirty_pages_total",
    "vfio_migration_dirty_bytes_total",
    "vfio_migration_dirty_queries_total",
    "vfio_migration_dirty_query_duration_seconds_count",
    "vfio_migration_protocol_violations_total",
    "vfio_migration_sessions_total",
    "vfio_migration_session_duration_seconds_count",
    "vfio_migration_downtime_seconds_count",
];

/// Times that they must agree on within the bound, for each time that was taken.
const TIMES: &[(&str, &str)] = &[
    (
        "vfio_migration_state_transition_duration_seconds_sum",
        "vfio_migration_state_transition_duration_seconds_count",
    ),
    (
        "vfio_migration_session_duration_seconds_sum",
        "vfio_migration_session_duration_seconds_count",
    ),
    ("vfio_migration_downtime_seconds_sum", "vfio_migration_downtime_seconds_count"),
];

/// The two agents.
struct Both {
    told: Agent,
    outside: Agent,
}

fn agent(port: u16, words: &[&str]) -> Agent {
    Agent::start_with(SocketAddr::from(([127, 0, 0, 1], port)), words).expect("the agent starts")
}

fn outside() -> Agent {
    agent(10478, &["--probes.own-driver", "functions"])
}

fn both() -> Both {
    Both { told: agent(10477, &[]), outside: outside() }
}

/// The kernel left out a run of a probe: it does while a system call on a map is under way on that CPU, and was preempted there.
struct Skipped;

/// Runs a comparison until the kernel has left out nothing; the agent says when it has, and then no account is whole.
fn undisturbed(compare: fn(&Both) -> Result<(), Skipped>) {
    const ATTEMPTS: u32 = 5;
    for attempt in 1..=ATTEMPTS {
        let both = both();
        let done = compare(&both);
        both.stop();
        match done {
            Ok(()) => return,
            Err(Skipped) => eprintln!("attempt {attempt}: the kernel skipped a run of a probe"),
        }
    }
    panic!("the kernel skipped runs of probes in each of {ATTEMPTS} attempts");
}

impl Both {
    /// Whether all that was lost is nothing, in both accounts.
    fn nothing_skipped(&self) -> Result<(), Skipped> {
        for agent in [&self.told, &self.outside] {
            let lost = samples(agent, &["migscope_events_lost_total"]);
            for (series, count) in lost {
                if series.contains("skipped") && count != "0" {
                    return Err(Skipped);
                }
                assert_eq!(count, "0", "{series}");
            }
        }
        Ok(())
    }

    fn stop(self) {
        self.told.stop().expect("it ends");
        self.outside.stop().expect("it ends");
    }
}

/// Waits until the agent says this of a probe.
fn says(agent: &Agent, probe: &str, what: &str) {
    let line = format!("probe {probe}: {what}");
    let deadline = Instant::now() + PATIENCE;
    loop {
        let ready = agent.get("/readyz").expect("the agent answers");
        if ready.contains(&line) {
            return;
        }
        assert!(Instant::now() < deadline, "not {line}: {ready}");
        sleep(Duration::from_millis(20));
    }
}

fn watches(agent: &Agent) {
    says(agent, "region_return", "attached");
    says(agent, "region_write", "attached");
}

/// The samples of some families, as they are written.
fn samples(agent: &Agent, families: &[&str]) -> BTreeMap<String, String> {
    let text = agent.get("/metrics").expect("the agent answers");
    let mut found = BTreeMap::new();
    for line in text.lines().filter(|line| !line.starts_with('#')) {
        let Some((series, value)) = line.rsplit_once(' ') else { continue };
        let family = series.split('{').next().unwrap_or(series);
        if families.contains(&family) {
            found.insert(series.to_owned(), value.to_owned());
        }
    }
    found
}

/// What both can know of it: which of our driver's rules a refusal was for is told by the tracepoints only.
fn counts(agent: &Agent) -> BTreeMap<String, String> {
    let mut counts = samples(agent, COUNTS);
    let rules: BTreeSet<String> =
        Rule::ALL.iter().map(|rule| format!("rule=\"{}\"", rule.name())).collect();
    counts.retain(|series, _| !rules.iter().any(|rule| series.contains(rule.as_str())));
    counts
}

/// Waits until the two agree in all counts, and gives them.
fn agree(both: &Both) -> BTreeMap<String, String> {
    let deadline = Instant::now() + PATIENCE;
    loop {
        let (told, outside) = (counts(&both.told), counts(&both.outside));
        if told == outside {
            return told;
        }
        if Instant::now() >= deadline {
            let differs =
                |(series, value): &(&String, &String)| outside.get(*series) != Some(*value);
            let only_told: Vec<_> = told.iter().filter(differs).collect();
            let missing: Vec<_> = outside
                .iter()
                .filter(|(series, value)| told.get(*series) != Some(*value))
                .collect();
            panic!("by tracepoints {only_told:#?}\nfrom outside {missing:#?}");
        }
        sleep(Duration::from_millis(100));
    }
}

fn value(samples: &BTreeMap<String, String>, series: &str) -> f64 {
    let value = samples.get(series).unwrap_or_else(|| panic!("no {series}: {samples:#?}"));
    value.parse().unwrap_or_else(|_| panic!("{series}: {value}"))
}

/// Both agree in the times, too.
fn agree_in_times(both: &Both) {
    for (sum, count) in TIMES {
        let (told, outside) = (samples(&both.told, &[sum]), samples(&both.outside, &[sum]));
        assert_eq!(told.keys().collect::<Vec<_>>(), outside.keys().collect::<Vec<_>>());
        assert!(!told.is_empty(), "{sum}");
        let counts = samples(&both.told, &[count]);
        for (series, seconds) in &told {
            let times = value(&counts, &series.replace("_sum", "_count"));
            let (told, outside) =
                (seconds.parse::<f64>().expect("a time"), value(&outside, series));
            assert!((told - outside).abs() <= BOUND * times, "{series}: {told} and {outside}");
        }
    }
    // While a device runs, the one knows it from the open on and the other from the first look at its state.
    let states = "vfio_migration_state_seconds_total";
    let (told, outside) = (samples(&both.told, &[states]), samples(&both.outside, &[states]));
    for (series, seconds) in told.iter().filter(|(series, _)| !series.contains("running")) {
        // The state that a device ends in goes on while one agent is asked after the other.
        let bound = if series.contains("stopped") { 1.0 } else { 2.0 * BOUND };
        let (told, outside) = (seconds.parse::<f64>().expect("a time"), value(&outside, series));
        assert!((told - outside).abs() <= bound, "{series}: {told} and {outside}");
    }
}

fn sessions(agent: &Agent) -> Vec<Value> {
    let text = agent.get("/api/v1/sessions").expect("the agent answers");
    let mut told: Value = serde_json::from_str(&text).expect("JSON");
    let Value::Array(sessions) = told["sessions"].take() else { panic!("no list: {text}") };
    sessions
}

/// What must be the same of a session in both accounts.
fn essence(session: &Value) -> Value {
    let changes = session["transitions"].as_array().expect("a list").iter();
    let changes: Vec<_> = changes
        .map(|change| ["from", "to", "now", "cause", "result"].map(|key| change[key].clone()))
        .collect();
    let same = [
        "device",
        "role",
        "protocol",
        "result",
        "exact",
        "pid",
        "seen_from_start",
        "data_bytes",
        "iterations",
        "dirty",
        "pending_bytes",
        "conduct_by_rule",
    ];
    let same: BTreeMap<_, _> = same.iter().map(|key| (*key, session[*key].clone())).collect();
    serde_json::json!({ "same": same, "changes": changes })
}

/// Asks until `found` finds what it wants in the sessions.
fn until<T>(agent: &Agent, what: &str, found: impl Fn(&[Value]) -> Option<T>) -> T {
    let deadline = Instant::now() + PATIENCE;
    loop {
        let sessions = sessions(agent);
        if let Some(found) = found(&sessions) {
            return found;
        }
        assert!(Instant::now() < deadline, "{what}: not in {sessions:#?}");
        sleep(Duration::from_millis(20));
    }
}

/// The sessions of both accounts, once as many have ended in each.
fn ended(both: &Both, number: usize) -> [Vec<Value>; 2] {
    [&both.told, &both.outside].map(|agent| {
        until(agent, "ended sessions", |sessions| {
            let ended: Vec<_> =
                sessions.iter().filter(|session| !session["result"].is_null()).cloned().collect();
            (ended.len() == number).then(|| in_order(ended))
        })
    })
}

/// By device, and then as they came: which of two devices is first is a matter of nanoseconds.
fn in_order(mut sessions: Vec<Value>) -> Vec<Value> {
    sessions.sort_by_key(|session| (session["device"].to_string(), session["id"].as_u64()));
    sessions
}

/// Opens both devices once both agents are there, and waits until all accesses are seen.
fn opened(both: &Both) -> [Session; 2] {
    let sessions = [Session::open(0), Session::open(1)];
    watches(&both.outside);
    sessions
}

fn migrate(from: &Session, to: &Session, data_access: DataAccess) -> live::Outcome {
    let options = Options {
        pre_copy: PreCopy {
            min_passes: 3,
            min_time: Duration::from_millis(600),
            interval: Duration::from_millis(200),
        },
        workload: Spec { hot_pages: 12, ..Spec::default() },
        transport: Transport::Unix,
        chunk_bytes: None,
        data_access,
    };
    let outcome = live::migrate(&from.device, &to.device, &options).expect("a migration");
    assert!(outcome.verified);
    outcome
}

fn whole(both: &Both) -> Result<(), Skipped> {
    let [from, to] = opened(both);
    let outcome = migrate(&from, &to, DataAccess::Trapped);
    // Twice, so that nothing of the first is left.
    migrate_back(from, to);
    let [told, outside] = ended(both, 3);
    both.nothing_skipped()?;
    let counts = agree(both);
    agree_in_times(both);
    // They agree on something: what the client did.
    let [one, other] = guest::devices().map(|device| device.to_string());
    let saved = format!("vfio_migration_data_bytes_total{{device=\"{one}\",direction=\"save\"}}");
    assert_eq!(value(&counts, &saved), number(outcome.source.region.data_bytes));
    let dirty = format!("vfio_migration_dirty_pages_total{{device=\"{one}\",source=\"region\"}}");
    assert_eq!(value(&counts, &dirty), number(outcome.source.region.dirty.pages));
    assert!(outcome.source.region.dirty.pages > 0);
    let resumed =
        format!("vfio_migration_data_bytes_total{{device=\"{other}\",direction=\"resume\"}}");
    assert_eq!(value(&counts, &resumed), number(outcome.destination.region.data_bytes));
    let made: u64 = outcome.source.region.accesses.iter().map(|access| access.count).sum();
    let seen: f64 = counts
        .iter()
        .filter(|(series, _)| {
            series.starts_with("vfio_migration_region_accesses_total") && series.contains(&one)
        })
        .map(|(_, count)| count.parse::<f64>().expect("a count"))
        .sum();
    assert!(seen >= number(made), "{seen} of at least {made}");

    let essences = |sessions: &[Value]| sessions.iter().map(essence).collect::<Vec<_>>();
    assert_eq!(essences(&told), essences(&outside));
    assert_eq!(told[0]["exact"], true, "{:#}", told[0]);
    for session in &outside {
        assert!(session["refusals_by_rule"].is_null(), "nobody can tell: {session:#}");
        assert!(session["dma_to_memory_bytes"].is_null(), "nobody can tell: {session:#}");
    }
    let blind = outside.iter().filter_map(|session| session["outlook"]["blocked"].as_array());
    for reason in blind.flatten() {
        assert_ne!(reason["reason"], "agent_blind", "it sees what can be seen");
    }
    Ok(())
}

/// A cancelled migration of a device that has been migrated to.
fn migrate_back(from: Session, mut to: Session) {
    drop(from);
    to.region.set_state(State::PreCopy).expect("pre-copy");
    to.store(5, 8);
    assert_eq!(to.dirty(), [5]);
    to.region.set_state(State::StopAndCopy).expect("stop-and-copy");
    to.region.next_buffer(State::StopAndCopy).expect("data");
    to.region.set_state(State::Running).expect("a cancel");
}

/// Counts of a test are far below 2^53.
#[expect(clippy::cast_precision_loss, reason = "exact below 2^53")]
fn number(count: u64) -> f64 {
    count as f64
}

fn refused(both: &Both) -> Result<(), Skipped> {
    let mut session = Session::first();
    watches(&both.outside);
    // From here on both know the device, and not from its middle.
    session.bring_to(State::PreCopy);
    session.region.set_state(State::Running).expect("a cancel");
    // Where the windows are can be asked at any time.
    session.get(Field::DataOffset).expect("data_offset");
    assert_eq!(session.state(), State::Running);
    session.read(0, 2).expect_err("half of a register");
    session.read(0x22, 8).expect_err("across two");
    session.write(0, &5_u32.to_ne_bytes()).expect_err("that is no state");
    session.write(0, &0x103_u32.to_ne_bytes()).expect_err("nor is that");
    session.put(Field::PendingBytes, 7).expect_err("it is read only");
    session.get(Field::StartPfn).expect_err("it is write only");
    session.put(Field::StartPfn, 0).expect_err("nothing is saved");
    session.read(HEADER_BYTES, 8).expect_err("nothing is saved");
    session.write(HEADER_BYTES, &[0; 8]).expect_err("nothing is loaded");
    session.write(4, &1_u32.to_ne_bytes()).expect("it is ignored");
    session.read(0x800, 8).expect_err("there is nothing");
    session.bring_to(State::PreCopy);
    session.region.set_state(State::Resuming).expect_err("there is no such arc");
    session.get(Field::CopiedPfns).expect_err("nothing was asked");
    session.get(Field::DataOffset).expect("data_offset, before pending_bytes");
    session.get(Field::DataSize).expect("data_size");
    session.put(Field::TotalPfns, 64).expect("total_pfns, first");
    session.put(Field::StartPfn, session.pfn(0)).expect("start_pfn");
    session.put(Field::PageSize, 4096).expect("page_size");
    session.get(Field::CopiedPfns).expect("nothing is dirty");
    session.bring_to(State::StopAndCopy);
    session.get(Field::PendingBytes).expect("pending_bytes");
    session.get(Field::DataOffset).expect("data_offset");
    session.get(Field::DataSize).expect("data_size");
    session.read(HEADER_BYTES, 8).expect("the first bytes");
    session.get(Field::PendingBytes).expect("the rest was not read");
    session.region.set_state(State::Stopped).expect("the driver cannot forbid it");
    session.bring_to(State::Resuming);
    session.put(Field::DataSize, u64::MAX).expect_err("it is larger than the window");
    session.region.set_state(State::Running).expect_err("no image has come");
    drop(session);
    let [told, outside] = ended(both, 3);
    both.nothing_skipped()?;
    let counts = agree(both);
    for rule in ["state_asked", "arc_asked", "query_order", "data_unread", "left_with_pending"] {
        let device = guest::devices()[0];
        let series = format!(
            "vfio_migration_protocol_violations_total{{device=\"{device}\",rule=\"{rule}\"}}"
        );
        assert!(value(&counts, &series) >= 1.0, "{rule}");
    }
    for (told, outside) in told.iter().zip(&outside) {
        assert_eq!(essence(told), essence(outside));
    }
    Ok(())
}

fn mapped(both: &Both) -> Result<(), Skipped> {
    let [from, to] = opened(both);
    migrate(&from, &to, DataAccess::Auto);
    drop((from, to));
    let [told, outside] = ended(both, 2);
    both.nothing_skipped()?;
    let (told, outside) = (&told[0], &outside[0]);
    // The bytes are what data_size told, however they went.
    for key in ["device", "result", "exact", "data_bytes", "iterations", "conduct_by_rule"] {
        assert_eq!(told[key], outside[key], "{key}: {outside:#}");
    }
    assert!(told["dirty"].is_object(), "{told:#}");
    assert!(outside["dirty"].is_null(), "which pages, nobody was seen to read: {outside:#}");
    let device = guest::devices()[0].to_string();
    let deadline = Instant::now() + PATIENCE;
    let queries = |agent: &Agent| {
        let mut queries = samples(agent, &["vfio_migration_dirty_queries_total"]);
        queries.retain(|series, _| series.contains(&device));
        queries
    };
    while queries(&both.told) != queries(&both.outside) {
        assert!(Instant::now() < deadline, "the queries themselves are seen");
        sleep(Duration::from_millis(50));
    }
    let pages = |agent: &Agent| {
        let mut pages = samples(agent, &["vfio_migration_dirty_pages_total"]);
        pages.retain(|series, _| series.contains(&device));
        pages
    };
    assert_eq!(pages(&both.told).len(), 1);
    assert_eq!(pages(&both.outside), BTreeMap::new());
    Ok(())
}

/// Asks what the device's own regions are, as a VMM does.
fn ask(session: &Session) {
    let info = RegionInfo::ask(session.device.as_fd(), 9).expect("the driver has one region");
    assert_eq!(info.kind, Some((3, 1)));
}

fn late() {
    let mut session = Session::first_in(State::PreCopy);
    let mut before = 0;
    while let Some(buffer) = session.region.next_buffer(State::PreCopy).expect("data") {
        before += buffer.len();
    }
    assert!(before > 0);
    let agent = outside();
    assert_eq!(session.state(), State::PreCopy);
    says(&agent, "region_return", "missing: no device is open");
    assert!(sessions(&agent).is_empty(), "nobody has told it anything");
    ask(&session);
    watches(&agent);
    // The state is known once it is read.
    assert_eq!(session.state(), State::PreCopy);
    let found = until(&agent, "a session under way", |sessions| sessions.first().cloned());
    assert_eq!((&found["role"], &found["result"]), (&"source".into(), &Value::Null));
    assert_eq!((&found["exact"], &found["seen_from_start"]), (&false.into(), &false.into()));
    let rest: usize = session.image_from_pre_copy().iter().map(Vec::len).sum();
    let ended = until(&agent, "its end", |sessions| {
        sessions.iter().find(|session| !session["result"].is_null()).cloned()
    });
    assert_eq!((&ended["result"], &ended["exact"]), (&"completed".into(), &false.into()));
    assert_eq!(ended["data_bytes"], rest, "{before} bytes moved before anybody looked");
    assert_eq!(ended["conduct_by_rule"], serde_json::json!({}));
    agent.stop().expect("it ends");
}

/// What is left to do of a migration that is in pre-copy.
trait Rest {
    fn image_from_pre_copy(&mut self) -> Vec<Vec<u8>>;
}

impl Rest for Session {
    fn image_from_pre_copy(&mut self) -> Vec<Vec<u8>> {
        self.region.set_state(State::StopAndCopy).expect("stop-and-copy");
        let next = || self.region.next_buffer(State::StopAndCopy).expect("data");
        let buffers = std::iter::from_fn(next).collect();
        self.region.set_state(State::Stopped).expect("saved");
        buffers
    }
}

fn failed(both: &Both) -> Result<(), Skipped> {
    let mut session = Session::first();
    watches(&both.outside);
    session.bring_to(State::PreCopy);
    session.region.reset().expect("a device can be reset at any time");
    session.bring_to(State::PreCopy);
    // Another descriptor of the same device comes and goes: it is open all the same.
    let again = session.device.open_again(memory()).expect("it opens");
    drop(again);
    assert_eq!(session.state(), State::PreCopy);
    sleep(Duration::from_millis(300));
    let under_way = sessions(&both.outside);
    assert!(under_way.iter().any(|session| session["result"].is_null()), "{under_way:#?}");
    drop(session);
    let [told, outside] = ended(both, 2);
    both.nothing_skipped()?;
    for (told, outside) in told.iter().zip(&outside) {
        assert_eq!(told["result"], "failed");
        assert_eq!(essence(told), essence(outside));
    }
    let causes: Vec<_> = outside
        .iter()
        .map(|session| session["transitions"].as_array().and_then(|all| all.last()).cloned())
        .map(|last| last.map_or(Value::Null, |last| last["cause"].clone()))
        .collect();
    assert_eq!(causes, ["reset", "close"]);
    agree(both);
    Ok(())
}

/// How often the programs of accesses ran.
fn runs(agent: &Agent) -> f64 {
    let runs = samples(agent, &["migscope_bpf_program_runs_total"]);
    let of_accesses = ["region_read", "region_write", "region_return"];
    let series =
        |program: &str| format!("migscope_bpf_program_runs_total{{program=\"{program}\"}}");
    of_accesses.into_iter().map(|program| value(&runs, &series(program))).sum()
}

fn on_demand() {
    let agent = outside();
    says(&agent, "region_return", "missing: no device is open");
    let session = Session::first();
    watches(&agent);
    session.state();
    drop(session);
    says(&agent, "region_return", "missing: no device is open");
    sleep(Duration::from_millis(600));
    let before = runs(&agent);
    assert!(before >= 2.0, "one access has a beginning and an end");
    // The agent of the tracepoints is the one that leaves accesses alone.
    agent.stop().expect("it ends");
    let told = self::agent(10477, &[]);
    let session = Session::first();
    for _ in 0..100 {
        session.state();
    }
    sleep(Duration::from_millis(600));
    says(&told, "region_return", "missing: no device is open");
    assert_eq!(runs(&told), 0.0, "our own driver tells for itself");
    drop(session);
    told.stop().expect("it ends");
}
