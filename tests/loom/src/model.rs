// SPDX-License-Identifier: GPL-2.0

//! A scenario, run in all orders.

use crate::lock;
use crate::memory;
use crate::sync::atomic;
use crate::sync::rcu;
use core::cell::Cell;
use core::cell::RefCell;
use loom::thread;
use std::env;
use std::panic;
use std::panic::catch_unwind;
use std::panic::AssertUnwindSafe;
use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering;
use std::sync::Arc;
use std::sync::Once;

/// Something that the module rests on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Need {
    /// Release orderings.
    Release,
    /// Acquire orderings.
    Acquire,
    /// The order between the load of a pointer and the reads behind it.
    Dependency,
    /// Grace periods before frees.
    GracePeriods,
    /// The locks of the store.
    SpinLocks,
}

thread_local! {
    /// The need that the model on this thread of the host lacks.
    static LACKING: Cell<Option<Need>> = const { Cell::new(None) };

    /// The most switches that [`within_switches`] allows.
    static MOST_SWITCHES: Cell<Option<usize>> = const { Cell::new(None) };

    /// Whether a failure of the model is expected.
    static EXPECTED: Cell<bool> = const { Cell::new(false) };

    /// The threads that run later.
    static LATER: RefCell<Vec<thread::JoinHandle<()>>> = const { RefCell::new(Vec::new()) };
}

/// Whether the model lacks something.
pub(crate) fn lacks(need: Need) -> bool {
    LACKING.get() == Some(need)
}

/// Whether a thread of the model has failed, and unwinds: a second failure would abort all tests.
pub(crate) fn has_failed() -> bool {
    std::thread::panicking()
}

/// Runs in a further thread, which the execution waits for.
pub(crate) fn later(f: impl FnOnce() + 'static) {
    if has_failed() {
        return;
    }
    let thread = thread::spawn(f);
    LATER.with_borrow_mut(|all| all.push(thread));
}

/// Runs a scenario, which must pass.
pub(crate) fn passes(scenario: impl Fn() + Send + Sync + 'static) {
    run(None, scenario);
}

/// Runs a scenario without something that it does not need.
pub(crate) fn passes_without(need: Need, scenario: impl Fn() + Send + Sync + 'static) {
    run(Some(need), scenario);
}

/// Runs a scenario, which must fail with a message that contains `expected`.
pub(crate) fn fails(expected: &str, scenario: impl Fn() + Send + Sync + 'static) {
    run_to_failure(None, expected, scenario);
}

/// Runs a scenario without something that it needs. It must fail with a message that contains
/// `expected`.
pub(crate) fn fails_without(
    need: Need,
    expected: &str,
    scenario: impl Fn() + Send + Sync + 'static,
) {
    run_to_failure(Some(need), expected, scenario);
}

fn run_to_failure(
    lacking: Option<Need>,
    expected: &str,
    scenario: impl Fn() + Send + Sync + 'static,
) {
    quiet_if_expected();
    EXPECTED.set(true);
    let run = AssertUnwindSafe(|| run(lacking, scenario));
    let failure = catch_unwind(run);
    EXPECTED.set(false);
    LACKING.set(None);
    let failure = failure.expect_err("the scenario must fail");
    let message = failure
        .downcast_ref::<String>()
        .map(String::as_str)
        .or_else(|| failure.downcast_ref::<&str>().copied())
        .unwrap_or_default();
    assert!(message.contains(expected), "another failure: {message}");
    report(message.lines().next().unwrap_or_default());
}

/// Keeps expected panics off the output.
fn quiet_if_expected() {
    static SET: Once = Once::new();
    SET.call_once(|| {
        let report = panic::take_hook();
        panic::set_hook(Box::new(move |info| {
            if !EXPECTED.get() {
                report(info);
            }
        }));
    });
}

/// Prints a line with the test's name.
fn report(what: &str) {
    let thread = std::thread::current();
    println!("loom: {}: {what}", thread.name().unwrap_or_default());
}

/// The most switches from a thread that could run on, in the short form.
const SWITCHES: usize = 2;

/// Calls `test`, whose scenarios run with at most so many switches if TOA_LOOM=all: they access too many
/// atomics for all orders.
pub(crate) fn within_switches(most: usize, test: impl FnOnce()) {
    MOST_SWITCHES.set(Some(most));
    test();
    MOST_SWITCHES.set(None);
}

/// Runs a scenario in all orders if TOA_LOOM=all, and otherwise in those with at most [`SWITCHES`].
fn run(lacking: Option<Need>, scenario: impl Fn() + Send + Sync + 'static) {
    LACKING.set(lacking);
    let executions = Arc::new(AtomicU64::new(0));
    let count = Arc::clone(&executions);
    let mut builder = loom::model::Builder::new();
    builder.preemption_bound = match env::var("TOA_LOOM").as_deref() {
        Ok("all") => MOST_SWITCHES.get(),
        _ => Some(SWITCHES),
    };
    builder.check(move || {
        count.fetch_add(1, Ordering::Relaxed);
        begin();
        scenario();
        end();
    });
    report(&format!(
        "{} executions",
        executions.load(Ordering::Relaxed)
    ));
}

fn begin() {
    LATER.take();
    lock::begin();
    rcu::begin();
    atomic::begin();
    memory::begin();
}

fn end() {
    while let Some(thread) = LATER.with_borrow_mut(Vec::pop) {
        thread.join().expect("no thread has panicked");
    }
    memory::all_is_freed();
}
