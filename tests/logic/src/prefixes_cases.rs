// SPDX-License-Identifier: GPL-2.0

//! Tests of the sets of trusted prefixes.

use crate::prefixes;
use crate::prefixes::Address;
use crate::prefixes::Family;
use crate::prefixes::Merged;
use crate::prefixes::Range;
use crate::prefixes::Set;
use crate::prefixes::Text;
use crate::syntax::Class;
use crate::syntax::Refusal;
use proptest::collection::vec;
use proptest::prelude::*;
use std::net::IpAddr;
use std::net::Ipv4Addr;
use std::net::Ipv6Addr;

/// A set in memory of the test, made as the module makes it.
#[derive(Debug, Default)]
struct Owned {
    v4: Vec<Range>,
    v6: Vec<Range>,
}

impl Owned {
    fn parse(text: &str) -> Result<Self, Refusal> {
        let (mut v4, mut v6) = (Vec::new(), Vec::new());
        let Text::Set(all) = prefixes::parse(text.as_bytes()) else {
            panic!("{text:?} is any host");
        };
        for prefix in all {
            let prefix = prefix?;
            let list = match prefix.family {
                Family::V4 => &mut v4,
                Family::V6 => &mut v6,
            };
            let greatest = prefixes::insert(list, prefix.range());
            list.push(greatest);
        }
        let [v4, v6] = [v4, v6].map(|list| {
            let merged: Vec<Range> = Merged::new(&list).collect();
            assert_eq!(merged.len(), Merged::new(&list).len());
            merged
        });
        Ok(Self { v4, v6 })
    }

    fn set(&self) -> Set<'_> {
        Set {
            v4: &self.v4,
            v6: &self.v6,
        }
    }

    fn contains(&self, address: &str) -> bool {
        let address: IpAddr = address.parse().unwrap();
        self.set().contains(match address {
            IpAddr::V4(v4) => v4.to_ipv6_mapped(),
            IpAddr::V6(v6) => v6,
        })
    }
}

/// The text of the set that a text makes.
#[track_caller]
fn read_back(text: &str) -> String {
    Owned::parse(text).unwrap().set().to_string()
}

/// The column and the class of the refusal of a text.
#[track_caller]
fn refused(text: &str) -> (usize, Class) {
    let refusal = Owned::parse(text).expect_err(text);
    (refusal.column, refusal.class)
}

#[test]
fn empty_text_is_any_host_and_the_word_none_is_no_host() {
    for text in ["", " ", ",", "\t"] {
        assert!(
            matches!(prefixes::parse(text.as_bytes()), Text::Any),
            "{text:?}"
        );
    }
    assert_eq!(read_back("none"), "none");
    assert_eq!(read_back(" none "), "none");
    assert!(!Owned::parse("none").unwrap().contains("10.0.0.1"));
    assert_eq!(refused("none,10.0.0.0/8"), (1, Class::Invalid));
    assert_eq!(refused("10.0.0.0/8,none"), (12, Class::Invalid));
}

#[test]
fn sets_are_read_back_merged() {
    let rows = [
        ("10.0.0.1", "10.0.0.1/32"),
        ("2001:db8::1", "2001:db8::1/128"),
        ("10.0.0.0/24 10.0.1.0/24", "10.0.0.0/23"),
        ("10.0.0.0/8,10.1.2.3,10.255.255.255/32", "10.0.0.0/8"),
        (
            "10.0.1.0/24,10.0.0.0/24,10.0.2.0/24",
            "10.0.0.0/23,10.0.2.0/24",
        ),
        ("0.0.0.0/0,1.2.3.4", "0.0.0.0/0"),
        ("::/0,fd00::/8", "::/0"),
        ("0.0.0.0/1,128.0.0.0/1", "0.0.0.0/0"),
        ("8000::/1,::/1", "::/0"),
        ("255.255.255.255,255.255.255.254", "255.255.255.254/31"),
        ("fd00::/8, 10.0.0.0/8", "10.0.0.0/8,fd00::/8"),
        ("2001:DB8:0:0:1::/80", "2001:db8:0:0:1::/80"),
        ("::ffff:0:0:0/96", "::ffff:0:0:0/96"),
        ("64:ff9b::192.0.2.0/120", "64:ff9b::c000:200/120"),
    ];
    for (text, expected) in rows {
        assert_eq!(read_back(text), expected, "{text}");
    }
}

