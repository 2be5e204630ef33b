// SPDX-License-Identifier: Apache-2.0 OR MIT
//! A migration region of a driver that knows nothing of us (`tests/vm/region`), on our kernel and on those of distributions: the agent's
//! account against the client's. On Linux 6.1 no other migration can be had without special hardware.

use std::fs;
use std::io;
use std::net::SocketAddr;
use std::process::ExitCode;
use std::thread::sleep;
use std::time::{Duration, Instant};

use cases::binding;
use cases::demo::agent::Agent;
use cases::guest;
use cases::session::PATIENCE;
use cases::vfio::{CONFIG_REGION, OFFSET_BITS, PCI_REGIONS, Vfio};
use migscope_abi::device::DeviceKey;
use migscope_abi::region::{Field, HEADER_BYTES, REGION_SUBTYPE, REGION_TYPE};
use migscope_abi::state::State;
use serde_json::Value;

fn main() -> ExitCode {
    guest::run(&[
        ("a_migration_of_any_driver_is_told_as_the_client_made_it", whole),
        ("what_it_refuses_and_a_close_are_told", refused),
    ])
}

const DRIVER: &str = "region_testdev";
/// Set by xtask where the kernel's own index does not have the module: its file.
const FILE: &str = "MIGSCOPE_REGION_DRIVER";

/// edu's liveness register (QEMU's docs/specs/edu.rst): what is written is read inverted.
const LIVENESS: u64 = 0x04;
/// `PCI_COMMAND`, with `PCI_COMMAND_MEMORY`.
const COMMAND: (u64, u16) = (0x04, 0x0002);

/// Gives the driver the two devices.
fn devices() -> [DeviceKey; 2] {
    // With Debian's 3 an agent that waits for devices could not attach.
    fs::write("/proc/sys/kernel/perf_event_paranoid", "2").expect("it is set");
    let devices = binding::give(DRIVER, FILE);
    <[DeviceKey; 2]>::try_from(&devices[..2]).expect("two")
}

/// An open device, and what the client did to its region.
struct Client {
    vfio: Vfio,
    position: u64,
    accesses: u64,
    bytes: u64,
    buffers: u64,
}

impl Client {
    fn open(device: DeviceKey) -> Self {
        let vfio = Vfio::open(device).expect("it is opened");
        let info = vfio.region(PCI_REGIONS).expect("it has a region of its own");
        assert_eq!(info.kind, Some((REGION_TYPE, REGION_SUBTYPE)));
        let (at, memory) = COMMAND;
        let position = u64::from(CONFIG_REGION) << OFFSET_BITS | at;
        vfio.write(position, &memory.to_le_bytes()).expect("memory accesses are decoded");
        Self { vfio, position: info.position, accesses: 0, bytes: 0, buffers: 0 }
    }

    /// A register of the device, in BAR 0.
    fn liveness(&self) -> u32 {
        let mut word = [0; 4];
        self.vfio.read(LIVENESS, &mut word).expect("a register");
        u32::from_le_bytes(word)
    }

    fn set_liveness(&self, value: u32) {
        self.vfio.write(LIVENESS, &value.to_le_bytes()).expect("a register");
    }

    fn read(&mut self, offset: u64, into: &mut [u8]) -> io::Result<usize> {
        self.accesses += 1;
        self.vfio.read(self.position + offset, into)
    }

    fn write(&mut self, offset: u64, from: &[u8]) -> io::Result<usize> {
        self.accesses += 1;
        self.vfio.write(self.position + offset, from)
    }

    fn get(&mut self, field: Field) -> u64 {
        let mut word = [0; 8];
        let (offset, _) = field.register().expect("a register");
        assert_eq!(self.read(offset, &mut word).expect("it is read"), word.len(), "{field:?}");
        u64::from_ne_bytes(word)
    }

