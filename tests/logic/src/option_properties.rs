// SPDX-License-Identifier: GPL-2.0

//! Properties of every option list.

use crate::find_client;
use crate::lists;
use crate::lists::Piece;
use crate::lists::KIND;
use crate::option::first_client;
use crate::option::Claim;
use crate::option::ParsedOptions;
use crate::reference;
use etherparse::TcpOptionReadError;
use etherparse::TcpOptionsIterator;
use proptest::collection::vec;
use proptest::prelude::*;

/// Returns the options of our kind in a list of whole options, while etherparse walks
/// over all others. Returns its error if the list is malformed.
fn ours_by_etherparse(list: &[u8]) -> Result<Vec<&[u8]>, TcpOptionReadError> {
    let mut ours = Vec::new();
    let mut walk = TcpOptionsIterator::from_slice(list);
    loop {
        let here = walk.rest();
        match walk.next() {
            None => return Ok(ours),
            Some(Ok(_)) => {}
            // etherparse reports an option of our kind by its kind alone.
            Some(Err(TcpOptionReadError::UnknownId(KIND))) => {
                let (option, rest) = here.split_at(usize::from(here[1]));
                ours.push(option);
                walk = TcpOptionsIterator::from_slice(rest);
            }
            Some(Err(error)) => return Err(error),
        }
    }
}