#[test]
fn families_do_not_meet() {
    let all_of_v6 = Owned::parse("::/0").unwrap();
    assert!(all_of_v6.contains("::1") && !all_of_v6.contains("10.0.0.1"));
    let all_of_v4 = Owned::parse("0.0.0.0/0").unwrap();
    assert!(all_of_v4.contains("10.0.0.1") && !all_of_v4.contains("::a00:1"));
}

#[test]
fn bounds_of_a_prefix_belong_to_it() {
    let set = Owned::parse("10.1.0.0/16,2001:db8::/32").unwrap();
    for inside in [
        "10.1.0.0",
        "10.1.255.255",
        "2001:db8::",
        "2001:db8:ffff:ffff:ffff:ffff:ffff:ffff",
    ] {
        assert!(set.contains(inside), "{inside}");
    }
    for outside in [
        "10.0.255.255",
        "10.2.0.0",
        "2001:db7:ffff:ffff:ffff:ffff:ffff:ffff",
        "2001:db9::",
    ] {
        assert!(!set.contains(outside), "{outside}");
    }
}

#[test]
fn wrong_prefixes_are_refused_with_their_columns() {
    let rows = [
        ("10.0.0.0/2", 1),
        ("10.0.0.0/8,10.0.0.1/31", 12),
        ("10.0.0.0/33", 10),
        ("10.0.0.0/", 10),
        ("10.0.0.0/-1", 10),
        ("10.0.0.0/08", 10),
        ("10.0.0.0/8/8", 10),
        ("2001:db8::/129", 12),
        ("10.0.0", 1),
        ("010.0.0.0", 1),
        ("10.0.0.256", 1),
        ("10.0.0.0.0", 1),
        ("::ffff:10.0.0.0/104", 1),
        ("::ffff:0:0/96", 1),
        ("fe80::1%eth0", 1),
        (" balancer", 2),
        ("10.0.0.0/8;10.1.0.0/16", 10),
        ("10.0.0.0/8\n10.1.0.0/16", 10),
        ("\0", 1),
        ("\u{ff}", 1),
    ];
    for (text, column) in rows {
        assert_eq!(refused(text), (column, Class::Invalid), "{text:?}");
    }
}

#[test]
fn thousand_and_24_prefixes_fit_and_one_more_is_too_many() {
    // Every second address: nothing merges.
    let prefix = |at: u32| Ipv4Addr::from_bits(0x0a00_0000 + 2 * at).to_string();
    let mut texts: Vec<String> = (0..1024).map(prefix).collect();
    let set = Owned::parse(&texts.join(",")).unwrap();
    assert_eq!(set.v4.len(), 1024);
    texts.push(prefix(0));
    let text = texts.join(",");
    let column = text.len() - "10.0.0.0".len() + 1;
    assert_eq!(refused(&text), (column, Class::TooLong));
    // Longest prefixes.
    let prefix = |at: usize| {
        format!(
            "2001:db8:aaaa:aaaa:aaaa:aaaa:aaaa:{:04x}/128",
            0xa000 + 2 * at
        )
    };
    let texts: Vec<String> = (0..1024).map(prefix).collect();
    let text = texts.join(",");
    assert!(text.len() <= prefixes::MAX_TEXT);
    assert_eq!(read_back(&text), text);
}

#[test]
fn look_up_among_1024_ranges_takes_at_most_11_steps() {
    let prefix = |at: u32| Ipv4Addr::from_bits(0x0a00_0000 + 2 * at).to_string();
    let texts: Vec<String> = (0..1024).map(prefix).collect();
    let set = Owned::parse(&texts.join(",")).unwrap();
    let mut most = 0;
    for at in 0..2050_u32 {
        let address = Address::from_bits(u128::from(0x0a00_0000 + at));
        let mut steps = 0;
        let found = prefixes::find(&set.v4, |range| {
            steps += 1;
            range.compare(address)
        });
        assert_eq!(found, at % 2 == 0 && at < 2048, "{at}");
        most = most.max(steps);
    }
    assert_eq!(most, 11);
}

