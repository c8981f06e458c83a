// SPDX-License-Identifier: GPL-2.0

//! Random scripts of calls, segments and changes of the policy, whose answers and counters must be
//! those of a model.

use crate::model;
use crate::runner::cases;
use crate::runner::Case;

pub const CASES: &[Case] = cases![Loaded:
    random_scripts_have_the_answers_and_counters_of_the_model,
];

pub const LONG: &[Case] = cases![Loaded:
    long_random_scripts_have_the_answers_and_counters_of_the_model,
];

/// The steps and the seed of the short run.
pub const STEPS: u64 = 1_500;
pub const SEED: u64 = 1;

fn random_scripts_have_the_answers_and_counters_of_the_model() {
    model::run(STEPS, SEED);
}

fn long_random_scripts_have_the_answers_and_counters_of_the_model() {
    model::run_as_arguments();
}
