// SPDX-License-Identifier: GPL-2.0

//! The counters of `/proc/net/toa_stats`, one set for each CPU, in each network namespace.
//!
//! Layout and first eight rows are those of DPVS's module (`kmod/toa/toa.c`), so that operators'
//! scripts for it work. Then each [`Outcome`] has a row, whose sum is the number of connections.

use crate::linux::percpu::{
    possible_cpus,
    Counters,
    PerCpu,
    PossibleCpu, //
};
use core::mem;
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

/// The counter of the records that are gone: behind those of [`Counter`] and of [`Outcome`].
const RECORDS_GONE: usize = Counter::ROWS.len() + Outcome::ROWS.len();

/// The number of counters.
const COUNTERS: usize = RECORDS_GONE + 1;

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
pub(crate) struct Stats(PerCpu<Counters<COUNTERS>>);

impl Stats {
    /// All zero. May sleep.
    pub(crate) fn new() -> Result<Self> {
        Ok(Self(PerCpu::new()?))
    }

    /// Counts a connection on this CPU. Any context.
    pub(crate) fn count(&self, outcome: Outcome) {
        self.0.increment(place(outcome));
    }

    /// Adds one on this CPU. Any context.
    pub(crate) fn inc(&self, counter: Counter) {
        self.0.increment(counter as usize);
    }

    /// Counts a record that is gone, on this CPU. Each that is made counts as [`Outcome::OptionTaken`]. Any
    /// context.
    #[inline(always)]
    pub(crate) fn record_gone(&self) {
        self.0.increment(RECORDS_GONE);
    }

    /// The records that are there now. Those that come or go during the call count or not.
    fn records_live(&self) -> u64 {
        let sum = |index| {
            possible_cpus()
                .map(|cpu| self.get(cpu, index))
                .fold(0, u64::wrapping_add)
        };
        // In this order: a record that goes now must not be missing among those that were made.
        let gone: u64 = sum(RECORDS_GONE);
        let made: u64 = sum(place(Outcome::OptionTaken));
        made.wrapping_sub(gone)
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
        // A record may be gone on another CPU than the one that made it, so no CPU has a number: the first
        // column is that of all.
        let mut live = self.records_live();
        show_row(seq, RECORDS_LIVE, |_| mem::take(&mut live));
    }

    /// A counter of a CPU.
    fn get(&self, cpu: PossibleCpu, index: usize) -> u64 {
        self.0.cpu(cpu).get(index)
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
fn show_row(seq: &SeqFile, row: &str, mut value: impl FnMut(PossibleCpu) -> u64) {
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
