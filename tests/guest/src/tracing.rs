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

/// Returns those of [`FUNCTIONS`] that have a hook, beside the tracer of the whole run.
pub fn hooked() -> Vec<&'static str> {
    let enabled = read("enabled_functions");
    let of_run = u32::from(Background::runs());
    let is_hooked = |function: &&str| {
        let hooks = enabled.lines().find_map(|line| hooks_of(line, function));
        hooks.unwrap_or(0) > of_run
    };
    FUNCTIONS.into_iter().filter(is_hooked).collect()
}

/// Returns the number of hooks in a line `function (number) …`, if it is about this function.
fn hooks_of(line: &str, function: &str) -> Option<u32> {
    let rest = line.strip_prefix(function)?.strip_prefix(" (")?;
    rest.split(')').next()?.parse().ok()
}

/// The directory of the tracer of the whole run.
const BACKGROUND: &str = "/sys/kernel/tracing/instances/run";

/// The functions that it traces: the hooked ones, their callers and the functions around them.
const TRACED: &str = "inet_* inet6_* tcp_* __sys_* do_accept";

/// A function tracer that runs during all cases, beside those of the cases.
#[derive(Debug)]
pub struct Background(());

impl Background {
    pub fn start() -> Self {
        fs::create_dir(BACKGROUND).expect("an instance of the tracer");
        let write = |file: &str, text: &str| {
            fs::write(format!("{BACKGROUND}/{file}"), text)
                .unwrap_or_else(|error| panic!("{BACKGROUND}/{file}: {text:?}: {error}"));
        };
        write("set_ftrace_filter", TRACED);
        write("current_tracer", "function");
        let background = Self(());
        let enabled = read("enabled_functions");
        for function in FUNCTIONS {
            let is_traced = enabled
                .lines()
                .any(|line| hooks_of(line, function).is_some());
            assert!(is_traced, "{function} is not traced");
        }
        background
    }

    fn runs() -> bool {
        fs::exists(BACKGROUND).expect("tracefs")
    }

    /// Returns the calls that the tracer has seen.
    pub fn calls(&self) -> u64 {
        let processors = fs::read_dir(format!("{BACKGROUND}/per_cpu")).expect("the processors");
        let of_processor = |entry: std::io::Result<fs::DirEntry>| {
            let stats = entry.expect("a processor").path().join("stats");
            let text = fs::read_to_string(stats).expect("the buffer's numbers");
            // Those in the buffer, and those that later ones replaced.
            let rows = ["entries: ", "overrun: "];
            let numbers = rows.map(|row| {
                let number = text.lines().find_map(|line| line.strip_prefix(row));
                let number: Option<u64> = number.and_then(|number| number.parse().ok());
                number.unwrap_or_else(|| panic!("{row}: {text}"))
            });
            numbers.iter().sum::<u64>()
        };
        processors.map(of_processor).sum()
    }
}

impl Drop for Background {
    fn drop(&mut self) {
        let _ = fs::write(format!("{BACKGROUND}/current_tracer"), "nop");
        let _ = fs::remove_dir(BACKGROUND);
    }
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
