// SPDX-License-Identifier: GPL-2.0

//! Random scripts of what a process, its peer and the administrator can do to TCP sockets, compared
//! with a model after each step.
//!
//! [`step`] has the steps and their text, [`state`] the model, and [`world`] the executor. A script
//! that finds a difference is made shorter, and printed. The boot `model` runs a
//! printed script again by `--script`.

mod state;
mod step;
mod world;

use std::fs;
use std::panic::catch_unwind;
use std::panic::AssertUnwindSafe;

use proptest::collection::vec;
use proptest::strategy::Strategy;
use proptest::strategy::ValueTree;
use proptest::test_runner::Config;
use proptest::test_runner::RngAlgorithm;
use proptest::test_runner::TestRng;
use proptest::test_runner::TestRunner;

use self::state::Model;
use self::step::Step;
use self::world::Finding;
use self::world::World;
use crate::arguments;
use crate::ktap::note;

/// The lines of a script before those are removed that the model does not permit.
const LINES: usize = 480;

/// Runs the script of the arguments, or random ones.
pub fn run_as_arguments() {
    let arguments = arguments::get();
    match &arguments.script {
        None => run(arguments.steps, arguments.seed),
        Some(file) => run_file(file),
    }
}

/// Runs scripts of the seed until they have taken so many steps.
pub fn run(steps: u64, seed: u64) {
    note(&format!("seed {seed}, at least {steps} steps"));
    let net = world::net();
    net.server.enter(|| {
        let mut world = World::new(&net);
        let mut taken = 0;
        let mut number = seed;
        while taken < steps {
            run_random(&mut world, number, &mut taken);
            number = number.wrapping_add(1);
        }
        note(&format!(
            "{taken} steps of the seeds {seed} to {}",
            number.wrapping_sub(1)
        ));
    });
}

/// Runs the script of a seed, and counts its steps. If it finds a difference, panics with the shortest
/// script that does.
fn run_random(world: &mut World<'_>, seed: u64, taken: &mut u64) {
    let steps = random(Model::new(world.facts()), seed);
    note(&format!("seed {seed}: {} steps after {taken}", steps.len()));
    *taken += steps.len() as u64;
    if let Err(finding) = execute(world, &steps) {
        note(&format!("the whole script:\n{}", step::script(&steps)));
        let (steps, mut reason) = shorten(world, steps, finding);
        if execute(world, &steps).is_ok() {
            reason += "\n# The short script does not always find it: try the whole one.";
        }
        fail(&format!("seed {seed}"), &reason, &steps);
    }
}

/// Returns the script of a seed.
fn random(model: Model, seed: u64) -> Vec<Step> {
    let mut bytes = [0; 32];
    bytes[..8].copy_from_slice(&seed.to_le_bytes());
    let rng = TestRng::from_seed(RngAlgorithm::ChaCha, &bytes);
    let mut runner = TestRunner::new_with_rng(Config::default(), rng);
    let tree = vec(step::any(), LINES).new_tree(&mut runner);
    permitted(model, tree.expect("no value is refused").current())
}

/// Removes steps from a script as long as it still finds a difference: first halves of it, then
/// quarters, at last each step. The shrinking of proptest takes thousands of executions, because it
/// cannot see which steps depend on each other.
fn shorten(world: &mut World<'_>, mut steps: Vec<Step>, finding: Finding) -> (Vec<Step>, String) {
    let mut reason = finding.reason;
    steps.truncate(finding.steps);
    let mut size = steps.len().div_ceil(2).max(1);
    loop {
        note(&format!("{} steps: {reason}", steps.len()));
        let before = steps.len();
        let mut at = 0;
        while at < steps.len() {
            let mut fewer = steps.clone();
            fewer.drain(at..steps.len().min(at + size));
            let mut fewer = permitted(Model::new(world.facts()), fewer);
            match execute(world, &fewer) {
                Ok(()) => at += size,
                Err(finding) => {
                    fewer.truncate(finding.steps);
                    (steps, reason) = (fewer, finding.reason);
                }
            }
        }
        if size == 1 && steps.len() == before {
            return (steps, reason);
        }
        size = size.div_ceil(2);
    }
}

/// Runs the script of a file.
fn run_file(file: &str) {
    let text = fs::read_to_string(file).unwrap_or_else(|error| panic!("{file}: {error}"));
    let steps = step::parse_script(&text).unwrap_or_else(|error| panic!("{file}: {error}"));
    let net = world::net();
    net.server.enter(|| {
        let mut world = World::new(&net);
        let steps = permitted(Model::new(world.facts()), steps);
        note(&format!("{file}: {} steps", steps.len()));
        if let Err(finding) = execute(&mut world, &steps) {
            fail(file, &finding.reason, &steps);
        }
    });
}

/// Fails the case with a script.
fn fail(source: &str, reason: &str, steps: &[Step]) -> ! {
    panic!(
        "{source}: {reason}\n\
         # To run this script again, write it to a file and run:\n\
         # make model-test TOA_SCRIPT=FILE\n{}",
        step::script(steps)
    );
}

/// Runs a script, and restores the state before it.
fn execute(world: &mut World<'_>, steps: &[Step]) -> Result<(), Finding> {
    let result = catch_unwind(AssertUnwindSafe(|| world.run(steps)));
    let result = result.unwrap_or_else(|_| {
        Err(Finding {
            steps: steps.len(),
            reason: "the executor panicked".to_owned(),
        })
    });
    if result.is_err() {
        world.recover();
    }
    result
}

/// Removes the steps that the model does not permit.
fn permitted(mut model: Model, steps: Vec<Step>) -> Vec<Step> {
    let permitted = |step: &Step| {
        let permitted = model.permits(*step);
        if permitted {
            model.apply(*step);
        }
        permitted
    };
    steps.into_iter().filter(permitted).collect()
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::state::Facts;
    use super::*;
    use crate::cases::model::SEED;
    use crate::cases::model::STEPS;
    use crate::stats::ROWS;

    const FACTS: Facts = Facts {
        tls: true,
        tls_stays_connected: true,
    };

    #[test]
    fn scripts_keep_a_quarter_of_their_lines() {
        let lengths = (0..40).map(|seed| random(Model::new(FACTS), seed).len());
        let length = lengths.sum::<usize>() / 40;
        assert!(length > LINES / 4, "{length}");
    }

    #[test]
    fn short_run_changes_each_counter_that_a_script_can_change() {
        // A reused record, a full header and a failed allocation.
        let mut left: BTreeSet<&str> = ROWS.into_iter().collect();
        for row in [
            "getname_toa_mismatch",
            "no_option_header_full",
            "record_alloc_failed",
        ] {
            assert!(left.remove(row), "{row}");
        }
        let mut taken = 0;
        let scripts = (SEED..).map(|seed| random(Model::new(FACTS), seed));
        for script in scripts {
            let mut model = Model::new(FACTS);
            for step in script {
                taken += 1;
                model.apply(step);
                let counters = model.counters();
                left.retain(|row| counters.is_none_or(|counters| counters.get(row) == 0));
            }
            if taken >= STEPS {
                break;
            }
        }
        assert!(left.is_empty(), "{left:?}");
    }
}