proptest! {
    #[test]
    fn any_bytes_are_read_as_the_reference_reads_them(list in lists::bytes()) {
        prop_assert_eq!(find_client(&list), reference::find_client(&list));
    }

    #[test]
    fn well_known_options_are_walked_as_etherparse_walks_them(
        pieces in vec(prop_oneof![4 => lists::well_known(), 1 => lists::of_the_kind()], 0..8),
    ) {
        let list = pieces.concat();
        let ours = ours_by_etherparse(&list).unwrap();
        let claim = ours.first().and_then(|first| find_client(first).claim);
        prop_assert_eq!(
            find_client(&list),
            ParsedOptions {
                claim,
                duplicate: ours.len() > 1,
                malformed: claim.is_none() && !ours.is_empty(),
            }
        );
    }

    #[test]
    fn bytes_behind_the_header_say_nothing(
        list in lists::bytes(),
        one in lists::bytes(),
        other in lists::bytes(),
    ) {
        let one = [&list[..], &one].concat();
        let other = [&list[..], &other].concat();
        prop_assert_eq!(find_client(&one[..list.len()]), find_client(&list));
        prop_assert_eq!(find_client(&other[..list.len()]), find_client(&list));
    }

    #[test]
    fn bytes_after_the_end_of_the_list_say_nothing(
        pieces in lists::well_formed(),
        rest in lists::bytes(),
    ) {
        let list = pieces.concat();
        let longer = [&list[..], &[0], &rest].concat();
        prop_assert_eq!(find_client(&longer), find_client(&list));
    }

    #[test]
    fn a_written_client_is_read_back_wherever_it_stands(
        before in lists::others(),
        (client, option) in lists::client(),
        after in lists::others(),
    ) {
        let list = [before.concat(), option, after.concat()].concat();
        let expected = ParsedOptions { claim: Some(Claim::Client(client)), ..ParsedOptions::default() };
        prop_assert_eq!(find_client(&list), expected);
    }

    #[test]
    fn a_client_in_front_is_read_whatever_follows(
        (client, option) in lists::client(),
        rest in lists::bytes(),
    ) {
        prop_assert_eq!(find_client(&[option, rest].concat()).claim, Some(Claim::Client(client)));
    }

    #[test]
    fn the_short_way_takes_a_client_alone_or_before_timestamps(
        (client, option) in lists::client(),
        times in any::<[u8; 8]>(),
        byte in any::<u8>(),
        place in 0..12_usize,
    ) {
        let timestamps = [&[1, 1, 8, 10][..], &times].concat();
        let behind = |rest: &[u8]| first_client(&[&option[..], rest].concat());
        prop_assert_eq!(behind(&[]), Some(Claim::Client(client)));
        prop_assert_eq!(behind(&timestamps), Some(Claim::Client(client)));
        // Another list is for the parser.
        prop_assert_eq!(behind(&timestamps[..place]), match place {
            0 => Some(Claim::Client(client)),
            _ => None,
        });
        prop_assert_eq!(behind(&[&timestamps[..], &[byte]].concat()), None);
        let mut other = timestamps;
        other[place] = byte;
        let same = place > 3 || byte == [1, 1, 8, 10][place];
        prop_assert_eq!(behind(&other).is_some(), same);
    }

    #[test]
    fn the_second_client_never_wins(
        before in lists::others(),
        (client, first) in lists::client(),
        between in lists::others(),
        second in lists::of_the_kind(),
        after in lists::well_formed(),
    ) {
        let list = [before.concat(), first, between.concat(), second, after.concat()].concat();
        let expected = ParsedOptions {
            claim: Some(Claim::Client(client)),
            duplicate: true,
            malformed: false,
        };
        prop_assert_eq!(find_client(&list), expected);
    }

    #[test]
    fn a_client_behind_one_that_is_no_address_never_wins(
        before in lists::others(),
        first in lists::no_address(),
        between in lists::others(),
        (_, second) in lists::client(),
        after in lists::well_formed(),
    ) {
        let list = [before.concat(), first, between.concat(), second, after.concat()].concat();
        let expected = ParsedOptions { claim: None, duplicate: true, malformed: true };
        prop_assert_eq!(find_client(&list), expected);
    }

    #[test]
    fn an_impossible_client_is_never_one_wherever_it_stands(
        before in lists::others(),
        option in lists::impossible(),
        after in lists::others(),
    ) {
        let list = [before.concat(), option, after.concat()].concat();
        let expected = ParsedOptions { claim: Some(Claim::Impossible), ..ParsedOptions::default() };
        prop_assert_eq!(find_client(&list), expected);
    }

    #[test]
    fn a_client_behind_an_impossible_one_never_wins(
        before in lists::others(),
        first in lists::impossible(),
        between in lists::others(),
        (_, second) in lists::client(),
        after in lists::others(),
    ) {
        let list = [before.concat(), first, between.concat(), second, after.concat()].concat();
        let expected = ParsedOptions {
            claim: Some(Claim::Impossible),
            duplicate: true,
            malformed: false,
        };
        prop_assert_eq!(find_client(&list), expected);
    }

    #[test]
    fn whatever_is_read_is_a_possible_source(list in lists::bytes()) {
        if let Some(Claim::Client(client)) = find_client(&list).claim {
            prop_assert!(client.is_possible_source(), "{client:?}");
        }
    }

    #[test]
    fn lists_without_our_kind_say_nothing(pieces in lists::others()) {
        prop_assert_eq!(find_client(&pieces.concat()), ParsedOptions::default());
    }

    #[test]
    fn nops_between_options_change_nothing(
        pieces in lists::well_formed(),
        nops in vec(0..4_usize, 16),
    ) {
        let padded: Vec<Piece> = pieces
            .iter()
            .zip(nops.iter().cycle())
            .map(|(piece, &nops)| [&vec![1; nops], &piece[..]].concat())
            .collect();
        prop_assert_eq!(find_client(&padded.concat()), find_client(&pieces.concat()));
    }

    #[test]
    fn a_list_that_is_cut_says_what_its_whole_options_say(
        pieces in lists::well_formed(),
        cut: prop::sample::Index,
    ) {
        let list = pieces.concat();
        let length = cut.index(list.len() + 1);
        let mut whole = 0;
        for piece in &pieces {
            if whole + piece.len() > length {
                break;
            }
            whole += piece.len();
        }
        let mut expected = find_client(&list[..whole]);
        expected.malformed |= whole < length;
        prop_assert_eq!(find_client(&list[..length]), expected);
    }
}