    fn state(&mut self) -> u32 {
        let mut word = [0; 4];
        self.read(0, &mut word).expect("it is read");
        u32::from_ne_bytes(word)
    }

    /// Reads, changes and writes, as QEMU does.
    fn set_state(&mut self, state: State) -> io::Result<()> {
        self.state();
        self.write(0, &(state as u32).to_ne_bytes()).map(drop)
    }

    /// All that there is now, buffer by buffer.
    fn save(&mut self) -> Vec<Vec<u8>> {
        let mut buffers = Vec::new();
        while self.get(Field::PendingBytes) > 0 {
            let offset = self.get(Field::DataOffset);
            let bytes = self.get(Field::DataSize);
            if bytes == 0 {
                break;
            }
            let mut buffer = vec![0; usize::try_from(bytes).expect("short")];
            assert_eq!(self.read(offset, &mut buffer).expect("data"), buffer.len());
            self.bytes += bytes;
            self.buffers += 1;
            buffers.push(buffer);
        }
        buffers
    }

    fn load(&mut self, buffer: &[u8]) {
        let offset = self.get(Field::DataOffset);
        self.write(offset, buffer).expect("it is taken");
        let bytes = u64::try_from(buffer.len()).expect("short");
        let (size, _) = Field::DataSize.register().expect("a register");
        self.write(size, &bytes.to_ne_bytes()).expect("it is taken in");
        self.bytes += bytes;
        self.buffers += 1;
    }
}

fn agent() -> Agent {
    Agent::start(SocketAddr::from(([127, 0, 0, 1], 10480))).expect("the agent starts")
}

fn says(agent: &Agent, line: &str) {
    let deadline = Instant::now() + PATIENCE;
    loop {
        let ready = agent.get("/readyz").expect("the agent answers");
        if ready.contains(line) {
            return;
        }
        assert!(Instant::now() < deadline, "not {line}: {ready}");
        sleep(Duration::from_millis(20));
    }
}

/// The sessions that have ended, by device, once there are as many.
fn ended(agent: &Agent, number: usize) -> Vec<Value> {
    let deadline = Instant::now() + PATIENCE;
    loop {
        let text = agent.get("/api/v1/sessions").expect("the agent answers");
        let all: Value = serde_json::from_str(&text).expect("JSON");
        let all = all["sessions"].as_array().expect("a list").clone();
        let mut ended: Vec<_> =
            all.into_iter().filter(|session| !session["result"].is_null()).collect();
        if ended.len() == number {
            ended.sort_by_key(|session| session["device"].to_string());
            return ended;
        }
        assert!(Instant::now() < deadline, "{number} sessions: {text}");
        sleep(Duration::from_millis(50));
    }
}

/// Waits until the series has this value.
fn settles(agent: &Agent, metric: &str, labels: &[(&str, &str)], expected: u64) {
    let deadline = Instant::now() + PATIENCE;
    let expected: f64 = expected.to_string().parse().expect("a number");
    loop {
        let told = agent.scrape().expect("the agent answers").sum(metric, labels);
        if told == Some(expected) {
            return;
        }
        assert!(Instant::now() < deadline, "{metric} {labels:?}: {told:?}, not {expected}");
        sleep(Duration::from_millis(50));
    }
}

/// How many runs of probes the kernel left out: with any, the accounts differ, and the agent says that they do.
fn skipped(agent: &Agent) -> bool {
    let scrape = agent.scrape().expect("the agent answers");
    scrape.sum("migscope_events_lost_total", &[]) != Some(0.0)
}

fn whole() {
    const ATTEMPTS: u32 = 5;
    let devices = devices();
    assert!((1..=ATTEMPTS).any(|_| migrated(devices)), "the kernel skipped runs in each attempt");
}

