// SPDX-License-Identifier: GPL-2.0 OR MIT
//! Leave for aya to copy keys and values in and out of maps byte by byte.
#![expect(unsafe_code, reason = "aya::Pod is an unsafe marker")]

use super::machine::{MachineKey, MachineSums};
use super::outside::{Outside, RegionOffsets};
use super::ring::{AccessKey, Conducted, DeviceSums};
use super::tracking::TrackingOffsets;
use super::v2::Offsets;

// SAFETY: `repr(C)`, integers only, no padding (sizes asserted in `ring`), so every bit pattern is a value and every byte is
// initialised.
unsafe impl aya::Pod for AccessKey {}
// SAFETY: as above.
unsafe impl aya::Pod for DeviceSums {}
// SAFETY: as above.
unsafe impl aya::Pod for Conducted {}
// SAFETY: as above; its size is asserted in `v2`.
unsafe impl aya::Pod for Offsets {}
// SAFETY: as above; its size is asserted in `tracking`.
unsafe impl aya::Pod for TrackingOffsets {}
// SAFETY: as above; its size is asserted in `machine`.
unsafe impl aya::Pod for MachineKey {}
// SAFETY: as above.
unsafe impl aya::Pod for MachineSums {}
// SAFETY: as above; its size is asserted in `outside`.
unsafe impl aya::Pod for Outside {}
// SAFETY: as above.
unsafe impl aya::Pod for RegionOffsets {}
