// SPDX-License-Identifier: GPL-2.0

//! The tests, a file for each topic.

mod answers;
mod errors;
mod lifetime;
mod load;
mod many;
mod namespaces;
mod options;
mod real_servers;
mod wire;

use crate::runner::Case;

/// All of them. Those that need the module loaded come together, so that it is
/// loaded once for them.
pub fn all() -> Vec<&'static Case> {
    [
        errors::COMPARED,
        answers::CASES,
        options::CASES,
        errors::CASES,
        wire::CASES,
        namespaces::CASES,
        many::CASES,
        real_servers::CASES,
        lifetime::CASES,
        load::CASES,
    ]
    .into_iter()
    .flatten()
    .collect()
}
