// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Dirty pages of a whole machine: what type 1, iommufd and KVM tell, against what their clients made dirty.
//!
//! The machine is this process. It has a device that migrates meanwhile, for what is told of a machine is shown under its devices.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::process::{Command, ExitCode};
use std::thread::sleep;
use std::time::{Duration, Instant};

use cases::demo::agent::Agent;
use cases::guest;
use cases::mdev::{Mtty, Ports};
use cases::session::{PATIENCE, Session};
use cases::trackers::iommufd::TestDevice;
use cases::trackers::kvm::{self, Machine, Tells};
use cases::trackers::memory::{Memory, PAGE_BYTES};
use cases::trackers::{bits, type1};
use cases::vfio::Vfio;
use migscope_abi::probe::{Probe, Subsystem};
use migscope_abi::state::State;
use serde_json::Value;

fn main() -> ExitCode {
    guest::run(&[
        ("type1_takes_all_that_is_mapped_for_dirty_where_a_device_does_dma", type1_all),
        ("type1_tells_none_where_devices_are_emulated_and_a_refusal_is_an_error", type1_none),
        ("iommufd_tells_what_its_page_table_kept", iommufd_bitmap),
        ("what_iommufd_does_not_forget_counts_once", iommufd_kept),
        ("kvm_tells_what_its_processor_wrote", kvm_log),
        ("what_kvm_does_not_forget_counts_once", kvm_until_cleared),
        ("kvms_ring_tells_as_many_as_were_taken_back", kvm_ring),
        ("a_machine_that_runs_and_is_not_asked_costs_nothing", quiet),
        ("what_was_told_outside_of_a_session_is_not_of_it", outside),
    ])
}

const UUID: &str = "6d696773-636f-7065-0000-0000000000d1";
/// Where memory is mapped: not at a multiple of 64 pages.
const IOVA: u64 = (1 << 24) + 8 * PAGE_BYTES;
/// The agent reads the maps four times a second.
const READINGS: Duration = Duration::from_millis(1500);
/// No page.
const NOTHING: [u64; 0] = [];

fn modprobe(modules: &[&str]) {
    let status = Command::new("modprobe").arg("-a").args(modules).status().expect("modprobe");
    assert!(status.success(), "modprobe {modules:?}");
}

/// An agent whose probes of trackers are in place.
fn agent() -> Agent {
    modprobe(&["vfio_iommu_type1", "iommufd", "kvm_amd", "mtty"]);
    let agent = Agent::start(SocketAddr::from(([127, 0, 0, 1], 10483))).expect("the agent starts");
    let trackers = [Subsystem::Type1, Subsystem::Iommufd, Subsystem::Kvm];
    let of_trackers = Probe::ALL.into_iter().filter(|probe| trackers.contains(&probe.subsystem()));
    let lines: Vec<_> =
        of_trackers.map(|probe| format!("probe {}: attached", probe.name())).collect();
    assert_eq!(lines.len(), 10);
    let deadline = Instant::now() + PATIENCE;
    loop {
        let ready = agent.get("/readyz").expect("the agent answers");
        if lines.iter().all(|line| ready.contains(line)) {
            return agent;
        }
        assert!(Instant::now() < deadline, "not attached: {ready}");
        sleep(Duration::from_millis(50));
    }
}

/// What one source told.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Told {
    pages: u64,
    none: u64,
    all: u64,
    bitmap: u64,
    error: u64,
}

