// SPDX-License-Identifier: Apache-2.0 OR MIT
//! One run of QEMU, watched from start to end.
//!
//! Each of QEMU's outputs has a thread that reads it; the main thread hears of what matters through
//! one channel and decides. It ends when QEMU has, one way or another.

use std::fs::{self, File};
use std::io::{self, BufRead as _, BufReader, ErrorKind, Read as _, Write};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{self, RecvTimeoutError, Sender};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};
use tempfile::TempDir;

use super::console::{self, Trouble};
use super::job::{Event, Status, Suite};
use super::qemu::{CONSOLE_SOCKET, CONTROL_SOCKET, STDERR_SOCKET, STDOUT_SOCKET, TERMINAL_SOCKET};
use super::{Outcome, Timings, terminal};
use crate::child;

/// A guest that said it ends, or is in fatal trouble, gets this long: to power off, or to say the rest
/// of an oops.
const GRACE: Duration = Duration::from_secs(5);
/// How often QEMU is looked after while nothing is heard.
const TICK: Duration = Duration::from_millis(100);
/// How many lines of the console a failure shows.
const SHOWN_LINES: usize = 60;

/// Where the command's outputs go.
pub(crate) enum Streams<'a> {
    /// To two writers.
    Separate { stdout: Box<dyn Write + Send + 'a>, stderr: Box<dyn Write + Send + 'a> },
    /// To the caller's terminal, which is also its input.
    Terminal,
}

/// The sockets that QEMU will connect to.
pub(crate) struct Sockets {
    console: UnixListener,
    control: UnixListener,
    stdout: UnixListener,
    stderr: UnixListener,
    terminal: Option<UnixListener>,
}

impl Sockets {
    pub(crate) fn listen(scratch: &Path, terminal: bool) -> Result<Self> {
        let listen = |name: &str| -> Result<UnixListener> {
            let path = scratch.join(name);
            let listener = UnixListener::bind(&path)
                .with_context(|| format!("failed to listen at {}", path.display()))?;
            // QEMU connects before it does anything else, or dies of its arguments; `accept` watches
            // for both.
            listener.set_nonblocking(true).context("failed to set a socket up")?;
            Ok(listener)
        };
        Ok(Self {
            console: listen(CONSOLE_SOCKET)?,
            control: listen(CONTROL_SOCKET)?,
            stdout: listen(STDOUT_SOCKET)?,
            stderr: listen(STDERR_SOCKET)?,
            terminal: terminal.then(|| listen(TERMINAL_SOCKET)).transpose()?,
        })
    }
}

/// What the readers tell.
enum News {
    Event(Event),
    /// A line of the console that is trouble, and how many lines came before it.
    Trouble(Trouble, usize),
    /// An output could not be passed on, or an event not be understood.
    Broken(anyhow::Error),
}

