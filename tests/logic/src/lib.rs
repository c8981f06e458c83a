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
#[path = "../../../option.rs"]
mod option;
#[allow(dead_code)]
#[path = "../../../shares.rs"]
mod shares;

/// Parses with the module's table of kinds.
fn find_client(options: &[u8]) -> option::ParsedOptions {
    option::find_client(options, option::KINDS)
}

mod endpoint_cases;
mod layout;
mod lists;
mod option_cases;
mod option_properties;
mod prototypes;
mod reference;
mod shares_cases;
