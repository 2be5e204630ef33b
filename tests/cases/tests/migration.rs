// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Whole migrations: from one device to another, live and through a file, with a proof that nothing was lost.

use std::fs::File;
use std::io::{BufReader, BufWriter};
use std::path::Path;
use std::process::{Child, Command, ExitCode, Stdio};
use std::time::{Duration, Instant};

use cases::guest;
use cases::records::{HEAD_BYTES, IDENTITY_BYTES};
use cases::session::{PATIENCE, Session};
use migrator::PAGE_BYTES;
use migrator::account::Account;
use migrator::destination::Destination;
use migrator::live::{self, Options, Outcome, Transport};
use migrator::region::DataAccess;
use migrator::source::{self, PreCopy, Source};
use migrator::stream::Stream;
use migscope_abi::rule::Rule;
use migscope_abi::state::State;
use workload::edu::{IRQ_RAISE, LIVENESS, Snapshot};
use workload::{Model, Plan, Spec, Worker};

fn main() -> ExitCode {
    guest::run(&[
        ("a_device_migrates_live_under_load_over_unix", || drop(live(Transport::Unix, None))),
        ("a_device_migrates_live_under_load_over_tcp", || drop(live(Transport::Tcp, None))),
        ("device_data_moves_in_chunks_of_any_size", chunks),
        ("both_ends_account_for_the_same_data", same_account),
        ("every_register_and_the_buffer_travel", registers_travel),
        ("a_factorial_under_way_travels", factorial_under_way),
        ("a_device_is_saved_to_a_file_and_loaded_from_it", through_a_file),
        ("a_file_cut_short_is_refused_and_the_device_reset", truncated_file),
        ("two_processes_migrate_a_device_over_a_socket", two_processes),
        ("a_device_migrates_back_and_forth", back_and_forth),
        ("a_migration_works_after_every_kind_of_refusal", after_refusals),
    ])
}

fn options(transport: Transport, chunk_bytes: Option<usize>) -> Options {
    Options {
        pre_copy: PreCopy {
            min_passes: 3,
            min_time: Duration::from_secs(1),
            interval: Duration::from_millis(250),
        },
        workload: Spec { hot_pages: 12, ..Spec::default() },
        transport,
        chunk_bytes,
        // Pieces are made of what goes by system calls.
        data_access: if chunk_bytes.is_some() { DataAccess::Trapped } else { DataAccess::Auto },
    }
}

fn migrate(from: &Session, to: &Session, options: &Options) -> Outcome {
    let outcome = live::migrate(&from.device, &to.device, options).expect("a migration");
    let (source, destination) = (&outcome.source, &outcome.destination);
    assert!(outcome.verified, "{:?}\n{:?}", source.verification, destination.verification);
    assert!(source.verification.reports_checked);
    assert_eq!(source.verification.memory, Some(true));
    assert_eq!(destination.verification.memory, Some(true));
    assert_eq!(destination.verification.registers, Some(true));
    assert_eq!(destination.verification.buffer, Some(true));
    assert_eq!((from.state(), to.state()), (State::Stopped, State::Running));
    let workload = source.workload.as_ref().expect("a workload");
    assert!(workload.counts.stores > 0, "the device wrote nothing, so nothing was proved");
    outcome
}

fn live(transport: Transport, chunk_bytes: Option<usize>) -> Outcome {
    let (from, to) = (Session::open(0), Session::open(1));
    let outcome = migrate(&from, &to, &options(transport, chunk_bytes));
    let milliseconds = |ns: u64| ns / 1_000_000;
    if let Some(downtime) = &outcome.source.downtime {
        guest::measured("migration_downtime", milliseconds(downtime.total_ns), "ms");
    }
    guest::measured("migration_total", milliseconds(outcome.source.total_ns), "ms");
    outcome
}

fn chunks() {
    for bytes in [1, 7, 100] {
        let outcome = live(Transport::Unix, Some(bytes));
        let chunk = u64::try_from(bytes).expect("fits");
        let Account { region, .. } = &outcome.source;
        assert!(region.chunks >= region.data_bytes / chunk, "{} chunks", region.chunks);
    }
}

