// SPDX-License-Identifier: Apache-2.0 OR MIT
//! An unmodified QEMU breaks no rule of conduct: in a migration that goes well, of a machine that runs or is paused, and in one
//! that is cancelled before or after the stop; with windows that it maps and with windows that it cannot.

use std::process::ExitCode;

use cases::guest::{self, Case};
use cases::module;
use migscope_abi::state::State::{PreCopy, Running};
use serde_json::json;

use account::Account;
use agent::{assert_nothing_broken, start};
use course::{let_converge, path, start_migration, wait_before_switchover};
use machine::{Machine, wait};

#[path = "qemu/account.rs"]
#[expect(dead_code, reason = "a part of it is for what the driver tells of its data")]
mod account;
#[path = "conduct/agent.rs"]
#[expect(dead_code, reason = "a part of it is for clients that break rules")]
mod agent;
#[path = "qemu/course.rs"]
#[expect(dead_code, reason = "a part of it is for the arcs, which are not judged here")]
mod course;
#[path = "qemu/machine.rs"]
#[expect(dead_code, reason = "a part of it is for what a device holds")]
mod machine;
#[path = "qemu/qtest.rs"]
#[expect(dead_code, reason = "a part of it is for devices that do DMA")]
mod qtest;

static CASES: [Case; 2] = [
    ("qemu_that_maps_the_windows_breaks_no_rule", || breaks_nothing(1)),
    ("qemu_that_makes_system_calls_breaks_no_rule", || breaks_nothing(0)),
];

fn main() -> ExitCode {
    course::run(&CASES)
}

fn breaks_nothing(data_section: u32) {
    // Before the agent, whose probes hold the module.
    module::reload(&[("data_section", data_section)]);
    let agent = start();
    goes_well(false);
    goes_well(true);
    is_cancelled();
    is_cancelled_when_stopped();
    assert_nothing_broken(&agent, 6);
    agent.stop().expect("the agent ends");
    module::reload(&[]);
}

fn goes_well(paused: bool) {
    let [one, other] = guest::devices();
    let socket = format!("unix:{}", path("conduct"));
    let from = Machine::boot(one);
    if paused {
        from.execute("stop", json!({}));
    }
    let to = Machine::incoming(other, &socket);
    let_converge(&from);
    from.execute("migrate", json!({ "uri": socket }));
    from.wait_for_departure();
    to.wait_for_status(if paused { "paused" } else { "running" });
    from.quit();
    if paused {
        to.execute("cont", json!({}));
        to.wait_for_status("running");
    }
    to.quit();
}

fn is_cancelled() {
    let [one, _] = guest::devices();
    let driver = Account::watch().expect("tracefs");
    let machine = Machine::boot(one);
    start_migration(&machine, "exec:cat > /dev/null");
    wait("pre-copy", || driver.arcs(one).last() == Some(&(Running, PreCopy)));
    course::cancel(&machine);
    machine.quit();
}

fn is_cancelled_when_stopped() {
    let [one, _] = guest::devices();
    let machine = Machine::boot(one);
    wait_before_switchover(&machine);
    let_converge(&machine);
    machine.execute("migrate", json!({ "uri": "exec:cat > /dev/null" }));
    machine.wait_for_migration("pre-switchover");
    course::cancel(&machine);
    machine.quit();
}