/// One migration. Gives whether all of it was seen.
fn migrated([from, to]: [DeviceKey; 2]) -> bool {
    let agent = agent();
    let (mut source, mut destination) = (Client::open(from), Client::open(to));
    says(&agent, "probe region_return: attached");
    source.set_liveness(0x0bad_cafe);
    assert_eq!(source.liveness(), !0x0bad_cafe);

    source.set_state(State::PreCopy).expect("pre-copy");
    let mut image = source.save();
    assert!(image.len() > 1, "configuration space comes in several buffers");
    source.set_state(State::StopAndCopy).expect("stop-and-copy");
    image.extend(source.save());
    source.set_state(State::Stopped).expect("saved");
    destination.set_state(State::Resuming).expect("resuming");
    for buffer in &image {
        destination.load(buffer);
    }
    destination.set_state(State::Running).expect("a whole image");
    assert_eq!(destination.liveness(), !0x0bad_cafe, "the device's state has come");

    let sessions = ended(&agent, 2);
    let lost = skipped(&agent);
    let [one, other] = [from, to].map(|device| device.to_string());
    if !lost {
        let [saved, loaded] = &sessions[..] else { panic!("two sessions") };
        let states = |session: &Value| -> Vec<String> {
            let all = session["transitions"].as_array().expect("a list").iter();
            all.map(|change| change["to"].as_str().expect("a name").to_owned()).collect()
        };
        assert_eq!(states(saved), ["pre_copy", "stop_and_copy", "stopped"]);
        assert_eq!(states(loaded), ["resuming", "running"]);
        for (session, client, role) in
            [(saved, &source, "source"), (loaded, &destination, "destination")]
        {
            assert_eq!(session["role"], role);
            assert_eq!(
                (&session["result"], &session["exact"]),
                (&"completed".into(), &true.into())
            );
            assert_eq!(session["data_bytes"], client.bytes, "{session:#}");
            assert_eq!(session["iterations"], client.buffers, "{session:#}");
            assert_eq!(session["conduct_by_rule"], serde_json::json!({}), "{session:#}");
            assert!(session["refusals_by_rule"].is_null(), "{session:#}");
        }
        assert_eq!(saved["pending_bytes"], 0);
        for (device, client) in [(&one, &source), (&other, &destination)] {
            let metric = "vfio_migration_region_accesses_total";
            settles(&agent, metric, &[("device", device)], client.accesses);
            let info = [("device", device.as_str()), ("driver", DRIVER), ("protocol", "region")];
            settles(&agent, "vfio_migration_device_info", &info, 1);
        }
        let metric = "vfio_migration_data_bytes_total";
        settles(&agent, metric, &[("device", &one), ("direction", "save")], source.bytes);
    }
    drop((source, destination));
    says(&agent, "probe region_return: missing: no device is open");
    agent.stop().expect("it ends");
    !lost
}

fn refused() {
    let [device, _] = devices();
    let agent = agent();
    let mut client = Client::open(device);
    says(&agent, "probe region_return: attached");
    client.set_state(State::PreCopy).expect("pre-copy");
    client.set_state(State::Resuming).expect_err("there is no such arc");
    client.read(HEADER_BYTES * 9, &mut [0; 8]).expect_err("past its end");
    client.write(0x08, &[0; 8]).expect_err("pending_bytes is read only");
    assert_eq!(client.state(), State::PreCopy as u32);
    drop(client);
    let sessions = ended(&agent, 1);
    assert_eq!(sessions[0]["result"], "failed", "closed");
    if !skipped(&agent) {
        let refusals = [("result", "refused")];
        settles(&agent, "vfio_migration_region_accesses_total", &refusals, 3);
        let changes = sessions[0]["transitions"].as_array().expect("a list");
        let refused: Vec<_> = changes.iter().filter(|change| change["result"] != "ok").collect();
        assert_eq!(refused.len(), 1, "{:#}", sessions[0]);
        assert_eq!(refused[0]["now"], "pre_copy");
        assert_eq!(changes.last().expect("one")["cause"], "close");
    }
    agent.stop().expect("it ends");
}
