// SPDX-License-Identifier: Apache-2.0 OR MIT
//! The protocol watch on a real driver: a client that breaks each rule which a client can break, with the agent beside it, and
//! clients that break none.
//!
//! ```text
//!   client ──▶ region ──▶ driver ──▶ tracepoints ──▶ probes (Watch) ──▶ agent ──▶ /metrics, /api/v1/sessions
//!     └── what it broke, and how often ─────────────────────────────────────────────▶ compared
//! ```

use std::collections::BTreeMap;
use std::process::ExitCode;

use cases::guest;
use cases::session::{PAGES, Session};
use migrator::PAGE_BYTES;
use migrator::live::{self, Options};
use migscope_abi::region::{Field, HEADER_BYTES};
use migscope_abi::state::State;
use migscope_abi::watch::conduct::{Conduct, Party};

use agent::{assert_nothing_broken, ended, lost, settles_at, start};

#[path = "conduct/agent.rs"]
mod agent;

fn main() -> ExitCode {
    guest::run(&[
        ("the_agent_sees_each_rule_that_a_client_breaks_and_no_other", each_rule),
        ("a_rule_that_is_broken_in_a_loop_is_counted_exactly_and_floods_nothing", loops),
        ("a_session_tells_when_who_broke_what_where", moments),
        ("a_client_that_obeys_breaks_nothing_and_neither_does_the_driver", obeys),
    ])
}

/// A rule, and what breaks it once. Each begins with a device that was just opened.
type Breach = (Conduct, fn(&mut Session));

/// Where the bitmap is.
fn bitmap_at(session: &mut Session) -> u64 {
    session.layout().bitmap_offset()
}

/// Asks for all of the test's memory, of which one page is dirty.
fn asked(session: &mut Session) -> u64 {
    let at = bitmap_at(session);
    session.bring_to(State::PreCopy);
    session.store(1, 8);
    session.region.ask_dirty(session.pfn(0), PAGE_BYTES, PAGES).expect("an answer");
    at
}

/// Steps a to c of saving. Gives the length of the buffer.
fn staged(session: &mut Session) -> usize {
    session.bring_to(State::PreCopy);
    session.get(Field::PendingBytes).expect("pending_bytes");
    session.get(Field::DataOffset).expect("data_offset");
    let bytes = session.get(Field::DataSize).expect("data_size");
    assert!(bytes > 8, "there is an image's header to be sent");
    usize::try_from(bytes).expect("fits")
}

/// All that a client can break, refused by this driver or not.
const BREACHES: &[Breach] = &[
    (Conduct::ArcAsked, |s| {
        s.bring_to(State::PreCopy);
        s.region.set_state(State::Resuming).expect_err("there is no such arc");
    }),
    (Conduct::StateAsked, |s| {
        s.write(0, &5_u32.to_ne_bytes()).expect_err("that is no state");
    }),
    (Conduct::LeftWithPending, |s| {
        s.bring_to(State::StopAndCopy);
        s.region.set_state(State::Stopped).expect("the driver cannot forbid it");
    }),
    (Conduct::OffsetBeforePending, |s| {
        s.bring_to(State::PreCopy);
        s.get(Field::DataOffset).expect("data_offset");
    }),
    (Conduct::OffsetWithoutPending, |s| {
        s.bring_to(State::StopAndCopy);
        while s.region.next_buffer(State::StopAndCopy).expect("data").is_some() {}
        s.get(Field::DataOffset).expect("data_offset");
    }),
    (Conduct::SizeBeforeOffset, |s| {
        s.bring_to(State::PreCopy);
        s.get(Field::PendingBytes).expect("pending_bytes");
        s.get(Field::DataSize).expect("data_size");
    }),
    (Conduct::DataOutsideSaving, |s| {
        s.read(HEADER_BYTES, 8).expect_err("nothing is saved");
    }),
    (Conduct::DataBeforeOffset, |s| {
        s.bring_to(State::PreCopy);
        s.get(Field::PendingBytes).expect("pending_bytes");
        s.read(HEADER_BYTES, 8).expect_err("nothing is staged");
    }),
    (Conduct::DataBeforeSize, |s| {
        s.bring_to(State::PreCopy);
        s.get(Field::PendingBytes).expect("pending_bytes");
        s.get(Field::DataOffset).expect("data_offset");
        s.read(HEADER_BYTES, 8).expect("something is staged");
    }),
    (Conduct::DataPastSize, |s| {
        let bytes = staged(s);
        s.read(HEADER_BYTES, bytes + 1).expect_err("it is past the end");
    }),
    (Conduct::DataUnread, |s| {
        staged(s);
        s.read(HEADER_BYTES, 8).expect("data");
        s.get(Field::PendingBytes).expect("pending_bytes");
    }),
    (Conduct::LoadOutsideResuming, |s| {
        s.write(HEADER_BYTES, &[0; 8]).expect_err("nothing is loaded");
    }),
    (Conduct::LoadBeforeOffset, |s| {
        s.bring_to(State::Resuming);
        s.write(HEADER_BYTES, &[0; 8]).expect("the window takes it");
    }),
    (Conduct::CommitBeforeOffset, |s| {
        s.bring_to(State::Resuming);
        s.put(Field::DataSize, u64::MAX).expect_err("it is larger than the window");
    }),
    (Conduct::DataUnwritten, |s| {
        let image = s.image().concat();
        s.bring_to(State::Resuming);
        s.get(Field::DataOffset).expect("data_offset");
        s.write(HEADER_BYTES, &image[..8]).expect("the window takes it");
        s.put(Field::DataSize, 16).expect("a piece of a head can be anything");
    }),
    (Conduct::QueryOutsideSaving, |s| {
        s.put(Field::StartPfn, 0).expect_err("nothing is saved");
    }),
    (Conduct::QueryOrder, |s| {
        s.bring_to(State::PreCopy);
        s.put(Field::TotalPfns, 1).expect("total_pfns");
        s.put(Field::StartPfn, s.pfn(0)).expect("start_pfn");
        s.put(Field::PageSize, PAGE_BYTES).expect("page_size");
        s.get(Field::CopiedPfns).expect("this driver computes it last");
    }),
    (Conduct::QueryUnasked, |s| {
        s.bring_to(State::PreCopy);
        s.get(Field::CopiedPfns).expect_err("nothing was asked");
    }),
    (Conduct::BitmapUnasked, |s| {
        let at = bitmap_at(s);
        s.bring_to(State::PreCopy);
        s.read(at, 8).expect_err("there is no bitmap");
    }),
    (Conduct::BitmapBeforeOffset, |s| {
        let at = asked(s);
        s.read(at, 8).expect("there is a bitmap");
    }),
    (Conduct::BitmapPastAnswer, |s| {
        let at = asked(s);
        s.get(Field::DataOffset).expect("data_offset");
        s.read(at, 16).expect_err("it is past the end");
    }),
    (Conduct::BitmapUnread, |s| {
        let at = asked(s);
        s.get(Field::DataOffset).expect("data_offset");
        s.read(at, 4).expect("half of it");
        s.region.ask_dirty(s.pfn(0), PAGE_BYTES, PAGES).expect("an answer");
    }),
    (Conduct::ReservedWritten, |s| {
        s.write(4, &1_u32.to_ne_bytes()).expect("it is ignored");
    }),
];

