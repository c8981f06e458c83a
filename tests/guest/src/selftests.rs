// SPDX-License-Identifier: GPL-2.0

//! Runs the kernel's own tests, programs and scripts of `tools/testing/selftests`, and parses their
//! output.

use std::collections::BTreeMap;
use std::fmt;
use std::fs;
use std::fs::File;
use std::os::unix::process::ExitStatusExt;
use std::path::Path;
use std::process::Command;
use std::process::ExitStatus;
use std::process::Stdio;
use std::time::Duration;

use crate::namespace::Namespace;

/// The built tests, as `scripts/selftests.sh` makes them.
const BUILT: &str = "/toa/selftests";

/// The exit status of a test that cannot run here (`KSFT_SKIP` of `kselftest.h`).
const SKIP: i32 = 4;

/// The name of a program's exit status among the results of its parts.
pub const EXIT_STATUS: &str = "exit status";

/// One of the kernel's own tests.
#[derive(Debug)]
pub struct Selftest {
    /// The test's directory in `tools/testing/selftests`, in which it runs.
    pub directory: &'static str,
    /// The program and its arguments.
    pub command: &'static [&'static str],
    /// The time after which the test is killed, which counts as a failure.
    pub bound: Duration,
}

/// The result of a test's part.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    Passed,
    Failed,
    Skipped,
}

/// The results of a test's parts, by their names, and of its exit status.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Results(BTreeMap<String, Outcome>);

impl Selftest {
    /// Runs the test in a new namespace, after `prepare` there. Writes the test's output to `log`.
    pub fn run(&self, prepare: impl FnOnce(&Namespace), log: &Path) -> Results {
        let namespace = Namespace::new("selftest");
        prepare(&namespace);
        let output = File::create(log).expect("a file for the output");
        let errors = output.try_clone().expect("the same file");
        let mut command = Command::new("timeout");
        command
            .args(["--kill-after=5", &self.bound.as_secs().to_string()])
            .args(self.command)
            .current_dir(Path::new(BUILT).join(self.directory))
            .stdin(Stdio::null())
            .stdout(output)
            .stderr(errors);
        let status = namespace
            .enter(|| command.status())
            .unwrap_or_else(|error| panic!("{command:?}: {error}"));
        let output = fs::read(log).expect("the output");
        Results::parse(&String::from_utf8_lossy(&output), code(status))
    }
}

impl fmt::Display for Selftest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let command = self.command.join(" ");
        write!(f, "{}/{}", self.directory, command.trim_start_matches("./"))
    }
}

/// Returns the exit status as a shell has it.
fn code(status: ExitStatus) -> i32 {
    let killed = || 128 + status.signal().unwrap_or(0);
    status.code().unwrap_or_else(killed)
}

impl Results {
    /// Parses a test's output.
    pub fn parse(output: &str, status: i32) -> Self {
        let mut results = Self(BTreeMap::new());
        for (name, outcome) in output.lines().filter_map(parse_line) {
            results.insert(&without_numbers(without_error(name)), outcome);
        }
        let whole = match status {
            0 => Outcome::Passed,
            SKIP => Outcome::Skipped,
            _ => Outcome::Failed,
        };
        results.insert(EXIT_STATUS, whole);
        results
    }

    /// Adds a part. If the name is in use, the part gets a number too.
    fn insert(&mut self, name: &str, outcome: Outcome) {
        let numbered = |number| match number {
            1 => name.to_owned(),
            _ => format!("{name} ({number})"),
        };
        let free = (1..).map(numbered).find(|name| !self.0.contains_key(name));
        self.0.insert(free.expect("some number is free"), outcome);
    }

    /// Whether that part passed.
    pub fn passed(&self, part: &str) -> bool {
        self.0.get(part) == Some(&Outcome::Passed)
    }

    /// The parts that passed.
    pub fn passes(&self) -> impl Iterator<Item = &str> {
        let passed = |(_, outcome): &(&String, &Outcome)| **outcome == Outcome::Passed;
        self.0.iter().filter(passed).map(|(name, _)| name.as_str())
    }