/// Runs QEMU to its end. The console goes to `log`, which stays if the guest failed; `scratch`, with
/// the sockets and the initramfs, goes when the guest is up.
pub(crate) fn run(
    mut qemu: Command,
    sockets: Sockets,
    scratch: TempDir,
    log: &Path,
    timeout: Option<Duration>,
    streams: Streams<'_>,
) -> Result<Outcome> {
    let shown = child::show(&qemu);
    let mut console_log =
        File::create(log).with_context(|| format!("failed to make {}", log.display()))?;
    writeln!(console_log, "+ {shown}").context("failed to write the console's log")?;
    let (said, say) = io::pipe().context("failed to make a pipe")?;
    let start = Instant::now();
    let child = qemu
        .stdin(Stdio::null())
        .stdout(say.try_clone().context("failed to share a pipe")?)
        .stderr(say)
        .spawn()
        .with_context(|| format!("failed to start {shown}"))?;
    // It holds the pipe's write ends.
    drop(qemu);
    let mut qemu = Qemu { child, said: BufReader::new(said) };

    let console = qemu.accept(&sockets.console, &shown)?;
    let control = qemu.accept(&sockets.control, &shown)?;
    let stdout = qemu.accept(&sockets.stdout, &shown)?;
    let stderr = qemu.accept(&sockets.stderr, &shown)?;
    let screen = match &sockets.terminal {
        Some(listener) => Some(qemu.accept(listener, &shown)?),
        None => None,
    };

    let (sender, news) = mpsc::channel();
    let course = std::thread::scope(|scope| -> Result<Course> {
        let sender_of = || sender.clone();
        scope.spawn({
            let sender = sender_of();
            move || report(&sender, watch_console(console, console_log, &sender))
        });
        scope.spawn({
            let sender = sender_of();
            move || report(&sender, watch_control(control, &sender))
        });
        let mut copies: Vec<(UnixStream, Box<dyn Write + Send + '_>)> = Vec::new();
        match streams {
            Streams::Separate { stdout: out, stderr: err } => {
                copies.extend([(stdout, out), (stderr, err)]);
            }
            Streams::Terminal => {}
        }
        if let Some(screen) = screen {
            terminal::forward_keys(screen.try_clone().context("failed to share a socket")?);
            copies.push((screen, Box::new(io::stdout())));
        }
        for (from, to) in copies {
            let sender = sender_of();
            scope.spawn(move || report(&sender, copy(from, to)));
        }
        // The readers end when QEMU does, and the scope then joins them; `follow` sees to it that QEMU
        // ends in any case.
        let course = follow(&mut qemu, &news, start, timeout, scratch);
        qemu.kill();
        course
    })?;
    // What the readers said between the last look and their end.
    drop(sender);
    let course = news.try_iter().fold(course, |mut course, item| {
        course.hear(item, start);
        course
    });
    let outcome = course.judge(log, &mut qemu, timeout)?;
    match &outcome {
        Outcome::Ended { .. } => {
            fs::remove_file(log).context("failed to remove the console's log")?
        }
        Outcome::TimedOut { .. } | Outcome::GuestFailed { .. } => {}
    }
    Ok(outcome)
}

/// QEMU, and what it says itself.
struct Qemu {
    child: Child,
    said: BufReader<io::PipeReader>,
}

impl Qemu {
    fn accept(&mut self, listener: &UnixListener, shown: &str) -> Result<UnixStream> {
        loop {
            match listener.accept() {
                Ok((stream, _)) => {
                    stream.set_nonblocking(false).context("failed to set a socket up")?;
                    return Ok(stream);
                }
                Err(error) if error.kind() == ErrorKind::WouldBlock => {
                    if let Some(status) = self.ended()? {
                        bail!("{shown} did not start: {status}\n{}", self.words());
                    }
                    std::thread::sleep(Duration::from_millis(5));
                }
                Err(error) => return Err(error).context("failed to take QEMU's connection"),
            }
        }
    }

    fn ended(&mut self) -> Result<Option<std::process::ExitStatus>> {
        self.child.try_wait().context("failed to look after QEMU")
    }

    /// Ends it, if it has not.
    fn kill(&mut self) {
        // Both fail only for a child that is gone.
        let _gone = self.child.kill();
        let _gone = self.child.wait();
    }

    /// All that it said; it has to have ended.
    fn words(&mut self) -> String {
        let mut text = Vec::new();
        // What was read before an error is still worth showing.
        let _partial = self.said.read_to_end(&mut text);
        String::from_utf8_lossy(&text).trim_end().to_owned()
    }
}

impl Drop for Qemu {
    fn drop(&mut self) {
        self.kill();
    }
}

/// What happened so far.
#[derive(Default)]
struct Course {
    timings: Timings,
    started: Option<Instant>,
    ended: Option<(Status, u64)>,
    kunit: Vec<Suite>,
    findings: Vec<String>,
    failed: Option<String>,
    trouble: Option<(Trouble, usize)>,
    broken: Option<anyhow::Error>,
    timed_out: bool,
}

impl Course {
    fn hear(&mut self, news: News, start: Instant) {
        match news {
            News::Event(Event::Booted) => self.timings.boot_ns = nanoseconds(start.elapsed()),
            News::Event(Event::DriverLoaded { load_ns, bind_ns }) => {
                self.timings.driver_load_ns = Some(load_ns);
                self.timings.driver_bind_ns = Some(bind_ns);
            }
            News::Event(Event::KUnit { suites }) => self.kunit = suites,
            News::Event(Event::Watched { findings }) => self.findings = findings,
            News::Event(Event::Started) => {
                self.started = Some(Instant::now());
                self.timings.ready_ns = nanoseconds(start.elapsed());
            }
            News::Event(Event::Ended { status, taint }) => {
                let elapsed = self.started.map(|started| started.elapsed()).unwrap_or_default();
                self.timings.command_ns = nanoseconds(elapsed);
                self.ended = Some((status, taint));
            }
            News::Event(Event::Failed { message }) => self.failed = Some(message),
            News::Trouble(trouble, line) => {
                // The first line tells most; a worse one later only decides what to do.
                let (worst, first) = self.trouble.unwrap_or((trouble, line));
                let fatal = worst == Trouble::Fatal || trouble == Trouble::Fatal;
                let worst = if fatal { Trouble::Fatal } else { Trouble::Report };
                self.trouble = Some((worst, first));
            }
            News::Broken(error) => self.broken = Some(error),
        }
    }

    /// Whether QEMU should end by now.
    fn is_over(&self) -> bool {
        self.ended.is_some()
            || self.failed.is_some()
            || self.broken.is_some()
            || matches!(self.trouble, Some((Trouble::Fatal, _)))
    }

    fn judge(self, log: &Path, qemu: &mut Qemu, timeout: Option<Duration>) -> Result<Outcome> {
        let Self { timings, ended, kunit, findings, failed, trouble, broken, timed_out, .. } = self;
        if let Some(error) = broken {
            return Err(error);
        }
        let text = fs::read(log).context("failed to read the console's log")?;
        let text = String::from_utf8_lossy(&text);
        let lines: Vec<&str> = text.lines().collect();
        let end = &lines[lines.len().saturating_sub(SHOWN_LINES)..];
        let failure = |what: &str, shown: &[&str]| Outcome::GuestFailed {
            reason: format!("{what}; from {}:\n{}", log.display(), shown.join("\n")),
        };
        if let Some((_, first)) = trouble {
            let from = &lines[first.min(lines.len())..];
            let shown = &from[..from.len().min(SHOWN_LINES)];
            return Ok(failure("the guest's kernel complained", shown));
        }
        if let Some(message) = failed {
            return Ok(failure(&format!("the guest could not be set up: {message}"), end));
        }
        if let (true, Some(limit)) = (timed_out, timeout) {
            return Ok(Outcome::TimedOut { limit });
        }
        if !findings.is_empty() {
            return Ok(failure("the guest's kernel complained", &[&findings.join("\n")]));
        }
        match ended {
            Some((status, taint)) => match console::taint(taint) {
                Some(what) => Ok(failure(&format!("the guest's kernel is tainted by {what}"), end)),
                None => Ok(Outcome::Ended { status, timings, kunit }),
            },
            None => {
                let words = qemu.words();
                Ok(failure(&format!("the guest ended before the command did {words}"), end))
            }
        }
    }
}

/// Listens until QEMU has ended, and makes it end when it should.
fn follow(
    qemu: &mut Qemu,
    news: &mpsc::Receiver<News>,
    start: Instant,
    timeout: Option<Duration>,
    scratch: TempDir,
) -> Result<Course> {
    let mut scratch = Some(scratch);
    let mut course = Course::default();
    let mut over: Option<Instant> = None;
    loop {
        match news.recv_timeout(TICK) {
            Ok(item) => course.hear(item, start),
            Err(RecvTimeoutError::Timeout) => {}
            Err(RecvTimeoutError::Disconnected) => unreachable!("`run` keeps a sender"),
        }
        if qemu.ended()?.is_some() {
            return Ok(course);
        }
        // QEMU has read and opened everything in there, and a Ctrl-C later leaves nothing behind.
        if course.timings.boot_ns > 0
            && let Some(scratch) = scratch.take()
        {
            scratch.close().context("failed to remove the scratch folder")?;
        }
        if course.is_over() {
            if over.get_or_insert_with(Instant::now).elapsed() > GRACE {
                return Ok(course);
            }
        } else if timeout.is_some_and(|limit| start.elapsed() > limit) {
            course.timed_out = true;
            return Ok(course);
        }
    }
}

fn report(sender: &Sender<News>, result: Result<()>) {
    if let Err(error) = result {
        // Nobody listens any more only after the course has been judged.
        let _unheard = sender.send(News::Broken(error));
    }
}

fn watch_console(from: UnixStream, mut log: File, sender: &Sender<News>) -> Result<()> {
    // The command line is the log's first line.
    let mut number = 1;
    let mut lines = BufReader::new(from);
    let mut line = Vec::new();
    while {
        line.clear();
        lines.read_until(b'\n', &mut line).unwrap_or(0) > 0
    } {
        let text = String::from_utf8_lossy(&line);
        let text = text.trim_end();
        writeln!(log, "{text}").context("failed to write the console's log")?;
        if let Some(trouble) = console::judge(text) {
            let _unheard = sender.send(News::Trouble(trouble, number));
        }
        number += 1;
    }
    Ok(())
}

fn watch_control(from: UnixStream, sender: &Sender<News>) -> Result<()> {
    for line in BufReader::new(from).lines() {
        // QEMU's end resets the connection at times; that the guest said too little shows elsewhere.
        let Ok(line) = line else { break };
        let event = serde_json::from_str(&line)
            .with_context(|| format!("the guest said what is no event: `{line}`"))?;
        let _unheard = sender.send(News::Event(event));
    }
    Ok(())
}

/// Live: what arrives goes out at once.
fn copy(mut from: UnixStream, mut to: Box<dyn Write + Send + '_>) -> Result<()> {
    let mut buffer = [0; 32 * 1024];
    loop {
        // As in `watch_control`.
        let Ok(length @ 1..) = from.read(&mut buffer) else { return Ok(()) };
        to.write_all(&buffer[..length])
            .and_then(|()| to.flush())
            .context("failed to pass the command's output on")?;
    }
}

fn nanoseconds(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)
}
