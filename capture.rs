// SPDX-License-Identifier: GPL-2.0

//! From the segment that completes a handshake to a record of the client.

use crate::{
    endpoint::Endpoint,
    option::{
        self,
        Claim, //
    },
    own_address,
    peers::{
        NotRecorded,
        Record,
        PEERS, //
    },
    pernet::Net,
    sock::{
        Segment,
        Sock, //
    },
    stats::{
        Counter,
        Stats, //
    },
};
use kernel::sync::rcu;

/// Takes the client's address for `child` from the options of `segment`, which created it.
///
/// Softirq; the child is locked by `tcp_v4_syn_recv_sock` or its kin, and not yet in any process'
/// hands.
///
/// Only sockets that hold a reference on their namespace are served: then its counters outlive the
/// record. The children of some kernel listeners hold none. They belong to kernel threads, which
/// are told the balancer anyway.
pub(crate) fn capture(child: &Sock, segment: &Segment) {
    // MPTCP disposes of a child whose join fails (`subflow_syn_recv_sock`) and passes it on all the
    // same. `tcp_destroy_sock` has fired for it, and nothing would remove its record.
    if child.is_closed() {
        return;
    }
    let Some(net) = child.net() else {
        return;
    };
    let rcu = rcu::read_lock();
    let stats = net.stats(&rcu);
    let findings = option::find_client(segment.options());
    if findings.malformed {
        stats.count(Counter::Malformed);
    }
    if findings.duplicate {
        stats.count(Counter::Duplicate);
    }
    let refused = match findings.claim {
        None => None,
        Some(Claim::Impossible) => Some(Counter::ImpossibleClient),
        Some(Claim::Client(client)) => match refuse(net, segment, client, &rcu) {
            None => {
                stats.count(Counter::SynRecvSockToa);
                record(child, client, net, &rcu);
                return;
            }
            refused => refused,
        },
    };
    if let Some(reason) = refused {
        stats.count(reason);
    }
    stats.count(Counter::SynRecvSockNoToa);
}

/// Returns the reason why this segment may not name `client`, if there is one.
fn refuse(net: &Net, segment: &Segment, client: Endpoint, rcu: &rcu::Guard) -> Option<Counter> {
    // No balancer turns IPv4 clients into IPv6 connections. An IPv6 client can make a balancer
    // forward an 8-byte option of the client's, where the balancer's 20 bytes do not fit.
    if segment.is_ipv6() && client.address_v4().is_some() {
        return Some(Counter::ForeignLength);
    }
    if own_address::is_own(net, segment, client, rcu) {
        return Some(Counter::ImpossibleClient);
    }
    None
}

#[inline(never)]
fn record(child: &Sock, client: Endpoint, net: &Net, rcu: &rcu::Guard) {
    let Some(peers) = PEERS.get(rcu) else {
        return;
    };
    let stats = net.stats(rcu);
    let cpu = stats.count(Counter::RecordsLive);
    match peers.record(child, client, cpu, net.account(rcu)) {
        Ok(replaced) => {
            count_ipv6(stats, Counter::Ip6AddressAlloc, client);
            if let Some(old) = replaced {
                count_removed(stats, &old);
            }
        }
        Err(reason) => {
            stats.uncount(Counter::RecordsLive, cpu);
            stats.count(match reason {
                NotRecorded::Full => Counter::RecordTableFull,
                NotRecorded::NoMemory => Counter::RecordAllocFailed,
            });
        }
    }
}

/// Forgets what is known of `sk`, whose connection ends. Softirq or process context.
pub(crate) fn forget(sk: &Sock) {
    let rcu = rcu::read_lock();
    let Some(peers) = PEERS.get(&rcu) else {
        return;
    };
    let Some(record) = peers.forget(sk) else {
        return;
    };
    // A socket that was recorded has a namespace: `capture` asked, and it never loses it.
    if let Some(net) = sk.net() {
        peers.give_back(net.account(&rcu));
        count_removed(net.stats(&rcu), &record);
    }
}

fn count_removed(stats: &Stats, record: &Record) {
    stats.uncount(Counter::RecordsLive, record.cpu);
    count_ipv6(stats, Counter::Ip6AddressFree, record.client);
}

fn count_ipv6(stats: &Stats, counter: Counter, client: Endpoint) {
    if client.address_v4().is_none() {
        stats.count(counter);
    }
}