    fn count(&self, outcome: Outcome) -> usize {
        let parts = self.0.iter().filter(|(name, _)| *name != EXIT_STATUS);
        parts.filter(|(_, found)| **found == outcome).count()
    }
}

impl fmt::Display for Results {
    /// Writes the exit status and the number of parts, such as `pass (7 ok, 1 skip)`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut parts = Vec::new();
        for (outcome, word) in [
            (Outcome::Passed, "ok"),
            (Outcome::Failed, "not ok"),
            (Outcome::Skipped, "skip"),
        ] {
            match self.count(outcome) {
                0 => {}
                count => parts.push(format!("{count} {word}")),
            }
        }
        let whole = match self.0[EXIT_STATUS] {
            Outcome::Passed => "pass",
            Outcome::Failed => "fail",
            Outcome::Skipped => "skip",
        };
        let text = match parts.as_slice() {
            [] => whole.to_owned(),
            parts => format!("{whole} ({})", parts.join(", ")),
        };
        f.pad(&text)
    }
}

/// Removes the error from a part's name: which one ends a connection depends on the ICMP message that
/// comes last, in `Server failed with -92: Protocol not available`.
fn without_error(name: &str) -> &str {
    let is_errno = |text: &str| text.parse::<u16>().is_ok();
    match name.split_once(" with -") {
        Some((start, error)) if is_errno(error.split(':').next().unwrap_or_default()) => start,
        _ => name,
    }
}

/// Replaces the numbers in a part's name, which count packets or name descriptors: `increased 2 =>
/// 4`, `mismatch[25]`, `sk[0] = 9, reset`.
fn without_numbers(name: &str) -> String {
    let is_number = |text: &str| !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    let word = |word: &str| {
        let bare = word.trim_end_matches(',');
        match bare
            .strip_suffix(']')
            .and_then(|bare| bare.rsplit_once('['))
        {
            Some((start, number)) if is_number(number) => format!("{start}[N]"),
            _ if is_number(bare) => "N".to_owned(),
            _ => word.to_owned(),
        }
    };
    name.split(' ').map(word).collect::<Vec<_>>().join(" ")
}

/// Parses a part's line: KTAP, or those of the tests in `bpf`.
fn parse_line(line: &str) -> Option<(&str, Outcome)> {
    let line = line.trim();
    match line.strip_prefix('#') {
        Some(rest) => parse_bpf(rest),
        None => parse_ktap(line),
    }
}

/// Parses `ok NUMBER - NAME # DIRECTIVE`, with or without the dash and the directive.
fn parse_ktap(line: &str) -> Option<(&str, Outcome)> {
    let (passed, rest) = match line.strip_prefix("not ok ") {
        Some(rest) => (false, rest),
        None => (true, line.strip_prefix("ok ")?),
    };
    let (number, rest) = rest.split_once(' ').unwrap_or((rest, ""));
    number.parse::<u32>().ok()?;
    let rest = rest.trim_start().trim_start_matches("- ");
    let (name, directive) = rest.split_once('#').unwrap_or((rest, ""));
    let directive = directive.trim_start();
    let outcome = match passed {
        _ if directive.starts_with("SKIP") || directive.starts_with("XFAIL") => Outcome::Skipped,
        true => Outcome::Passed,
        false => Outcome::Failed,
    };
    // A harness writes the name of a skipped part behind the directive.
    let name = match name.trim() {
        "" => directive.trim_start_matches("SKIP").trim(),
        name => name,
    };
    Some((name, outcome))
}