impl Told {
    fn queries(self) -> [(&'static str, u64); 4] {
        [("none", self.none), ("all", self.all), ("bitmap", self.bitmap), ("error", self.error)]
    }
}

/// What was told while a device of this process migrated and `work` was done, by source; and what the exposition counted of it.
fn during(agent: &Agent, work: impl FnOnce()) -> BTreeMap<String, Told> {
    let mut session = Session::first_in(State::PreCopy);
    let device = session.device.key().to_string();
    sleep(READINGS);
    let before = counters(agent, &device);
    work();
    session.region.set_state(State::Running).expect("a source may run on");
    let deadline = Instant::now() + PATIENCE;
    let told = loop {
        let text = agent.get("/api/v1/snapshot").expect("the agent answers");
        let snapshot: Value = serde_json::from_str(&text).expect("JSON");
        let sessions = snapshot["sessions"].as_array().expect("a list");
        // Of several the last; each test has an agent of its own, and may have more than one session.
        let last = sessions.iter().rfind(|session| session["device"] == device.as_str());
        let migration = snapshot["migrations"].as_array().and_then(|all| all.last());
        if let (Some(last), Some(migration)) = (last, migration)
            && !last["result"].is_null()
        {
            assert_eq!(last["exact"], true, "{last:#}");
            assert_eq!(last["machine_dirty"], migration["machine_dirty"], "{migration:#}");
            break last["machine_dirty"].as_object().expect("its beginning was seen").clone();
        }
        assert!(Instant::now() < deadline, "no session has ended: {snapshot:#}");
        sleep(Duration::from_millis(20));
    };
    let number = |told: &Value, name: &str| told[name].as_u64().expect("a number");
    let told: BTreeMap<_, _> = told
        .iter()
        .map(|(source, told)| {
            assert_eq!(told["bytes"], number(told, "pages") * PAGE_BYTES, "{source}: {told}");
            let [none, all, bitmap, error] =
                ["none", "all", "bitmap", "error"].map(|name| number(&told["queries"], name));
            (source.clone(), Told { pages: number(told, "pages"), none, all, bitmap, error })
        })
        .collect();
    sleep(READINGS);
    let after = counters(agent, &device);
    for (source, told) in &told {
        let counted = |name: &str| {
            let of = |counters: &BTreeMap<String, f64>| counters.get(name).copied().unwrap_or(0.0);
            of(&after) - of(&before)
        };
        let series =
            format!("vfio_migration_dirty_pages_total{{device=\"{device}\",source=\"{source}\"}}");
        assert_eq!(counted(&series), told.pages as f64, "{series}");
        for (outcome, queries) in told.queries() {
            let series = format!(
                "vfio_migration_dirty_queries_total{{device=\"{device}\",source=\"{source}\",outcome=\"{outcome}\"}}"
            );
            assert_eq!(counted(&series), queries as f64, "{series}");
        }
    }
    told
}

/// Series of dirty pages of a device, with their values.
fn counters(agent: &Agent, device: &str) -> BTreeMap<String, f64> {
    let text = agent.get("/metrics").expect("the agent answers");
    let of_device = format!("{{device=\"{device}\"");
    let lines = text
        .lines()
        .filter(|line| line.starts_with("vfio_migration_dirty_") && line.contains(&of_device));
    lines
        .filter_map(|line| {
            let (series, value) = line.rsplit_once(' ')?;
            Some((series.to_owned(), value.parse().ok()?))
        })
        .collect()
}

fn type1_all() {
    let agent = agent();
    let memory = Memory::new(200).expect("there is memory");
    let told = during(&agent, || {
        // Another device, in a container of its own.
        let vfio = Vfio::open(guest::devices()[1]).expect("it is opened");
        let container = vfio.container();
        type1::map(container, &memory, IOVA).expect("it is mapped");
        type1::log(container, true).expect("the log starts");
        let dirty = || type1::dirty(container, IOVA, 200).expect("a bitmap");
        assert_eq!((dirty().len(), dirty().len()), (200, 200));
        // A range of which only a part is mapped: the pages before it and behind are not dirty.
        let more = type1::dirty(container, IOVA - 3 * PAGE_BYTES, 300).expect("a bitmap");
        assert_eq!(more, (3..203).collect::<Vec<_>>());
        // One that cuts a mapping in two is refused.
        let cut = type1::dirty(container, IOVA, 100).expect_err("it is refused");
        assert_eq!(cut.raw_os_error(), Some(libc::EINVAL));
        assert_eq!(type1::unmap(container, IOVA, 200).expect("a bitmap").len(), 200);
        type1::log(container, false).expect("the log stops");
    });
    assert_eq!(told["type1"], Told { pages: 800, all: 3, bitmap: 1, error: 1, ..Told::default() });
    assert_eq!((told["iommufd"], told["kvm"]), (Told::default(), Told::default()));
}

fn type1_none() {
    let agent = agent();
    let mtty = Mtty::create(UUID, Ports::One).expect("it is made");
    let memory = Memory::new(100).expect("there is memory");
    let told = during(&agent, || {
        let vfio = Vfio::open_mdev(mtty.uuid()).expect("it is opened");
        let container = vfio.container();
        type1::map(container, &memory, IOVA).expect("it is mapped");
        let before = type1::dirty(container, IOVA, 100).expect_err("nothing is logged");
        assert_eq!(before.raw_os_error(), Some(libc::EINVAL));
        type1::log(container, true).expect("the log starts");
        assert_eq!(type1::dirty(container, IOVA, 100).expect("a bitmap"), NOTHING);
        type1::log(container, false).expect("the log stops");
    });
    assert_eq!(told["type1"], Told { none: 1, error: 1, ..Told::default() });
}

fn iommufd_bitmap() {
    const PAGES: u64 = 5000;
    let agent = agent();
    let memory = Memory::new(PAGES).expect("there is memory");
    let written: Vec<_> = (0..PAGES).filter(|page| page * page % 7 == 2).collect();
    let told = during(&agent, || {
        let device = TestDevice::new().expect("the kernel's test device");
        device.map(&memory, IOVA).expect("it is mapped");
        device.track(true).expect("its page table keeps account");
        device.write(IOVA, &written, PAGES).expect("pages are dirty");
        let mut words = vec![0; 80];
        device.dirty(IOVA, PAGES, false, &mut words).expect("a bitmap");
        assert_eq!(bits(&words), written);
        // Bits that are there stay there, and are told by nobody.
        device.write(IOVA, &[0, 1, 2, 4999], PAGES).expect("pages are dirty");
        device.dirty(IOVA, PAGES, false, &mut words).expect("a bitmap");
        device.dirty(IOVA, PAGES, false, &mut words).expect("a bitmap");
        let refused = device.ask_nobody().expect_err("there is no such page table");
        assert_eq!(refused.raw_os_error(), Some(libc::ENOENT));
        device.track(false).expect("it stops");
    });
    let again = [0, 1, 2, 4999].iter().filter(|page| !written.contains(page)).count() as u64;
    let pages = written.len() as u64 + again;
    assert_eq!(told["iommufd"], Told { pages, bitmap: 2, none: 1, error: 1, ..Told::default() });
}

fn iommufd_kept() {
    const PAGES: u64 = 128;
    let agent = agent();
    let memory = Memory::new(PAGES).expect("there is memory");
    let told = during(&agent, || {
        let device = TestDevice::new().expect("the kernel's test device");
        device.map(&memory, IOVA).expect("it is mapped");
        device.track(true).expect("its page table keeps account");
        let dirty = |no_clear| {
            let mut words = [0; 2];
            device.dirty(IOVA, PAGES, no_clear, &mut words).expect("a bitmap");
            bits(&words).len()
        };
        device.write(IOVA, &[3, 5, 100], PAGES).expect("pages are dirty");
        assert_eq!((dirty(true), dirty(true)), (3, 3));
        device.write(IOVA, &[3, 6], PAGES).expect("pages are dirty");
        // Of these four, three were told and did not go.
        assert_eq!((dirty(false), dirty(false)), (4, 0));
        // What is told and then unmapped is gone, and what comes there after it is new.
        device.write(IOVA, &[7, 8], PAGES).expect("pages are dirty");
        assert_eq!(dirty(true), 2);
        device.unmap(IOVA, PAGES).expect("it is unmapped");
        device.map(&memory, IOVA).expect("it is mapped");
        device.write(IOVA, &[9, 10, 11], PAGES).expect("pages are dirty");
        assert_eq!(dirty(false), 3);
    });
    assert_eq!(
        told["iommufd"],
        Told { pages: 3 + 1 + 2 + 3, bitmap: 5, none: 1, ..Told::default() }
    );
}

/// These pages, and that of the code before them.
fn with_code(pages: &[u64]) -> Vec<u64> {
    [&[kvm::CODE], pages].concat()
}

fn kvm_log() {
    let agent = agent();
    let mut machine = Machine::new(Tells::Log).expect("KVM");
    let told = during(&agent, || {
        let first = [2, 3, 63, 64, 65, 200, 255];
        machine.write(&first).expect("it runs");
        assert_eq!(machine.log().expect("a log"), with_code(&first));
        assert_eq!(machine.log().expect("a log"), NOTHING);
        machine.write(&[3, 4]).expect("it runs");
        assert_eq!(machine.log().expect("a log"), [3, 4]);
        machine.log_of_nothing().expect_err("there is no such slot");
    });
    assert_eq!(told["kvm"], Told { pages: 8 + 2, bitmap: 2, none: 1, error: 1, ..Told::default() });
}

fn kvm_until_cleared() {
    let agent = agent();
    let mut machine = Machine::new(Tells::LogUntilCleared).expect("KVM");
    let told = during(&agent, || {
        let first = [10, 11, 12, 70, 71];
        machine.write(&first).expect("it runs");
        assert_eq!(machine.log().expect("a log"), with_code(&first));
        assert_eq!(machine.log().expect("a log"), with_code(&first));
        machine.clear(0, 64, &[10, 11, 12]).expect("they are cleared");
        let refused = machine.clear(1, 64, &[1]).expect_err("it is no multiple of 64");
        assert_eq!(refused.raw_os_error(), Some(libc::EINVAL));
        machine.write(&[10, 72]).expect("it runs");
        let second = with_code(&[10, 70, 71, 72]);
        assert_eq!(machine.log().expect("a log"), second);
        machine.clear(0, kvm::PAGES, &second).expect("they are cleared");
        assert_eq!(machine.log().expect("a log"), NOTHING);
    });
    assert_eq!(told["kvm"], Told { pages: 6 + 2, bitmap: 3, none: 1, ..Told::default() });
}

fn kvm_ring() {
    let agent = agent();
    let mut machine = Machine::new(Tells::Ring).expect("KVM");
    let mut harvested = 0;
    let told = during(&agent, || {
        assert_eq!(machine.reset_rings().expect("there is one"), 0);
        for pages in [&[5, 6, 7, 90][..], &[6, 91]] {
            machine.write(pages).expect("it runs");
            let told = machine.harvest();
            assert!(pages.iter().all(|page| told.contains(page)), "{told:?}");
            let taken_back = machine.reset_rings().expect("there is one");
            assert_eq!(taken_back, told.len() as u64);
            harvested += taken_back;
        }
        machine.log().expect_err("one that has a ring has no log");
    });
    assert_eq!(
        told["kvm"],
        Told { pages: harvested, bitmap: 2, none: 1, error: 1, ..Told::default() }
    );
}

/// How often each program ran.
fn runs(agent: &Agent) -> BTreeMap<String, u64> {
    let text = agent.get("/metrics").expect("the agent answers");
    let lines =
        text.lines().filter_map(|line| line.strip_prefix("migscope_bpf_program_runs_total"));
    lines
        .filter_map(|line| {
            let (series, value) = line.rsplit_once(' ')?;
            Some((series.to_owned(), value.parse().ok()?))
        })
        .collect()
}

fn quiet() {
    let agent = agent();
    let mut machine = Machine::new(Tells::Log).expect("KVM");
    machine.write(&[9, 10, 11]).expect("it runs");
    sleep(READINGS);
    let before = runs(&agent);
    assert_eq!(before.len(), Probe::COUNT, "{before:?}");
    let until = Instant::now() + Duration::from_secs(3);
    let mut ran = 0_u64;
    while Instant::now() < until {
        machine.run().expect("it runs");
        ran += 1;
    }
    sleep(READINGS);
    assert_eq!(runs(&agent), before, "after {ran} times KVM_RUN");
    guest::measured("KVM_RUN without a run of a probe", ran, "times");
    // And the probes do run when it is asked.
    machine.log().expect("a log");
    sleep(READINGS);
    assert_ne!(runs(&agent), before);
}

fn outside() {
    let agent = agent();
    let mut machine = Machine::new(Tells::Log).expect("KVM");
    machine.write(&[20, 21, 22]).expect("it runs");
    machine.log().expect("a log");
    let told = during(&agent, || {
        machine.write(&[30]).expect("it runs");
        machine.log().expect("a log");
    });
    assert_eq!(told["kvm"], Told { pages: 1, bitmap: 1, ..Told::default() });
    machine.write(&[40, 41]).expect("it runs");
    machine.log().expect("a log");
    let told = during(&agent, || {});
    assert_eq!(told["kvm"], Told::default());
}