fn each_rule() {
    let clients = Conduct::ALL.iter().filter(|rule| rule.party() == Party::Client);
    assert!(clients.eq(BREACHES.iter().map(|(rule, _)| rule)), "one breach for each, in order");
    let agent = start();
    let mut expected = BTreeMap::new();
    for (rule, breach) in BREACHES {
        breach(&mut Session::first());
        *expected.entry(rule.name()).or_insert(0) += 1;
        settles_at(&agent, &expected, rule.name());
    }
    assert_eq!(lost(&agent), 0.0);
    agent.stop().expect("the agent ends");
}

const LOOPS: u64 = 20_000;

fn loops() {
    let agent = start();
    let mut session = Session::first();
    session.bring_to(State::PreCopy);
    for _ in 0..LOOPS {
        session.write(4, &1_u32.to_ne_bytes()).expect("it is ignored");
    }
    session.region.set_state(State::Running).expect("a cancel");
    drop(session);
    settles_at(&agent, &BTreeMap::from([("reserved_written", LOOPS)]), "in the metric");
    let [ended] = &ended(&agent)[..] else { panic!("one session has ended") };
    assert_eq!(ended["conduct_by_rule"], serde_json::json!({ "reserved_written": LOOPS }));
    assert_eq!(ended["exact"], true);
    // The 1st, 2nd, 4th … 16,384th time.
    assert_eq!(ended["violations"].as_array().expect("a list").len(), 15);
    assert_eq!(lost(&agent), 0.0);
    agent.stop().expect("the agent ends");
}

fn moments() {
    let agent = start();
    let mut session = Session::first();
    session.bring_to(State::StopAndCopy);
    session.get(Field::CopiedPfns).expect_err("nothing was asked");
    session.region.set_state(State::Stopped).expect("the driver cannot forbid it");
    drop(session);
    let expected = BTreeMap::from([("query_unasked", 1), ("left_with_pending", 1)]);
    settles_at(&agent, &expected, "in the metric");
    let [ended] = &ended(&agent)[..] else { panic!("one session has ended") };
    let began = ended["began_monotonic_ns"].as_u64().expect("a time");
    let moments = ended["violations"].as_array().expect("a list");
    let told: Vec<_> = moments
        .iter()
        .map(|moment| {
            assert!(moment["at_monotonic_ns"].as_u64().expect("a time") > began);
            ["rule", "who", "state", "field"].map(|key| moment[key].as_str().expect("a name"))
        })
        .collect();
    assert_eq!(
        told,
        [
            ["query_incomplete", "client", "stop_and_copy", "copied_pfns"],
            ["query_unasked", "client", "stop_and_copy", "copied_pfns"],
            ["left_with_pending", "client", "stopped", "device_state"],
        ]
    );
    assert_eq!(ended["refusals_by_rule"], serde_json::json!({ "query_incomplete": 1 }));
    agent.stop().expect("the agent ends");
}

fn obeys() {
    let agent = start();
    let (from, to) = (Session::open(0), Session::open(1));
    let outcome = live::migrate(&from.device, &to.device, &Options::default()).expect("it works");
    assert!(outcome.verified);
    drop((from, to));
    assert_nothing_broken(&agent, 2);
    agent.stop().expect("the agent ends");
}
