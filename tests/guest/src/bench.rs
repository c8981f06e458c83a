// SPDX-License-Identifier: GPL-2.0

//! Counts the instructions that the module adds to the calls of servers, beside two other ways to show
//! clients.
//!
//! The virtual machine's clock counts executed instructions ([`clock`]). The same [`load`] runs in
//! turns without anything and with each [`Subject`], in one boot. The turns without anything differ by
//! the error of the method, which is printed as drift. Each number is a median.
//!
//! Clients are single segments ([`wire`]): the segment that opens a connection is counted alone,
//! without the work of a client.
//!
//! The module's own table follows: what depends on its policy, on the namespace, and on the number of
//! records. A module that is built for this has the records when it is loaded.

mod clock;
mod load;
pub mod slab;
mod subject;
mod table;
mod wire;

use std::fs;
use std::panic::catch_unwind;
use std::time::Duration;

use crate::kmsg::KernelLog;
use crate::module;
use crate::namespace::Namespace;
use clock::Clock;
use load::Load;
use slab::Slabs;
use subject::Subject;
use table::Table;

/// The numbers of records that modules are built with (`bench_objects` in scripts/vm-test.sh).
const FILLED: [&str; 3] = ["10", "100000", "1000000"];

/// The subjects of the main table.
const SUBJECTS: [Subject; 3] = [Subject::Toa, Subject::Overwrite, Subject::Ebpf];

/// The line of a module that times its locks (`linux/raw_spinlock.rs`).
const LONGEST: &str = "longest section with interrupts off: ";

/// Runs the benchmark; returns whether it succeeded.
pub fn run() -> bool {
    // The reason of a panic is on standard error.
    catch_unwind(measure).is_ok()
}

fn measure() {
    // Addresses that differ from turn to turn change the number of a program's instructions.
    fs::write("/proc/sys/kernel/randomize_va_space", "0").expect("a sysctl");
    let clock = Clock::calibrate();
    let release = fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
    println!("Linux {}, {} crate", release.trim(), module::kernel_crate());
    println!("{clock}");
    // A subject that does not work ends the run early.
    for subject in SUBJECTS
        .into_iter()
        .chain([Subject::NoLookUp])
        .chain(FILLED.map(Subject::Filled))
    {
        drop(subject.start());
    }
    table::print_head();
    compare(&clock);
    vary(&clock);
    fill(&clock);
    print_memory(&clock);
    print_longest_section(&clock);
}

/// Measures each subject, and nothing before and after it.
fn compare(clock: &Clock) {
    let host = Namespace::first();
    let mut table = Table::default();
    let whole = |subject: Subject, table: &mut Table| {
        let _running = subject.start();
        Load::new(clock, &host, subject).whole(table);
    };
    // The first run lets the kernel's caches grow.
    whole(Subject::Nothing, &mut Table::default());
    whole(Subject::Nothing, &mut table);
    for subject in SUBJECTS {
        whole(subject, &mut table);
        whole(Subject::Nothing, &mut table);
    }
    table.print("compared");
}

/// Measures the module under policies, and in a namespace other than the first.
fn vary(clock: &Clock) {
    let (host, other) = (Namespace::first(), Namespace::new("bench"));
    let (mut elsewhere, mut policies) = (Table::default(), Table::default());
    for subject in [Subject::Nothing, Subject::Toa, Subject::Nothing] {
        let _running = subject.start();
        Load::new(clock, &other, subject).connections(&mut elsewhere);
        Load::new(clock, &host, subject).policies(&mut policies);
    }
    elsewhere.print("another namespace");
    policies.print("policies");
    let mut unchecked = Table::default();
    for subject in [Subject::Nothing, Subject::NoLookUp, Subject::Nothing] {
        let _running = subject.start();
        Load::new(clock, &host, subject).connections(&mut unchecked);
    }
    unchecked.print("without the look-up among the server's own addresses");
}

/// Measures the module with many records.
fn fill(clock: &Clock) {
    let host = Namespace::first();
    for records in FILLED {
        let mut table = Table::default();
        let mut unload = Duration::ZERO;
        for subject in [Subject::Nothing, Subject::Filled(records), Subject::Nothing] {
            let running = subject.start();
            Load::new(clock, &host, subject).connections(&mut table);
            unload = unload.max(running.end());
        }
        table.print(&format!("{records} records"));
        println!(
            "  rmmod, without its waits: {} instructions",
            unload.as_nanos()
        );
    }
}

/// Prints the pages of slabs that records take.
fn print_memory(clock: &Clock) {
    let host = Namespace::first();
    let [without, with] = [Subject::Nothing, Subject::Toa].map(|subject| {
        let _running = subject.start();
        Load::new(clock, &host, subject).growth()
    });
    let records = load::HELD as f64;
    println!("\nPages of slabs for each of {records} connections with the option, in bytes:\n");
    println!("without {:>8.1}", without.bytes() as f64 / records);
    println!("with    {:>8.1}", with.bytes() as f64 / records);
    println!("\nThe caches that differ:");
    let differ: Slabs = with.since(&without);
    for (name, cache) in differ.notable(load::HELD as i64 / 100) {
        println!("{name:<20} {:>+8.1}", cache.bytes as f64 / records);
    }
}

/// Prints the most instructions that the module runs with interrupts off, with as many records as the
/// timing module is built with.
fn print_longest_section(clock: &Clock) {
    let host = Namespace::first();
    let mut log = KernelLog::from_now();
    {
        let _running = Subject::Timed.start();
        Load::new(clock, &host, Subject::Timed).connections(&mut Table::default());
    }
    let lines = log.new_lines();
    let longest = lines.iter().find_map(|line| line.split_once(LONGEST));
    let (_, longest) = longest.unwrap_or_else(|| panic!("no longest section in {lines:?}"));
    println!("\nLongest section of the module with interrupts off, in instructions: {longest}");
}
