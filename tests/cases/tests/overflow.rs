// SPDX-License-Identifier: Apache-2.0 OR MIT
//! An agent that cannot keep up: what it lost it counts to the last record, what is added up in the kernel stays exact, and what it
//! no longer knows it does not guess.
//!
//! ```text
//!   threads ──▶ refused accesses ──▶ probes ──▶ maps ─────────────────────▶ all of them
//!      │                                └─────▶ ring ──▶ agent (stopped) ──▶ some, and how many are missing
//!      └── each one counts what it did ────────────────────────────────────▶ compared
//! ```
//!
//! A refused access makes one record, and 3,276 of these fill the ring.

use std::collections::BTreeMap;
use std::process::ExitCode;
use std::thread::sleep;
use std::time::{Duration, Instant};

use cases::guest;
use cases::session::{PATIENCE, Session, offset_of};
use migrator::live::{self, Options};
use migscope_abi::probe::Probe;
use migscope_abi::region::Field;
use migscope_abi::ring::{Kind, Lost};
use migscope_abi::state::State;
use serde_json::Value;

use agent::{Account, Watching};
use storm::{Done, Storm};

#[path = "overflow/agent.rs"]
mod agent;
#[path = "overflow/storm.rs"]
mod storm;

fn main() -> ExitCode {
    guest::run(&[
        ("a_ring_that_overflows_is_counted_to_the_last_record", stopped),
        ("an_agent_that_is_starved_counts_what_it_missed", starved),
    ])
}

/// Accesses that each thread has refused while the agent stands.
const REFUSALS: u64 = 100_000;
/// How often a rule of conduct is broken. No power of two: the last time is then in no record of its own.
const BREACHES: u64 = 50_000;
/// Length of the probes' ring, in bytes.
const RING_BYTES: u64 = 256 * 1024;
/// What a refusal takes of it: the 72 bytes of `ErrorRecord` and a head of 8.
const REFUSAL_BYTES: u64 = 80;
/// What the shortest record takes of it, which tells of a breach of conduct.
const LEAST_BYTES: u64 = 72;

/// `rule` was broken `count` times in one session: at the 1st, 2nd, 4th, 8th … time there is a record.
fn conduct_records(count: u64) -> u64 {
    count.checked_ilog2().map_or(0, |log| u64::from(log) + 1)
}

