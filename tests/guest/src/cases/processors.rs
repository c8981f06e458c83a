// SPDX-License-Identifier: GPL-2.0

//! Processors that go offline and return (the kernel's `Documentation/core-api/cpu_hotplug.rst`). The
//! module counts for each possible processor, so none of them loses its counts.

use std::fs;
use std::panic;
use std::panic::AssertUnwindSafe;
use std::sync::atomic::AtomicBool;
use std::sync::atomic::AtomicUsize;
use std::sync::atomic::Ordering;
use std::thread;

use nix::sched::sched_setaffinity;
use nix::sched::CpuSet;
use nix::unistd::Pid;

use crate::cases::impossible_clients::Stage;
use crate::cases::options::NAMED;
use crate::ktap::note;
use crate::net::Net;
use crate::net::Way;
use crate::runner::cases;
use crate::runner::skip;
use crate::runner::Case;
use crate::sockets;
use crate::sockets::Family;
use crate::stats;
use crate::wait;

pub const CASES: &[Case] = cases![Loaded:
    offline_processor_keeps_its_counts_and_its_records_end,
    counters_stay_exact_while_a_processor_goes_offline_and_returns,
];

/// The state of processor 1: "1" if it is online.
const ONLINE: &str = "/sys/devices/system/cpu/cpu1/online";

/// Processor 1, which is online again when the value is dropped, even by a panic.
struct SecondProcessor;

impl SecondProcessor {
    /// Ends the case as skipped if processor 1 cannot go offline.
    fn new() -> Self {
        if !fs::exists(ONLINE).expect("/sys") {
            skip("processor 1 cannot go offline");
        }
        Self
    }

    #[track_caller]
    fn set_online(&self, online: bool) {
        let state = if online { "1" } else { "0" };
        fs::write(ONLINE, state).unwrap_or_else(|error| panic!("{ONLINE}: {state}: {error}"));
        let read = fs::read_to_string(ONLINE).expect("/sys");
        assert_eq!(read.trim(), state);
    }
}

impl Drop for SecondProcessor {
    fn drop(&mut self) {
        let _ = fs::write(ONLINE, "1");
        run_on(|_| true);
    }
}

/// A thread that runs on one processor until the value is dropped.
pub struct Pinned;

impl Pinned {
    #[track_caller]
    pub fn to(processor: usize) -> Self {
        run_on(|number| number == processor);
        Self
    }
}

impl Drop for Pinned {
    fn drop(&mut self) {
        run_on(|_| true);
    }
}

/// Restricts this thread to the processors that `admits` names.
#[track_caller]
fn run_on(admits: impl Fn(usize) -> bool) {
    let mut processors = CpuSet::new();
    let admitted = (0..CpuSet::count()).filter(|&number| admits(number));
    admitted.for_each(|number| processors.set(number).expect("a number of the set"));
    sched_setaffinity(Pid::from_raw(0), &processors).expect("a processor is online");
}

/// The headings of the possible processors' columns.
fn possible_processors() -> Vec<String> {
    let ranges = fs::read_to_string("/sys/devices/system/cpu/possible").expect("/sys");
    let number = |text: &str| text.parse::<u16>().expect("a number");
    let range = |text: &str| match text.split_once('-') {
        Some((first, last)) => number(first)..=number(last),
        None => number(text)..=number(text),
    };
    let numbers = ranges.trim().split(',').flat_map(range);
    numbers.map(|number| format!("CPU{number}")).collect()
}

/// Makes connections whose segments this processor receives, and checks that each shows its client.
#[track_caller]
fn connect(stage: &Stage) -> Vec<sockets::Accepted> {
    let accept = |_| {
        stage.connect(NAMED);
        let accepted = stage.listener.accept().ending_by_reset();
        accepted.assert_shows(NAMED);
        accepted
    };
    (0..CONNECTIONS).map(accept).collect()
}

