// SPDX-License-Identifier: GPL-2.0
//! Measures the driver's dirty log: fills it with random pages and asks for all of them, while the module is loaded.
//!
//! The log's source is the driver's own. Results are in debugfs, `vfio_mediate_bench/query_ns`: the time of each run.

#[path = "../../../driver/abi/src/mod.rs"]
#[expect(dead_code, unreachable_pub, reason = "only the queries are used here")]
mod abi;
#[path = "../../../driver/dirty.rs"]
#[expect(dead_code, reason = "nothing arrives here")]
mod dirty;

use kernel::{
    debugfs::{
        Dir,
        File,
        Writer, //
    },
    fmt,
    num::casts::usize_as_u64,
    prelude::*,
    time::{
        delay::fsleep,
        Delta,
        Instant,
        Monotonic, //
    },
};

use abi::dirty::Query;
use dirty::{
    Extent,
    Log,
    Range,
    PAGE_BYTES, //
};

module! {
    type: Bench,
    name: "vfio_mediate_bench",
    authors: ["The migscope authors"],
    description: "Measures the dirty log of vfio_mediate",
    license: "GPL",
    params: {
        gibibytes: u64 {
            default: 1,
            description: "Length of the range, in GiB",
        },
        dirty_per_million: u32 {
            default: 10000,
            description: "How many of a million pages are dirty",
        },
        runs: u32 {
            default: 5,
            description: "How often to ask",
        },
    },
}

/// As the driver's bitmap window is by default, in bytes.
const WINDOW_BYTES: usize = 1 << 16;
/// Pages between two breaths of the scheduler.
const BREATH: u64 = 1 << 20;
const MILLION: u32 = 1_000_000;

/// Times, in ns.
struct Times(KVec<u64>);

impl Writer for Times {
    fn write(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for time in &self.0 {
            writeln!(f, "{time}")?;
        }
        Ok(())
    }
}

/// The loaded module.
#[pin_data]
struct Bench {
    #[pin]
    times: File<Times>,
    _dir: Dir,
}

/// A generator of pseudo-random numbers: xorshift64 (Marsaglia, 2003).
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0
    }
}

/// A log in which each of the first `pages` pages is dirty with this probability.
fn fill(pages: u64, dirty_per_million: u32) -> Result<Log> {
    let mut log = Log::new();
    let mut random = Random(0x9e37_79b9_7f4a_7c15);
    for page in 0..pages {
        if page % BREATH == 0 {
            fsleep(Delta::from_micros(10));
        }
        if random.next() % u64::from(MILLION) < u64::from(dirty_per_million) {
            let range = Range::touched(page * PAGE_BYTES, 1).ok_or(EINVAL)?;
            log.mark(range);
        }
    }
    if log.is_lost() {
        return Err(ENOMEM);
    }
    Ok(log)
}

/// Asks for all pages, a window at a time. Each report is taken back by the next, which changes as much as its arrival would;
/// so the log is the same for each run.
fn ask(log: &mut Log, pages: u64, window: &mut [u8]) -> Result<u64> {
    let window_pages = usize_as_u64(window.len()) * 8;
    let (mut first, mut set) = (0, 0);
    while first < pages {
        let query = Query::new(first, PAGE_BYTES, pages - first).map_err(|_| EINVAL)?;
        match log.extent(&query) {
            Extent::Nothing => break,
            Extent::Everything => return Err(EINVAL),
            Extent::Part => {}
        }
        let asked = query.pages.min(window_pages);
        let mut done = 0;
        set += log.report(&query, asked, |at, words| {
            if let Some(gap) = window.get_mut(done..at) {
                gap.fill(0);
            }
            done = at + words.len();
            if let Some(place) = window.get_mut(at..done) {
                place.copy_from_slice(words);
            }
        });
        if let Some(rest) = window.get_mut(done..) {
            rest.fill(0);
        }
        first += asked;
    }
    log.take_back();
    Ok(set)
}

impl kernel::InPlaceModule for Bench {
    fn init(_module: &'static ThisModule) -> impl PinInit<Self, Error> {
        let measure = || -> Result<Times> {
            let pages = (*module_parameters::gibibytes.value_ref() << 30) / PAGE_BYTES;
            let density = *module_parameters::dirty_per_million.value_ref();
            let mut log = fill(pages, density)?;
            let mut window = KVVec::from_elem(0_u8, WINDOW_BYTES, GFP_KERNEL)?;
            let mut times = KVec::new();
            for _ in 0..*module_parameters::runs.value_ref() {
                let began = Instant::<Monotonic>::now();
                let set = ask(&mut log, pages, &mut window)?;
                let took = began.elapsed().as_nanos();
                pr_info!("{set} of {pages} pages in {took} ns\n");
                times.push(u64::try_from(took).map_err(|_| EINVAL)?, GFP_KERNEL)?;
            }
            Ok(Times(times))
        };
        let dir = Dir::new(c"vfio_mediate_bench");
        try_pin_init!(Self {
            times <- dir.read_only_file(c"query_ns", measure()?),
            _dir: dir.clone(),
        })
    }
}
