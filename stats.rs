// SPDX-License-Identifier: GPL-2.0

//! The counters of `/proc/net/toa_stats`, one set for each CPU, in each network namespace.
//!
//! Layout and first eight rows are those of DPVS's module (`kmod/toa/toa.c`), so that operators'
//! scripts for it work. Then each [`Outcome`] has a row, whose sum is the number of connections.

use crate::linux::percpu::{
    possible_cpus,
    Counters,
    Gauge,
    PerCpu,
    PossibleCpu, //
};
use kernel::fmt;
use kernel::prelude::*;
use kernel::seq_file::SeqFile;
use kernel::seq_print;

/// Declares counters, each with the name of its row.
macro_rules! rows {
    ($(#[$attribute:meta])* $type:ident { $($(#[$doc:meta])* $counter:ident = $row:literal,)+ }) => {
        $(#[$attribute])*
        #[derive(Clone, Copy, PartialEq, Eq)]
        pub(crate) enum $type {
            $($(#[$doc])* $counter,)+
        }

        impl $type {
            /// The counters and their rows, in the order of the discriminants and of the file.
            const ROWS: &'static [(Self, &'static str)] = &[$((Self::$counter, $row)),+];
        }
    };
}

rows! {
    /// The fate of a connection's client. Each child that passes `tcp_child_process` in this
    /// namespace counts in exactly one of these rows.
    Outcome {
        /// The option's client is recorded.
        OptionTaken = "option_taken",
        /// The segment that completed the handshake carries no option.
        NoOption = "no_option",
        /// The segment carries no option, and its header has no room for one.
        NoOptionHeaderFull = "no_option_header_full",
        /// The segment carries no option of a kind that counts, and one of another kind that could be
        /// a client's.
        KindNotConfigured = "kind_not_configured",
        /// The option is of a host that the policy does not trust.
        Untrusted = "untrusted",
        /// The option names a client from which no segment can arrive, or the server itself.
        ImpossibleClient = "impossible_client",
        /// This traffic's balancer cannot write the option: an IPv4 client in an IPv6 segment.
        ForeignLength = "foreign_length",
        /// No rule has the option's length, or the option list is truncated before an option.
        Malformed = "malformed",
        /// The share of this namespace is full: see `max_records` and [`crate::shares`].
        RecordTableFull = "record_table_full",
        /// No memory for a record.
        RecordAllocFailed = "record_alloc_failed",
        /// The policy disables toa.
        Disabled = "disabled",
    }
}

impl Outcome {
    /// Whether DPVS's module counts the connection in `syn_recv_sock_toa`: the segment carries a client
    /// that may be recorded. Otherwise it counts in `syn_recv_sock_no_toa`.
    fn has_client(self) -> bool {
        matches!(
            self,
            Self::OptionTaken | Self::RecordTableFull | Self::RecordAllocFailed
        )
    }
}

rows! {
    /// Anything else that counts. The first [`OF_DPVS`] are rows of DPVS's module.
    Counter {
        /// Answers that named the client.
        GetnameToaOk = "getname_toa_ok",
        /// A record was not used: it is of another connection of the same, reused socket.
        GetnameToaMismatch = "getname_toa_mismatch",
        /// A record was not used: the caller is a kernel thread, or the client's IPv6 address does not
        /// fit the answer.
        GetnameToaBypass = "getname_toa_bypass",
        /// A peer was asked for that has no record.
        GetnameToaEmpty = "getname_toa_empty",
        /// Records made with an IPv6 client.
        Ip6AddressAlloc = "ip6_address_alloc",
        /// Records removed with an IPv6 client.
        Ip6AddressFree = "ip6_address_free",
        /// Segments with more than one option of kinds that count, of which one decided.
        Duplicate = "duplicate",
    }
}

/// The number of DPVS's rows in [`Counter`].
const OF_DPVS: usize = 6;

/// The number of counters: those of [`Counter`], then those of [`Outcome`].
const COUNTERS: usize = Counter::ROWS.len() + Outcome::ROWS.len();

/// The row of [`Stats::records_live`].
const RECORDS_LIVE: &str = "records_live";

/// The heading of a CPU's column.
struct Heading(PossibleCpu);

impl fmt::Display for Heading {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "CPU{}", self.0.number())
    }
}

