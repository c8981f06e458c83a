// SPDX-License-Identifier: MIT OR Apache-2.0

//! `/proc/net/toa_stats`: a header with a column for each processor, then rows `name: number …`.

use std::collections::BTreeMap;

use crate::failure::Failure;
use crate::failure::Result;
use crate::host::Host;

/// The row with the number of records that exist.
pub const RECORDS_LIVE: &str = "records_live";

/// The row of connections with a recorded client.
pub const TAKEN: &str = "option_taken";

/// The fate of a connection's client, which a row of the file counts.
#[derive(Debug, PartialEq, Eq)]
pub struct Outcome {
    /// The row.
    pub row: &'static str,
    /// The segment that completed the handshake, or the policy's answer.
    pub meaning: &'static str,
    /// The advice to an operator whose server logs the balancer.
    pub remedy: &'static str,
    /// Whether the connection carries a client's option that was not used.
    pub refused: bool,
}

/// The outcomes in the order of `doc/operating.md`.
pub const OUTCOMES: &[Outcome] = &[
    Outcome {
        row: TAKEN,
        meaning: "carries a client, who is recorded",
        remedy: "the module has the client: see toa list. The connection may have ended since, or the \
                 program took the address from elsewhere",
        refused: false,
    },
    Outcome {
        row: "no_option",
        meaning: "carries no option",
        remedy: "the balancer inserts nothing: switch TOA on there. SYNPROXY on this server, a first \
                 segment as long as the MTU, and a full header with NAT64 have the same effect",
        refused: false,
    },
    Outcome {
        row: "no_option_header_full",
        meaning: "carries no option, and its header has no room for one",
        remedy: "the client fills its header with options: let the balancer remove other options, as DPVS \
                 does",
        refused: false,
    },
    Outcome {
        row: "kind_not_configured",
        meaning: "carries an option of another kind that may be a client's",
        remedy: "the balancer writes a kind that does not count: find its number with tcpdump -v, then run \
                 toa policy set kinds=254,NUMBER",
        refused: true,
    },
    Outcome {
        row: "untrusted",
        meaning: "comes from a host that the policy does not trust",
        remedy: "the balancer's address is not in the trusted set: run toa policy set trusted+=PREFIX",
        refused: true,
    },
    Outcome {
        row: "impossible_client",
        meaning: "names a client that cannot be, such as the server itself",
        remedy: "a host forges options, or the server reaches itself through the balancer: allow only the \
                 balancer to reach the port",
        refused: true,
    },
    Outcome {
        row: "foreign_length",
        meaning: "is of IPv6 and carries an 8-byte option",
        remedy: "the balancer forwards a client's option: let it strip kind 254. If the balancer turns \
                 IPv4 clients into IPv6 connections, run toa policy set nat46=1",
        refused: true,
    },
    Outcome {
        row: "malformed",
        meaning: "carries an option of a wrong length, or a truncated list",
        remedy: "the balancer writes its kind with another length than the policy has: find it with \
                 tcpdump -v, then run toa policy set kinds=KIND/LENGTH:DIALECT",
        refused: true,
    },
    Outcome {
        row: "record_table_full",
        meaning: "carries a client, and the namespace's share of records is full",
        remedy: "load the module with more records: rmmod toa && modprobe toa max_records=NUMBER",
        refused: true,
    },
    Outcome {
        row: "record_alloc_failed",
        meaning: "carries a client, and there is no memory for a record",
        remedy: "the kernel has no memory for the moment: see /proc/pressure/memory",
        refused: true,
    },
    Outcome {
        row: "disabled",
        meaning: "arrived while the policy disables toa",
        remedy: "toa is switched off in this network namespace: run toa policy set enabled=1",
        refused: true,
    },
];

/// Returns the outcome that a row counts.
pub fn outcome(row: &str) -> Option<&'static Outcome> {
    OUTCOMES.iter().find(|outcome| outcome.row == row)
}

/// The rows with their sums over all processors.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Stats {
    /// The rows in the file's order.
    pub rows: Vec<(String, u64)>,
}

