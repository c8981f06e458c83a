// SPDX-License-Identifier: GPL-2.0

//! Runs the cases one by one, and checks after each case. No records or sockets of
//! namespaces may be left, the kernel's log must have no alarm, and the module must be
//! in its expected state.

use std::mem;
use std::panic;
use std::panic::catch_unwind;
use std::panic::resume_unwind;
use std::process::exit;
use std::sync::atomic::AtomicBool;
use std::sync::atomic::Ordering;
use std::sync::mpsc;
use std::sync::mpsc::RecvTimeoutError;
use std::sync::mpsc::Sender;
use std::sync::Mutex;
use std::sync::PoisonError;
use std::thread;
use std::time::Duration;
use std::time::Instant;

use crate::arguments;
use crate::kernel_checks;
use crate::kmsg;
use crate::kmsg::KernelLog;
use crate::ktap;
use crate::ktap::Ktap;
use crate::module;
use crate::tracing::Background;

/// The module's state before and after a case.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum State {
    /// The module is loaded, with no parameters.
    Loaded,
    /// The module is not loaded: the case loads it.
    Unloaded,
}

/// A claim, and the function that tests it.
pub struct Case {
    pub name: &'static str,
    pub state: State,
    pub body: fn(),
}

/// `cases![State: function, …]`: the functions' names are the claims.
macro_rules! cases {
    ($state:ident: $($name:ident),+ $(,)?) => {
        &[$($crate::runner::Case {
            name: stringify!($name),
            state: $crate::runner::State::$state,
            body: $name,
        }),+]
    };
}
pub(crate) use cases;

/// The problems of the running case, from any thread.
static PROBLEMS: Mutex<Vec<String>> = Mutex::new(Vec::new());

/// Fails the running case, which continues.
pub fn problem(text: String) {
    PROBLEMS
        .lock()
        .unwrap_or_else(PoisonError::into_inner)
        .push(text);
}

/// Whether the running case makes allocations fail.
static ALLOCATIONS_FAIL: AtomicBool = AtomicBool::new(false);

/// Marks the running case as one that makes allocations fail.
pub fn allocations_fail() {
    ALLOCATIONS_FAIL.store(true, Ordering::Relaxed);
}

/// The reason for which the running case does not apply to this kernel.
static SKIPPED: Mutex<Option<String>> = Mutex::new(None);

/// Ends the running case as skipped: the kernel lacks the subject of the case.
pub fn skip(reason: &str) -> ! {
    *SKIPPED.lock().unwrap_or_else(PoisonError::into_inner) = Some(reason.to_owned());
    // `resume_unwind` bypasses the panic hook, so no problem is recorded.
    resume_unwind(Box::new(()))
}

/// Runs the cases; returns whether all passed, each within `bound`.
pub fn run(cases: &[&Case], bound: Duration) -> bool {
    panic::set_hook(Box::new(|info| {
        let place = info.location().map_or(String::new(), ToString::to_string);
        let payload = info.payload();
        let what = payload
            .downcast_ref::<String>()
            .map(String::as_str)
            .or_else(|| payload.downcast_ref::<&str>().copied())
            .unwrap_or("a panic without a message");
        problem(format!("{what}\n  at {place}"));
    }));
    let mut ktap = Ktap::begin(cases.len());
    let mut log = KernelLog::from_now();
    let tracer = arguments::get().tracer.then(Background::start);
    for case in cases {
        let started = Instant::now();
        let watch = watch(case.name, bound);
        let problems = run_one(case, &mut log);
        drop(watch);
        ktap::note(&format!("{:.1} s", started.elapsed().as_secs_f32()));
        let skipped = SKIPPED
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .take();
        ktap.result(case.name, &problems, skipped.as_deref());
    }
    let _ = catch_unwind(|| bring(State::Unloaded));
    let mut left = problems(&mut log);
    if let Some(tracer) = tracer {
        let calls = tracer.calls();
        ktap::note(&format!("{calls} calls were traced"));
        if calls == 0 {
            left.push("the tracer saw no call".to_owned());
        }
    }
    left.extend(kernel_checks::problems());
    left.iter().for_each(|problem| ktap::note(problem));
    ktap.all_passed() && left.is_empty()
}

fn run_one(case: &Case, log: &mut KernelLog) -> Vec<String> {
    // The panic hook has recorded a panic already.
    let _ = catch_unwind(|| {
        bring(case.state);
        (case.body)();
    });
    let _ = catch_unwind(|| check_state(case.state));
    problems(log)
}

/// Returns the problems since the last call, the kernel's alarms included.
fn problems(log: &mut KernelLog) -> Vec<String> {
    let allocations_fail = ALLOCATIONS_FAIL.swap(false, Ordering::Relaxed);
    for line in kmsg::alarms(&log.new_lines(), allocations_fail) {
        problem(format!("kernel: {line}"));
    }
    mem::take(&mut *PROBLEMS.lock().unwrap_or_else(PoisonError::into_inner))
}

/// Loads or unloads the module if its state differs.
fn bring(state: State) {
    match state {
        State::Loaded if !module::is_loaded() => module::load(),
        State::Unloaded if module::is_loaded() => module::unload(),
        _ => {}
    }
}

fn check_state(state: State) {
    let loaded = module::is_loaded();
    if loaded != (state == State::Loaded) {
        problem(format!("the case left the module loaded={loaded}"));
        bring(state);
    }
}

/// Ends the run if the case exceeds `bound`, unless the sender is dropped in time.
fn watch(name: &'static str, bound: Duration) -> Sender<()> {
    let (watch, end) = mpsc::channel();
    thread::spawn(move || {
        if end.recv_timeout(bound) == Err(RecvTimeoutError::Timeout) {
            ktap::bail_out(&format!("{name} does not end"));
            exit(1);
        }
    });
    watch
}
