// SPDX-License-Identifier: GPL-2.0

//! Loading and unloading in adverse conditions: under connections that come and
//! go, and with ftrace switched off.

use std::collections::VecDeque;
use std::fs;
use std::panic;
use std::panic::AssertUnwindSafe;
use std::sync::atomic::AtomicBool;
use std::sync::atomic::AtomicUsize;
use std::sync::atomic::Ordering;
use std::sync::Mutex;
use std::thread;

use nix::errno::Errno;

use crate::kmsg::KernelLog;
use crate::ktap::note;
use crate::module;
use crate::net::Net;
use crate::net::Way;
use crate::runner::cases;
use crate::runner::Case;
use crate::sockets;
use crate::sockets::Family;
use crate::stats;
use crate::stats::Stats;
use crate::sys::Name;
use crate::wait;

pub const CASES: &[Case] = cases![Unloaded:
    module_comes_and_goes_under_connection_load,
    peers_can_be_asked_for_while_the_module_comes_and_goes,
    statistics_can_be_read_while_the_module_comes_and_goes,
    ftrace_cannot_be_switched_off_under_the_module,
    load_with_ftrace_switched_off_is_refused_and_leaves_nothing_behind,
];

/// Loads and unloads the module `cycles` times while a thread repeats `work`. Each state lasts for
/// `per_state` repetitions.
fn load_and_unload_while(cycles: usize, per_state: usize, work: impl Fn() + Sync) {
    load_and_unload_by(cycles, per_state, module::unload, work);
}

/// [`load_and_unload_while`] with another way to unload the module.
pub(super) fn load_and_unload_by(
    cycles: usize,
    per_state: usize,
    unload: impl Fn(),
    work: impl Fn() + Sync,
) {
    let (stop, count) = (AtomicBool::new(false), AtomicUsize::new(0));
    thread::scope(|scope| {
        scope.spawn(|| {
            while !stop.load(Ordering::Relaxed) {
                work();
                count.fetch_add(1, Ordering::Relaxed);
            }
        });
        // The thread must be stopped before a panic unwinds further.
        let outcome = panic::catch_unwind(AssertUnwindSafe(|| {
            for _ in 0..cycles {
                module::load();
                wait_for_more(&count, per_state);
                unload();
                wait_for_more(&count, per_state);
            }
        }));
        stop.store(true, Ordering::Relaxed);
        outcome.unwrap_or_else(|cause| panic::resume_unwind(cause));
    });
    note(&format!("{count:?} times in {cycles} cycles"));
}

#[track_caller]
fn wait_for_more(count: &AtomicUsize, wanted: usize) {
    let start = count.load(Ordering::Relaxed);
    wait::until("the work continues", || {
        let done = count.load(Ordering::Relaxed) - start;
        let enough = done >= wanted;
        enough.then_some(()).ok_or_else(|| format!("{done} since"))
    });
}

/// The number of answers with the client, and of those with the balancer.
#[derive(Default)]
struct Told {
    client: AtomicUsize,
    balancer: AtomicUsize,
}

impl Told {
    /// Counts an answer, which must be the client or the balancer.
    #[track_caller]
    fn count(&self, answer: &Name, client: &Name, balancer: &Name) {
        let counter = if answer == client {
            &self.client
        } else if answer == balancer {
            &self.balancer
        } else {
            panic!("{answer:?} is neither {client:?} nor {balancer:?}");
        };
        counter.fetch_add(1, Ordering::Relaxed);
    }

    /// Checks that the module was loaded for some answers, and not for others.
    #[track_caller]
    fn assert_both(&self) {
        let client = self.client.load(Ordering::Relaxed);
        let balancer = self.balancer.load(Ordering::Relaxed);
        note(&format!("{client} answers with, {balancer} without"));
        assert!(client > 0 && balancer > 0);
    }
}

fn module_comes_and_goes_under_connection_load() {
    let net = Net::new();
    let listener = net.listen(Family::DualStack);
    let told = Told::default();
    load_and_unload_while(10, 2, || {
        for way in Way::ALL {
            let (mut client, mut accepted) = net.pair(&listener, way);
            let of_client = accepted.family.name(client.address);
            let of_balancer = Name::of(net.balancer_of(&accepted));
            told.count(&accepted.name, &of_client, &of_balancer);
            told.count(&accepted.peer(), &of_client, &of_balancer);
            sockets::exchange(&mut client, &mut accepted);
        }
    });
    told.assert_both();
}

