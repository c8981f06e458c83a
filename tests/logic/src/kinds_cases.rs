// SPDX-License-Identifier: GPL-2.0

//! Tests of the rules by which options count.

use crate::endpoint::Endpoint;
use crate::kinds;
use crate::kinds::Dialect;
use crate::kinds::Kinds;
use crate::kinds::Rules;
use crate::lists;
use crate::lists::option;
use crate::option::find_client;
use crate::option::Claim;
use crate::option::ParsedOptions;
use crate::option::Pick;
use crate::syntax::Class;
use proptest::prelude::*;
use std::net::Ipv4Addr;
use std::net::Ipv6Addr;

#[track_caller]
fn rules(text: &str) -> Rules {
    Rules::parse(text.as_bytes()).expect(text)
}

/// The column and the class of the refusal of a text.
#[track_caller]
fn refused(text: &str) -> (usize, Class) {
    let refusal = Rules::parse(text.as_bytes()).expect_err(text);
    (refusal.column, refusal.class)
}

#[test]
fn rules_are_read_back_with_lengths_and_dialects() {
    let rows = [
        ("254", "254/8:client4,254/20:client6"),
        ("254/8", "254/8:client4"),
        ("254/20", "254/20:client6"),
        ("253/20 254", "253/20:client6,254/8:client4,254/20:client6"),
        ("200:client4-noport", "200/6:client4-noport"),
        (
            "200:client6-noport,200/6:client4-noport",
            "200/18:client6-noport,200/6:client4-noport",
        ),
        ("253/8:vip,253/20", "253/8:vip,253/20:client6"),
        ("202:vip", "202/8:vip"),
        (
            "202/12:vip,202/2:vip,202/40:vip",
            "202/12:vip,202/2:vip,202/40:vip",
        ),
        (
            "6/8,7/8,9/8,255/8",
            "6/8:client4,7/8:client4,9/8:client4,255/8:client4",
        ),
    ];
    for (text, expected) in rows {
        assert_eq!(rules(text).to_string(), expected, "{text}");
        assert_eq!(rules(expected), rules(text), "{text}");
    }
}

#[test]
fn default_rules_are_254_with_both_lengths() {
    assert_eq!(kinds::Default.to_string(), "254/8:client4,254/20:client6");
    for text in ["254", "254/8,254/20", "254:client4 254:client6"] {
        assert!(rules(text).is_default(), "{text}");
    }
    for text in [
        "254/8",
        "253",
        "254,253",
        "254/20,254/8",
        "254/8,254/20:vip",
    ] {
        assert!(!rules(text).is_default(), "{text}");
    }
}

#[test]
fn second_rule_for_a_kind_and_length_is_refused_at_its_column() {
    for text in [
        "254,254",
        "254/8,254/8",
        "254/8,254/8:vip",
        "254/20,254",
        "253:vip,253",
    ] {
        let column = text.find(',').unwrap() + 2;
        assert_eq!(refused(text), (column, Class::Invalid), "{text}");
    }
}

#[test]
fn kinds_of_tcp_itself_are_refused() {
    for kind in 0..=300_u32 {
        let text = kind.to_string();
        let accepted = Rules::parse(text.as_bytes()).is_ok();
        let standard = [0, 1, 2, 3, 4, 5, 8, 19, 29, 30, 34].contains(&kind);
        assert_eq!(accepted, kind <= 255 && !standard, "{kind}");
    }
    for kind in [19, 29] {
        let refusal = Rules::parse(format!("254,{kind}").as_bytes()).unwrap_err();
        assert!(
            refusal.reason.contains("the kernel drops"),
            "{}",
            refusal.reason
        );
        assert_eq!(refusal.column, 5);
    }
}

#[test]
fn wrong_rules_are_refused_with_their_columns() {
    let rows = [
        ("", 1),
        (" , ", 1),
        ("x", 1),
        ("254/", 5),
        ("254/7", 5),
        ("254/1:vip", 5),
        ("254/41:vip", 5),
        ("254/8:client6", 5),
        ("254/20:client4-noport", 5),
        ("254:", 5),
        ("254:client", 5),
        ("254/8:Client4", 7),
        ("254:client4/8", 5),
        ("253,254/8:", 11),
        ("254/8\n253", 5),
        ("/8", 1),
    ];
    for (text, column) in rows {
        assert_eq!(refused(text), (column, Class::Invalid), "{text:?}");
    }
}

#[test]
fn thirty_two_rules_fit_and_one_more_is_too_many() {
    let kinds: Vec<String> = (200..232).map(|kind| format!("{kind}/8")).collect();
    let text = kinds.join(",");
    assert_eq!(rules(&text).iter().count(), 32);
    let text = text + ",240/8";
    assert_eq!(refused(&text), (text.len() - 4, Class::TooLong));
}

const V4: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 1);
const V6: Ipv6Addr = Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 1);

