// SPDX-License-Identifier: Apache-2.0 OR MIT
//! The files of a recording: `FILE` is written, `FILE.1` is the one before it, and so on.
//!
//! What is there is put aside only once the new file stands, as `FILE.new` until then: an agent that is started again and again on a
//! full disk would else push out, file by file, what was recorded before the disk was full.

use super::{error::RecordError, header::Header, holding::Holding, stream::Stream};
use crate::{feed::Input, host::Paths};
use std::{
    ffi::OsString,
    fs::{self, File, OpenOptions},
    io,
    path::{Path, PathBuf},
};

/// Least size of a file, in bytes: what holds, with which each file begins, takes some kilobytes a device.
pub const LEAST_BYTES: u64 = 1 << 20;

/// Where and how a recording is written.
#[derive(Clone, Debug)]
pub struct Options {
    /// The file.
    pub path: PathBuf,
    /// Most bytes of a file; [`LEAST_BYTES`] when this is less.
    pub max_bytes: u64,
    /// How many older files are kept. With none the recording ends when its file is full.
    pub older: u32,
    /// What becomes of files that are there already.
    pub existing: Existing,
    /// Where the kernel's files are, for the header.
    pub paths: Paths,
}

/// What becomes of files that are there already.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Existing {
    /// They stay, and nothing is recorded.
    Refuse,
    /// They are replaced.
    Replace,
    /// They are older files of this recording.
    Keep,
}

/// The files, one of them open.
#[derive(Debug)]
pub(super) struct Files {
    options: Options,
    stream: Stream<File>,
    part: u64,
    /// Bytes of the files that were closed.
    closed_bytes: u64,
    dropped: u64,
}

impl Files {
    /// Opens the first file.
    ///
    /// # Errors
    ///
    /// [`RecordError::NoFolder`], [`RecordError::Exists`], [`RecordError::Irregular`], [`RecordError::Open`] and
    /// [`RecordError::Create`].
    pub(super) fn open(options: Options) -> Result<Self, RecordError> {
        let folder = match options.path.parent() {
            Some(folder) if !folder.as_os_str().is_empty() => folder,
            _ => Path::new("."),
        };
        if !folder.is_dir() {
            return Err(RecordError::NoFolder(folder.into()));
        }
        let older = (1..=options.older).map(|place| numbered(&options.path, place));
        for path in std::iter::once(options.path.clone()).chain(older) {
            match fs::symlink_metadata(&path) {
                Ok(found) if !found.is_file() => return Err(RecordError::Irregular(path)),
                Ok(_) if options.existing == Existing::Refuse => {
                    return Err(RecordError::Exists(path));
                }
                Ok(_) if options.existing == Existing::Replace => {
                    fs::remove_file(&path).map_err(|source| RecordError::Open { path, source })?;
                }
                Ok(_) | Err(_) => {}
            }
        }
        let stream = begin(&options, 0)?;
        Ok(Self { options, stream, part: 0, closed_bytes: 0, dropped: 0 })
    }

    /// Takes in one input. `holding` is what holds without it. Tells whether there is room for more.
    pub(super) fn push(&mut self, input: &Input, holding: &Holding) -> Result<bool, RecordError> {
        if self.stream.ended_bytes() >= self.options.max_bytes.max(LEAST_BYTES) {
            if self.options.older == 0 {
                return Ok(false);
            }
            self.rotate(holding)?;
        }
        self.stream.push(input).map_err(|source| self.failed(source))?;
        Ok(true)
    }

    /// Writes what is not written yet.
    pub(super) fn flush(&mut self) -> Result<(), RecordError> {
        self.stream.flush().map_err(|source| self.failed(source))
    }

    /// Whether there is something to flush.
    pub(super) fn is_pending(&self) -> bool {
        self.stream.is_pending()
    }

    /// Ends the file, and waits until the disk has it.
    pub(super) fn finish(&mut self) -> Result<(), RecordError> {
        let ended = self.stream.end().and_then(|()| self.stream.out().sync_data());
        ended.map_err(|source| self.failed(source))
    }

    /// Bytes that were written, those of files that are no longer kept included.
    pub(super) fn written_bytes(&self) -> u64 {
        self.closed_bytes.saturating_add(self.stream.written_bytes())
    }

