// SPDX-License-Identifier: Apache-2.0 OR MIT
//! A structure of the kernel's, found among all of its types.
//!
//! A kernel has more than a hundred thousand types, and a dozen are wanted. To take all of them apart and put them into tables took 210 ms and
//! 40 MB on a host with 5.5 MB of them; to walk through them where they are takes 1 ms for each that is wanted.

use super::TypesError;
use btf_rs::{Backend, Btf, Type};
use rustix::fs::{MemfdFlags, memfd_create};
use std::{
    fs::File,
    io::{self, Write as _},
    os::fd::AsRawFd as _,
};

/// Types that stay where they are. sysfs lets its own file be mapped since Linux 6.16; a copy in memory can be always.
pub(super) fn mapped(bytes: &[u8]) -> Result<Btf, btf_rs::Error> {
    let mut copy = File::from(memfd_create("btf", MemfdFlags::CLOEXEC).map_err(io::Error::from)?);
    copy.write_all(bytes)?;
    let path = format!("/proc/self/fd/{}", copy.as_raw_fd());
    Btf::from_file_with_backend(path, Backend::Mmap)
}

/// A structure by its name. To find it takes a walk through all types.
pub(super) struct Structure<'a> {
    types: &'a Btf,
    name: &'static str,
    /// A function, say, may be called the same.
    found: Vec<Type>,
}

impl<'a> Structure<'a> {
    pub(super) fn find(types: &'a Btf, name: &'static str) -> Self {
        Self { types, name, found: types.resolve_types_by_name(name).unwrap_or_default() }
    }

    /// The offset of a field in bytes; one in an unnamed structure or union within counts.
    pub(super) fn offset(&self, field: &'static str) -> Result<u32, TypesError> {
        let bits = self.found.iter().find_map(|found| field_bits(self.types, found, field, 0));
        bits.map(|bits| bits / 8).ok_or(TypesError::NoField { structure: self.name, field })
    }
}

/// Structures within structures that are looked into.
const DEPTH: u32 = 8;

fn field_bits(types: &Btf, of: &Type, field: &str, depth: u32) -> Option<u32> {
    let members = match of {
        Type::Struct(structure) => &structure.members,
        Type::Union(union) => &union.members,
        _ => return None,
    };
    members.iter().find_map(|member| {
        let name = types.resolve_name(member).ok()?;
        if name == field {
            return Some(member.bit_offset());
        }
        if !name.is_empty() || depth == DEPTH {
            return None;
        }
        let within = types.resolve_chained_type(member).ok()?;
        field_bits(types, &within, field, depth + 1)?.checked_add(member.bit_offset())
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Kinds of types (`include/uapi/linux/btf.h`).
    const INT: u32 = 1;
    const STRUCT: u32 = 4;
    const UNION: u32 = 5;
    const STRINGS: &[u8] = b"\0int\0outer\0first\0inner\0";
    /// Where each begins.
    const NAMELESS: u32 = 0;
    const INT_NAME: u32 = 1;
    const OUTER: u32 = 5;
    const FIRST: u32 = 11;
    const INNER: u32 = 17;

    /// `struct outer { int first; union { int inner; }; }`, as the kernel describes it.
    fn blob() -> Vec<u8> {
        let head =
            |name: u32, kind: u32, members: u32, bytes: u32| [name, kind << 24 | members, bytes];
        let types: Vec<u32> = [
            &head(INT_NAME, INT, 0, 4)[..],
            &[32],
            &head(NAMELESS, UNION, 1, 4),
            &[INNER, 1, 0],
            &head(OUTER, STRUCT, 2, 8),
            &[FIRST, 1, 0],
            &[NAMELESS, 2, 32],
        ]
        .concat();
        let types: Vec<u8> = types.into_iter().flat_map(u32::to_ne_bytes).collect();
        let length = |bytes: &[u8]| u32::try_from(bytes.len()).expect("short");
        // Magic number, version and flags; length of this; the two parts.
        let mut blob = [&0xeb9f_u16.to_ne_bytes()[..], &[1, 0]].concat();
        for number in [24, 0, length(&types), length(&types), length(STRINGS)] {
            blob.extend(number.to_ne_bytes());
        }
        blob.extend(types);
        blob.extend(STRINGS);
        blob
    }

    #[test]
    fn a_field_is_found_among_mapped_types_also_in_what_has_no_name() {
        let types = mapped(&blob()).expect("they are mapped");
        let outer = Structure::find(&types, "outer");
        assert_eq!(outer.offset("first").expect("it has it"), 0);
        assert_eq!(outer.offset("inner").expect("it has it"), 4);
    }

    #[test]
    fn what_is_not_there_is_named() {
        let types = mapped(&blob()).expect("they are mapped");
        let absent = |structure, field| {
            let error =
                Structure::find(&types, structure).offset(field).expect_err("there is none");
            error.to_string()
        };
        assert_eq!(absent("outer", "last"), "this kernel's struct outer has no field last");
        // There is a type of this name, but it has no fields.
        assert_eq!(absent("int", "first"), "this kernel's struct int has no field first");
        assert_eq!(absent("other", "first"), "this kernel's struct other has no field first");
    }

    #[test]
    fn types_that_end_too_early_are_an_error_and_not_a_panic() {
        let blob = blob();
        for end in 0..blob.len() {
            assert!(mapped(&blob[..end]).is_err(), "of {} bytes {end}", blob.len());
        }
    }
}
