// SPDX-License-Identifier: GPL-2.0

//! Tests of the option on the wire, case by case.

use crate::endpoint::Endpoint;
use crate::find_client;
use crate::kinds;
use crate::lists;
use crate::lists::option;
use crate::lists::KIND;
use crate::option::has_room;
use crate::option::is_aligned_timestamp;
use crate::option::Claim;
use crate::option::ParsedOptions;
use crate::reference;
use std::fs;
use std::net::IpAddr;
use std::net::Ipv6Addr;

/// The option for 192.0.2.1, port 12345 (0x3039).
const V4: [u8; 8] = [254, 8, 0x30, 0x39, 192, 0, 2, 1];

/// The option for 2001:db8::1, port 258 (0x0102).
const V6: [u8; 20] = [
    254, 20, 1, 2, 0x20, 0x01, 0x0d, 0xb8, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1,
];

const TIMESTAMPS: [u8; 10] = [8, 10, 1, 2, 3, 4, 254, 8, 7, 8];

const NOTHING: ParsedOptions = ParsedOptions {
    claim: None,
    duplicate: false,
    malformed: false,
};

const MALFORMED: ParsedOptions = ParsedOptions {
    malformed: true,
    ..NOTHING
};

/// Looks for a client's option that the default rules leave out.
fn has_other_kind(list: &[u8]) -> bool {
    crate::option::has_other_kind(list, &kinds::Default)
}

fn endpoint(address: &str, port: u16) -> Endpoint {
    Endpoint::new(address.parse().unwrap(), port)
}

/// Returns the client in a list that carries one.
#[track_caller]
fn client(list: &[u8]) -> Endpoint {
    match find_client(list).claim {
        Some(Claim::Client(client)) => client,
        other => panic!("{list:?} parses to {other:?}"),
    }
}

/// Our option in each of its two forms, and its content.
fn both() -> [(Vec<u8>, ParsedOptions); 2] {
    let says = |address, port| ParsedOptions {
        claim: Some(Claim::Client(endpoint(address, port))),
        ..NOTHING
    };
    [
        (V4.to_vec(), says("::ffff:192.0.2.1", 12345)),
        (V6.to_vec(), says("2001:db8::1", 258)),
    ]
}

/// Asserts that each form is found between `before` and `after`.
#[track_caller]
fn found_between(before: &[u8], after: &[u8]) {
    for (ours, expected) in both() {
        let list = [before, &ours, after].concat();
        assert_eq!(find_client(&list), expected, "{list:?}");
    }
}

#[track_caller]
fn finds(expected: ParsedOptions, pieces: &[&[u8]]) {
    let list = pieces.concat();
    assert_eq!(find_client(&list), expected, "{list:?}");
}

#[test]
fn option_of_8_bytes_is_an_ipv4_client() {
    let client = client(&V4);
    assert_eq!(client.address_v4(), Some([192, 0, 2, 1].into()));
    assert_eq!(client.port(), 12345);
}

#[test]
fn option_of_20_bytes_is_an_ipv6_client() {
    let client = client(&V6);
    assert_eq!(
        client.address(),
        Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 1)
    );
    assert_eq!(client.address_v4(), None);
    assert_eq!(client.port(), 258);
}

#[test]
fn port_is_big_endian() {
    for (bytes, port) in [([0, 1], 1), ([1, 0], 256), ([0xff, 0xfe], 0xfffe)] {
        let mut v4 = V4;
        let mut v6 = V6;
        v4[2..4].copy_from_slice(&bytes);
        v6[2..4].copy_from_slice(&bytes);
        assert_eq!(client(&v4).port(), port);
        assert_eq!(client(&v6).port(), port);
    }
}

#[test]
fn each_byte_of_the_address_is_kept_in_its_place() {
    let address: Vec<u8> = (0xa0..0xb0).collect();
    let v6 = client(&option(KIND, &[&[0, 80][..], &address].concat()));
    assert_eq!(v6.address().octets()[..], address);

    let v4 = client(&[254, 8, 0, 80, 1, 2, 3, 4]);
    assert_eq!(v4.address_v4(), Some([1, 2, 3, 4].into()));
}

