// SPDX-License-Identifier: GPL-2.0

//! Finds the lines in a kernel log that a healthy kernel does not print.

/// Parts of lines, one a line; the guest has the same list.
const ALARMS: &str = include_str!("../../alarms.txt");

fn alarms() -> impl Iterator<Item = &'static str> {
    let lines = ALARMS.lines();
    lines.filter(|line| !line.is_empty() && !line.starts_with('#'))
}

/// Number of lines after an alarm that belong to it. The registers, code and trace
/// of one splat contain several alarms; the splat is reported once.
const SPLAT_LINES: usize = 60;

/// Returns the first line of each splat.
pub fn splats(log: &str) -> Vec<&str> {
    let mut found: Vec<(usize, &str)> = Vec::new();
    for (number, line) in log.lines().enumerate() {
        if !is_alarm(line) {
            continue;
        }
        match found.last() {
            Some((first, _)) if number - first < SPLAT_LINES && !starts_splat(line) => {}
            _ => found.push((number, line)),
        }
    }
    found.into_iter().map(|(_, line)| line).collect()
}

fn is_alarm(line: &str) -> bool {
    alarms().any(|alarm| line.contains(alarm))
}

/// Returns whether the line always starts a splat.
fn starts_splat(line: &str) -> bool {
    ["WARNING:", "BUG:", "leaked", "unreferenced object"]
        .iter()
        .any(|alarm| line.contains(alarm))
}

#[cfg(test)]
mod tests {
    use super::*;

    const CLEAN: &str = include_str!("../fixtures/clean.console");

    #[test]
    fn a_healthy_boot_with_our_module_is_no_alarm() {
        assert_eq!(splats(CLEAN), Vec::<&str>::new());
    }

    #[test]
    fn every_alarm_is_heard_in_an_otherwise_healthy_log() {
        for alarm in alarms() {
            let log = format!("{CLEAN}[    9.000000] x {alarm} y\n");
            assert_eq!(splats(&log).len(), 1, "{alarm}");
        }
    }

    #[test]
    fn a_warning_with_its_trace_is_one_splat() {
        let log = include_str!("../fixtures/warning.console");
        let found = splats(log);
        assert_eq!(found.len(), 1, "{found:#?}");
        assert!(found[0].contains("WARNING:"));
    }

    #[test]
    fn a_panic_is_heard() {
        assert!(!splats(include_str!("../fixtures/panic.console")).is_empty());
    }

    #[test]
    fn two_warnings_are_two_splats() {
        let log = "[1.0] WARNING: a.c:1 at f\n[1.1] Call Trace:\n[1.2] WARNING: b.c:1 at g\n";
        assert_eq!(splats(log).len(), 2);
    }
}
