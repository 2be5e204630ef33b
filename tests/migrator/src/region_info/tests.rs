// SPDX-License-Identifier: Apache-2.0 OR MIT
use proptest::prelude::*;

use super::*;

const REGION_BYTES: u64 = 0x2_1000;

/// A description with these capabilities, one behind the other.
fn described(flags: u32, capabilities: &[Vec<u8>]) -> Vec<u8> {
    let mut bytes = Vec::new();
    let first = if capabilities.is_empty() { 0 } else { FIXED_BYTES };
    for field in [0, flags, 9, u32::try_from(first).unwrap()] {
        bytes.extend(field.to_ne_bytes());
    }
    bytes.extend(REGION_BYTES.to_ne_bytes());
    bytes.extend((9_u64 << 40).to_ne_bytes());
    for (number, capability) in capabilities.iter().enumerate() {
        let at = bytes.len();
        bytes.extend(capability);
        if number + 1 < capabilities.len() {
            let next = u32::try_from(bytes.len()).unwrap();
            bytes[at + 4..at + 8].copy_from_slice(&next.to_ne_bytes());
        }
    }
    bytes
}

fn capability(id: u32, words: &[u32]) -> Vec<u8> {
    let id = u16::try_from(id).unwrap();
    let mut bytes = [id.to_ne_bytes(), 1_u16.to_ne_bytes()].concat();
    bytes.extend(0_u32.to_ne_bytes());
    bytes.extend(words.iter().flat_map(|word| word.to_ne_bytes()));
    bytes
}

fn sparse(areas: &[(u64, u64)]) -> Vec<u8> {
    let count = u32::try_from(areas.len()).unwrap();
    let mut bytes = capability(VFIO_REGION_INFO_CAP_SPARSE_MMAP, &[count, 0]);
    for (offset, length) in areas {
        bytes.extend(offset.to_ne_bytes());
        bytes.extend(length.to_ne_bytes());
    }
    bytes
}

fn mappable(areas: &[(u64, u64)]) -> Result<Vec<(u64, u64)>, InfoError> {
    let flags = VFIO_REGION_INFO_FLAG_CAPS | VFIO_REGION_INFO_FLAG_MMAP;
    let info = RegionInfo::parse(&described(flags, &[sparse(areas)])).unwrap();
    let areas = info.mappable_areas()?;
    Ok(areas.iter().map(|area| (area.offset, area.bytes)).collect())
}

#[test]
fn a_region_says_what_it_is_and_what_of_it_can_be_mapped() {
    let kind = capability(VFIO_REGION_INFO_CAP_TYPE, &[3, 1]);
    let unknown = capability(77, &[1, 2, 3, 4]);
    let areas = sparse(&[(0x1000, 0x1_0000), (0x1_1000, 0x1_0000)]);
    let flags = VFIO_REGION_INFO_FLAG_CAPS | VFIO_REGION_INFO_FLAG_MMAP;
    let info = RegionInfo::parse(&described(flags, &[kind, unknown, areas])).unwrap();
    assert_eq!(info.kind, Some((3, 1)));
    assert_eq!(info.placed, Placed { offset: 9 << 40, bytes: REGION_BYTES });
    let areas = info.mappable_areas().unwrap();
    assert_eq!(areas, info.areas.unwrap());
}

#[test]
fn a_region_without_the_flag_is_not_mapped_whatever_it_names() {
    let flags = VFIO_REGION_INFO_FLAG_CAPS;
    let info = RegionInfo::parse(&described(flags, &[sparse(&[(0x1000, 0x1000)])])).unwrap();
    assert!(info.mappable_areas().unwrap().is_empty());
    // Capabilities are there only if the flag says so.
    let info = RegionInfo::parse(&described(0, &[sparse(&[(0x1000, 0x1000)])])).unwrap();
    assert_eq!(info.areas, None);
}

#[test]
fn an_area_is_whole_pages_inside_of_the_region_beside_the_struct_and_the_others() {
    assert_eq!(
        mappable(&[(0x3000, 0x1000), (0x1000, 0x2000)]).unwrap(),
        [(0x1000, 0x2000), (0x3000, 0x1000)]
    );
    assert_eq!(mappable(&[(0x1000, 0), (0x2000, 0x1000)]).unwrap(), [(0x2000, 0x1000)]);
    for wrong in [
        &[(0x1001, 0x1000)][..],
        &[(0x1000, 0x1001)],
        &[(0, 0x1000)],
        &[(0x1000, REGION_BYTES)],
        &[(0x1000, u64::MAX - 0xfff)],
        &[(0x1000, 0x2000), (0x2000, 0x1000)],
    ] {
        assert!(matches!(mappable(wrong), Err(InfoError::Area { .. })), "{wrong:x?}");
    }
    // The whole region, and so the struct.
    let info = RegionInfo::parse(&described(VFIO_REGION_INFO_FLAG_MMAP, &[])).unwrap();
    assert!(matches!(info.mappable_areas(), Err(InfoError::Area { .. })));
}

#[test]
fn a_chain_that_leads_out_or_back_is_refused() {
    let good = described(VFIO_REGION_INFO_FLAG_CAPS, &[sparse(&[(0x1000, 0x1000)])]);
    assert!(RegionInfo::parse(&good).is_ok());
    for next in [FIXED_BYTES, 1, FIXED_BYTES - 8] {
        let mut bytes = good.clone();
        let next = u32::try_from(next).unwrap();
        bytes[FIXED_BYTES + 4..FIXED_BYTES + 8].copy_from_slice(&next.to_ne_bytes());
        assert!(matches!(RegionInfo::parse(&bytes), Err(InfoError::Backwards { .. })), "{next}");
    }
    let mut bytes = good.clone();
    bytes[FIXED_BYTES + 8..FIXED_BYTES + 12].copy_from_slice(&u32::MAX.to_ne_bytes());
    assert!(matches!(RegionInfo::parse(&bytes), Err(InfoError::Outside { .. })));
    for length in 0..good.len() {
        assert!(RegionInfo::parse(&good[..length]).is_err(), "{length}");
    }
}

proptest! {
    #[test]
    fn no_description_is_followed_out_of_its_bytes(mut bytes in prop::collection::vec(any::<u8>(), 32..200), at in 0u32..200) {
        // Such that some get far: the flag is set, and the chain begins somewhere near.
        bytes[4] |= 1 << 3;
        bytes[12..16].copy_from_slice(&at.to_ne_bytes());
        if let Ok(info) = RegionInfo::parse(&bytes) {
            drop(info.mappable_areas());
        }
    }
}