#[test]
fn option_is_found_alone() {
    found_between(&[], &[]);
}

#[test]
fn option_is_found_first() {
    found_between(&[], &[1, 1]);
    found_between(&[], &TIMESTAMPS);
    found_between(&[], &[0]);
}

#[test]
fn option_is_found_last() {
    found_between(&TIMESTAMPS, &[]);
    found_between(&[2, 4, 5, 180, 4, 2], &[]);
}

#[test]
fn option_is_found_in_the_midst() {
    found_between(&TIMESTAMPS, &[5, 10, 0, 0, 0, 1, 0, 0, 0, 2]);
}

#[test]
fn option_is_found_unaligned() {
    found_between(&[1], &[]);
    found_between(&[1, 1], &[]);
    found_between(&[1, 1, 1], &[]);
    found_between(&[3, 3, 7], &[1]);
}

#[test]
fn option_is_found_after_unknown_ones() {
    found_between(&[77, 2], &[]);
    found_between(&[255, 3, 254], &[]);
    found_between(&[76, 6, 1, 0, 254, 8], &[]);
}

#[test]
fn option_is_found_up_to_the_last_place_of_a_full_header() {
    for (ours, expected) in both() {
        for before in 0..=40 - ours.len() {
            let mut list = vec![1; 40];
            list[before..][..ours.len()].copy_from_slice(&ours);
            assert_eq!(find_client(&list), expected, "{list:?}");
        }
    }
}

#[test]
fn option_is_found_behind_as_many_others_as_a_header_holds() {
    for (ours, mut expected) in both() {
        let others = [77, 2].repeat((40 - ours.len()) / 2);
        finds(expected, &[&others, &ours]);

        let others = [77, 2].repeat((40 - ours.len() - V4.len()) / 2);
        expected.duplicate = true;
        finds(expected, &[&ours, &others, &V4]);
    }
}

const IMPOSSIBLE: ParsedOptions = ParsedOptions {
    claim: Some(Claim::Impossible),
    ..NOTHING
};

/// Returns the option that carries the address and port 80.
fn of_address(address: &str) -> Vec<u8> {
    match address.parse().unwrap() {
        IpAddr::V4(v4) => lists::written_v4(v4, 80),
        IpAddr::V6(v6) => lists::written_v6(v6, 80),
    }
}

/// Checks each range that no segment comes from, at its first and last address.
#[test]
fn addresses_that_no_segment_comes_from_are_impossible() {
    for address in [
        "0.0.0.0",
        "0.0.0.1",
        "0.255.255.255",
        "127.0.0.0",
        "127.0.0.1",
        "127.255.255.255",
        "224.0.0.0",
        "239.255.255.255",
        "255.255.255.255",
        "::",
        "::1",
        "::2",
        "::127.0.0.1",
        "::192.0.2.1",
        "::255.255.255.255",
        "::ffff:0.0.0.0",
        "::ffff:127.0.0.1",
        "::ffff:192.0.2.1",
        "::ffff:255.255.255.255",
        "ff00::",
        "ff02::1",
        "ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff",
    ] {
        finds(IMPOSSIBLE, &[&of_address(address)]);
    }
}

/// Checks the neighbours of these ranges, and the addresses of private networks.
#[test]
fn all_other_addresses_are_clients() {
    for address in [
        "1.0.0.0",
        "10.0.0.1",
        "100.64.0.1",
        "126.255.255.255",
        "128.0.0.0",
        "169.254.0.1",
        "172.16.0.1",
        "192.168.0.1",
        "223.255.255.255",
        "240.0.0.0",
        "255.255.255.254",
        "::1:0:0",
        "::fffe:192.0.2.1",
        "::1:0:0:0",
        "64:ff9b::127.0.0.1",
        "2002:7f00:1::1",
        "fc00::1",
        "fe80::1",
        "feff:ffff:ffff:ffff:ffff:ffff:ffff:ffff",
    ] {
        let expected = match address.parse().unwrap() {
            IpAddr::V4(v4) => Endpoint::from_v4(v4, 80),
            IpAddr::V6(v6) => Endpoint::new(v6, 80),
        };
        assert_eq!(client(&of_address(address)), expected);
    }
}

