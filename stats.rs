// SPDX-License-Identifier: GPL-2.0

//! The counters of `/proc/net/toa_stats`, one set for each CPU, in each network namespace.
//!
//! Layout and first eight rows are those of DPVS's module (`kmod/toa/toa.c`), so that operators'
//! scripts for it work.

use crate::percpu::{
    possible_cpus,
    PerCpu,
    PossibleCpu, //
};
use kernel::fmt;
use kernel::prelude::*;
use kernel::seq_file::SeqFile;
use kernel::seq_print;
use kernel::sync::atomic::{
    Atomic,
    Relaxed, //
};

/// A row of the table.
#[derive(Clone, Copy)]
pub(crate) enum Counter {
    /// Connections whose segment that completed the handshake had a client's address.
    SynRecvSockToa,
    /// Connections whose segment had none.
    SynRecvSockNoToa,
    /// Answers that named the client.
    GetnameToaOk,
    /// A record was not used: it is of another connection of the same, reused socket.
    GetnameToaMismatch,
    /// A record was not used: the caller is a kernel thread, or the client's IPv6 address does not
    /// fit the answer.
    GetnameToaBypass,
    /// A peer was asked for that has no record.
    GetnameToaEmpty,
    /// Records made with an IPv6 client.
    Ip6AddressAlloc,
    /// Records removed with an IPv6 client.
    Ip6AddressFree,
    /// Option lists that break off, or have an option of the kind with the length of no address.
    Malformed,
    /// Options whose length this traffic's balancer cannot write: 8 bytes in an IPv6 segment.
    ForeignLength,
    /// Options that name a client from which no segment can arrive, or the server itself.
    ImpossibleClient,
    /// Segments with more than one option of the kind, of which the first was taken.
    Duplicate,
    /// No memory for a record.
    RecordAllocFailed,
    /// The share of this namespace is full: see the parameter `max_records` and [`crate::shares`].
    RecordTableFull,
    /// Records that are there now, counted for the CPU that made them.
    RecordsLive,
}

/// All rows, in the order of their discriminants and of the file.
const ROWS: [(Counter, &str); 15] = [
    (Counter::SynRecvSockToa, "syn_recv_sock_toa"),
    (Counter::SynRecvSockNoToa, "syn_recv_sock_no_toa"),
    (Counter::GetnameToaOk, "getname_toa_ok"),
    (Counter::GetnameToaMismatch, "getname_toa_mismatch"),
    (Counter::GetnameToaBypass, "getname_toa_bypass"),
    (Counter::GetnameToaEmpty, "getname_toa_empty"),
    (Counter::Ip6AddressAlloc, "ip6_address_alloc"),
    (Counter::Ip6AddressFree, "ip6_address_free"),
    (Counter::Malformed, "malformed"),
    (Counter::ForeignLength, "foreign_length"),
    (Counter::ImpossibleClient, "impossible_client"),
    (Counter::Duplicate, "duplicate"),
    (Counter::RecordAllocFailed, "record_alloc_failed"),
    (Counter::RecordTableFull, "record_table_full"),
    (Counter::RecordsLive, "records_live"),
];

/// The heading of a CPU's column.
struct Heading(PossibleCpu);

impl fmt::Display for Heading {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "CPU{}", self.0.number())
    }
}

/// One CPU's counters.
struct Row {
    counters: [Atomic<u64>; ROWS.len()],
}

// SAFETY: Zeroes are valid atomic integers.
unsafe impl Zeroable for Row {}

/// The counters of a namespace.
pub(crate) struct Stats {
    cpus: PerCpu<Row>,
}

impl Stats {
    /// All zero. May sleep.
    pub(crate) fn new() -> Result<Self> {
        Ok(Self {
            cpus: PerCpu::new()?,
        })
    }

    /// Counts one on this CPU, which is returned. Any context.
    pub(crate) fn count(&self, counter: Counter) -> PossibleCpu {
        let (row, cpu) = self.cpus.here();
        row.add(counter, 1);
        cpu
    }

    /// Takes one back from what [`Stats::count`] counted on `cpu`. Any context.
    pub(crate) fn uncount(&self, counter: Counter, cpu: PossibleCpu) {
        self.cpus.on(cpu).add(counter, u64::MAX);
    }

    /// Writes the table. Counters move meanwhile: it is no snapshot.
    pub(crate) fn show(&self, seq: &SeqFile) {
        seq_print!(seq, "{:26}", "");
        for cpu in possible_cpus() {
            seq_print!(seq, "{:>10} ", Heading(cpu));
        }
        seq_print!(seq, "\n");
        for (counter, name) in ROWS {
            seq_print!(seq, "{:<25}:", name);
            for cpu in possible_cpus() {
                seq_print!(seq, "{:>10} ", self.cpus.on(cpu).get(counter));
            }
            seq_print!(seq, "\n");
        }
    }
}

impl Row {
    /// Wraps around, as C's counters do: also how one is taken back.
    fn add(&self, counter: Counter, delta: u64) {
        if let Some(value) = self.counters.get(counter as usize) {
            value.add(delta, Relaxed);
        }
    }

    fn get(&self, counter: Counter) -> u64 {
        self.counters
            .get(counter as usize)
            .map_or(0, |value| value.load(Relaxed))
    }
}