/// Parses the rest of `#NUMBER/NUMBER NAME:OK`.
fn parse_bpf(rest: &str) -> Option<(&str, Outcome)> {
    let is_number = |letter: char| letter.is_ascii_digit() || letter == '/' || letter == ' ';
    let name = rest.trim_start_matches(is_number);
    let (name, word) = (name.len() < rest.len())
        .then(|| name.rsplit_once(':'))
        .flatten()?;
    let outcome = match word {
        "OK" => Outcome::Passed,
        "FAIL" => Outcome::Failed,
        "SKIP" => Outcome::Skipped,
        _ => return None,
    };
    Some((name, outcome))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parts(output: &str) -> Vec<(String, Outcome)> {
        let Results(mut parts) = Results::parse(output, 0);
        parts.remove(EXIT_STATUS);
        parts.into_iter().collect()
    }

    fn one(name: &str, outcome: Outcome) -> Vec<(String, Outcome)> {
        vec![(name.to_owned(), outcome)]
    }

    #[test]
    fn each_form_of_a_parts_result_is_parsed() {
        let passed = |line, name| assert_eq!(parts(line), one(name, Outcome::Passed), "{line}");
        passed("ok 7 tls.12_gcm.splice_big", "tls.12_gcm.splice_big");
        passed("    ok 1 - join: subflow  # time=9ms", "join: subflow");
        passed("#12/3  sockmap::txmsg test:OK", "sockmap::txmsg test");
        passed("# 1/ 2 sockhash:ktls:apply:OK", "sockhash:ktls:apply");
        let failed = |line, name| assert_eq!(parts(line), one(name, Outcome::Failed), "{line}");
        failed("not ok 2 tls.big", "tls.big");
        failed("#4 sockmap_basic:FAIL", "sockmap_basic");
        let skipped = |line, name| assert_eq!(parts(line), one(name, Outcome::Skipped), "{line}");
        skipped("ok 2 tls.sm4 # SKIP no cipher", "tls.sm4");
        skipped("not ok 2 a # XFAIL never", "a");
        skipped("ok 2 # SKIP no cipher", "no cipher");
    }

    #[test]
    fn other_lines_are_no_results() {
        for line in ["okay 1 a", "ok then", "# Passed: 3", "# 1:OKAY", "1..4", ""] {
            assert_eq!(parts(line), [], "{line}");
        }
    }

    #[test]
    fn parts_of_one_name_are_told_apart() {
        let results = Results::parse("ok 1 a\nnot ok 2 a\n", 1);
        assert!(results.passed("a") && !results.passed("a (2)"));
        assert_eq!(results.to_string(), "fail (1 ok, 1 not ok)");
    }

    #[test]
    fn counts_and_descriptors_are_no_part_of_a_name() {
        let named = |name| without_numbers(name);
        assert_eq!(named("Bad increased 2 => 14"), "Bad increased N => N");
        assert_eq!(named("matched: 25 mismatch[25]"), "matched: N mismatch[N]");
        assert_eq!(named("sk[0] = 9, reset"), "sk[N] = N reset");
        assert_eq!(named("tls.12_gcm -6 [] a[b]"), "tls.12_gcm -6 [] a[b]");
    }

    #[test]
    fn errors_in_names_are_not_compared() {
        let named = |name| without_error(name);
        assert_eq!(named("Server failed with -92: Protocol"), "Server failed");
        assert_eq!(named("Server failed with -111: Refused"), "Server failed");
        assert_eq!(named("runs with -k option"), "runs with -k option");
        let [first, second] = [("ok 1 x with -1: a", 0), ("ok 1 x with -2: b", 0)]
            .map(|(output, status)| Results::parse(output, status));
        assert!(first.passes().eq(second.passes()));
    }

    #[test]
    fn exit_status_is_a_part_too() {
        assert!(Results::parse("", 0).passed(EXIT_STATUS));
        assert_eq!(Results::parse("", 0).to_string(), "pass");
        assert_eq!(Results::parse("", SKIP).to_string(), "skip");
        assert_eq!(Results::parse("ok 1 a", 124).to_string(), "fail (1 ok)");
        assert!(!Results::parse("ok 1 a", 124).passed(EXIT_STATUS));
    }
}