fn peers_can_be_asked_for_while_the_module_comes_and_goes() {
    let net = Net::new();
    let listener = net.listen(Family::DualStack);
    let told = Told::default();
    let state = Mutex::new((Way::ALL.iter().cycle(), VecDeque::new()));
    load_and_unload_while(5, 10, || {
        let (ways, pairs) = &mut *state.lock().expect("one thread");
        // A new connection each time, since connections from before a load have no record.
        let way = *ways.next().expect("they never end");
        let (client, accepted) = net.pair(&listener, way);
        let balancer = Name::of(net.balancer_of(&accepted));
        pairs.push_back((client, accepted, balancer));
        if pairs.len() > 10 {
            pairs.pop_front();
        }
        for _ in 0..100 {
            for (client, accepted, balancer) in pairs.iter() {
                let client = accepted.family.name(client.address);
                told.count(&accepted.peer(), &client, balancer);
            }
        }
    });
    told.assert_both();
}

fn statistics_can_be_read_while_the_module_comes_and_goes() {
    let net = Net::new();
    load_and_unload_while(5, 20, || {
        if let Some(stats) = Stats::read_if_loaded(&net.server) {
            assert_eq!(stats.get("records_live"), 0);
        }
    });
}

const FTRACE_ENABLED: &str = "/proc/sys/kernel/ftrace_enabled";

/// Switches ftrace on again when the test ends, even by a panic.
struct FtraceRestored;

impl Drop for FtraceRestored {
    fn drop(&mut self) {
        let _ = fs::write(FTRACE_ENABLED, "1");
    }
}

/// Switches ftrace off. Linux 7.2 allows this unless a hook holds ftrace, 7.3 never.
fn switch_ftrace_off() -> Result<(), Option<i32>> {
    fs::write(FTRACE_ENABLED, "0").map_err(|error| error.raw_os_error())
}

const NEVER: Result<(), Option<i32>> = Err(Some(Errno::EOPNOTSUPP as i32));

fn ftrace_cannot_be_switched_off_under_the_module() {
    let _restored = FtraceRestored;
    let without = switch_ftrace_off();
    fs::write(FTRACE_ENABLED, "1").expect("it was so before");
    let net = Net::new();
    let listener = net.listen(Family::DualStack);
    module::load();
    match without {
        Ok(()) => assert_eq!(switch_ftrace_off(), Err(Some(Errno::EBUSY as i32))),
        refused => {
            assert_eq!(refused, NEVER);
            assert_eq!(switch_ftrace_off(), NEVER);
        }
    }
    let enabled = fs::read_to_string(FTRACE_ENABLED).expect("the sysctl");
    assert_eq!(enabled.trim(), "1");
    let (client, accepted) = net.pair(&listener, Way::Nat64);
    assert_eq!(accepted.peer(), Name::of(client.address));
    drop((client, accepted));
    net.wait_for_no_records();
    module::unload();
}

fn load_with_ftrace_switched_off_is_refused_and_leaves_nothing_behind() {
    let _restored = FtraceRestored;
    let net = Net::new();
    let listener = net.listen(Family::DualStack);
    let mut log = KernelLog::from_now();
    let off = switch_ftrace_off();
    if off == NEVER {
        note("this kernel cannot switch ftrace off");
    } else {
        assert_eq!(off, Ok(()));
        assert_eq!(module::insert(""), Err(Errno::EBUSY));
        let lines = log.new_lines();
        let reason = |line: &String| {
            line.contains("TOA: cannot hook ") && line.contains("kernel.ftrace_enabled=1")
        };
        assert!(lines.iter().any(reason), "{lines:?}");
        assert_eq!(stats::text(&net.server), None);
        fs::write(FTRACE_ENABLED, "1").expect("it was so before");
    }
    module::load();
    let (client, accepted) = net.pair(&listener, Way::Nat64);
    assert_eq!(accepted.peer(), Name::of(client.address));
    drop((client, accepted));
    net.wait_for_no_records();
    module::unload();
}