impl Stats {
    /// Reads the counters of the thread's network namespace.
    ///
    /// # Errors
    ///
    /// A module that is not loaded, and a content that no toa writes.
    pub fn read(host: &Host) -> Result<Self> {
        let path = host.net("toa_stats");
        let text = host.read_path(&path)?.ok_or_else(Failure::not_loaded)?;
        Self::parse(&text).map_err(|line| {
            Failure::failed(format!("{}: line {line} is no counter", path.display()))
        })
    }

    /// Parses the file. The error is the number of the line that is wrong.
    pub fn parse(text: &str) -> Result<Self, usize> {
        let mut lines = text.lines().zip(1_usize..);
        let (header, _) = lines.next().ok_or(1_usize)?;
        if !header.trim_start().starts_with("CPU") {
            return Err(1);
        }
        let rows = lines
            .map(|(line, number)| row(line).ok_or(number))
            .collect::<Result<Vec<_>, _>>()?;
        if rows.is_empty() {
            return Err(2);
        }
        Ok(Self { rows })
    }

    /// Returns a row's sum, or none if this toa has no such row.
    pub fn get(&self, name: &str) -> Option<u64> {
        let row = self.rows.iter().find(|(row, _)| row == name);
        row.map(|(_, sum)| *sum)
    }

    /// Whether these are the rows of this project's module.
    pub fn are_ours(&self) -> bool {
        self.get(RECORDS_LIVE).is_some() && self.get("malformed").is_some()
    }

    /// Returns the outcomes that this toa counts, with their numbers.
    pub fn outcomes(&self) -> impl Iterator<Item = (&'static Outcome, u64)> + '_ {
        let found = OUTCOMES.iter();
        found.filter_map(|outcome| Some((outcome, self.get(outcome.row)?)))
    }

    /// Returns the growth of each row since `before`. Rows that fell have 0.
    pub fn since(&self, before: &Self) -> BTreeMap<String, u64> {
        let growth = self.rows.iter().map(|(name, sum)| {
            let old = before.get(name).unwrap_or(0);
            (name.clone(), sum.saturating_sub(old))
        });
        growth.collect()
    }
}

fn row(line: &str) -> Option<(String, u64)> {
    let (name, numbers) = line.split_once(':')?;
    let name = name.trim();
    let plain = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'_';
    if name.is_empty() || !name.bytes().all(plain) {
        return None;
    }
    let mut numbers = numbers.split_whitespace().peekable();
    numbers.peek()?;
    // Records are subtracted on the processor that added them, so the sum wraps around and is right.
    let sum = numbers.try_fold(0_u64, |sum, number| {
        Some(sum.wrapping_add(number.parse::<u64>().ok()?))
    })?;
    Some((name.to_owned(), sum))
}

#[cfg(test)]
mod tests {
    use super::*;

    const TEXT: &str = "                                CPU0       CPU1 \n\
                        syn_recv_sock_toa        :         3          4 \n\
                        records_live             :         5 18446744073709551613 \n";

    #[test]
    fn rows_are_summed_and_wrap_around() {
        let stats = Stats::parse(TEXT).expect("a table");
        let rows = [
            ("syn_recv_sock_toa".to_owned(), 7),
            ("records_live".to_owned(), 2),
        ];
        assert_eq!(stats.rows, rows);
        assert_eq!(stats.get("no_such_row"), None);
    }

    #[test]
    fn garbage_is_refused_with_its_line() {
        for (text, line) in [
            ("", 1),
            ("\n", 1),
            ("hello\nworld: 1\n", 1),
            ("CPU0\n", 2),
            ("CPU0\nrow: \n", 2),
            ("CPU0\nrow 1\n", 2),
            ("CPU0\nrow: 1\nrow: -1\n", 3),
            ("CPU0\nrow: 1\nrow: 18446744073709551616\n", 3),
            ("CPU0\n\u{1b}[2J: 1\n", 2),
        ] {
            assert_eq!(Stats::parse(text), Err(line), "{text:?}");
        }
    }

    #[test]
    fn growth_of_a_row_that_fell_is_0() {
        let at = |number| Stats {
            rows: vec![("row".to_owned(), number)],
        };
        assert_eq!(at(5).since(&at(3))["row"], 2);
        assert_eq!(at(3).since(&at(5))["row"], 0);
    }
}
