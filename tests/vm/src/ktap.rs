// SPDX-License-Identifier: GPL-2.0

//! Parses KTAP, version 1 (the kernel's `Documentation/dev-tools/ktap.rst`).
//!
//! Only the top level counts; indented lines are diagnostics of nested tests.

/// The results of the tests, and the faults of their output.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Report {
    pub plan: Option<usize>,
    pub passed: usize,
    pub failed: usize,
    pub skipped: usize,
    /// The names of the skipped tests.
    pub skips: Vec<String>,
    /// The names of the tests that passed or failed.
    pub ran: Vec<String>,
    /// Contradictions in the output.
    pub faults: Vec<String>,
}

impl Report {
    pub fn total(&self) -> usize {
        self.passed + self.failed + self.skipped
    }
}

/// One line that has a meaning in KTAP.
enum Line<'a> {
    Plan(usize),
    Result {
        ok: bool,
        skip: bool,
        number: Option<usize>,
        name: &'a str,
    },
    BailOut(&'a str),
}

pub fn parse(output: &str) -> Report {
    let mut report = Report::default();
    for line in output.lines().filter_map(parse_line) {
        report.take(line);
    }
    report.close();
    report
}

impl Report {
    fn take(&mut self, line: Line<'_>) {
        match line {
            Line::Plan(count) => {
                if self.plan.replace(count).is_some() {
                    self.faults.push("more than one plan".to_owned());
                }
            }
            Line::Result {
                ok,
                skip,
                number,
                name,
            } => {
                let names = if ok && skip {
                    &mut self.skips
                } else {
                    &mut self.ran
                };
                names.push(name.to_owned());
                match (ok, skip) {
                    (true, false) => self.passed += 1,
                    (true, true) => self.skipped += 1,
                    (false, _) => self.failed += 1,
                }
                let expected = self.total();
                if number != Some(expected) {
                    self.faults
                        .push(format!("result {expected} is numbered {number:?}"));
                }
            }
            Line::BailOut(reason) => self.faults.push(format!("bailed out: {reason}")),
        }
    }

    fn close(&mut self) {
        let total = self.total();
        match self.plan {
            None => self.faults.push("no plan (1..N)".to_owned()),
            Some(plan) if plan != total => self
                .faults
                .push(format!("the plan is {plan} tests, {total} reported")),
            Some(_) => {}
        }
    }
}

fn parse_line(line: &str) -> Option<Line<'_>> {
    let line = line.trim_end();
    if let Some(count) = line.strip_prefix("1..") {
        return count.split(' ').next()?.parse().ok().map(Line::Plan);
    }
    if let Some(reason) = line.strip_prefix("Bail out!") {
        return Some(Line::BailOut(reason.trim()));
    }
    let (ok, rest) = match line.strip_prefix("not ok") {
        Some(rest) => (false, rest),
        None => (true, line.strip_prefix("ok")?),
    };
    if !rest.is_empty() && !rest.starts_with(' ') {
        return None;
    }
    Some(Line::Result {
        ok,
        skip: directive(rest).is_some_and(|word| word.eq_ignore_ascii_case("skip")),
        number: rest
            .split_whitespace()
            .next()
            .and_then(|word| word.parse().ok()),
        name: name(rest),
    })
}

/// The first word after the number of a result line, and after its dash.
fn name(rest: &str) -> &str {
    let mut words = rest
        .split_whitespace()
        .skip(1)
        .skip_while(|word| *word == "-");
    words.next().unwrap_or("")
}

/// Returns the word after the `#` of a result line.
fn directive(rest: &str) -> Option<&str> {
    rest.split_once(" # ")?.1.split_whitespace().next()
}

#[cfg(test)]
mod tests {
    use super::*;

    const GOOD: &str =
        "KTAP version 1\n1..3\nok 1 - a\n# note\nnot ok 2 - b\nok 3 - c # SKIP no v6\n";

    #[test]
    fn results_are_counted() {
        let report = parse(GOOD);
        assert_eq!((report.passed, report.failed, report.skipped), (1, 1, 1));
        assert_eq!(report.faults, Vec::<String>::new());
    }

    #[test]
    fn skips_and_other_results_are_named() {
        let report = parse(GOOD);
        assert_eq!(report.ran, ["a", "b"]);
        assert_eq!(report.skips, ["c"]);
    }

    #[test]
    fn a_missing_plan_is_a_fault() {
        assert_eq!(parse("ok 1 - a\n").faults, ["no plan (1..N)"]);
    }

    #[test]
    fn a_run_shorter_than_its_plan_is_a_fault() {
        assert_eq!(
            parse("1..3\nok 1 - a\n").faults,
            ["the plan is 3 tests, 1 reported"]
        );
    }

    #[test]
    fn a_run_longer_than_its_plan_is_a_fault() {
        assert_eq!(parse("1..1\nok 1 - a\nok 2 - b\n").faults.len(), 1);
    }

    #[test]
    fn results_are_numbered_in_order() {
        assert_eq!(parse("1..2\nok 1 - a\nok 1 - a\n").faults.len(), 1);
        assert_eq!(parse("1..1\nok - a\n").faults.len(), 1);
    }

    #[test]
    fn two_plans_are_a_fault() {
        assert_eq!(
            parse("1..1\nok 1 - a\n1..1\n").faults,
            ["more than one plan"]
        );
    }

    #[test]
    fn bailing_out_is_a_fault() {
        let report = parse("1..2\nok 1 - a\nBail out! no module\n");
        assert!(report.faults.contains(&"bailed out: no module".to_owned()));
    }

    #[test]
    fn nested_results_and_other_words_do_not_count() {
        let report = parse("1..1\n    ok 1 - inner\n    1..7\nokay 4\nok 1 - outer\n");
        assert_eq!(report.total(), 1);
        assert!(report.faults.is_empty());
    }

    #[test]
    fn a_failure_that_says_skip_is_a_failure() {
        assert_eq!(parse("1..1\nnot ok 1 - a # SKIP\n").failed, 1);
    }
}
