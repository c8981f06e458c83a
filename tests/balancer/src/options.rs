// SPDX-License-Identifier: GPL-2.0

//! The option list of a TCP header, as bytes (RFC 9293 §3.1, RFC 2018, RFC 7323).

use std::iter;
use std::ops::Range;

use arrayvec::ArrayVec;
use etherparse::tcp_option::KIND_END;
use etherparse::tcp_option::KIND_MAXIMUM_SEGMENT_SIZE;
use etherparse::tcp_option::KIND_NOOP;
use etherparse::tcp_option::KIND_SELECTIVE_ACK;
use etherparse::tcp_option::KIND_TIMESTAMP;
use etherparse::tcp_option::LEN_MAXIMUM_SEGMENT_SIZE;
use etherparse::tcp_option::LEN_TIMESTAMP;

/// RFC 9293: the data offset has four bits, the fixed header is five words.
pub const MAX_LEN: usize = 40;

/// The options that fit into one header.
pub type Options = ArrayVec<u8, MAX_LEN>;

/// Returns the ranges of the options with a length, up to the list's end or the first
/// option with an impossible length.
fn ranges(options: &[u8]) -> impl Iterator<Item = Range<usize>> + '_ {
    let mut at = 0;
    iter::from_fn(move || {
        while *options.get(at)? == KIND_NOOP {
            at += 1;
        }
        let length = usize::from(*options.get(at + 1)?);
        let range = at..at + length;
        if options[at] == KIND_END || length < 2 || range.end > options.len() {
            return None;
        }
        at = range.end;
        Some(range)
    })
}

/// Returns the range of the first option of that kind with the right length.
fn find(options: &[u8], kind: u8, right_length: impl Fn(usize) -> bool) -> Option<Range<usize>> {
    ranges(options).find(|range| options[range.start] == kind && right_length(range.len()))
}

/// Replaces the timestamps option by NOPs.
pub fn remove_timestamps(options: &mut [u8]) {
    let timestamps = find(options, KIND_TIMESTAMP, |length| {
        length == usize::from(LEN_TIMESTAMP)
    });
    if let Some(range) = timestamps {
        options[range].fill(KIND_NOOP);
    }
}

/// Lowers the maximum segment size by `by`.
pub fn lower_mss(options: &mut [u8], by: u16) {
    let mss = find(options, KIND_MAXIMUM_SEGMENT_SIZE, |length| {
        length == usize::from(LEN_MAXIMUM_SEGMENT_SIZE)
    });
    if let Some(range) = mss {
        let value = &mut options[range][2..];
        let lowered = u16::from_be_bytes([value[0], value[1]]).saturating_sub(by);
        value.copy_from_slice(&lowered.to_be_bytes());
    }
}

/// Shifts the edges of all SACK blocks back.
pub fn shift_sack_back(options: &mut [u8], by: u32) {
    let blocks = find(options, KIND_SELECTIVE_ACK, |length| {
        length >= 10 && (length - 2) % 8 == 0
    });
    if let Some(range) = blocks {
        for edge in options[range][2..].chunks_exact_mut(4) {
            let shifted = u32::from_be_bytes([edge[0], edge[1], edge[2], edge[3]]).wrapping_sub(by);
            edge.copy_from_slice(&shifted.to_be_bytes());
        }
    }
}

/// Returns the options that DPVS leaves in a segment (not a SYN) to free `needed`
/// bytes, padded to a multiple of 4. NOPs and options of that `kind` are always cut.
/// Other options are cut from the first on until the room suffices. One timestamps
/// option stays. The freed room may be more or less than `needed`.
pub fn prune(own: &[u8], needed: usize, kind: u8) -> Options {
    if own.len() < needed {
        return own.iter().copied().collect();
    }
    let candidates = || ranges(own).filter(|range| own[range.start] != kind);
    let mut freed = own.len() - candidates().map(|range| range.len()).sum::<usize>();
    let mut timestamps_seen = false;
    let mut left = Options::new();
    for range in candidates() {
        let protected = own[range.start] == KIND_TIMESTAMP
            && range.len() <= usize::from(LEN_TIMESTAMP)
            && !timestamps_seen;
        timestamps_seen |= protected;
        if freed < needed && !protected {
            freed += range.len();
        } else {
            left.extend(own[range].iter().copied());
        }
    }
    pad(&mut left, KIND_END);
    left
}