/// A prefix as its text and its predicate, close to others so that they merge.
fn prefix() -> impl Strategy<Value = (String, Ipv6Addr, u128)> {
    let v4 = (0x0a00_0000..0x0a00_0040_u32, 24..=32_u32).prop_map(|(address, length)| {
        let host = u32::MAX.checked_shr(length).unwrap_or(0);
        let address = Ipv4Addr::from_bits(address & !host);
        (
            format!("{address}/{length}"),
            address.to_ipv6_mapped(),
            host.into(),
        )
    });
    let v6 = (0..0x40_u128, 0..=128_u32).prop_map(|(low, length)| {
        let host = u128::MAX.checked_shr(length).unwrap_or(0);
        let address = Ipv6Addr::from_bits(((0xfd << 120) | low) & !host);
        (format!("{address}/{length}"), address, host)
    });
    prop_oneof![v4, v6]
}

/// An address near the prefixes.
fn address() -> impl Strategy<Value = Ipv6Addr> {
    prop_oneof![
        (0x09ff_fff0..0x0a00_0120_u32).prop_map(|bits| Ipv4Addr::from_bits(bits).to_ipv6_mapped()),
        (0..0x50_u128).prop_map(|low| Ipv6Addr::from_bits((0xfd << 120) | low)),
        any::<Ipv6Addr>().prop_filter("IPv4", |address| address.to_ipv4_mapped().is_none()),
    ]
}

proptest! {
    #[test]
    fn set_has_the_addresses_of_its_prefixes(
        all in vec(prefix(), 1..20),
        probes in vec(address(), 20),
    ) {
        let text: Vec<_> = all.iter().map(|(text, ..)| text.as_str()).collect();
        let set = Owned::parse(&text.join(",")).unwrap();
        let ends = all.iter().flat_map(|(_, first, host)| {
            [*first, Ipv6Addr::from_bits(first.to_bits() | host)]
        });
        for probe in probes.into_iter().chain(ends.collect::<Vec<_>>()) {
            let expected = all.iter().any(|(_, first, host)| {
                probe.to_bits() & !host == first.to_bits()
                    && probe.to_ipv4_mapped().is_some() == first.to_ipv4_mapped().is_some()
            });
            prop_assert_eq!(set.set().contains(probe), expected, "{}", probe);
        }
    }

    #[test]
    fn text_of_a_set_is_no_longer_and_makes_the_same_set(all in vec(prefix(), 1..40)) {
        let text: Vec<_> = all.iter().map(|(text, ..)| text.as_str()).collect();
        let set = Owned::parse(&text.join(" ")).unwrap();
        let again = set.set().to_string();
        prop_assert!(again.split(',').count() <= all.len());
        let second = Owned::parse(&again).unwrap();
        prop_assert_eq!((&second.v4, &second.v6), (&set.v4, &set.v6));
        for list in [&set.v4, &set.v6] {
            prop_assert!(list.windows(2).all(|pair| pair[0] < pair[1]));
        }
    }

    #[test]
    fn addresses_are_those_of_core(text in "[0-9a-fA-F:.]{0,20}") {
        let v4 = text.parse::<Ipv4Addr>().ok().map(Ipv4Addr::to_bits);
        prop_assert_eq!(prefixes::parse_v4(text.as_bytes()), v4);
        let v6 = text.parse::<Ipv6Addr>().ok().map(Ipv6Addr::to_bits);
        prop_assert_eq!(prefixes::parse_v6(text.as_bytes()), v6, "{}", text);
    }

    #[test]
    fn addresses_are_read_as_core_writes_them(v4: Ipv4Addr, v6: Ipv6Addr, mask: u8) {
        prop_assert_eq!(prefixes::parse_v4(v4.to_string().as_bytes()), Some(v4.to_bits()));
        // Runs of zeroes.
        let mut segments = v6.segments();
        for (at, segment) in segments.iter_mut().enumerate() {
            *segment *= u16::from((mask >> at) & 1);
        }
        let v6 = Ipv6Addr::from(segments);
        prop_assert_eq!(prefixes::parse_v6(v6.to_string().as_bytes()), Some(v6.to_bits()));
        prop_assume!(v6.to_ipv4().is_none());
        prop_assert_eq!(read_back(&v6.to_string()), format!("{v6}/128"));
    }

    #[test]
    fn any_bytes_are_a_set_or_refused_within_them(text in vec(any::<u8>(), 0..200)) {
        if let Text::Set(all) = prefixes::parse(&text) {
            for prefix in all {
                if let Err(refusal) = prefix {
                    prop_assert!((1..=text.len() + 1).contains(&refusal.column));
                    break;
                }
            }
        }
    }
}
