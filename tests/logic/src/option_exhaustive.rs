// SPDX-License-Identifier: GPL-2.0

//! Every option list of some families: both parsers must read each of them alike. A family has all
//! lists that consist of NOPs, of options of a known and of an unknown kind with the lengths of
//! [`LENGTHS`], and of one way to end: the end of the area, the end of the list with any option behind
//! it, or a truncated option.
//!
//! `TOA_EXHAUSTIVE=1` takes the families up to the 40 bytes of a TCP header, in some minutes with
//! `cargo test --release`.

use crate::find_client;
use crate::lists::KIND;
use crate::reference;

/// A kind without a rule.
const UNKNOWN: u8 = 77;

/// Around the lengths without data, of an IPv4 client and of an IPv6 client.
const LENGTHS: &[u8] = &[2, 6, 7, 8, 9, 18, 19, 20, 21];

/// Lists of one family.
struct Family {
    /// The length of the longest list, in bytes.
    longest: usize,
    nops: bool,
    lengths: &'static [u8],
    compared: u64,
    clients: u64,
}

impl Family {
    fn new(longest: usize, nops: bool, lengths: &'static [u8]) -> Self {
        Self {
            longest,
            nops,
            lengths,
            compared: 0,
            clients: 0,
        }
    }

    /// Compares all lists that begin with `list`.
    fn walk(&mut self, list: &mut Vec<u8>) {
        self.compare(list);
        let length = list.len();
        let left = self.longest - length;
        if left == 0 {
            return;
        }
        self.endings(list);
        if self.nops {
            list.push(1);
            self.walk(list);
            list.truncate(length);
        }
        for kind in [KIND, UNKNOWN] {
            for &option in self.lengths {
                if usize::from(option) <= left {
                    push_option(list, kind, option);
                    self.walk(list);
                    list.truncate(length);
                }
            }
        }
    }

    /// Compares `list` with each way to end behind it.
    fn endings(&mut self, list: &mut Vec<u8>) {
        let length = list.len();
        list.push(0);
        self.compare(list);
        push_option(list, KIND, 8);
        self.compare(list);
        list.truncate(length);
        for kind in [KIND, UNKNOWN] {
            list.push(kind);
            self.compare(list);
            let past_the_end = u8::try_from(self.longest - length + 1).expect("a length");
            for claimed in [0, 1, past_the_end, u8::MAX] {
                list.push(claimed);
                list.resize(self.longest.max(length + 2), 64);
                self.compare(list);
                list.truncate(length + 1);
            }
            list.truncate(length);
        }
    }

    fn compare(&mut self, list: &[u8]) {
        let read = find_client(list);
        assert_eq!(read, reference::find_client(list), "{list:?}");
        self.compared += 1;
        self.clients += u64::from(read.claim.is_some());
    }
}

/// Adds an option whose data are a client that depends on the option's place.
fn push_option(list: &mut Vec<u8>, kind: u8, length: u8) {
    let place = u8::try_from(list.len()).expect("a header's length");
    list.extend([kind, length]);
    list.extend((2..length).map(|at| 64 + place % 32 + at));
}

/// Walks families up to these lengths: of all lists, of those without NOPs, of those without options
/// that have no data.
fn compare_families([all, without_nops, without_empty]: [usize; 3]) {
    let families = [
        Family::new(all, true, LENGTHS),
        Family::new(without_nops, false, LENGTHS),
        Family::new(without_empty, true, &LENGTHS[1..]),
    ];
    for mut family in families {
        family.walk(&mut Vec::new());
        println!(
            "up to {} bytes: {} lists, {} with a client",
            family.longest, family.compared, family.clients
        );
        assert!(family.clients > 0 && family.clients < family.compared);
    }
}

#[test]
fn both_parsers_read_every_list_alike() {
    match std::env::var_os("TOA_EXHAUSTIVE") {
        Some(_) => compare_families([22, 40, 40]),
        None => compare_families([14, 26, 24]),
    }
}