#[test]
fn port_zero_is_impossible_and_every_other_port_is_not() {
    for (mut list, _) in both() {
        for port in 0..=u16::MAX {
            list[2..4].copy_from_slice(&port.to_be_bytes());
            let impossible = find_client(&list).claim == Some(Claim::Impossible);
            assert_eq!(impossible, port == 0, "port {port}");
        }
    }
}

#[test]
fn an_impossible_client_in_front_decides() {
    let loopback = of_address("127.0.0.1");
    for (ours, _) in both() {
        let expected = ParsedOptions {
            duplicate: true,
            ..IMPOSSIBLE
        };
        finds(expected, &[&loopback, &ours]);
        finds(expected, &[&of_address("::1"), &ours]);
    }
    let cut = ParsedOptions {
        malformed: true,
        ..IMPOSSIBLE
    };
    finds(cut, &[&loopback, &[2]]);
}

#[test]
fn an_impossible_client_behind_is_a_duplicate() {
    for (ours, mut expected) in both() {
        expected.duplicate = true;
        finds(expected, &[&ours, &of_address("127.0.0.1")]);
    }
}

#[test]
fn our_bytes_inside_another_option_are_its_data() {
    for (ours, _) in both() {
        finds(NOTHING, &[&option(77, &ours)]);
    }
}

#[test]
fn empty_list_says_nothing() {
    finds(NOTHING, &[]);
    assert_eq!(ParsedOptions::default(), NOTHING);
}

#[test]
fn nops_say_nothing() {
    for length in 1..=40 {
        finds(NOTHING, &[&vec![1; length]]);
    }
}

#[test]
fn list_stops_at_its_end() {
    for (ours, _) in both() {
        finds(NOTHING, &[&[0], &ours]);
        finds(NOTHING, &[&TIMESTAMPS, &[0], &ours]);
        finds(NOTHING, &[&[1, 0, 1], &ours]);
    }
}

#[test]
fn aligned_timestamps_alone_carry_no_client_and_leave_room_for_one() {
    let list = [1, 1, 8, 10, 254, 8, 0, 80, 192, 0, 2, 1];
    assert!(is_aligned_timestamp(&list));
    finds(NOTHING, &[&list]);
    assert!(!has_other_kind(&list));
    for is_ipv6 in [false, true] {
        assert!(has_room(&list, is_ipv6));
    }
    for other in [&list[..11], &[&list[..], &[0]].concat(), &[1; 12]] {
        assert!(!is_aligned_timestamp(other));
    }
}

#[test]
fn what_follows_the_end_of_the_list_is_not_malformed() {
    for rest in [&[254][..], &[254, 0], &[254, 3, 0], &[2, 40], &[0]] {
        finds(NOTHING, &[&[0], rest]);
        found_between(&[], &[&[0], rest].concat());
    }
}

#[test]
fn length_under_2_breaks_the_list_off() {
    for kind in 2..=u8::MAX {
        for length in [0, 1] {
            finds(MALFORMED, &[&[kind, length]]);
            finds(MALFORMED, &[&[kind, length], &V4]);
            finds(MALFORMED, &[&[1, kind, length], &V6]);
        }
    }
}

#[test]
fn length_past_the_end_breaks_the_list_off() {
    for kind in 2..=u8::MAX {
        for length in 3..=u8::MAX {
            finds(MALFORMED, &[&[kind, length]]);
            finds(
                MALFORMED,
                &[&[kind, length], &vec![1; usize::from(length) - 3]],
            );
        }
    }
}

