// SPDX-License-Identifier: GPL-2.0

//! Fuzzes `option.rs`: for any bytes, the parser agrees with the reference, and a
//! client's option in front of them is the one that counts.
//!
//! `make fuzz` runs it under AddressSanitizer. The host tests also read `seeds/option`.

#![no_main]

// The parser does not use `Connection`, the pair of two endpoints, nor the reasons for no client.
#[allow(dead_code)]
#[path = "../../../endpoint.rs"]
mod endpoint;
#[allow(dead_code)]
#[path = "../../../kinds.rs"]
mod kinds;
#[allow(dead_code)]
#[path = "../../../option.rs"]
mod option;
#[path = "../../logic/src/reference.rs"]
mod reference;
#[allow(dead_code)]
#[path = "../../../syntax.rs"]
mod syntax;

use libfuzzer_sys::fuzz_target;

/// Parses with the default rules.
fn find_client(options: &[u8]) -> option::ParsedOptions {
    let parsed = option::find_client(options, &kinds::Default, option::Pick::First);
    // The short way, where it takes the list, comes to the same result.
    if let Some(claim) = option::first_client(options) {
        let expected = option::ParsedOptions {
            claim: Some(claim),
            ..option::ParsedOptions::default()
        };
        assert_eq!(parsed, expected, "{options:?}");
    }
    parsed
}

const CLIENT: [u8; 8] = [254, 8, 0x30, 0x39, 192, 0, 2, 1];

fuzz_target!(|list: &[u8]| {
    assert_eq!(find_client(list), reference::find_client(list));

    let behind_a_client = [&CLIENT, list].concat();
    assert_eq!(
        find_client(&behind_a_client).claim,
        find_client(&CLIENT).claim
    );
});
