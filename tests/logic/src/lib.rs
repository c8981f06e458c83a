// SPDX-License-Identifier: GPL-2.0

//! Tests of the module's files that import nothing from the kernel. They are
//! compiled here as they are, at the crate's root, as in the module.
//!
//! The crate is for tests only: without `cfg(test)` it is empty.
//!
//! A failed property leaves its input in `proptest-regressions`, to be committed
//! with the mend. `PROPTEST_CASES=` asks for more cases than 256 each.

#![cfg(test)]

#[path = "../../../endpoint.rs"]
mod endpoint;
#[path = "../../../option.rs"]
mod option;
#[allow(dead_code)]
#[path = "../../../shares.rs"]
mod shares;

/// The parser with the table of the module.
fn find_client(options: &[u8]) -> option::ParsedOptions {
    option::find_client(options, option::KINDS)
}

mod endpoint_cases;
mod layout;
mod lists;
mod option_cases;
mod option_properties;
mod reference;
mod shares_cases;
