// SPDX-License-Identifier: Apache-2.0 OR MIT
//! A recording of what a shared observer takes in, from its first byte to its end block.
//!
//! ```text
//!   begin ──▶ file, thread, tap ──▶ finish, or dropped ──▶ untapped, the last block written, the thread ended
//! ```
//!
//! Who records has many ways to fail after the file was begun. A file without its end reads as one that was cut off by a crash, so
//! that it has one is not left to each of these ways: whatever drops the recorder ends the file.

use super::{
    error::RecordError,
    files::Options,
    writer::{Recording, Summary, start},
};
use crate::sampler::{Shared, lock};

/// A recording beside an observer.
pub struct Recorder {
    observer: Shared,
    /// There until it is finished.
    recording: Option<Recording>,
}

impl Recorder {
    /// Begins to record what `observer` takes in.
    ///
    /// # Errors
    ///
    /// [`RecordError`], when the file cannot be made.
    pub fn begin(observer: &Shared, options: Options) -> Result<Self, RecordError> {
        let (writer, recording) = start(options)?;
        lock(observer).tap(Box::new(writer));
        Ok(Self { observer: observer.clone(), recording: Some(recording) })
    }

    /// Whether it has ended by itself: the file is full, or could not be written.
    pub fn is_over(&self) -> bool {
        self.recording.as_ref().is_none_or(Recording::is_over)
    }

    /// Ends the recording: what the observer took in is written, and the disk has it.
    ///
    /// # Errors
    ///
    /// [`RecordError`], with which the writing ended.
    pub fn finish(mut self) -> Result<Summary, RecordError> {
        let recording = self.recording.take().expect("only this and drop take it");
        self.end(recording)
    }

    /// The tap goes first: it gives what it holds to the file, which then ends.
    fn end(&self, recording: Recording) -> Result<Summary, RecordError> {
        drop(lock(&self.observer).untap());
        recording.finish()
    }
}

impl Drop for Recorder {
    fn drop(&mut self) {
        if let Some(recording) = self.recording.take() {
            // Why it failed was said when it did.
            let _ = self.end(recording);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        feed::{Input, Nobody},
        host::Paths,
        metrics::Metrics,
        observer::Observer,
        record::{Existing, open},
    };
    use std::{
        path::Path,
        sync::{Arc, Mutex},
    };

    fn recorded(path: &Path) -> (Shared, Recorder) {
        let metrics = Arc::new(Metrics::new(prometheus::Registry::new()));
        let observer: Shared = Arc::new(Mutex::new(Observer::new(Nobody, metrics)));
        let options = Options {
            path: path.to_owned(),
            max_bytes: 1 << 20,
            older: 0,
            existing: Existing::Refuse,
            paths: Paths::default(),
        };
        let recorder = Recorder::begin(&observer, options).expect("begun");
        lock(&observer).settled(5);
        (observer, recorder)
    }

    /// What is in a file that has its end.
    fn told(path: &Path) -> Vec<Input> {
        let inputs: Result<_, _> = open(path).expect("a recording").collect();
        inputs.expect("to its end")
    }

    #[test]
    fn a_recording_that_nobody_finished_has_its_end_all_the_same() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("x.migscope");
        let (observer, recorder) = recorded(&path);
        let failing = || -> Result<(), RecordError> {
            let _recorder = recorder;
            Err(RecordError::Header)
        };
        failing().expect_err("it returns early");
        assert!(matches!(told(&path)[..], [.., Input::Settled(5)]));
        // Nothing is taken for a file that has ended.
        assert!(lock(&observer).untap().is_none());
    }

    #[test]
    fn a_recording_that_is_finished_says_what_became_of_it() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("x.migscope");
        let (_observer, recorder) = recorded(&path);
        let summary = recorder.finish().expect("written");
        assert_eq!((summary.path.as_path(), summary.dropped), (path.as_path(), 0));
        assert!(matches!(told(&path)[..], [.., Input::Settled(5)]));
    }
}
