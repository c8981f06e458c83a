// SPDX-License-Identifier: GPL-2.0

//! The kernel's functions in its BTF (the kernel's `Documentation/bpf/btf.rst`).

use std::fs;

/// The kernel's own types.
const VMLINUX: &str = "/sys/kernel/btf/vmlinux";

/// `struct btf_type`, in bytes.
const TYPE: usize = 12;

/// `BTF_KIND_FUNC`
const FUNCTION: u32 = 12;

/// Returns the number of a kernel's function, or `None` if the kernel has no BTF.
#[track_caller]
pub fn function(name: &str) -> Option<u32> {
    let btf = fs::read(VMLINUX).ok()?;
    Some(find(&btf, name).unwrap_or_else(|| panic!("BTF has no function {name}")))
}

/// Returns the number of a function.
fn find(btf: &[u8], name: &str) -> Option<u32> {
    let word = |at: usize| {
        let bytes = btf.get(at..at + 4)?;
        Some(u32::from_ne_bytes(bytes.try_into().ok()?))
    };
    let place = |at: usize| word(at).map(|word| word as usize);
    // `struct btf_header`: magic, version, flags, length of the header, then places and lengths.
    let header = place(4)?;
    let (types, length) = (header + place(8)?, place(12)?);
    let strings = header + place(16)?;
    let is_name = |at: usize| {
        let text = btf.get(strings + at..)?;
        let rest = text.strip_prefix(name.as_bytes())?;
        rest.first().filter(|byte| **byte == 0)
    };
    let mut at = types;
    // The type 0 is void, and is not in the list.
    for number in 1.. {
        if at >= types + length {
            return None;
        }
        let info = word(at + 4)?;
        let (kind, members) = ((info >> 24) & 0x1f, (info & 0xffff) as usize);
        if kind == FUNCTION && is_name(place(at)?).is_some() {
            return Some(number);
        }
        at += TYPE + following(kind, members);
    }
    None
}

/// The bytes behind a type of this kind.
fn following(kind: u32, members: usize) -> usize {
    match kind {
        // Integers, variables, tags of declarations.
        1 | 14 | 17 => 4,
        // Arrays.
        3 => 12,
        // Structures, unions, sections, enumerations of 64 bits.
        4 | 5 | 15 | 19 => 12 * members,
        // Enumerations, prototypes.
        6 | 13 => 8 * members,
        _ => 0,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn functions_are_found_behind_other_types() {
        let words = |words: &[u32]| -> Vec<u8> {
            words.iter().flat_map(|word| word.to_ne_bytes()).collect()
        };
        let strings = b"\0int\0inet_getname\0inet_getname_of\0";
        let (int, short, long) = (1, 5, 18);
        let types = words(&[
            // An integer, a prototype with one argument, and two functions.
            int,
            1 << 24,
            4,
            0,
            0,
            (13 << 24) | 1,
            1,
            0,
            1,
            long,
            12 << 24,
            2,
            short,
            12 << 24,
            2,
        ]);
        let header = words(&[
            0x0001_eb9f,
            24,
            0,
            types.len() as u32,
            types.len() as u32,
            strings.len() as u32,
        ]);
        let btf = [&header[..], &types, strings].concat();
        assert_eq!(find(&btf, "inet_getname"), Some(4));
        assert_eq!(find(&btf, "inet_getname_of"), Some(3));
        assert_eq!(find(&btf, "int"), None);
    }
}
