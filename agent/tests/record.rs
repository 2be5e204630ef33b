// SPDX-License-Identifier: Apache-2.0 OR MIT
//! `migscope record` as its users meet it, and a recording that was made on a real device.

use migscope::{
    feed::{Input, Nobody},
    metrics::Metrics,
    observer::Observer,
    record::{Reader, RecordError, open},
    session::{End, Role},
};
use rustix::process::{Pid, Signal, kill_process};
use std::{
    fs,
    io::{BufRead as _, BufReader},
    path::{Path, PathBuf},
    process::{Child, Command, Output, Stdio},
    sync::Arc,
};

fn migscope(words: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_migscope"));
    command.args(words);
    command
}

fn record(file: &Path, words: &[&str]) -> Command {
    let mut command = migscope(&["record", "-o"]);
    command.arg(file).args(words);
    command
}

fn errors(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

fn inputs(path: &Path) -> Vec<Input> {
    open(path).expect("a recording").map(|input| input.expect("all is well")).collect()
}

fn interrupt(child: &Child, signal: Signal) {
    kill_process(Pid::from_child(child), signal).expect("it is there");
}

#[test]
fn a_recording_of_a_given_length_ends_by_itself_and_says_what_it_has() {
    let folder = tempfile::tempdir().expect("a folder");
    let file = folder.path().join("x.migscope");
    let output = record(&file, &["--duration", "300ms"]).output().expect("it runs");
    let text = errors(&output);
    assert!(output.status.success(), "{text}");
    let begin = format!("recording to {}: ", file.display());
    assert_eq!(text.lines().filter(|line| line.starts_with(&begin)).count(), 1, "{text}");
    let bytes = fs::metadata(&file).expect("there").len();
    let end = format!("{}: {bytes} bytes, 0 sessions, ", file.display());
    assert!(text.lines().last().is_some_and(|line| line.starts_with(&end)), "{text}");
    assert!(inputs(&file).iter().any(|input| matches!(input, Input::Probes(_))));
    let reader = open(&file).expect("a recording");
    assert_eq!(reader.header().migscope, env!("CARGO_PKG_VERSION"));
    let hostname = rustix::system::uname().nodename().to_string_lossy().into_owned();
    assert_eq!(reader.header().host, hostname);
}

#[test]
fn either_signal_ends_a_recording_properly() {
    for signal in [Signal::INT, Signal::TERM] {
        let folder = tempfile::tempdir().expect("a folder");
        let file = folder.path().join("x.migscope");
        let mut child = record(&file, &[]).stderr(Stdio::piped()).spawn().expect("it starts");
        let mut lines = BufReader::new(child.stderr.take().expect("piped")).lines();
        let began = lines
            .by_ref()
            .find(|line| line.as_ref().is_ok_and(|line| line.starts_with("recording")));
        assert!(began.is_some(), "it ended before it began");
        interrupt(&child, signal);
        let last = lines.last().expect("a last line").expect("text");
        assert!(child.wait().expect("it ends").success(), "{last}");
        assert!(last.starts_with(&format!("{}: ", file.display())), "{last}");
        assert!(!inputs(&file).is_empty());
    }
}

#[test]
fn a_file_that_is_there_stays_unless_it_may_be_replaced() {
    let folder = tempfile::tempdir().expect("a folder");
    let file = folder.path().join("x.migscope");
    fs::write(&file, "precious").expect("written");
    let refused = record(&file, &["--duration", "1ms"]).output().expect("it runs");
    assert_eq!(refused.status.code(), Some(1));
    assert!(errors(&refused).contains("--force"), "{}", errors(&refused));
    assert_eq!(fs::read_to_string(&file).expect("there"), "precious");
    let forced = record(&file, &["--duration", "1ms", "--force"]).output().expect("it runs");
    assert!(forced.status.success(), "{}", errors(&forced));
    assert!(open(&file).is_ok());
}

#[test]
fn a_file_that_cannot_be_made_or_written_is_told_with_its_name() {
    let folder = tempfile::tempdir().expect("a folder");
    let nowhere = folder.path().join("none/x.migscope");
    let output = record(&nowhere, &[]).output().expect("it runs");
    assert_eq!(output.status.code(), Some(1));
    let text = errors(&output);
    assert!(text.contains("no folder") && text.contains("/none"), "{text}");
    // A process that may write no byte to a file, as on a full disk.
    let file = folder.path().join("x.migscope");
    let output = Command::new("sh")
        .args([
            "-c",
            "trap '' XFSZ; ulimit -f 0; exec \"$@\"",
            "sh",
            env!("CARGO_BIN_EXE_migscope"),
        ])
        .args(["record", "-o"])
        .arg(&file)
        .output()
        .expect("it runs");
    assert_eq!(output.status.code(), Some(1));
    let text = errors(&output);
    assert!(
        text.contains("failed to begin the recording") && text.contains("x.migscope"),
        "{text}"
    );
}

#[test]
fn an_agent_records_and_keeps_what_it_recorded_before() {
    let folder = tempfile::tempdir().expect("a folder");
    let file = folder.path().join("agent.migscope");
    for run in 0..2 {
        let words = ["agent", "--web.listen-address", "127.0.0.1:0", "--record.dir"];
        let child = migscope(&words).arg(folder.path()).stderr(Stdio::piped()).spawn();
        let mut child = child.expect("it starts");
        let mut lines = BufReader::new(child.stderr.take().expect("piped")).lines();
        let listens =
            lines.by_ref().find(|line| line.as_ref().is_ok_and(|line| line.contains("listening")));
        assert!(listens.is_some(), "the agent ended before it listened");
        interrupt(&child, Signal::TERM);
        let rest: Vec<_> = lines.map(|line| line.expect("text")).collect();
        assert!(child.wait().expect("it ends").success(), "{rest:?}");
        inputs(&file);
        assert_eq!(folder.path().join("agent.migscope.1").exists(), run == 1);
    }
    inputs(&folder.path().join("agent.migscope.1"));
}

/// Wherever an agent fails on its way, what it began to record has its end. Here it fails for want of descriptors: with one more
/// each time it comes a step further, until it serves.
#[test]
fn an_agent_that_cannot_go_on_ends_its_recording_all_the_same() {
    let mut begun = 0;
    for descriptors in 6..64 {
        let folder = tempfile::tempdir().expect("a folder");
        let file = folder.path().join("agent.migscope");
        let script = "ulimit -n \"$1\"; shift; exec \"$@\"";
        let mut child = Command::new("sh")
            .args(["-c", script, "sh", &descriptors.to_string(), env!("CARGO_BIN_EXE_migscope")])
            .args(["agent", "--web.listen-address", "127.0.0.1:0", "--record.dir"])
            .arg(folder.path())
            .stderr(Stdio::piped())
            .spawn()
            .expect("it starts");
        let mut log = BufReader::new(child.stderr.take().expect("piped")).lines();
        let mut told = Vec::new();
        let serves = log.by_ref().map_while(Result::ok).any(|line| {
            told.push(line);
            told.last().is_some_and(|line| line.contains("listening"))
        });
        if serves {
            interrupt(&child, Signal::TERM);
            assert!(child.wait().expect("it ends").success(), "{told:?}");
            inputs(&file);
            assert!(begun > 1, "it failed {begun} times after its recording had begun");
            return;
        }
        let status = child.wait().expect("it ends");
        // tokio panics where it finds no descriptor for the pipe of its signals. That is a way to fail, too.
        assert!(matches!(status.code(), Some(1 | 101)), "{descriptors}: {status}: {told:?}");
        if file.exists() {
            begun += 1;
            let read: Result<Vec<_>, _> = open(&file).expect("a recording").collect();
            assert!(read.is_ok(), "{descriptors}: {read:?}, after {told:?}");
        }
    }
    panic!("64 descriptors were not enough");
}

fn edu_live() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/recordings/edu-live.migscope")
}

