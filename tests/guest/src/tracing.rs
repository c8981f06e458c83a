// SPDX-License-Identifier: GPL-2.0

//! The kernel's tracers on the functions that the module hooks
//! (`Documentation/trace/ftrace.rst`, `Documentation/trace/kprobetrace.rst`).

use std::fs;
use std::fs::OpenOptions;
use std::io::Write;

use crate::wait;

const TRACING: &str = "/sys/kernel/tracing";

/// The functions that the module hooks.
pub const FUNCTIONS: [&str; 4] = [
    "tcp_child_process",
    "tcp_clear_retrans",
    "inet_getname",
    "inet6_getname",
];

#[track_caller]
fn read(file: &str) -> String {
    fs::read_to_string(format!("{TRACING}/{file}"))
        .unwrap_or_else(|error| panic!("{file}: {error}"))
}

#[track_caller]
fn write(file: &str, text: &str) {
    fs::write(format!("{TRACING}/{file}"), text)
        .unwrap_or_else(|error| panic!("{file}: {text:?}: {error}"));
}

/// Appends a command to a file of tracefs.
#[track_caller]
fn append(file: &str, line: &str) {
    OpenOptions::new()
        .append(true)
        .open(format!("{TRACING}/{file}"))
        .and_then(|mut file| file.write_all(line.as_bytes()))
        .unwrap_or_else(|error| panic!("{file}: {line:?}: {error}"));
}

/// Returns those of [`FUNCTIONS`] that have a hook.
pub fn hooked() -> Vec<&'static str> {
    let enabled = read("enabled_functions");
    let names: Vec<&str> = enabled
        .lines()
        .filter_map(|l| l.split(' ').next())
        .collect();
    FUNCTIONS
        .into_iter()
        .filter(|f| names.contains(f))
        .collect()
}

/// A function tracer on all of [`FUNCTIONS`] until it is dropped. Only one exists at a
/// time.
#[derive(Debug)]
pub struct Tracer(());

impl Tracer {
    /// Starts the tracer `function` or `function_graph`.
    pub fn start(name: &str) -> Self {
        write("trace", "");
        write("set_ftrace_filter", &FUNCTIONS.join("\n"));
        let tracer = Self(());
        write("current_tracer", name);
        tracer
    }

    /// Returns the functions that were called since the start or the last call of `seen`.
    pub fn seen(&self) -> Vec<&'static str> {
        let trace = read("trace");
        write("trace", "");
        let words: Vec<&str> = trace
            .split(|c: char| !(c.is_alphanumeric() || c == '_'))
            .collect();
        FUNCTIONS
            .into_iter()
            .filter(|f| words.contains(f))
            .collect()
    }
}

impl Drop for Tracer {
    fn drop(&mut self) {
        write("current_tracer", "nop");
        write("set_ftrace_filter", "");
        write("trace", "");
    }
}

/// A kprobe and a kretprobe on each of [`FUNCTIONS`], until the value is dropped.
#[derive(Debug)]
pub struct Probes(());

impl Probes {
    pub fn set() -> Self {
        let probes = Self(());
        for function in FUNCTIONS {
            append("kprobe_events", &format!("p:{function}_in {function}\n"));
            append("kprobe_events", &format!("r:{function}_out {function}\n"));
            for side in ["in", "out"] {
                write(&format!("events/kprobes/{function}_{side}/enable"), "1");
            }
        }
        probes
    }

    /// Returns the hits of the function's two probes: entries and exits.
    #[track_caller]
    pub fn hits(&self, function: &str) -> [u64; 2] {
        Self::counts(function).map(|[hits, _]| hits)
    }

    /// Returns the number of calls, when no call is running: a connection can be accepted
    /// before its `tcp_child_process` returns on another processor. A probe in a softirq
    /// that interrupts another probe does not run, and counts as missed.
    #[track_caller]
    pub fn calls(&self, function: &str) -> u64 {
        wait::until(
            "all calls of the function have returned",
            || match Self::counts(function).map(|[hits, missed]| hits + missed) {
                [entered, left] if entered == left => Ok(entered),
                [entered, left] => Err(format!("{function}: {entered} in, {left} out")),
            },
        )
    }

    /// Returns the hits and misses of both probes.
    #[track_caller]
    fn counts(function: &str) -> [[u64; 2]; 2] {
        let profile = read("kprobe_profile");
        ["in", "out"].map(|side| {
            let name = format!("{function}_{side}");
            let counts = profile.lines().find_map(|line| {
                let mut words = line.split_whitespace();
                let [event, hits, missed] = [(); 3].map(|()| words.next());
                (event == Some(&name)).then(|| [hits, missed].map(|n| n?.parse().ok()))
            });
            match counts {
                Some([Some(hits), Some(missed)]) => [hits, missed],
                _ => panic!("{name}: {profile}"),
            }
        })
    }
}

impl Drop for Probes {
    fn drop(&mut self) {
        let _ = fs::write(format!("{TRACING}/events/kprobes/enable"), "0");
        // Truncating the file removes the probes.
        write("kprobe_events", "");
        write("trace", "");
    }
}