    /// How often it was rotated.
    pub(super) fn part(&self) -> u64 {
        self.part
    }

    /// Inputs that no recording can hold.
    pub(super) fn dropped(&self) -> u64 {
        self.dropped.saturating_add(self.stream.dropped())
    }

    fn rotate(&mut self, holding: &Holding) -> Result<(), RecordError> {
        self.finish()?;
        let stream = begin(&self.options, self.part + 1)?;
        self.part += 1;
        let closed = std::mem::replace(&mut self.stream, stream);
        self.closed_bytes = self.closed_bytes.saturating_add(closed.written_bytes());
        self.dropped = self.dropped.saturating_add(closed.dropped());
        for input in holding.inputs() {
            self.stream.push(&input).map_err(|source| self.failed(source))?;
        }
        Ok(())
    }

    /// The file is cut back to what is whole in it, which a reader would do as well; so that it fails is no further harm.
    fn failed(&self, source: io::Error) -> RecordError {
        let _ = self.stream.out().set_len(self.stream.written_bytes());
        RecordError::Write { path: self.options.path.clone(), source }
    }
}

/// Makes the file, and each that is there one older.
fn begin(options: &Options, part: u64) -> Result<Stream<File>, RecordError> {
    let Options { path, .. } = options;
    let header = Header::here(&options.paths, part);
    if fs::symlink_metadata(path).is_err() {
        return create(path, &header);
    }
    let new = suffixed(path, "new");
    if fs::symlink_metadata(&new).is_ok_and(|left| left.is_file()) {
        let left = |source| RecordError::Create { path: new.clone(), source };
        fs::remove_file(&new).map_err(left)?;
    }
    let stream = create(&new, &header)?;
    let placed = shift(options).and_then(|()| {
        let failed = |source| RecordError::Create { path: path.clone(), source };
        fs::rename(&new, path).map_err(failed)
    });
    if placed.is_err() {
        let _ = fs::remove_file(&new);
    }
    placed.map(|()| stream)
}

/// A file with a header. One that has no room for it does not stay: it would be no recording.
fn create(path: &Path, header: &Header) -> Result<Stream<File>, RecordError> {
    let failed = |source| RecordError::Create { path: path.into(), source };
    let file = OpenOptions::new().write(true).create_new(true).open(path).map_err(failed)?;
    Stream::new(file, header).map_err(|source| {
        let _ = fs::remove_file(path);
        failed(source)
    })
}

/// Makes each file one older; the oldest goes.
fn shift(options: &Options) -> Result<(), RecordError> {
    for place in (0..options.older).rev() {
        let path = numbered(&options.path, place);
        match fs::rename(&path, numbered(&options.path, place + 1)) {
            Err(source) if source.kind() != io::ErrorKind::NotFound => {
                return Err(RecordError::Open { path, source });
            }
            _ => {}
        }
    }
    Ok(())
}

/// The name of a file that was rotated so often.
fn numbered(path: &Path, place: u32) -> PathBuf {
    if place > 0 { suffixed(path, &place.to_string()) } else { path.into() }
}