fn stopped() {
    let agent = Watching::start();
    let (mut from, mut to) = (Session::open(0), Session::open(1));
    from.region.set_state(State::PreCopy).expect("pre-copy");
    to.region.set_state(State::PreCopy).expect("pre-copy");
    agent.until("both sessions", |told| told.sessions().len() == 2);
    let before = agent.settled();
    assert_eq!(before.lost(Lost::RingFull), 0);

    agent.stop();
    let storm = Storm { refusals: REFUSALS, threads: 2, breaches: BREACHES, pinned: true };
    let began = Instant::now();
    let done = storm.rage([&from, &to]);
    let seconds = began.elapsed().as_secs_f64();
    // The ring is full, so nobody hears of this: the session of the second device ends, and the device runs.
    let running = (State::Running as u32).to_ne_bytes();
    to.write(offset_of(Field::DeviceState), &running).expect("a cancel");
    agent.go_on();

    let refused: u64 = done.iter().map(Done::refused).sum();
    // The change of state is itself an access.
    let all = before.error_and_access_events() + 2 * refused + BREACHES + 1;
    let after = agent.drained(|told| told.error_and_access_events() >= all);
    guest::measured("refusals_made", format!("{:.0}", refused_rate(refused, seconds)), "/s");

    // What the probes saw is what was done.
    assert_eq!(after.skipped(), before.skipped(), "no two programs met on a CPU");
    let more = |of: &dyn Fn(&Account) -> u64| of(&after) - of(&before);
    assert_eq!(more(&|told| told.events(Probe::Error)), refused);
    assert_eq!(more(&|told| told.events(Probe::RegionAccess)), refused + BREACHES + 1);
    assert_eq!(more(&|told| told.events(Probe::State)), 1);
    // Received and lost is emitted: the refusals, the change of state, and what the watch told of the breaches.
    let emitted = refused + 1 + conduct_records(BREACHES) + 1;
    let received = more(&Account::records);
    let lost = more(&|told| told.lost(Lost::RingFull));
    assert_eq!(received + lost, emitted, "{received} received, {lost} lost");
    assert!(lost > 10 * RING_BYTES / REFUSAL_BYTES, "the ring overflowed several times: {lost}");
    assert!(received <= RING_BYTES / LEAST_BYTES, "{received} received of a full ring");
    assert!(received >= RING_BYTES / REFUSAL_BYTES, "{received} received of a full ring");
    for reason in [Lost::MapFull, Lost::Unreadable] {
        assert_eq!(after.lost(reason), 0, "{}", reason.name());
    }
    assert_eq!(after.lost_as("malformed"), 0);
    // The sessions noted just the refusals that came.
    let noted: u64 = after.sessions().iter().map(refusals_noted).sum();
    assert_eq!(noted, more(&|told| told.records_of(Kind::Error)));
    // What is added up in the kernel is exact all the same.
    for (session, done) in [&from, &to].into_iter().zip(&done) {
        let device = session.device.key().to_string();
        assert_eq!(after.broken(&device), done.broken(), "{device}: broken rules");
        let of = |told: &Account| told.refused_accesses(&device);
        assert_eq!(of(&after) - of(&before), done.refused(), "{device}: refused accesses");
    }

    what_is_not_known(&agent, &after, &mut from, &mut to);
    drop((from, to));
    clean(&agent, &after);
    agent.end();
}

/// Refusals that a session heard of.
fn refusals_noted(session: &Value) -> u64 {
    let rules = session["refusals_by_rule"].as_object().expect("the probe is there");
    rules.values().filter_map(Value::as_u64).sum()
}

/// Sessions that lost something: one goes on and ends, of the other nobody saw how it ended.
fn what_is_not_known(agent: &Watching, told: &Account, from: &mut Session, to: &mut Session) {
    for session in told.sessions() {
        assert_eq!((&session["exact"], &session["result"]), (&false.into(), &Value::Null));
    }
    // That the device runs is in its sums. How it came to that is not, so its session goes on until something else is heard.
    agent.until("a device that runs", |told| told.state_of(to) == Some("running".into()));
    to.region.set_state(State::PreCopy).expect("pre-copy, again");
    for session in [&mut *from, &mut *to] {
        session.region.set_state(State::StopAndCopy).expect("the device stops");
        while session.region.next_buffer(State::StopAndCopy).expect("data comes").is_some() {}
        session.region.set_state(State::Stopped).expect("saved");
    }
    let over = |told: &Account| told.sessions().iter().all(|each| !each["result"].is_null());
    let told = agent
        .until("three sessions that have ended", |told| told.sessions().len() == 3 && over(told));
    let ends: Vec<_> = told
        .sessions()
        .into_iter()
        .map(|session| {
            [&session["device"], &session["result"], &session["exact"]].map(Value::clone)
        })
        .collect();
    let device = |session: &Session| Value::from(session.device.key().to_string());
    assert_eq!(
        ends,
        [
            [device(from), "completed".into(), false.into()],
            [device(to), "unknown".into(), false.into()],
            [device(to), "completed".into(), true.into()],
        ]
    );
    // A downtime that nobody saw is none that took no time.
    let [_, unseen, _] = &told.sessions()[..] else { panic!("three sessions") };
    for part in ["stop_ns", "final_dirty_ns", "final_data_ns", "source_ns", "total_ns"] {
        assert_eq!(unseen["downtime"][part], Value::Null, "{part}");
    }
    // An account's metrics are older than its sessions: the last one may have ended in between.
    let told = agent.account();
    assert_eq!(told.ended("source", "unknown"), 1);
    assert_eq!(told.ended("source", "completed"), 2);
}

