// SPDX-License-Identifier: Apache-2.0 OR MIT
//! A snapshot for tests: the one that `agent/tests/top*.rs` use.

use super::{rate::Track, row::Row};
use crate::{session::report::Report, snapshot::Snapshot};

/// The whole.
pub(crate) fn snapshot() -> Snapshot {
    serde_json::from_str(include_str!("../../tests/top/snapshot.json")).expect("a snapshot")
}

/// Its session of a source that is under way.
pub(crate) fn source() -> Report {
    snapshot().devices.into_iter().find_map(|device| device.session).expect("one is under way")
}

/// The line of that session's device.
pub(crate) fn row() -> Row {
    let snapshot = snapshot();
    let device = snapshot.devices.first().expect("a device");
    Row::new(device, None, &Track::default(), snapshot.monotonic_ns)
}