#[test]
fn kind_without_its_length_breaks_the_list_off() {
    for kind in 2..=u8::MAX {
        finds(MALFORMED, &[&[kind]]);
        finds(MALFORMED, &[&[1, 1, kind]]);
        finds(MALFORMED, &[&TIMESTAMPS, &[kind]]);
    }
}

#[test]
fn our_option_cut_anywhere_is_no_client() {
    for (ours, _) in both() {
        for length in 1..ours.len() {
            finds(MALFORMED, &[&ours[..length]]);
            finds(MALFORMED, &[&TIMESTAMPS, &ours[..length]]);
        }
    }
}

#[test]
fn client_that_stands_before_the_list_breaks_off_counts() {
    for (ours, mut expected) in both() {
        expected.malformed = true;
        finds(expected, &[&ours, &[2]]);
        finds(expected, &[&ours, &[2, 0, 5, 180]]);
        finds(expected, &[&ours, &[1, 8, 10, 0]]);
    }
}

#[test]
fn second_option_that_is_cut_is_no_duplicate() {
    for (ours, mut expected) in both() {
        expected.malformed = true;
        finds(expected, &[&ours, &V4[..7]]);
        finds(expected, &[&ours, &V6[..19]]);
    }
}

#[test]
fn option_of_every_other_length_is_malformed() {
    for length in (2..=38).filter(|length| ![8, 20].contains(length)) {
        let list = option(KIND, &vec![7; length - 2]);
        finds(MALFORMED, &[&list]);
        finds(MALFORMED, &[&[1, 1], &list]);
        finds(MALFORMED, &[&list, &TIMESTAMPS]);
    }
}

#[test]
fn first_option_decides_even_if_it_is_no_address() {
    let expected = ParsedOptions {
        claim: None,
        duplicate: true,
        malformed: true,
    };
    for (ours, _) in both() {
        finds(expected, &[&[254, 2], &ours]);
        finds(expected, &[&[254, 7, 0, 80, 1, 2, 3], &ours]);
        finds(expected, &[&[254, 4, 0, 80], &TIMESTAMPS, &ours]);
    }
}

#[test]
fn second_option_never_wins() {
    for (first, mut expected) in both() {
        expected.duplicate = true;
        for (second, _) in both() {
            finds(expected, &[&first, &second]);
            finds(expected, &[&first, &TIMESTAMPS, &second]);
        }
        finds(expected, &[&first, &first]);
    }
}

#[test]
fn second_option_that_is_no_address_is_a_duplicate_and_not_malformed() {
    for (first, mut expected) in both() {
        expected.duplicate = true;
        finds(expected, &[&first, &[254, 2]]);
        finds(expected, &[&first, &[254, 9, 0, 80, 1, 2, 3, 4, 5]]);
    }
}

#[test]
fn third_option_changes_nothing() {
    let [(first, mut expected), (second, _)] = both();
    expected.duplicate = true;
    finds(expected, &[&first, &second, &first]);
}

#[test]
fn options_of_other_vendors_are_not_ours() {
    // Clients and virtual servers under the kinds that other balancers use, and the
    // two without a port.
    let kinds_and_lengths = [
        (200, 8),
        (200, 20),
        (202, 8),
        (250, 8),
        (252, 8),
        (253, 8),
        (253, 20),
        (28, 7),
        (28, 19),
    ];
    for (kind, length) in kinds_and_lengths {
        if reference::has_kind(kind) {
            continue;
        }
        let theirs = option(kind, &vec![1; length - 2]);
        finds(NOTHING, &[&theirs]);
        found_between(&theirs, &[]);
        found_between(&[], &theirs);
    }
}

#[test]
fn no_other_kind_is_ours_at_any_length() {
    for kind in (2..=u8::MAX).filter(|&kind| !reference::has_kind(kind)) {
        for length in 2..=40 {
            finds(NOTHING, &[&option(kind, &vec![254; length - 2])]);
        }
    }
}

