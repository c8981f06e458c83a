// SPDX-License-Identifier: GPL-2.0

//! Judges a run by its ending, its console, and the command's output and status.

use std::fmt;

use crate::args::Args;
use crate::console;
use crate::ktap::{self, Report};
use crate::watch::Ending;

/// The guest's closing line: `toa-vm: exit STATUS tainted FLAGS`.
pub const MARKER: &str = "toa-vm: exit ";

/// Bits of `/proc/sys/kernel/tainted` that indicate a fault (the kernel's
/// `Documentation/admin-guide/tainted-kernels.rst`): machine check, bad page,
/// death, warning, lockup. The module under test sets the out-of-tree and unsigned
/// bits.
const FAULT_TAINTS: u64 = (1 << 4) | (1 << 5) | (1 << 7) | (1 << 9) | (1 << 14);

/// The tests' counts and all other problems; each problem counts as a failure.
#[derive(Debug, Default)]
pub struct Verdict {
    pub report: Report,
    pub problems: Vec<String>,
}

impl Verdict {
    pub fn is_good(&self) -> bool {
        self.counts().1 == 0
    }

    /// Returns the numbers of passed, failed and skipped tests.
    pub fn counts(&self) -> (usize, usize, usize) {
        let report = &self.report;
        (
            report.passed,
            report.failed + self.problems.len(),
            report.skipped,
        )
    }

    /// Returns the closing sentence for a run of a plain command.
    pub fn sentence(&self) -> &'static str {
        if self.is_good() {
            "the command succeeded and the kernel's log is clean"
        } else {
            "the run failed: see the problems above"
        }
    }
}

impl fmt::Display for Verdict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (passed, failed, skipped) = self.counts();
        write!(f, "{passed} passed, {failed} failed, {skipped} skipped")
    }
}

pub fn judge(ending: &Ending, console: &str, output: &str, args: &Args) -> Verdict {
    if let Some(text) = &args.planted {
        return judge_planted(text, console);
    }
    let mut verdict = Verdict::default();
    if *ending != Ending::Exited {
        verdict.problems.push(ending.to_string());
    }
    for splat in console::splats(console) {
        verdict.problems.push(format!("kernel: {splat}"));
    }
    let status = closing(output, &mut verdict.problems);
    if args.plain {
        judge_status(status, &mut verdict);
    } else {
        judge_report(ktap::parse(output), status, args.expect, &mut verdict);
        if let Some(skips) = &args.skips {
            verdict.problems.append(&mut skips.compare(&verdict.report));
        }
    }
    verdict
}

/// Judges a run with a planted bug as one test: the kernel must report it.
fn judge_planted(text: &str, console: &str) -> Verdict {
    let mut verdict = Verdict::default();
    let splats = console::splats(console);
    if splats.iter().any(|splat| splat.contains(text)) {
        verdict.report.passed = 1;
    } else {
        verdict.problems.push(format!(
            "the kernel does not report the planted bug as '{text}', but {splats:?}"
        ));
    }
    verdict
}

/// Judges a plain command as one test, by its exit status.
fn judge_status(status: Option<i32>, verdict: &mut Verdict) {
    match status {
        Some(0) => verdict.report.passed = 1,
        Some(status) => verdict
            .problems
            .push(format!("the command's exit status is {status}")),
        // `closing` has reported the problem.
        None => {}
    }
}

fn judge_report(mut report: Report, status: Option<i32>, expect: usize, verdict: &mut Verdict) {
    let problems = &mut verdict.problems;
    problems.append(&mut report.faults);
    if report.total() < expect {
        problems.push(format!(
            "{} results, at least {expect} expected",
            report.total()
        ));
    }
    if report.passed == 0 {
        problems.push("no test passed".to_owned());
    }
    if let Some(status) = status {
        if status != 0 && report.failed == 0 {
            problems.push(format!(
                "all results are good, but the exit status is {status}"
            ));
        }
    }
    verdict.report = report;
}

/// Returns the exit status from the guest's closing line.
fn closing(output: &str, problems: &mut Vec<String>) -> Option<i32> {
    let line = output.lines().find_map(|line| line.strip_prefix(MARKER));
    let Some((status, taints)) = line.and_then(parse_closing) else {
        problems.push("the machine ended before its command did".to_owned());
        return None;
    };
    if taints & FAULT_TAINTS != 0 {
        problems.push(format!("the kernel is tainted: {taints}"));
    }
    Some(status)
}

fn parse_closing(line: &str) -> Option<(i32, u64)> {
    let (status, taints) = line.split_once(" tainted ")?;
    Some((status.parse().ok()?, taints.trim().parse().ok()?))
}

#[cfg(test)]
mod tests {
    use std::path::PathBuf;
    use std::time::Duration;

    use super::*;
    use crate::skips::Skips;

    const CONSOLE: &str = include_str!("../fixtures/clean.console");
    const OUTPUT: &str = include_str!("../fixtures/good.ktap");

