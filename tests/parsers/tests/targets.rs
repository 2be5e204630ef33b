// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Every target with the usual compiler: its seeds, what was found before, and some mutations, the same ones each time.

use parsers::{TARGETS, mutate::mutation, target};
use std::{
    fs,
    panic::{AssertUnwindSafe, catch_unwind, resume_unwind},
    path::Path,
};

/// Feeds one, and keeps what it fails on.
fn feed(name: &str, input: &[u8]) {
    let target = target(name).expect("a target");
    if let Err(panic) = catch_unwind(AssertUnwindSafe(|| (target.run)(input))) {
        let path = Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("parsers-{name}"));
        fs::write(&path, input).expect("the finding is kept");
        eprintln!("look at it with: cargo run -p parsers -- {name} {}", path.display());
        resume_unwind(panic);
    }
}

fn hold(name: &str) {
    let target = target(name).expect("a target");
    let findings = target.findings().expect("they can be read");
    let mut inputs: Vec<_> = (target.seeds)().into_iter().map(|seed| seed.bytes).collect();
    assert!(!inputs.is_empty(), "{name} has no seed");
    inputs.extend(findings.into_iter().map(|(_, bytes)| bytes));
    for input in &inputs {
        feed(name, input);
    }
    for number in 0..target.mutations {
        feed(name, &mutation(&inputs, number.into()));
    }
}

macro_rules! targets {
    ($($name:ident)*) => {
        $(
            #[test]
            fn $name() {
                hold(stringify!($name));
            }
        )*

        #[test]
        fn none_is_left_out() {
            assert_eq!(TARGETS.map(|target| target.name).as_slice(), [$(stringify!($name)),*]);
        }
    };
}

targets!(abi config host http latency recording ring top web_config);