fn same_account() {
    let Outcome { source, destination, .. } = live(Transport::Unix, None);
    assert_eq!(source.region.data_bytes, destination.region.data_bytes);
    assert_eq!(source.region.iterations, destination.region.iterations);
    assert_eq!(source.memory, destination.memory);
    assert_eq!(source.region.pending_bytes, Some(0));
    let reported: u64 = source.memory.pages_by_pass[1..].iter().sum();
    assert_eq!(source.region.dirty.pages, reported);
    let downtime = source.downtime.expect("a live migration has one");
    let parts = downtime.stop_ns
        + downtime.final_data_ns
        + downtime.final_dirty_ns
        + downtime.transfer_ns.expect("both ends have one clock")
        + downtime.load_ns
        + downtime.start_ns;
    assert!(parts <= downtime.total_ns, "{downtime:?}");
}

fn registers_travel() {
    let (from, to) = (Session::open(0), Session::open(1));
    let (edu, other) = (from.device.edu(), to.device.edu());
    edu.write_u32(LIVENESS, 0x0bad_cafe).expect("a register");
    edu.factorial(12, PATIENCE).expect("a factorial");
    edu.write_u32(IRQ_RAISE, 0x8000_0101).expect("a register");
    other.write_u32(LIVENESS, 1).expect("a register");
    migrate(&from, &to, &options(Transport::Unix, None));
    let Snapshot { liveness, factorial, irq_status, dma_count, .. } =
        other.snapshot().expect("registers");
    assert_eq!(liveness, !0x0bad_cafe);
    assert_eq!(factorial, 479_001_600);
    assert_eq!(irq_status, 0x8000_0101);
    assert!(dma_count > 0);
}

fn factorial_under_way() {
    let (mut from, mut to) = (Session::open(0), Session::open(1));
    // Long enough to be still under way when the device is saved; 0 is what every n! from 34 on is modulo 2^32.
    from.device.edu().write_u32(workload::edu::FACTORIAL, 3_000_000_000).expect("a register");
    let image = from.image();
    // The image's second record holds the registers, the third of which says whether a computation is under way.
    let registers = HEAD_BYTES + IDENTITY_BYTES + HEAD_BYTES;
    assert_eq!(image.concat()[registers + 8], 1, "it was over before the device was saved");
    to.bring_to(State::Resuming);
    for buffer in &image {
        to.region.load_buffer(buffer).expect("a good piece");
    }
    to.region.set_state(State::Running).expect("a complete image");
    let edu = to.device.edu();
    let done = || edu.read_u32(workload::edu::STATUS).expect("a register") & 1 == 0;
    let deadline = Instant::now() + PATIENCE;
    while !done() {
        assert!(Instant::now() < deadline, "the computation does not end");
        std::thread::sleep(Duration::from_millis(20));
    }
    assert_eq!(edu.read_u32(workload::edu::FACTORIAL).expect("a register"), 0);
}

/// Lets a workload drive a device for a while and saves it to a file.
fn save(session: &Session, path: &str) -> Account {
    let memory = session.device.memory();
    let pages = usize::try_from(memory.pages()).expect("fits");
    let mut model = Model::new(5, memory.iova(), pages);
    source::prepare(&session.device, &mut model).expect("the device is prepared");
    let plan = Plan::new(Spec::default(), memory.iova(), memory.pages()).expect("enough memory");
    let worker = Worker::spawn(session.device.edu(), plan, model);
    std::thread::sleep(Duration::from_millis(700));
    let file = BufWriter::new(File::create(path).expect("a file"));
    let source = Source::new(&session.device, Stream::to_file(file), None).with_workload(worker);
    source.run().expect("the device is saved")
}