/// The counters of a namespace.
pub(crate) struct Stats {
    counters: PerCpu<Counters<COUNTERS>>,
    /// Records that are there now, counted for the CPU that made them.
    records_live: PerCpu<Gauge>,
}

impl Stats {
    /// All zero. May sleep.
    pub(crate) fn new() -> Result<Self> {
        Ok(Self {
            counters: PerCpu::new()?,
            records_live: PerCpu::new()?,
        })
    }

    /// Counts a connection on this CPU. Any context.
    pub(crate) fn count(&self, outcome: Outcome) {
        self.counters.increment(place(outcome));
    }

    /// Adds one on this CPU. Any context.
    pub(crate) fn inc(&self, counter: Counter) {
        self.counters.increment(counter as usize);
    }

    /// Counts a record that is made, on this CPU, and returns the CPU. Any context.
    pub(crate) fn record_made(&self) -> PossibleCpu {
        let (records_live, cpu) = self.records_live.this_cpu();
        records_live.add(1);
        cpu
    }

    /// Counts a record that is gone, on the CPU that [`Stats::record_made`] returned. Any context.
    pub(crate) fn record_gone(&self, cpu: PossibleCpu) {
        // Wraps around: the sum over the CPUs is right.
        self.records_live.cpu(cpu).add(u64::MAX);
    }

    /// Writes the table. It is no snapshot: counters move while it is written.
    pub(crate) fn show(&self, seq: &SeqFile) {
        seq_print!(seq, "{:26}", "");
        for cpu in possible_cpus() {
            seq_print!(seq, "{:>10} ", Heading(cpu));
        }
        seq_print!(seq, "\n");
        let counter = |&(counter, row): &(Counter, &str)| {
            show_row(seq, row, |cpu| self.get(cpu, counter as usize));
        };
        // DPVS's first two rows: the sums of the outcomes with a client and without.
        for (row, with_client) in [("syn_recv_sock_toa", true), ("syn_recv_sock_no_toa", false)] {
            show_row(seq, row, |cpu| self.connections(cpu, with_client));
        }
        Counter::ROWS.iter().take(OF_DPVS).for_each(counter);
        for &(outcome, row) in Outcome::ROWS {
            show_row(seq, row, |cpu| self.get(cpu, place(outcome)));
        }
        Counter::ROWS.iter().skip(OF_DPVS).for_each(counter);
        show_row(seq, RECORDS_LIVE, |cpu| self.records_live.cpu(cpu).get());
    }

    /// A counter of a CPU.
    fn get(&self, cpu: PossibleCpu, index: usize) -> u64 {
        self.counters.cpu(cpu).get(index)
    }

    /// The connections of a CPU whose segment carried a client, or those of all others.
    fn connections(&self, cpu: PossibleCpu, with_client: bool) -> u64 {
        let outcomes = Outcome::ROWS.iter().map(|&(outcome, _)| outcome);
        outcomes
            .filter(|outcome| outcome.has_client() == with_client)
            .map(|outcome| self.get(cpu, place(outcome)))
            .fold(0, u64::wrapping_add)
    }
}

/// Writes a row: `value` for each CPU.
fn show_row(seq: &SeqFile, row: &str, value: impl Fn(PossibleCpu) -> u64) {
    seq_print!(seq, "{:<25}:", row);
    for cpu in possible_cpus() {
        seq_print!(seq, "{:>10} ", value(cpu));
    }
    seq_print!(seq, "\n");
}

/// The index of an outcome's counter.
fn place(outcome: Outcome) -> usize {
    Counter::ROWS.len() + outcome as usize
}