    fn args(expect: usize, plain: bool) -> Args {
        Args {
            expect,
            plain,
            ..Args::for_tests(PathBuf::new(), Duration::ZERO, Duration::ZERO)
        }
    }

    fn verdict(console: &str, output: &str) -> Verdict {
        judge(&Ending::Exited, console, output, &args(1, false))
    }

    #[test]
    fn a_good_run_is_good() {
        let verdict = verdict(CONSOLE, OUTPUT);
        assert_eq!(verdict.problems, Vec::<String>::new());
        assert_eq!(verdict.to_string(), "2 passed, 0 failed, 1 skipped");
        assert!(verdict.is_good());
    }

    #[test]
    fn a_failed_test_is_red() {
        let output = OUTPUT.replace("ok 2", "not ok 2");
        assert_eq!(
            verdict(CONSOLE, &output).to_string(),
            "1 passed, 1 failed, 1 skipped"
        );
    }

    #[test]
    fn a_splat_is_red_though_all_tests_pass() {
        let console = include_str!("../fixtures/warning.console");
        assert_eq!(
            verdict(console, OUTPUT).to_string(),
            "2 passed, 1 failed, 1 skipped"
        );
    }

    #[test]
    fn a_machine_that_died_early_is_red() {
        let console = include_str!("../fixtures/panic.console");
        let verdict = verdict(console, "KTAP version 1\n1..3\nok 1 - a\n");
        assert!(verdict.problems.iter().any(|p| p.contains("ended before")));
        assert!(verdict.problems.iter().any(|p| p.contains("the plan is 3")));
        assert!(verdict.problems.iter().any(|p| p.contains("kernel: ")));
    }

    #[test]
    fn fewer_tests_than_expected_are_red() {
        let verdict = judge(&Ending::Exited, CONSOLE, OUTPUT, &args(4, false));
        assert_eq!(verdict.problems, ["3 results, at least 4 expected"]);
    }

    #[test]
    fn a_run_that_only_skips_is_red() {
        let output = "1..1\nok 1 - a # SKIP\ntoa-vm: exit 0 tainted 0\n";
        assert_eq!(verdict(CONSOLE, output).problems, ["no test passed"]);
    }

    #[test]
    fn skips_that_differ_from_the_list_are_red() {
        let verdict = |output: &str, list| {
            let args = Args {
                skips: Some(Skips::parse(list, "6.1.0").expect("valid")),
                ..args(1, false)
            };
            judge(&Ending::Exited, CONSOLE, output, &args).to_string()
        };
        let good = "2 passed, 0 failed, 1 skipped";
        assert_eq!(verdict(OUTPUT, "6.1.* c no ipv6\n"), good);
        assert_eq!(
            verdict(OUTPUT, "6.12.* c no ipv6\n"),
            "2 passed, 1 failed, 1 skipped"
        );
        let ran = OUTPUT.replace(" # SKIP no ipv6", "");
        assert_eq!(
            verdict(&ran, "6.1.* c no ipv6\n"),
            "3 passed, 1 failed, 0 skipped"
        );
    }

    #[test]
    fn a_tainted_kernel_is_red_though_its_log_is_clean() {
        let output = OUTPUT.replace("tainted 12288", "tainted 12800");
        assert_eq!(
            verdict(CONSOLE, &output).problems,
            ["the kernel is tainted: 12800"]
        );
    }

    #[test]
    fn an_exit_status_that_contradicts_the_results_is_red() {
        let output = OUTPUT.replace("exit 0", "exit 139");
        assert!(!verdict(CONSOLE, &output).is_good());
    }

    #[test]
    fn a_hang_is_red() {
        let ending = Ending::Silent(Duration::from_secs(5));
        let verdict = judge(&ending, CONSOLE, OUTPUT, &args(1, false));
        assert_eq!(verdict.problems, ["no output for 5 s: a hang, stopped"]);
    }

    #[test]
    fn a_planted_bug_must_be_reported_by_its_name() {
        let run = |console, text: &str| {
            let args = Args {
                planted: Some(text.to_owned()),
                ..args(1, false)
            };
            judge(&Ending::Exited, console, OUTPUT, &args).to_string()
        };
        let warning = include_str!("../fixtures/warning.console");
        assert_eq!(run(warning, "WARNING:"), "1 passed, 0 failed, 0 skipped");
        assert_eq!(run(warning, "KASAN:"), "0 passed, 1 failed, 0 skipped");
        assert_eq!(run(CONSOLE, "WARNING:"), "0 passed, 1 failed, 0 skipped");
    }

    #[test]
    fn a_plain_command_is_judged_by_its_status() {
        let run = |output| judge(&Ending::Exited, CONSOLE, output, &args(1, true)).is_good();
        assert!(run("hello\ntoa-vm: exit 0 tainted 0\n"));
        assert!(!run("hello\ntoa-vm: exit 1 tainted 0\n"));
        assert!(!run("hello\n"));
    }
}