/// After all that, a migration is told as it was.
fn clean(agent: &Watching, before: &Account) {
    let (from, to) = (Session::open(0), Session::open(1));
    let outcome = live::migrate(&from.device, &to.device, &Options::default()).expect("it works");
    assert!(outcome.verified);
    let told = agent.until("two more sessions", |told| {
        let sessions = told.sessions();
        sessions.len() == 5 && sessions.iter().all(|session| !session["result"].is_null())
    });
    let ends = [outcome.source, outcome.destination];
    for account in ends {
        let sessions = told.sessions();
        let session = sessions[3..].iter().find(|each| each["device"] == account.device.as_str());
        let session = session.expect("one of the two");
        assert_eq!((&session["result"], &session["exact"]), (&"completed".into(), &true.into()));
        assert_eq!(session["data_bytes"], account.region.data_bytes);
        assert_eq!(session["iterations"], account.region.iterations);
        assert_eq!(session["refusals_by_rule"], serde_json::json!({}));
        assert_eq!(session["conduct_by_rule"], serde_json::json!({}));
    }
    assert_eq!(agent.settled().lost(Lost::RingFull), before.lost(Lost::RingFull));
}

/// Accesses that each of four threads has refused at a time.
const AT_A_TIME: u64 = 20_000;

fn starved() {
    let agent = Watching::start();
    let (from, to) = (Session::open(0), Session::open(1));
    let before = agent.settled();
    agent.starve();
    // Threads that are not pinned preempt each other inside of a program, too; what the kernel then leaves out it counts.
    let storm = Storm { refusals: AT_A_TIME, threads: 2, breaches: 0, pinned: false };
    let mut broken = [BTreeMap::new(), BTreeMap::new()];
    let mut refused = 0;
    let deadline = Instant::now() + PATIENCE;
    let lost_some = |agent: &Watching| agent.account().lost(Lost::RingFull) > 0;
    while refused == 0 || (!lost_some(&agent) && Instant::now() < deadline) {
        for (done, all) in storm.rage([&from, &to]).iter().zip(&mut broken) {
            refused += done.refused();
            for (rule, count) in done.broken() {
                *all.entry(rule).or_insert(0) += count;
            }
        }
    }
    let emitted = before.error_and_access_events() + before.skipped() + 2 * refused;
    let after = agent.drained(|told| told.error_and_access_events() + told.skipped() >= emitted);
    let skipped = after.skipped() - before.skipped();
    guest::measured("runs_left_out", skipped, "of the probes");
    assert_eq!(after.error_and_access_events() + after.skipped(), emitted);
    let seen = after.events(Probe::Error) - before.events(Probe::Error);
    let received = after.records_of(Kind::Error) - before.records_of(Kind::Error);
    let lost = after.lost(Lost::RingFull) - before.lost(Lost::RingFull);
    guest::measured("records_lost", lost, &format!("of {seen}"));
    assert!(lost > 0, "the agent kept up: nothing was tried");
    assert_eq!(received + lost, seen);
    for (session, done) in [&from, &to].into_iter().zip(&broken) {
        let told = after.broken(&session.device.key().to_string());
        let sum = |rules: &BTreeMap<&str, u64>| rules.values().sum::<u64>();
        assert!(told.keys().eq(done.keys()), "{told:?} of {done:?}");
        assert!(
            sum(&told) <= sum(done) && sum(&told) + skipped >= sum(done),
            "{told:?} of {done:?}"
        );
    }
    agent.end();
}

fn refused_rate(refused: u64, seconds: f64) -> f64 {
    let refused = u32::try_from(refused).expect("a test has the patience for fewer");
    f64::from(refused) / seconds
}

/// Sleeps for a moment between two looks.
fn pause() {
    sleep(Duration::from_millis(50));
}
