// SPDX-License-Identifier: GPL-2.0 OR MIT
//! Queries, durations and keys: what the two sides compute apart and must agree on.

use migscope_abi::device::DeviceKey;
use migscope_abi::dirty::Query;
use migscope_abi::latency::{bucket, lower_bound_ns, BUCKETS};
use migscope_abi::rule::Rule;
use proptest::prelude::*;

#[test]
fn queries_that_break_a_rule_are_refused() {
    for page_bytes in [0, 1, 2048, 4095, 4097, 12288, u64::MAX] {
        assert_eq!(Query::new(0, page_bytes, 1), Err(Rule::PageSize), "{page_bytes}");
    }
    assert_eq!(Query::new(7, 4096, 0), Err(Rule::EmptyRange));
    assert_eq!(Query::new(u64::MAX, 4096, 2), Err(Rule::RangeOverflow));
    assert_eq!(Query::new(1 << 52, 4096, 1), Err(Rule::RangeOverflow));
    assert_eq!(Query::new(0, 4096, (1 << 52) + 1), Err(Rule::RangeOverflow));
}

#[test]
fn the_whole_address_space_can_be_asked_for() {
    let query = Query::new(0, 4096, 1 << 52).expect("ends at 2^64");
    assert_eq!((query.page_shift, query.pages), (12, 1 << 52));
    assert!(Query::new((1 << 52) - 1, 4096, 1).is_ok());
    assert!(Query::new(0, 1 << 63, 2).is_ok());
}

#[test]
fn powers_of_two_start_a_bucket() {
    for exponent in 0..=35 {
        let ns = 1u64 << exponent;
        assert_eq!(lower_bound_ns(bucket(ns)), ns, "2^{exponent}");
    }
}

#[test]
fn buckets_are_numbered_without_gaps() {
    for number in 0..u32::try_from(BUCKETS).expect("small") {
        assert_eq!(bucket(lower_bound_ns(number)), number);
    }
    assert_eq!(bucket(u64::MAX), u32::try_from(BUCKETS - 1).expect("small"));
}

#[test]
fn addresses_that_sysfs_would_not_write_are_no_keys() {
    for text in ["", "0000:00:03", "00:03.0", "0000:00:20.0", "0000:00:03.8", "0000:00:+3.0", "x"] {
        assert_eq!(DeviceKey::parse(text), None, "{text}");
    }
    let key = DeviceKey::parse("10000:e1:1f.7").expect("a VMD domain");
    assert_eq!(key, DeviceKey::pci(0x10000, 0xe1, 0x1f << 3 | 7));
}

proptest! {
    #[test]
    fn a_duration_lies_in_its_bucket(ns in prop_oneof![0..1u64 << 36, 0..4096u64]) {
        let number = bucket(ns);
        prop_assert!(lower_bound_ns(number) <= ns);
        prop_assert!(ns < lower_bound_ns(number + 1));
        prop_assert!(lower_bound_ns(number + 1) - lower_bound_ns(number) <= (ns / 8).max(1));
    }

    #[test]
    fn a_key_reads_as_it_was_written(domain: u32, bus: u8, devfn: u8) {
        let key = DeviceKey::pci(domain, bus, devfn);
        prop_assert_eq!(DeviceKey::parse(&key.to_string()), Some(key));
        prop_assert_eq!(key.0 >> 63, 0);
    }

    #[test]
    fn a_query_that_passes_ends_inside_the_address_space(
        start: u64, page_bytes in prop_oneof![any::<u64>(), (12..64u32).prop_map(|shift| 1 << shift)],
        total: u64,
    ) {
        if let Ok(query) = Query::new(start, page_bytes, total) {
            let end = (u128::from(start) + u128::from(total)) << query.page_shift;
            prop_assert!(total > 0 && end <= 1u128 << 64);
        }
    }
}
