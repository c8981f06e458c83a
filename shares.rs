// SPDX-License-Identifier: GPL-2.0

//! The shares of the records that network namespaces may hold.
//!
//! Connections that no process accepts hold records too, so a container could fill the table. The
//! rule: the first namespace keeps half of the records; each other namespace whose owner is the
//! initial user namespace may hold a quarter; all namespaces of other user namespaces together may
//! hold a quarter. The first namespace may also use what the others leave free.
//!
//! Pure: no kernel imports. The host tests compile this file too.

/// Divides the records: the first namespace keeps `max` / 2, rounded up, and the others together
/// may hold the rest.
const OTHERS_HOLD: i64 = 2;

/// Divides the records: another namespace of the initial user namespace may hold `max` / 4.
const EACH_HOLDS: i64 = 4;

/// Divides the records: all namespaces of other user namespaces together may hold `max` / 4.
const FOREIGN_HOLD: i64 = 4;

/// The owner of a network namespace, which decides its share.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Owner {
    /// The first network namespace, `init_net`.
    First,
    /// The initial user namespace: root of the host made the network namespace.
    Host,
    /// Another user namespace: possibly an unprivileged user's.
    Foreign,
}

/// The most records that each group of namespaces may hold. Each bound is at least one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Shares {
    /// All namespaces together.
    pub(crate) all: i64,
    /// All namespaces but the first together: the rest is the half that the first keeps.
    pub(crate) others: i64,
    /// One namespace of [`Owner::Host`].
    pub(crate) each: i64,
    /// All namespaces of [`Owner::Foreign`] together.
    pub(crate) foreign: i64,
}

impl Shares {
    /// Divides `max` records. Shares round up to one.
    pub(crate) const fn of(max: i64) -> Self {
        let all = at_least_one(max);
        Self {
            all,
            others: at_least_one(all / OTHERS_HOLD),
            each: at_least_one(all / EACH_HOLDS),
            foreign: at_least_one(all / FOREIGN_HOLD),
        }
    }
}

const fn at_least_one(share: i64) -> i64 {
    if share < 1 {
        1
    } else {
        share
    }
}
