// SPDX-License-Identifier: GPL-2.0

//! The counters of `/proc/net/toa_stats`, one set for each CPU, in each network namespace.
//!
//! Layout and first eight rows are those of DPVS's module (`kmod/toa/toa.c`), so that operators'
//! scripts for it work.

use crate::linux::percpu::{
    possible_cpus,
    Counters,
    PerCpu,
    PossibleCpu, //
};
use kernel::fmt;
use kernel::prelude::*;
use kernel::seq_file::SeqFile;
use kernel::seq_print;

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
    /// Options of hosts that the policy does not trust.
    Untrusted,
    /// Connections while the policy disables toa.
    Disabled,
    /// Segments with more than one option of the kind, of which one was taken.
    Duplicate,
    /// No memory for a record.
    RecordAllocFailed,
    /// The share of this namespace is full: see the parameter `max_records` and [`crate::shares`].
    RecordTableFull,
    /// Records that are there now, counted for the CPU that made them.
    RecordsLive,
}

/// The number of rows.
const ROWS: usize = 17;

/// All rows, in the order of their discriminants and of the file.
const NAMES: [(Counter, &str); ROWS] = [
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
    (Counter::Untrusted, "untrusted"),
    (Counter::Disabled, "disabled"),
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

/// The counters of a namespace.
pub(crate) struct Stats {
    cpus: PerCpu<Counters<ROWS>>,
}

impl Stats {
    /// All zero. May sleep.
    pub(crate) fn new() -> Result<Self> {
        Ok(Self {
            cpus: PerCpu::new()?,
        })
    }

    /// Adds one on this CPU, and returns the CPU. Any context.
    pub(crate) fn inc(&self, counter: Counter) -> PossibleCpu {
        let (counters, cpu) = self.cpus.this_cpu();
        counters.add(counter as usize, 1);
        cpu
    }

    /// Subtracts one on `cpu`, on which [`Stats::inc`] added it. Any context.
    pub(crate) fn dec(&self, counter: Counter, cpu: PossibleCpu) {
        // Wraps around: the sum over the CPUs is right.
        self.cpus.cpu(cpu).add(counter as usize, u64::MAX);
    }

    /// Writes the table. It is no snapshot: counters move while it is written.
    pub(crate) fn show(&self, seq: &SeqFile) {
        seq_print!(seq, "{:26}", "");
        for cpu in possible_cpus() {
            seq_print!(seq, "{:>10} ", Heading(cpu));
        }
        seq_print!(seq, "\n");
        for (counter, name) in NAMES {
            seq_print!(seq, "{:<25}:", name);
            for cpu in possible_cpus() {
                seq_print!(seq, "{:>10} ", self.cpus.cpu(cpu).get(counter as usize));
            }
            seq_print!(seq, "\n");
        }
    }
}
