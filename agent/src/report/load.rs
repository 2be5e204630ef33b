// SPDX-License-Identifier: Apache-2.0 OR MIT
//! From a file to a document.

use super::{
    model::{Clock, Document, Recording},
    play::Player,
    units::{counted, moment},
};
use crate::record::{self, Header, RecordError};
use std::{error::Error, path::Path};

/// Faults of a recording that are told one by one.
const FAULTS: usize = 16;

/// Reads a recording and tells it. What of it cannot be read is in [`Recording::faults`]; the rest is told.
///
/// # Errors
///
/// [`RecordError`]: nothing of it can be read.
pub fn load(path: &Path) -> Result<Document, RecordError> {
    let reader = record::open(path)?;
    let name = path.file_name().unwrap_or(path.as_os_str()).to_string_lossy().into_owned();
    let mut recording = from_header(name, reader.header());
    let mut player = Player::default();
    let mut untold = 0_u64;
    for item in reader {
        match item {
            Ok(input) => player.play(input),
            Err(error) if recording.faults.len() < FAULTS => {
                recording.faults.push(fault(&error, recording.clock));
            }
            Err(_) => untold = untold.saturating_add(1),
        }
    }
    if untold > 0 {
        recording
            .faults
            .push(format!("and {} in it", counted(untold, "more fault", "more faults")));
    }
    Ok(player.tell(recording))
}

fn from_header(file: String, header: &Header) -> Recording {
    let known = |text: &str| (!text.is_empty()).then(|| text.to_owned());
    let Header { created_unix_ns: unix_ns, created_monotonic_ns: monotonic_ns, .. } = *header;
    Recording {
        file,
        host: known(&header.host),
        kernel: known(&header.kernel),
        version: known(&header.migscope),
        // A header without a clock has zeros.
        clock: (unix_ns > 0).then_some(Clock { unix_ns, monotonic_ns }),
        ..Recording::default()
    }
}

/// The error with its causes in one sentence, and for a cut until when there is something.
fn fault(error: &RecordError, clock: Option<Clock>) -> String {
    let mut told = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        told.push_str(": ");
        told.push_str(&error.to_string());
        cause = error.source();
    }
    if let RecordError::CutOff { after_ns, .. } = error {
        let until = after_ns.zip(clock).map(|(ns, clock)| moment(clock.unix_ns(ns)));
        match (after_ns, until) {
            (None, _) => told.push_str("; nothing of it could be read"),
            (Some(_), Some(until)) => {
                told.push_str(&format!("; what came after {until} is not known"))
            }
            (Some(_), None) => told.push_str("; what came after is not known"),
        }
    }
    told
}