fn play(inputs: Vec<Input>) -> Observer {
    let metrics = Arc::new(Metrics::new(prometheus::Registry::new()));
    let mut observer = Observer::new(Nobody, metrics);
    for input in inputs {
        input.play(&mut observer);
    }
    observer
}

#[test]
fn a_real_migration_is_played_as_it_was() {
    let observer = play(inputs(&edu_live()));
    let mut sessions: Vec<_> = observer.sessions().collect();
    sessions.sort_by_key(|session| session.role);
    let [source, destination] = &sessions[..] else { panic!("not two sessions: {sessions:?}") };
    assert_eq!((source.role, destination.role), (Role::Source, Role::Destination));
    for session in [source, destination] {
        assert!(session.exact);
        assert_eq!(session.end.map(|(end, _)| end), Some(End::Completed));
    }
    let (taken, given) = (source.figures(), destination.figures());
    assert!(taken.data_bytes.is_some_and(|bytes| bytes > 0));
    assert_eq!((taken.data_bytes, taken.iterations), (given.data_bytes, given.iterations));
    assert!(taken.dirty.is_some_and(|dirty| dirty.bytes > 0));
    assert!(source.downtime.total_ns.is_some() && source.peer == Some(destination.id));
    assert!(source.timeline.points().len() > source.transitions.len());
}

#[test]
fn a_real_recording_can_be_cut_at_every_byte() {
    let file = fs::read(edu_live()).expect("there");
    let all: Vec<_> = inputs(&edu_live()).iter().map(|input| format!("{input:?}")).collect();
    let mut most = 0;
    for length in 0..file.len() {
        let Some(cut) = file.get(..length) else { break };
        let Ok(reader) = Reader::new(cut) else {
            assert_eq!(most, 0, "the header was whole before");
            continue;
        };
        let mut items: Vec<_> = reader.collect();
        let last = items.pop().map(|last| last.map(|input| format!("{input:?}")));
        assert!(matches!(last, Some(Err(RecordError::CutOff { .. }))), "{length}: {last:?}");
        assert!(items.len() >= most, "{length}: a longer file gives less");
        assert!(items.iter().all(Result::is_ok), "{length}: what is cut off is not damaged");
        // Most cuts give what the one before gave.
        if items.len() > most {
            let read: Vec<_> = items.iter().flatten().map(|input| format!("{input:?}")).collect();
            assert!(all.starts_with(&read), "{length}");
        }
        most = items.len();
    }
    assert_eq!(most, all.len(), "only the end block is missing");
}
