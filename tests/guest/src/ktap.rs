// SPDX-License-Identifier: GPL-2.0

//! Prints KTAP, version 1 (the kernel's `Documentation/dev-tools/ktap.rst`).

use std::io::stdout;
use std::io::Write;

/// The number of results so far; each line is flushed at once.
pub struct Ktap {
    number: usize,
    failed: usize,
}

impl Ktap {
    /// Begins the output with the plan.
    pub fn begin(count: usize) -> Self {
        line("KTAP version 1");
        line(&format!("1..{count}"));
        Self {
            number: 0,
            failed: 0,
        }
    }

    /// Prints a test's result: passed if it has no problems, or skipped for a reason.
    pub fn result(&mut self, name: &str, problems: &[String], skipped: Option<&str>) {
        problems.iter().for_each(|problem| note(problem));
        self.number += 1;
        let word = match problems {
            [] => "ok",
            _ => {
                self.failed += 1;
                "not ok"
            }
        };
        let directive = skipped.map_or(String::new(), |reason| format!(" # SKIP {reason}"));
        line(&format!("{word} {} {name}{directive}", self.number));
    }

    pub fn all_passed(&self) -> bool {
        self.failed == 0
    }
}

/// Prints diagnostics, with a mark before each line.
pub fn note(text: &str) {
    text.lines().for_each(|text| line(&format!("# {text}")));
}

/// Reports that the run ends early.
pub fn bail_out(reason: &str) {
    line(&format!("Bail out! {reason}"));
}

/// Prints a line. A failure is ignored: it cannot be reported without the output.
fn line(text: &str) {
    let mut out = stdout().lock();
    let _ = writeln!(out, "{text}");
    let _ = out.flush();
}