/// Pads the options to whole 32-bit words.
pub fn pad(options: &mut Options, with: u8) {
    while options.len() % 4 != 0 {
        options.push(with);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SACK_ONE_BLOCK: [u8; 12] = [1, 1, 5, 10, 0, 0, 0, 5, 0, 0, 0, 9];
    const TIMESTAMPS: [u8; 12] = [1, 1, 8, 10, 1, 2, 3, 4, 5, 6, 7, 8];

    #[test]
    fn timestamps_become_nops_and_the_rest_stays() {
        let mut options = [
            2, 4, 5, 180, 4, 2, 8, 10, 1, 2, 3, 4, 5, 6, 7, 8, 1, 3, 3, 7,
        ];
        remove_timestamps(&mut options);
        assert_eq!(
            options,
            [2, 4, 5, 180, 4, 2, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 3, 3, 7]
        );
    }

    #[test]
    fn timestamps_behind_the_end_of_the_list_stay() {
        let mut options = [0, 0, 8, 10, 1, 2, 3, 4, 5, 6, 7, 8];
        let before = options;
        remove_timestamps(&mut options);
        assert_eq!(options, before);
    }

    #[test]
    fn mss_is_lowered_but_not_below_zero() {
        let mut options = [1, 1, 2, 4, 0x05, 0xb4, 0, 0];
        lower_mss(&mut options, 20);
        assert_eq!(options, [1, 1, 2, 4, 0x05, 0xa0, 0, 0]);
        lower_mss(&mut options, 2000);
        assert_eq!(options, [1, 1, 2, 4, 0, 0, 0, 0]);
    }

    #[test]
    fn sack_edges_shift_around_zero() {
        let mut options = SACK_ONE_BLOCK;
        shift_sack_back(&mut options, 7);
        assert_eq!(options, [1, 1, 5, 10, 0xff, 0xff, 0xff, 0xfe, 0, 0, 0, 2]);
    }

    #[test]
    fn sack_with_half_a_block_is_left_alone() {
        let mut options = [1, 1, 5, 6, 0, 0, 0, 5];
        shift_sack_back(&mut options, 7);
        assert_eq!(options, [1, 1, 5, 6, 0, 0, 0, 5]);
    }

    #[test]
    fn lists_that_end_early_are_walked_no_further_than_that() {
        for options in [
            &[5][..],
            &[1, 1, 1, 5],
            &[5, 0, 8, 2],
            &[5, 1],
            &[5, 11, 0, 0],
            &[0, 2, 5, 2],
        ] {
            assert_eq!(ranges(options).count(), 0, "{options:?}");
        }
    }

    #[test]
    fn prune_drops_nops_and_a_forged_option_first() {
        let own = [1, 254, 8, 0, 1, 2, 3, 4, 5, 1, 77, 2];
        assert_eq!(prune(&own, 8, 254)[..], [77, 2, 0, 0]);
    }

    #[test]
    fn prune_drops_sack_but_not_timestamps() {
        let own = [&TIMESTAMPS[..], &SACK_ONE_BLOCK].concat();
        assert_eq!(
            prune(&own, 8, 254)[..],
            [8, 10, 1, 2, 3, 4, 5, 6, 7, 8, 0, 0]
        );
    }

    #[test]
    fn prune_does_no_more_than_is_needed() {
        let own = [&SACK_ONE_BLOCK[..], &[77, 4, 1, 2]].concat();
        assert_eq!(prune(&own, 8, 254)[..], [77, 4, 1, 2]);
    }

    #[test]
    fn prune_keeps_only_the_first_timestamps() {
        let own = [&TIMESTAMPS[..], &TIMESTAMPS].concat();
        assert_eq!(
            prune(&own, 12, 254)[..],
            [8, 10, 1, 2, 3, 4, 5, 6, 7, 8, 0, 0]
        );
    }

    #[test]
    fn prune_that_could_never_be_enough_is_not_begun() {
        assert_eq!(prune(&SACK_ONE_BLOCK, 20, 254)[..], SACK_ONE_BLOCK);
    }
}
