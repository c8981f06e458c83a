// SPDX-License-Identifier: GPL-2.0

//! The skips that each kernel is expected to have, from a file such as `tests/skips.txt`.
//!
//! A line is `KERNEL TEST REASON`. KERNEL is a pattern for `uname -r` in which `*` stands for any
//! text. Blank lines and lines that start with `#` are ignored.

use std::collections::BTreeSet;
use std::fs;
use std::io;
use std::path::Path;

use crate::ktap::Report;

/// The tests that one kernel skips.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Skips(BTreeSet<String>);

impl Skips {
    /// Reads the lines of `file` that match the kernel `release`.
    pub fn read(file: &Path, release: &str) -> io::Result<Self> {
        let named = |reason| format!("{}: {reason}", file.display());
        let text = fs::read_to_string(file)
            .map_err(|error| io::Error::new(error.kind(), named(error.to_string())))?;
        Self::parse(&text, release).map_err(|reason| io::Error::other(named(reason)))
    }

    /// Reads the lines of `text` that match the kernel `release`.
    pub fn parse(text: &str, release: &str) -> Result<Self, String> {
        let mut tests = BTreeSet::new();
        for line in text.lines().map(str::trim) {
            if line.is_empty() || line.starts_with('#') {
                continue;
            }
            let mut words = line.splitn(3, char::is_whitespace);
            let (Some(kernel), Some(test), Some(_)) = (words.next(), words.next(), words.next())
            else {
                return Err(format!("'{line}' is not KERNEL TEST REASON"));
            };
            if matches(kernel, release) {
                tests.insert(test.to_owned());
            }
        }
        Ok(Self(tests))
    }

    /// Returns a problem for each skip outside the list, and for each listed test that ran. A
    /// listed test that the run does not contain is no problem.
    pub fn compare(&self, report: &Report) -> Vec<String> {
        let unexpected = report.skips.iter().filter(|test| !self.0.contains(*test));
        let ran = report.ran.iter().filter(|test| self.0.contains(*test));
        unexpected
            .map(|test| format!("{test} is skipped, but the list of skips lacks it"))
            .chain(ran.map(|test| format!("{test} ran, but the list of skips holds it")))
            .collect()
    }
}

/// Whether `text` matches `pattern`, in which `*` stands for any text.
fn matches(pattern: &str, text: &str) -> bool {
    match pattern.split_once('*') {
        None => pattern == text,
        Some((start, rest)) => text.strip_prefix(start).is_some_and(|text| {
            text.char_indices()
                .map(|(at, _)| &text[at..])
                .chain([""])
                .any(|end| matches(rest, end))
        }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ktap;

    const LIST: &str = "# list\n\n6.1.* a has no A\n6.1*-rt-* b has no B\n* c is never there\n";

    fn skips(release: &str) -> Vec<String> {
        let skips = Skips::parse(LIST, release).expect("valid");
        skips.0.into_iter().collect()
    }

    fn problems(results: &str) -> Vec<String> {
        let skips = Skips::parse(LIST, "6.1.0-44-amd64").expect("valid");
        skips.compare(&ktap::parse(results))
    }

    #[test]
    fn patterns_select_the_kernels() {
        assert_eq!(skips("6.1.0-44-amd64"), ["a", "c"]);
        assert_eq!(skips("6.1.0-44-rt-amd64"), ["a", "b", "c"]);
        assert_eq!(skips("6.12.118+deb13-rt-amd64"), ["b", "c"]);
        assert_eq!(skips("7.3.4+deb13-amd64"), ["c"]);
        assert!(matches("*", "") && matches("a*", "a") && matches("*a*b", "xaybab"));
        assert!(!matches("", "a") && !matches("a", "ab") && !matches("*a*b", "ba"));
    }

    #[test]
    fn lines_without_a_reason_are_refused() {
        assert!(Skips::parse("6.1.* a\n", "6.1.0").is_err());
        assert!(Skips::parse("6.1.*\n", "7.3").is_err());
    }

    #[test]
    fn listed_skips_are_no_problem() {
        assert_eq!(
            problems("1..3\nok 1 - a # SKIP no A\nok 2 - c # SKIP\nok 3 - d\n"),
            [""; 0]
        );
    }

    #[test]
    fn skips_outside_the_list_are_problems() {
        assert_eq!(
            problems("1..2\nok 1 - a # SKIP no A\nok 2 - d # SKIP no D\n"),
            ["d is skipped, but the list of skips lacks it"]
        );
    }

    #[test]
    fn listed_tests_that_run_are_problems() {
        for result in ["ok", "not ok"] {
            assert_eq!(
                problems(&format!("1..2\n{result} 1 - a\nok 2 - d\n")),
                ["a ran, but the list of skips holds it"]
            );
        }
    }

    #[test]
    fn listed_tests_that_the_run_lacks_are_no_problem() {
        assert_eq!(problems("1..1\nok 1 - d\n"), [""; 0]);
    }
}