fn through_a_file() {
    let path = "/tmp/migscope-cases.image";
    let saved = save(&Session::open(0), path);
    assert_eq!(saved.verification.memory, Some(true));
    // The source was closed; the same device takes its own image as well as another does.
    for which in [1, 0] {
        let session = Session::open(which);
        let file = BufReader::new(File::open(path).expect("the file"));
        let destination = Destination::new(&session.device, Stream::from_file(file));
        let loaded = destination.run().expect("the device is loaded");
        assert!(loaded.verification.holds(), "{:?}", loaded.verification);
        assert_eq!(loaded.verification.buffer, Some(true));
        assert_eq!(loaded.region.data_bytes, saved.region.data_bytes);
        assert_eq!(session.state(), State::Running);
    }
}

fn truncated_file() {
    let path = "/tmp/migscope-cases-short.image";
    save(&Session::open(0), path);
    let whole = std::fs::read(path).expect("the file");
    let session = Session::open(1);
    for bytes in [0, 10, 100, whole.len() / 2] {
        let short = std::io::Cursor::new(whole[..bytes].to_vec());
        let destination = Destination::new(&session.device, Stream::from_file(short));
        let error = destination.run().expect_err("half an image");
        assert_eq!(session.state(), State::Running, "{error}");
    }
    let complete = std::io::Cursor::new(whole);
    let loaded = Destination::new(&session.device, Stream::from_file(complete)).run();
    assert!(loaded.expect("the whole file").verification.holds());
}

fn two_processes() {
    let program = std::env::var_os("MIGSCOPE_MIGRATOR").expect("it names the program migrator");
    let [from, to] = guest::devices().map(|device| device.to_string());
    let socket = format!("/tmp/migscope-cases-{}.sock", std::process::id());
    let run = |arguments: &[&str]| {
        let mut command = Command::new(&program);
        command.arg("--json").args(arguments).stdout(Stdio::piped());
        command.spawn().expect("the program starts")
    };
    let address = format!("unix:{socket}");
    let receiver = run(&["receive", "--device", &to, "--at", &address]);
    let deadline = Instant::now() + PATIENCE;
    while !Path::new(&socket).exists() {
        assert!(Instant::now() < deadline, "the receiver does not listen");
        std::thread::sleep(Duration::from_millis(20));
    }
    let sender = run(&["send", "--device", &from, "--to", &address, "--seconds", "1"]);
    let account = |process: Child| -> Account {
        let output = process.wait_with_output().expect("the program ends");
        assert!(output.status.success(), "{}", output.status);
        serde_json::from_slice(&output.stdout).expect("one JSON object and nothing else")
    };
    let (sent, received) = (account(sender), account(receiver));
    assert_eq!((sent.device, received.device), (from, to));
    assert_eq!(sent.region.data_bytes, received.region.data_bytes);
    assert_eq!(sent.memory, received.memory);
    assert!(sent.verification.reports_checked && sent.verification.holds());
    assert_eq!(received.verification.buffer, Some(true));
    assert_eq!(received.verification.memory, Some(true));
}

fn back_and_forth() {
    let (mut one, mut other) = (Session::open(0), Session::open(1));
    for _ in 0..2 {
        migrate(&one, &other, &options(Transport::Unix, None));
        one.region.set_state(State::Running).expect("a device that gave up its state can be used");
        std::mem::swap(&mut one, &mut other);
    }
}

fn after_refusals() {
    let (from, mut to) = (Session::open(0), Session::open(1));
    from.refuses(Rule::FieldWidth, "width", |session| session.read(0, 2));
    from.refuses(Rule::InvalidState, "state", |session| session.write(0, &5_u32.to_ne_bytes()));
    from.refuses(Rule::NotSaving, "data", |session| session.read(0x1000, 4));
    to.bring_to(State::Resuming);
    to.write(0x1000, &[7; 64]).expect("the window takes it");
    to.refuses(Rule::ImageMagic, "image", |session| {
        session.put(migscope_abi::region::Field::DataSize, 64)
    });
    to.region.set_state(State::Stopped).expect("dropped");
    to.region.set_state(State::Running).expect("on");
    let outcome = migrate(&from, &to, &options(Transport::Unix, None));
    assert_eq!(outcome.source.memory.page_bytes, PAGE_BYTES);
}
