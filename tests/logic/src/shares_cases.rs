// SPDX-License-Identifier: GPL-2.0

//! Tests of the namespaces' shares, at the bounds and for every number of records.

use crate::shares::Shares;
use proptest::prelude::*;

#[test]
fn shares_are_a_half_and_quarters() {
    let expected = Shares {
        all: 1000,
        others: 500,
        each: 250,
        foreign: 250,
    };
    assert_eq!(Shares::of(1000), expected);
}

#[test]
fn shares_of_few_records_round_up_to_one() {
    let rows = [
        (1, [1, 1, 1, 1]),
        (2, [2, 1, 1, 1]),
        (3, [3, 1, 1, 1]),
        (4, [4, 2, 1, 1]),
        (7, [7, 3, 1, 1]),
        (8, [8, 4, 2, 2]),
        (9, [9, 4, 2, 2]),
    ];
    for (max, [all, others, each, foreign]) in rows {
        let expected = Shares {
            all,
            others,
            each,
            foreign,
        };
        assert_eq!(Shares::of(max), expected, "{max}");
    }
}

proptest! {
    #[test]
    fn the_first_namespace_keeps_half(max in 2..=i64::MAX) {
        let shares = Shares::of(max);
        prop_assert_eq!(shares.all, max);
        prop_assert!(shares.all - shares.others >= shares.others);
        prop_assert!(shares.each <= shares.others && shares.foreign <= shares.others);
    }

    #[test]
    fn every_share_is_at_least_one_record(max: i64) {
        let Shares { all, others, each, foreign } = Shares::of(max);
        prop_assert!(all >= 1 && others >= 1 && each >= 1 && foreign >= 1);
    }
}
