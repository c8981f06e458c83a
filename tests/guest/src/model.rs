// SPDX-License-Identifier: GPL-2.0

//! Random scripts of what a process, its peer and the administrator can do to TCP sockets, compared
//! with a model after each step.
//!
//! [`step`] has the steps and their text, [`state`] the model, and [`world`] the executor. A script
//! that finds a difference is made shorter by proptest, and printed. The boot `model` runs a
//! printed script again by `--script`.

mod state;
mod step;
mod world;

use std::cell::RefCell;
use std::fs;
use std::panic::catch_unwind;
use std::panic::AssertUnwindSafe;
use std::sync::OnceLock;

use proptest::collection::vec;
use proptest::strategy::Strategy;
use proptest::strategy::ValueTree;
use proptest::test_runner::Config;
use proptest::test_runner::RngAlgorithm;
use proptest::test_runner::TestCaseError;
use proptest::test_runner::TestError;
use proptest::test_runner::TestRng;
use proptest::test_runner::TestRunner;

use self::state::Model;
use self::step::Step;
use self::world::Finding;
use self::world::World;
use crate::ktap::note;

/// The lines of a script before those are removed that the model does not permit.
const LINES: usize = 240;

/// The limit of a script's executions while it is made shorter, and of the time for them.
const SHRINKS: u32 = 2_000;
const SHRINK_TIME_MS: u32 = 600_000;

/// The arguments of toa-guest for the long run.
#[derive(Debug)]
pub struct Arguments {
    /// The least number of steps.
    pub steps: u64,
    pub seed: u64,
    /// A file with a script to run in place of random ones.
    pub script: Option<String>,
}

impl Default for Arguments {
    fn default() -> Self {
        Self {
            steps: 100_000,
            seed: 1,
            script: None,
        }
    }
}

static ARGUMENTS: OnceLock<Arguments> = OnceLock::new();

/// Sets the arguments of the long run.
pub fn set_arguments(arguments: Arguments) {
    ARGUMENTS.set(arguments).expect("they are set once");
}

/// Runs the script of the arguments, or random ones.
pub fn run_as_arguments() {
    let arguments = ARGUMENTS.get().expect("main has set them");
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

/// Runs the script of a seed. If it finds a difference, panics with the shortest script that does.
fn run_random(world: &mut World<'_>, seed: u64, taken: &mut u64) {
    let mut bytes = [0; 32];
    bytes[..8].copy_from_slice(&seed.to_le_bytes());
    let config = Config {
        failure_persistence: None,
        max_shrink_iters: SHRINKS,
        max_shrink_time: SHRINK_TIME_MS,
        ..Config::default()
    };
    let rng = TestRng::from_seed(RngAlgorithm::ChaCha, &bytes);
    let mut runner = TestRunner::new_with_rng(config, rng);
    let facts = world.facts();
    let permitted = |steps: Vec<Step>| permitted(Model::new(facts), steps);
    let tree = vec(step::any(), LINES).prop_map(permitted);
    let tree = tree.new_tree(&mut runner).expect("no filter");
    let length = tree.current().len() as u64;
    note(&format!("seed {seed}: {length} steps after {taken}"));
    *taken += length;
    let world = RefCell::new(world);
    let known = RefCell::new(Known::default());
    let result = runner.run_one(tree, |steps| {
        let execute = || execute(&mut world.borrow_mut(), &steps);
        known.borrow_mut().result(&steps, execute)
    });
    if let Err(TestError::Fail(reason, steps)) = result {
        let known = known.into_inner();
        let steps = known.begin_of(&steps).unwrap_or(&steps);
        fail(&format!("seed {seed}"), &reason.to_string(), steps);
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

/// The scripts that one shrinking has executed.
#[derive(Default)]
struct Known {
    good: Vec<Vec<Step>>,
    /// The scripts with a finding, each up to the step that had it.
    bad: Vec<(Vec<Step>, String)>,
}

impl Known {
    /// The known script with a finding with which this one begins.
    fn found(&self, steps: &[Step]) -> Option<&(Vec<Step>, String)> {
        self.bad.iter().find(|(bad, _)| steps.starts_with(bad))
    }

    /// Returns the begin of a script up to the step with the finding.
    fn begin_of(&self, steps: &[Step]) -> Option<&[Step]> {
        self.found(steps).map(|(bad, _)| &bad[..])
    }

    /// Returns the result of a script, which is executed unless an earlier one had the same result.
    fn result(
        &mut self,
        steps: &[Step],
        execute: impl FnOnce() -> Result<(), Finding>,
    ) -> Result<(), TestCaseError> {
        if let Some((_, reason)) = self.found(steps) {
            return Err(TestCaseError::fail(reason.clone()));
        }
        if self.good.iter().any(|good| good == steps) {
            return Ok(());
        }
        let Err(finding) = execute() else {
            self.good.push(steps.to_vec());
            return Ok(());
        };
        let Finding {
            steps: number,
            reason,
        } = finding;
        note(&format!("{number} steps: {reason}"));
        self.bad.push((steps[..number].to_vec(), reason.clone()));
        Err(TestCaseError::fail(reason))
    }
}

#[cfg(test)]
mod tests {
    use super::state::Facts;
    use super::*;

    #[test]
    fn scripts_keep_a_quarter_of_their_lines() {
        let facts = Facts {
            tls: true,
            tls_stays_connected: true,
        };
        let mut runner = TestRunner::deterministic();
        let tree = vec(step::any(), 20 * LINES).new_tree(&mut runner);
        let steps = tree.expect("no filter").current();
        let kept = permitted(Model::new(facts), steps).len();
        assert!(kept > 5 * LINES, "{kept}");
    }
}