/// A kind that some vendor's balancer could write, with each length of a client.
#[test]
fn options_with_a_clients_length_are_of_other_kinds() {
    for kind in [28, 70, 76, 200, 202, 250, 252, 253, 254, 255] {
        for length in 2..=40 {
            let list = option(kind, &vec![254; length - 2]);
            let expected = [6, 7, 8, 18, 19, 20].contains(&length);
            for list in [
                list.clone(),
                [&TIMESTAMPS, &list[..]].concat(),
                [&list[..], &[0]].concat(),
            ] {
                assert_eq!(has_other_kind(&list), expected, "{list:?}");
            }
            assert!(!has_other_kind(&[&[0], &list[..]].concat()), "{list:?}");
        }
    }
}

#[test]
fn options_of_the_standards_are_of_no_other_kind() {
    let others = [28]
        .into_iter()
        .chain(70..=171)
        .chain([173])
        .chain(175..=255);
    let others: Vec<u8> = others.collect();
    for kind in (2..=u8::MAX).filter(|kind| !others.contains(kind)) {
        for length in 2..=40 {
            assert!(
                !has_other_kind(&option(kind, &vec![254; length - 2])),
                "{kind}"
            );
        }
    }
    // What a client's kernel sends in its segments.
    assert!(!has_other_kind(&[&[1, 1], &TIMESTAMPS[..]].concat()));
}

#[test]
fn truncated_option_is_of_no_other_kind() {
    for list in [
        &[253][..],
        &[253, 8],
        &[253, 8, 0, 80, 1, 2, 3],
        &[77, 1, 253, 8],
    ] {
        assert!(!has_other_kind(list), "{list:?}");
    }
}

#[test]
fn header_has_room_for_8_bytes_over_ipv4_and_20_over_ipv6() {
    for length in 0..=40 {
        let list = vec![1; length];
        assert_eq!(has_room(&list, false), length <= 32, "{length}");
        assert_eq!(has_room(&list, true), length <= 20, "{length}");
    }
}

#[test]
fn length_byte_of_255_is_a_length_like_any_other() {
    let longest = option(77, &[254; 253]);
    finds(NOTHING, &[&longest]);
    finds(MALFORMED, &[&longest[..254]]);
    found_between(&longest, &[]);
}

#[test]
fn every_short_list_is_read_as_the_reference_reads_it() {
    const MEANINGFUL: [u8; 5] = [0, 1, 2, 8, KIND];
    for length in 0..=8 {
        let mut digits = vec![0; length];
        loop {
            let list: Vec<u8> = digits.iter().map(|&digit| MEANINGFUL[digit]).collect();
            assert_eq!(
                find_client(&list),
                reference::find_client(&list),
                "{list:?}"
            );
            // Counts up, with one digit for each byte of the list.
            let Some(at) = digits
                .iter()
                .position(|&digit| digit + 1 < MEANINGFUL.len())
            else {
                break;
            };
            digits[..at].fill(0);
            digits[at] += 1;
        }
    }
}

#[test]
fn every_seed_of_the_fuzzer_is_read_as_the_reference_reads_it() {
    let seeds = concat!(env!("CARGO_MANIFEST_DIR"), "/../fuzz/seeds/option");
    let files: Vec<_> = fs::read_dir(seeds).unwrap().collect();
    assert!(!files.is_empty(), "no seeds in {seeds}");
    for file in files {
        let path = file.unwrap().path();
        let list = fs::read(&path).unwrap();
        assert_eq!(
            find_client(&list),
            reference::find_client(&list),
            "{}",
            path.display()
        );
    }
}

#[test]
fn virtual_servers_address_is_of_no_other_kind_if_a_rule_says_so() {
    let rules = kinds::Rules::parse(b"200,202:vip,250/6:vip").expect("rules");
    let other = |list: &[u8]| crate::option::has_other_kind(list, &rules);
    assert!(!other(&option(202, &[1; 6])));
    assert!(other(&option(202, &[1; 18])));
    assert!(!other(&option(250, &[1; 4])));
    assert!(other(&option(250, &[1; 6])));
    assert!(other(&option(253, &[1; 6])));
}
