// SPDX-License-Identifier: GPL-2.0

//! Tests of the module's files that import nothing from the kernel. The files are
//! compiled unchanged at the crate's root, as in the module.
//!
//! The crate is for tests only: without `cfg(test)` it is empty.
//!
//! A failed property writes its input to `proptest-regressions`: commit it with the
//! fix. `PROPTEST_CASES=` sets the number of cases, 256 by default.

#![cfg(test)]

#[path = "../../../endpoint.rs"]
mod endpoint;
#[allow(dead_code)]
#[path = "../../../kinds.rs"]
mod kinds;
#[path = "../../../option.rs"]
mod option;
#[allow(dead_code)]
#[path = "../../../prefixes.rs"]
mod prefixes;
#[allow(dead_code)]
#[path = "../../../shares.rs"]
mod shares;
#[path = "../../../syntax.rs"]
mod syntax;
#[path = "../../../tag.rs"]
mod tag;

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

mod endpoint_cases;
mod kinds_cases;
mod layout;
mod lists;
mod option_cases;
mod option_exhaustive;
mod option_properties;
mod prefixes_cases;
mod prototypes;
mod reference;
mod shares_cases;
mod syntax_cases;
mod tag_cases;
