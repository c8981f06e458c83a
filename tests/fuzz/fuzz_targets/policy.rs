// SPDX-License-Identifier: GPL-2.0

//! Fuzzes the texts of `net.toa.kinds` and `net.toa.trusted`. What is accepted is read back from its own
//! text, a refusal names a byte of the text, and addresses are those of `core`'s parser.
//!
//! What follows the first newline is a list of options for the rules.

#![no_main]

#[allow(dead_code)]
#[path = "../../../endpoint.rs"]
mod endpoint;
#[allow(dead_code)]
#[path = "../../../kinds.rs"]
mod kinds;
#[allow(dead_code)]
#[path = "../../../option.rs"]
mod option;
#[allow(dead_code)]
#[path = "../../../prefixes.rs"]
mod prefixes;
#[allow(dead_code)]
#[path = "../../../syntax.rs"]
mod syntax;

use kinds::Rules;
use libfuzzer_sys::fuzz_target;
use option::Pick;
use prefixes::Text;
use std::net::Ipv4Addr;
use std::net::Ipv6Addr;
use syntax::Refusal;

fuzz_target!(|bytes: &[u8]| {
    let end = bytes.iter().position(|&byte| byte == b'\n');
    let (line, options) = match end {
        Some(end) => (&bytes[..end], &bytes[end + 1..]),
        None => (bytes, &[][..]),
    };
    if let Err(refusal) = syntax::line(bytes, 0, prefixes::MAX_TEXT) {
        names_a_byte(refusal, bytes);
    }
    rules(line, options);
    trusted(line);
    addresses(line);
});

/// The column after the last byte is that of what is missing.
fn names_a_byte(refusal: Refusal, text: &[u8]) {
    assert!(
        (1..=text.len() + 1).contains(&refusal.column),
        "{refusal:?}"
    );
}

fn rules(line: &[u8], options: &[u8]) {
    match Rules::parse(line) {
        Err(refusal) => names_a_byte(refusal, line),
        Ok(rules) => {
            assert_eq!(Rules::parse(rules.to_string().as_bytes()), Ok(rules));
            for pick in [Pick::First, Pick::Last] {
                let found = option::find_client(options, &rules, pick);
                if rules.is_default() {
                    let by_default = option::find_client(options, &kinds::Default, pick);
                    assert_eq!(found, by_default);
                }
            }
        }
    }
}

fn trusted(line: &[u8]) {
    let Text::Set(all) = prefixes::parse(line) else {
        return;
    };
    for prefix in all {
        match prefix {
            Err(refusal) => names_a_byte(refusal, line),
            Ok(prefix) => {
                let text = prefix.to_string();
                let Text::Set(mut again) = prefixes::parse(text.as_bytes()) else {
                    panic!("{text} is no set");
                };
                let read = again.next().expect("a prefix").expect("a valid prefix");
                assert_eq!(read.range(), prefix.range(), "{text}");
                assert!(again.next().is_none(), "{text}");
            }
        }
    }
}

fn addresses(line: &[u8]) {
    let text = std::str::from_utf8(line).unwrap_or_default();
    let v4 = text.parse::<Ipv4Addr>().ok().map(u32::from);
    assert_eq!(prefixes::parse_v4(line), v4, "{text}");
    let v6 = text.parse::<Ipv6Addr>().ok().map(u128::from);
    assert_eq!(prefixes::parse_v6(line), v6, "{text}");
}
