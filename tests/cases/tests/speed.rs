// SPDX-License-Identifier: Apache-2.0 OR MIT
//! What accesses to the region cost without probes: recorded, not judged. The demo measures the same with probes attached.
//!
//! Each value is the quickest batch's, since a shared machine only ever adds time.

use std::process::ExitCode;
use std::time::Instant;

use cases::guest;
use cases::session::Session;
use migrator::region::RegionIo as _;
use migscope_abi::region::Field;
use migscope_abi::state::State;

fn main() -> ExitCode {
    guest::run(&[("the_cost_of_an_access_is_recorded", cost)])
}

const BATCHES: u32 = 10;
const PER_BATCH: u32 = 300;

fn measure(name: &str, mut access: impl FnMut()) {
    let mut best = u128::MAX;
    for _ in 0..BATCHES {
        let began = Instant::now();
        for _ in 0..PER_BATCH {
            access();
        }
        best = best.min(began.elapsed().as_nanos() / u128::from(PER_BATCH));
    }
    assert!(best > 0, "a system call takes time");
    guest::measured(name, best, "ns");
}

fn cost() {
    let session = Session::first_in(State::StopAndCopy);
    let io = session.region.io();
    measure("region_read_device_state", || {
        io.read_at(0, &mut [0; 4]).expect("device_state");
    });
    measure("region_read_pending_bytes", || {
        io.read_at(8, &mut [0; 8]).expect("pending_bytes");
    });
    measure("region_write_start_pfn", || {
        io.write_at(0x20, &[0; 8]).expect("start_pfn");
    });
    measure("region_refused_access", || {
        io.read_at(0, &mut [0; 2]).expect_err("a bad width");
    });
    session.get(Field::PendingBytes).expect("pending_bytes");
    let offset = session.get(Field::DataOffset).expect("data is staged");
    let bytes = usize::try_from(session.get(Field::DataSize).expect("data_size")).expect("fits");
    let mut buffer = vec![0; bytes];
    measure("region_read_data_window", || {
        io.read_at(offset, &mut buffer).expect("data");
    });
}