fn suffixed(path: &Path, suffix: &str) -> PathBuf {
    let mut name = OsString::from(path);
    name.push(".");
    name.push(suffix);
    name.into()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::device_key::DeviceKey;
    use crate::{
        event::{Event, StateChange},
        feed::Nobody,
        metrics::{Info, Metrics},
        observer::Observer,
        probes::Standing,
        record::open,
        sample::Losses,
        session::{End, Session},
        state::{Protocol, State},
    };
    use migscope_abi::{probe::Probe, ring::DeviceSums, state::Cause};
    use std::{collections::BTreeMap, sync::Arc};

    const DEVICE: DeviceKey = DeviceKey(24);
    const SECOND: u64 = 1_000_000_000;

    fn sums(state: u64, at_ns: u64) -> DeviceSums {
        let data_bytes = [at_ns / 1_000, 0];
        DeviceSums { state, data_bytes, last_seen_ns: at_ns, ..DeviceSums::default() }
    }

    fn change(from: State, now: State, at_ns: u64) -> Input {
        let state = match now {
            State::PreCopy => 3,
            State::StopAndCopy => 2,
            _ => 0,
        };
        Input::Event(Event::State(StateChange {
            device: DEVICE,
            at_ns,
            tgid: 7,
            protocol: Protocol::Region,
            from,
            requested: Some(now),
            now,
            cause: Cause::Write,
            duration_ns: 10,
            result: 0,
            sums: Some(sums(state, at_ns)),
        }))
    }

    fn read_at(at_ns: u64) -> Input {
        Input::Sums(at_ns, BTreeMap::from([(DEVICE, sums(3, at_ns))]))
    }

    /// What holds before anything happens.
    fn beginning() -> Vec<Input> {
        let standing: Standing = Probe::ALL.into_iter().map(|probe| (probe, Ok(()))).collect();
        let info = Info { vm: "web".into(), ..Info::default() };
        vec![
            Input::Probes(standing),
            Input::Losses(Losses { skipped: Some(0), ..Losses::default() }, SECOND),
            Input::Info(DEVICE, info),
        ]
    }

    fn options(folder: &Path, older: u32) -> Options {
        Options {
            path: folder.join("x.migscope"),
            max_bytes: 0,
            older,
            existing: Existing::Refuse,
            paths: Paths::default(),
        }
    }

    /// Plays a file that ends as it should.
    fn play(path: &Path) -> Observer {
        let metrics = Metrics::new(prometheus::Registry::new());
        let mut observer = Observer::new(Nobody, Arc::new(metrics));
        for input in open(path).expect("a recording") {
            input.expect("all is well").play(&mut observer);
        }
        observer
    }

    fn only(observer: &Observer) -> Session {
        let sessions: Vec<_> = observer.sessions().cloned().collect();
        let [session] = &sessions[..] else { panic!("not one session, but {sessions:?}") };
        session.clone()
    }

    #[test]
    fn a_session_that_spans_files_is_in_each_with_its_beginning_and_figures_and_not_exact() {
        let folder = tempfile::tempdir().expect("a folder");
        let mut files = Files::open(options(folder.path(), 2)).expect("opened");
        let mut holding = Holding::default();
        let mut inputs = beginning();
        inputs.push(change(State::Running, State::PreCopy, 2 * SECOND));
        let mut at_ns = 2 * SECOND;
        let mut push = |files: &mut Files, input: Input| {
            assert!(files.push(&input, &holding).expect("written"));
            holding.take(&input);
        };
        for input in inputs {
            push(&mut files, input);
        }
        while files.part() < 4 {
            at_ns += SECOND / 20;
            push(&mut files, read_at(at_ns));
        }
        push(&mut files, change(State::PreCopy, State::StopAndCopy, at_ns + SECOND));
        push(&mut files, change(State::StopAndCopy, State::Stopped, at_ns + 2 * SECOND));
        files.finish().expect("written");

        let newest = folder.path().join("x.migscope");
        let mut names: Vec<_> = fs::read_dir(folder.path())
            .expect("a folder")
            .map(|entry| entry.expect("an entry").file_name().into_string().expect("ASCII"))
            .collect();
        names.sort();
        assert_eq!(names, ["x.migscope", "x.migscope.1", "x.migscope.2"]);
        for name in &names[1..] {
            let length = fs::metadata(folder.path().join(name)).expect("there").len();
            assert!((LEAST_BYTES..LEAST_BYTES + 1_000).contains(&length), "{name}: {length}");
            let session = only(&play(&folder.path().join(name)));
            assert_eq!((session.began_ns, session.end), (2 * SECOND - 10, None));
            assert!(!session.exact);
        }
        assert_eq!(open(&newest).expect("a recording").header().part, 4);
        let observer = play(&newest);
        let session = only(&observer);
        assert_eq!(session.began_ns, 2 * SECOND - 10);
        assert_eq!(session.end, Some((End::Completed, at_ns + 2 * SECOND)));
        assert!(!session.exact, "most of it is in the files before");
        assert_eq!(
            session.figures().data_bytes,
            Some((at_ns + 2 * SECOND) / 1_000 - 2 * SECOND / 1_000)
        );
        let report = observer.device_reports(at_ns);
        assert_eq!(report.first().map(|device| device.info.vm.as_str()), Some("web"));
    }

    #[test]
    fn a_session_that_begins_in_the_new_file_is_exact() {
        let folder = tempfile::tempdir().expect("a folder");
        let mut files = Files::open(options(folder.path(), 1)).expect("opened");
        let mut holding = Holding::default();
        for input in beginning() {
            holding.take(&input);
        }
        holding.take(&read_at(3 * SECOND));
        files.rotate(&holding).expect("rotated");
        files.push(&change(State::Running, State::PreCopy, 4 * SECOND), &holding).expect("written");
        files.push(&change(State::PreCopy, State::Running, 5 * SECOND), &holding).expect("written");
        files.finish().expect("written");
        let session = only(&play(&folder.path().join("x.migscope")));
        assert_eq!(session.end, Some((End::Cancelled, 5 * SECOND)));
        assert!(session.exact);
    }

    #[test]
    fn without_older_files_it_ends_when_the_file_is_full() {
        let folder = tempfile::tempdir().expect("a folder");
        let mut files = Files::open(options(folder.path(), 0)).expect("opened");
        let holding = Holding::default();
        let mut at_ns = 0;
        while files.push(&read_at(at_ns), &holding).expect("written") {
            at_ns += SECOND;
        }
        files.finish().expect("written");
        assert_eq!(files.part(), 0);
        let inputs = open(&folder.path().join("x.migscope")).expect("a recording");
        let inputs: Result<Vec<_>, _> = inputs.collect();
        assert_eq!(inputs.expect("all is well").len() as u64, at_ns / SECOND);
    }

    #[test]
    fn files_that_are_there_are_refused_replaced_or_kept() {
        let folder = tempfile::tempdir().expect("a folder");
        let (newest, older) =
            (folder.path().join("x.migscope"), folder.path().join("x.migscope.1"));
        for path in [&newest, &older] {
            fs::write(path, "old").expect("written");
        }
        let with = |existing, older| Options { existing, ..options(folder.path(), older) };
        let refusal = Files::open(with(Existing::Refuse, 1)).expect_err("there already");
        assert!(matches!(&refusal, RecordError::Exists(path) if *path == newest), "{refusal}");
        Files::open(with(Existing::Keep, 2)).expect("shifted").finish().expect("written");
        let oldest = folder.path().join("x.migscope.2");
        assert_eq!(fs::read_to_string(&oldest).expect("kept"), "old");
        assert_eq!(fs::read_to_string(&older).expect("kept"), "old");
        Files::open(with(Existing::Replace, 2)).expect("replaced").finish().expect("written");
        assert!(!older.exists() && !oldest.exists());
        assert_eq!(open(&newest).expect("a recording").count(), 0);
    }

    #[test]
    fn what_is_there_stays_when_the_new_file_cannot_be_made() {
        let folder = tempfile::tempdir().expect("a folder");
        let (path, new) = (folder.path().join("x.migscope"), folder.path().join("x.migscope.new"));
        let keep = || Options { existing: Existing::Keep, ..options(folder.path(), 1) };
        Files::open(keep()).expect("opened").finish().expect("written");
        let before = fs::read(&path).expect("there");
        fs::create_dir(&new).expect("in its way");
        let refusal = Files::open(keep()).expect_err("there is no place for it");
        assert!(matches!(&refusal, RecordError::Create { path, .. } if *path == new), "{refusal}");
        assert_eq!(fs::read(&path).expect("there"), before);
        assert!(!folder.path().join("x.migscope.1").exists());
        // A file that a crash has left there is no hindrance.
        fs::remove_dir(&new).expect("empty");
        fs::write(&new, "left").expect("written");
        Files::open(keep()).expect("opened").finish().expect("written");
        assert!(!new.exists() && folder.path().join("x.migscope.1").exists());
    }

    #[test]
    fn what_is_no_regular_file_is_never_removed() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("x.migscope");
        fs::create_dir(&path).expect("made");
        let options = Options { existing: Existing::Replace, ..options(folder.path(), 1) };
        let refusal = Files::open(options).expect_err("a folder");
        assert!(matches!(refusal, RecordError::Irregular(_)), "{refusal}");
        assert!(path.is_dir());
    }
}
