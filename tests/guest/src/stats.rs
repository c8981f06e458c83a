// SPDX-License-Identifier: GPL-2.0

//! Parses `/proc/net/toa_stats`: a header with a column for each processor, then rows
//! `name: number number …`, as DPVS's module prints them.

use std::collections::BTreeMap;
use std::fs;
use std::io::ErrorKind;

use crate::namespace::Namespace;

/// The rows, in the file's order: those of DPVS's module, the outcomes, and others.
pub const ROWS: [&str; 21] = [
    "syn_recv_sock_toa",
    "syn_recv_sock_no_toa",
    "getname_toa_ok",
    "getname_toa_mismatch",
    "getname_toa_bypass",
    "getname_toa_empty",
    "ip6_address_alloc",
    "ip6_address_free",
    "option_taken",
    "no_option",
    "no_option_header_full",
    "kind_not_configured",
    "untrusted",
    "impossible_client",
    "foreign_length",
    "malformed",
    "record_table_full",
    "record_alloc_failed",
    "disabled",
    "duplicate",
    "records_live",
];

/// The rows of outcomes, of which each connection counts in exactly one.
pub const OUTCOMES: &[&str] = ROWS.split_at(8).1.split_at(ROWS.len() - 10).0;

/// Each row's sum over the processors. The kernel's counters are unsigned, and their sum wraps around.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Stats {
    rows: BTreeMap<String, u64>,
}

impl Stats {
    /// Reads a namespace's counters; the module must be loaded.
    #[track_caller]
    pub fn read(namespace: &Namespace) -> Self {
        Self::read_if_loaded(namespace).expect("toa_stats is there")
    }

    /// Reads a namespace's counters; returns None without the module.
    pub fn read_if_loaded(namespace: &Namespace) -> Option<Self> {
        text(namespace).map(|text| Self::parse(&text))
    }

    /// Reads the counters of the calling thread's namespace; returns None without the module.
    pub fn read_here() -> Option<Self> {
        text_here().map(|text| Self::parse(&text))
    }

    /// Returns the counters of a module that has counted nothing.
    pub fn zero() -> Self {
        Self {
            rows: ROWS.iter().map(|row| ((*row).to_owned(), 0)).collect(),
        }
    }

    fn parse(text: &str) -> Self {
        let rows = Columns::parse(text).rows.into_iter();
        Self {
            rows: rows
                .map(|(name, numbers)| (name, numbers.into_iter().fold(0, u64::wrapping_add)))
                .collect(),
        }
    }

    #[track_caller]
    pub fn get(&self, row: &str) -> u64 {
        *self
            .rows
            .get(row)
            .unwrap_or_else(|| panic!("toa_stats has no row {row}"))
    }

    /// Returns the number of connections, by the outcomes.
    #[track_caller]
    pub fn connections(&self) -> u64 {
        OUTCOMES.iter().map(|row| self.get(row)).sum()
    }

    /// Returns the differences since `before`, without the rows that did not change. A row that wrapped below
    /// 0 has a negative difference.
    #[track_caller]
    pub fn since(&self, before: &Self) -> Vec<(&'static str, i64)> {
        ROWS.iter()
            .map(|&row| (row, self.get(row).wrapping_sub(before.get(row)) as i64))
            .filter(|&(_, change)| change != 0)
            .collect()
    }
}

/// The table as it is printed, a column for each processor.
#[derive(Debug)]
pub struct Columns {
    pub headings: Vec<String>,
    pub rows: BTreeMap<String, Vec<u64>>,
}

impl Columns {
    fn parse(text: &str) -> Self {
        let mut lines = text.lines();
        let headings = lines.next().unwrap_or_default().split_whitespace();
        let rows = lines.filter_map(|line| {
            let (name, numbers) = line.split_once(':')?;
            let number = |number: &str| {
                let parsed = number.parse::<u64>();
                parsed.unwrap_or_else(|error| panic!("toa_stats has {number:?}: {error}: {line}"))
            };
            let numbers = numbers.split_whitespace().map(number);
            Some((name.trim().to_owned(), numbers.collect()))
        });
        Self {
            headings: headings.map(str::to_owned).collect(),
            rows: rows.collect(),
        }
    }
}

/// Reads a namespace's table; the module must be loaded.
#[track_caller]
pub fn columns(namespace: &Namespace) -> Columns {
    Columns::parse(&text(namespace).expect("toa_stats is there"))
}

/// Returns the file's text. Returns None without the module, or if the module is
/// unloaded during the read (EIO, see `fs/proc/inode.c`).
pub fn text(namespace: &Namespace) -> Option<String> {
    namespace.enter(text_here)
}

/// Returns the text of the file in the calling thread's namespace.
fn text_here() -> Option<String> {
    match fs::read_to_string("/proc/thread-self/net/toa_stats") {
        Ok(text) => Some(text),
        Err(error) if error.kind() == ErrorKind::NotFound => None,
        Err(error) if error.raw_os_error() == Some(libc::EIO) => None,
        Err(error) => panic!("toa_stats: {error}"),
    }
}

/// Describes a row's number. One that wrapped below 0 also has the number that it stands for.
pub fn describe(row: &str, number: u64) -> String {
    match number as i64 {
        wrapped @ ..0 => {
            format!("{row} is {number}, which is {wrapped}: it was counted down too often")
        }
        _ => format!("{row} is {number}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_are_summed_over_the_processors() {
        let stats = Stats::parse(
            "         CPU0 CPU1\nmalformed    :  2  3\nrecords_live: 4 18446744073709551612\n",
        );
        assert_eq!((stats.get("malformed"), stats.get("records_live")), (5, 0));
    }

    #[test]
    fn row_that_wrapped_is_described_and_compared() {
        let at = |live: u64| {
            let row = |&row: &&str| (row.to_owned(), if row == "records_live" { live } else { 0 });
            Stats {
                rows: ROWS.iter().map(row).collect(),
            }
        };
        let below = 0_u64.wrapping_sub(1);
        assert_eq!(at(below).since(&at(1)), [("records_live", -2)]);
        assert_eq!(at(1).since(&at(below)), [("records_live", 2)]);
        assert_eq!(
            describe("records_live", below),
            "records_live is 18446744073709551615, which is -1: it was counted down too often"
        );
        assert_eq!(describe("records_live", 1), "records_live is 1");
    }

    #[test]
    #[should_panic(expected = "toa_stats has \"-4\": invalid digit")]
    fn number_that_the_kernel_does_not_print_is_named() {
        Stats::parse("CPU0\nrecords_live: -4\n");
    }
}
