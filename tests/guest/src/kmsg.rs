// SPDX-License-Identifier: GPL-2.0

//! The kernel's log, read from its start or from the current end (`/dev/kmsg`, the
//! kernel's `Documentation/ABI/testing/dev-kmsg`).

use std::fs::File;
use std::fs::OpenOptions;
use std::io::ErrorKind;
use std::io::Read;
use std::io::Seek;
use std::io::SeekFrom;
use std::os::unix::fs::OpenOptionsExt;

/// Parts of lines, one a line; the host has the same list.
const ALARMS: &str = include_str!("../../alarms.txt");

/// Size of a buffer for any record (`PRINTK_MESSAGE_MAX`).
const RECORD_MAX: usize = 8192;

/// A reader with its position in the log.
pub struct KernelLog {
    file: File,
}

impl KernelLog {
    /// Opens the log at the oldest kept message since the boot.
    pub fn from_boot() -> Self {
        let file = OpenOptions::new()
            .read(true)
            .custom_flags(libc::O_NONBLOCK)
            .open("/dev/kmsg")
            .expect("/dev/kmsg opens");
        Self { file }
    }

    /// Opens the log at its end: the reader returns later messages only.
    pub fn from_now() -> Self {
        let Self { mut file } = Self::from_boot();
        file.seek(SeekFrom::End(0))
            .expect("the log seeks to its end");
        Self { file }
    }

    /// Returns the messages since the last call.
    pub fn new_lines(&mut self) -> Vec<String> {
        let mut lines = Vec::new();
        let mut record = [0; RECORD_MAX];
        loop {
            match self.file.read(&mut record) {
                Ok(length) => lines.push(message(&record[..length])),
                Err(error) if error.kind() == ErrorKind::WouldBlock => return lines,
                // Records were overwritten before they were read: the next read
                // returns the oldest record that is left.
                Err(error) if error.raw_os_error() == Some(libc::EPIPE) => {
                    lines.push("(messages lost)".to_owned());
                }
                Err(error) => panic!("/dev/kmsg: {error}"),
            }
        }
    }
}

/// Returns a record's message. A record is `prefix;message`, then lines with properties.
fn message(record: &[u8]) -> String {
    let record = String::from_utf8_lossy(record);
    let line = record.lines().next().unwrap_or_default();
    let text = line.split_once(';').map_or(line, |(_, text)| text);
    text.to_owned()
}

/// The kernel's reports of failed allocations that have a trace: those of `warn_alloc`, and that of a slab
/// cache which cannot be made (`__kmem_cache_create_args`), with ENOMEM or EINVAL.
const REPORTS: [&str; 3] = [
    "vmalloc error:",
    "page allocation failure:",
    "(toa_record) failed with error -",
];

/// The lines of the log before an alarm that its message shows, and those behind it: the headings of a trace,
/// and its functions.
const AROUND: (usize, usize) = (6, 16);

/// Returns the alarms among lines, each with those around it. While allocations fail on purpose, the kernel's
/// report of one is none, although it has a trace.
pub fn alarms(lines: &[String], allocations_fail: bool) -> Vec<String> {
    let (before, behind) = AROUND;
    let excerpt = |index: usize| {
        let end = lines.len().min(index + behind + 1);
        lines[index.saturating_sub(before)..end].join("\n")
    };
    places(lines, allocations_fail)
        .into_iter()
        .map(excerpt)
        .collect()
}

/// The indices of the alarms.
fn places(lines: &[String], allocations_fail: bool) -> Vec<usize> {
    let mut trace_of_report = false;
    let mut is_alarm = |line: &String| {
        if REPORTS.iter().any(|report| line.contains(report)) {
            trace_of_report = allocations_fail;
        }
        if trace_of_report && line.contains("Call Trace:") {
            trace_of_report = false;
            return false;
        }
        is_alarm(line)
    };
    let mut places = Vec::new();
    for (index, line) in lines.iter().enumerate() {
        if is_alarm(line) {
            places.push(index);
        }
    }
    places
}

fn is_alarm(line: &str) -> bool {
    let mut alarms = ALARMS
        .lines()
        .filter(|alarm| !alarm.is_empty() && !alarm.starts_with('#'));
    alarms.any(|alarm| line.contains(alarm))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_record_is_cut_down_to_its_message() {
        let record = b"6,339,5140900,-;NET: Registered; protocol\n SUBSYSTEM=x\n";
        assert_eq!(message(record), "NET: Registered; protocol");
    }

    #[test]
    fn report_of_a_failed_allocation_is_an_alarm_unless_they_fail_on_purpose() {
        let lines = [
            "toa-guest: vmalloc error: size 1, vm_struct allocation failed",
            "Call Trace:",
            "WARNING: kernel/module.c:1 at f",
            "Call Trace:",
            "__kmem_cache_create_args(toa_record) failed with error -22",
            "Call Trace:",
        ]
        .map(str::to_owned);
        assert_eq!(places(&lines, true), [2, 3]);
        assert_eq!(places(&lines, false), [1, 2, 3, 5]);
    }

    #[test]
    fn an_alarm_comes_with_the_lines_around_it() {
        let lines: Vec<String> = (0..40)
            .map(|line| format!("line {line}{}", if line == 10 { " BUG: x" } else { "" }))
            .collect();
        let alarms = alarms(&lines, false);
        assert_eq!(alarms.len(), 1);
        assert!(alarms[0].starts_with("line 4\n") && alarms[0].ends_with("\nline 26"));
    }

    #[test]
    fn alarms_are_told_from_news() {
        assert!(is_alarm("WARNING: CPU: 0 PID: 1 at net/core/dev.c:1"));
        assert!(!is_alarm("TOA: toa loaded"));
    }
}
