// SPDX-License-Identifier: Apache-2.0 OR MIT
//! The container's own dirty log (`VFIO_IOMMU_DIRTY_PAGES`), which a VMM of the RFC's time asks instead of the region.
//!
//! The driver does not tell it which pages the device wrote; why is at the head of `driver/bar.rs`. So it must call all of the
//! memory dirty, each time, whatever the device did: anything less would hide pages.

use std::process::ExitCode;

use cases::guest;
use cases::session::{PAGES, Session};
use migscope_abi::state::State;

fn main() -> ExitCode {
    guest::run(&[
        ("the_container_hides_no_page_whatever_the_device_did", hides_nothing),
        ("the_containers_log_and_the_regions_know_nothing_of_each_other", apart),
    ])
}

fn dirty_in_container(session: &Session) -> u64 {
    session.device.dirty_in_container().expect("a bitmap").len()
}

fn hides_nothing() {
    const EINVAL: Option<i32> = Some(22);
    for state in [State::Running, State::PreCopy, State::StopAndCopy, State::Stopped] {
        let mut session = Session::first();
        session.store(3, 16);
        let before = session.device.dirty_in_container().expect_err("nothing is logged");
        assert_eq!(before.raw_os_error(), EINVAL);
        session.device.log_in_container(true).expect("the log starts");
        session.bring_to(state);
        for _ in 0..2 {
            assert_eq!(dirty_in_container(&session), PAGES, "{}", state.name());
        }
        if matches!(state, State::Running | State::PreCopy) {
            session.store(5, 16);
            assert_eq!(dirty_in_container(&session), PAGES, "{}", state.name());
        }
        // A session of saving does not change what the container takes for granted, and neither does its end.
        session.region.set_state(State::Running).expect("every state leads there");
        session.store(6, 16);
        assert_eq!(dirty_in_container(&session), PAGES, "after {}", state.name());
        session.device.log_in_container(false).expect("the log stops");
    }
}

fn apart() {
    let mut session = Session::first_in(State::PreCopy);
    session.device.log_in_container(true).expect("the log starts");
    session.store(7, 16);
    assert_eq!(dirty_in_container(&session), PAGES);
    assert_eq!(session.dirty(), [7]);
    assert!(session.dirty().is_empty());
    assert_eq!(dirty_in_container(&session), PAGES);
}
