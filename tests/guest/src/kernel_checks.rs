// SPDX-License-Identifier: GPL-2.0

//! The checks of a debug kernel: lockdep, which is silent after its first report, and the search for
//! lost memory, which runs on demand (the kernel's `Documentation/dev-tools/kmemleak.rst`).

use std::fs;
use std::thread::sleep;
use std::time::Duration;

use crate::ktap::note;

const LOCKDEP: &str = "/proc/lockdep_stats";
const KMEMLEAK: &str = "/sys/kernel/debug/kmemleak";

/// The age below which memory is not yet searched for (`MSECS_MIN_AGE`).
const MIN_AGE: Duration = Duration::from_secs(5);

/// Returns what the checks found, after the last case. A kernel without them finds nothing.
pub fn problems() -> Vec<String> {
    let mut problems = Vec::new();
    if let Ok(text) = fs::read_to_string(LOCKDEP) {
        match number(&text, "debug_locks") {
            Some(1) => note(&format!(
                "lockdep is on, with {} classes of locks",
                number(&text, "lock-classes").unwrap_or_default()
            )),
            other => problems.push(format!("lockdep has turned itself off: {other:?}")),
        }
    }
    if fs::exists(KMEMLEAK).expect("debugfs") {
        let lost = lost_memory();
        note(&format!("kmemleak searched: {} objects lost", lost.len()));
        problems.extend(lost);
    }
    problems
}

/// Searches twice, because an object that changes between two searches is in use.
pub fn lost_memory() -> Vec<String> {
    sleep(MIN_AGE);
    for _ in 0..2 {
        fs::write(KMEMLEAK, "scan").expect("kmemleak searches");
    }
    let text = fs::read_to_string(KMEMLEAK).expect("kmemleak reports");
    let starts = text.split("unreferenced object").skip(1);
    starts
        .map(|object| format!("unreferenced object{}", object.trim_end()))
        .collect()
}

/// Returns the number of a line `name: number […]`.
fn number(text: &str, name: &str) -> Option<u64> {
    let line = text
        .lines()
        .find_map(|line| line.trim().strip_prefix(name)?.strip_prefix(':'))?;
    line.split_whitespace().next()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_those_of_their_names() {
        let text = " lock-classes:           933 [max: 8192]\n debug_locks:              1\n";
        assert_eq!(number(text, "lock-classes"), Some(933));
        assert_eq!(number(text, "debug_locks"), Some(1));
        assert_eq!(number(text, "locks"), None);
    }
}