/// The connections of each step.
const CONNECTIONS: u64 = 8;

fn offline_processor_keeps_its_counts_and_its_records_end() {
    let second = SecondProcessor::new();
    let stage = Stage::new(Family::V4, false);
    // The counts of the first two processors.
    let counts = |row: &str| {
        let columns = stats::columns(&stage.net.server);
        assert_eq!(columns.headings, possible_processors());
        let counts = &columns.rows[row];
        assert!(counts[2..].iter().all(|&count| count == 0), "{counts:?}");
        [counts[0], counts[1]]
    };
    run_on(|number| number == 1);
    let accepted = connect(&stage);
    assert_eq!(counts("option_taken"), [0, CONNECTIONS]);
    run_on(|number| number == 0);
    second.set_online(false);
    assert_eq!(counts("option_taken"), [0, CONNECTIONS]);
    // The records of all processors, in the first column.
    assert_eq!(counts("records_live"), [CONNECTIONS, 0]);
    let later = connect(&stage);
    assert_eq!(counts("records_live"), [2 * CONNECTIONS, 0]);
    accepted.iter().for_each(|one| one.assert_shows_peer(NAMED));
    // The first processor removes the records of the second.
    drop(accepted);
    wait::until("the second processor's records are gone", || {
        let live = counts("records_live");
        (live == [CONNECTIONS, 0])
            .then_some(())
            .ok_or_else(|| format!("records_live is {live:?}"))
    });
    second.set_online(true);
    assert_eq!(counts("option_taken"), [CONNECTIONS; 2]);
    run_on(|number| number == 1);
    drop((connect(&stage), later));
    assert_eq!(counts("option_taken"), [CONNECTIONS, 2 * CONNECTIONS]);
    stage.net.wait_for_no_records();
    assert_eq!(counts("records_live"), [0; 2]);
}

/// The times that processor 1 goes offline under load.
const ROUNDS: usize = 5;

/// Connections before the next change of processor 1.
const PER_STATE: usize = 6;

fn counters_stay_exact_while_a_processor_goes_offline_and_returns() {
    let second = SecondProcessor::new();
    let net = Net::new();
    let listener = net.listen(Family::DualStack);
    let (stop, made) = (AtomicBool::new(false), AtomicUsize::new(0));
    let wait_for_more = || {
        let start = made.load(Ordering::Relaxed);
        wait::until("connections are made", || {
            let more = made.load(Ordering::Relaxed) - start;
            (more >= PER_STATE)
                .then_some(())
                .ok_or_else(|| format!("{more} since"))
        });
    };
    thread::scope(|scope| {
        let load = scope.spawn(|| {
            for way in Way::ALL.into_iter().cycle() {
                if stop.load(Ordering::Relaxed) {
                    return;
                }
                let (mut client, mut accepted) = net.pair(&listener, way);
                accepted.assert_shows(client.address);
                sockets::exchange(&mut client, &mut accepted);
                made.fetch_add(1, Ordering::Relaxed);
            }
        });
        // The thread must be stopped before a panic unwinds further.
        let outcome = panic::catch_unwind(AssertUnwindSafe(|| {
            for online in [false, true].repeat(ROUNDS) {
                second.set_online(online);
                wait_for_more();
            }
        }));
        stop.store(true, Ordering::Relaxed);
        load.join()
            .and(outcome)
            .unwrap_or_else(|cause| panic::resume_unwind(cause));
    });
    net.wait_for_no_records();
    let made = made.into_inner() as u64;
    note(&format!("{made} connections"));
    let stats = net.stats();
    for (row, expected) in [
        ("option_taken", made),
        ("syn_recv_sock_toa", made),
        ("getname_toa_ok", 2 * made),
        ("ip6_address_alloc", stats.get("ip6_address_free")),
    ] {
        assert_eq!(stats.get(row), expected, "{row}");
    }
    assert_eq!(stats.connections(), made);
}