/// An option of each client's dialect with port 258, and its content.
fn written(kind: u8) -> [(&'static str, Vec<u8>, Claim); 4] {
    let port = [1, 2];
    let with_port = |octets: &[u8]| option(kind, &[&port, octets].concat());
    [
        (
            "client4",
            with_port(&V4.octets()),
            Claim::Client(Endpoint::from_v4(V4, 258)),
        ),
        (
            "client6",
            with_port(&V6.octets()),
            Claim::Client(Endpoint::new(V6, 258)),
        ),
        (
            "client4-noport",
            option(kind, &V4.octets()),
            Claim::Address(Endpoint::from_v4(V4, 0)),
        ),
        (
            "client6-noport",
            option(kind, &V6.octets()),
            Claim::Address(Endpoint::new(V6, 0)),
        ),
    ]
}

fn claim(claim: Claim) -> ParsedOptions {
    ParsedOptions {
        claim: Some(claim),
        ..ParsedOptions::default()
    }
}

#[test]
fn each_dialect_is_read_by_its_rule_and_by_no_other() {
    for (name, bytes, content) in written(200) {
        for (other, ..) in written(200) {
            let parsed = find_client(&bytes, &rules(&format!("200:{other}")), Pick::First);
            let malformed = ParsedOptions {
                malformed: true,
                ..ParsedOptions::default()
            };
            let expected = if name == other {
                claim(content)
            } else {
                malformed
            };
            assert_eq!(parsed, expected, "{name} by {other}");
        }
        let parsed = find_client(&bytes, &rules("253"), Pick::First);
        assert_eq!(parsed, ParsedOptions::default(), "{name} of another kind");
    }
}

#[test]
fn impossible_clients_without_ports_are_impossible() {
    let rules = rules("200:client4-noport,200:client6-noport");
    let mapped = V4.to_ipv6_mapped().octets();
    let addresses: [&[u8]; 5] = [&[127, 0, 0, 1], &[0; 4], &[224, 0, 0, 1], &[0; 16], &mapped];
    for address in addresses {
        let parsed = find_client(&option(200, address), &rules, Pick::First);
        assert_eq!(parsed, claim(Claim::Impossible), "{address:?}");
    }
}

#[test]
fn virtual_servers_address_is_never_a_client() {
    let rules = rules("253/8:vip,253/20,250:vip");
    let [(_, vip, _), (_, client, content), ..] = written(253);
    let nothing = ParsedOptions::default();
    assert_eq!(find_client(&vip, &rules, Pick::First), nothing);
    for pick in [Pick::First, Pick::Last] {
        let both = [&vip[..], &client, &vip].concat();
        assert_eq!(find_client(&both, &rules, pick), claim(content));
    }
    // No rule has this length: malformed for a kind that names clients, nothing for another.
    assert!(find_client(&option(253, &[7]), &rules, Pick::First).malformed);
    assert_eq!(
        find_client(&option(250, &[7]), &rules, Pick::First),
        nothing
    );
}

#[test]
fn last_option_counts_if_picked_even_if_it_is_wrong() {
    let [(_, v4, _), (_, v6, content), ..] = written(254);
    let list = [&v4[..], &v6].concat();
    let parsed = find_client(&list, &kinds::Default, Pick::Last);
    let duplicate = ParsedOptions {
        duplicate: true,
        ..claim(content)
    };
    assert_eq!(parsed, duplicate);
    let list = [&v4[..], &option(254, &[7])].concat();
    let parsed = find_client(&list, &kinds::Default, Pick::Last);
    let expected = ParsedOptions {
        claim: None,
        duplicate: true,
        malformed: true,
    };
    assert_eq!(parsed, expected);
    // A wrong option in front does not spoil the last one.
    let list = [&option(254, &[7])[..], &v6].concat();
    assert_eq!(find_client(&list, &kinds::Default, Pick::Last), duplicate);
}

proptest! {
    #[test]
    fn written_default_rules_read_as_the_constant_ones(list in lists::bytes(), last: bool) {
        let pick = if last { Pick::Last } else { Pick::First };
        prop_assert_eq!(
            find_client(&list, &rules("254"), pick),
            find_client(&list, &kinds::Default, pick)
        );
    }

    #[test]
    fn rules_decide_by_kind_and_length_alone(kind: u8, length in 2..=40_usize) {
        let all = rules("253/8:vip,253/20,254,200:client4-noport,6/18:client6-noport");
        let expected = match (kind, length) {
            (253, 8) => Some(Dialect::Vip),
            (253 | 254, 20) => Some(Dialect::Client6),
            (254, 8) => Some(Dialect::Client4),
            (200, 6) => Some(Dialect::Client4NoPort),
            (6, 18) => Some(Dialect::Client6NoPort),
            _ => None,
        };
        prop_assert_eq!(all.dialect(kind, length), expected);
        prop_assert_eq!(all.names_clients(kind), [6, 200, 253, 254].contains(&kind));
    }

    #[test]
    fn any_bytes_are_rules_or_refused_within_them(text in "[0-9:/a-z, -]{0,60}") {
        match Rules::parse(text.as_bytes()) {
            Ok(rules) => prop_assert_eq!(self::rules(&rules.to_string()), rules),
            Err(refusal) => prop_assert!((1..=text.len() + 2).contains(&refusal.column)),
        }
    }
}
