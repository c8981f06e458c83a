// SPDX-License-Identifier: GPL-2.0

//! From the segment that completes a handshake to a record of the client.

use crate::{
    endpoint::Endpoint,
    kinds,
    linux::{
        own_address,
        sock::Segment, //
    },
    namespace::{
        Namespace,
        Net,
        Sock, //
    },
    option::{
        self,
        Claim,
        ParsedOptions,
        Pick, //
    },
    policy::Policy,
    records,
    stats::Counter, //
};
use kernel::sync::rcu;

/// Records the client of `child` from the options of `segment`, which created it.
///
/// Softirq; the child is locked by `tcp_v4_syn_recv_sock` or its kin, and not yet in any process'
/// hands.
///
/// Only sockets that hold a reference on their namespace are served: then its counters outlive the
/// record. The children of some kernel listeners hold none. They belong to kernel threads, which
/// see the balancer anyway.
#[inline(always)]
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
    let namespace = net.data(&rcu);
    if !namespace.policy.is_default() {
        return capture_by_policy(child, segment, net, &rcu);
    }
    let options = segment.options();
    if options.is_empty() {
        namespace.stats.inc(Counter::SynRecvSockNoToa);
        return;
    }
    let parsed = option::find_client(options, &kinds::Default, Pick::First);
    settle(child, segment, &parsed, net, namespace, &rcu);
}

/// Does the same under a policy that was written. Out of line, so that the code for the default one
/// is short.
#[inline(never)]
fn capture_by_policy(child: &Sock, segment: &Segment, net: &Net, rcu: &rcu::Guard) {
    let namespace = net.data(rcu);
    let Namespace { stats, policy, .. } = namespace;
    if !policy.is_enabled() {
        stats.inc(Counter::Disabled);
        stats.inc(Counter::SynRecvSockNoToa);
        return;
    }
    let parsed = policy.find_client(segment.options(), rcu);
    settle(child, segment, &parsed, net, namespace, rcu);
}

/// Records the client in the options, or counts why there is none.
#[inline(always)]
fn settle(
    child: &Sock,
    segment: &Segment,
    parsed: &ParsedOptions,
    net: &Net,
    namespace: &Namespace,
    rcu: &rcu::Guard,
) {
    let Namespace { stats, policy, .. } = namespace;
    if parsed.malformed {
        stats.inc(Counter::Malformed);
    }
    if parsed.duplicate {
        stats.inc(Counter::Duplicate);
    }
    let Some(claim) = &parsed.claim else {
        stats.inc(Counter::SynRecvSockNoToa);
        return;
    };
    if !trusts(policy, child, rcu) {
        stats.inc(Counter::Untrusted);
        stats.inc(Counter::SynRecvSockNoToa);
        return;
    }
    match claim {
        Claim::Client(client) => record(child, segment, client, net, namespace, rcu),
        Claim::Address(client) => record_address(child, segment, client, net, namespace, rcu),
        Claim::Impossible => {
            stats.inc(Counter::ImpossibleClient);
            stats.inc(Counter::SynRecvSockNoToa);
        }
    }
}

/// Records a client without a port, whose port is the connection's.
#[inline(never)]
fn record_address(
    child: &Sock,
    segment: &Segment,
    client: &Endpoint,
    net: &Net,
    namespace: &Namespace,
    rcu: &rcu::Guard,
) {
    let port = child.connection().peer.port();
    let client = Endpoint::new(client.address(), port);
    record(child, segment, &client, net, namespace, rcu);
}

/// Records a client, unless this segment may not name it.
#[inline(always)]
fn record(
    child: &Sock,
    segment: &Segment,
    client: &Endpoint,
    net: &Net,
    namespace: &Namespace,
    rcu: &rcu::Guard,
) {
    let Namespace { stats, policy, .. } = namespace;
    match refuse(net, segment, *client, policy, rcu) {
        None => {
            stats.inc(Counter::SynRecvSockToa);
            records::record(child, *client, net, rcu);
        }
        Some(reason) => {
            stats.inc(reason);
            stats.inc(Counter::SynRecvSockNoToa);
        }
    }
}

/// Whether the source of the segment that created `child` may name clients.
#[inline(always)]
fn trusts(policy: &Policy, child: &Sock, rcu: &rcu::Guard) -> bool {
    match policy.trusted(rcu) {
        None => true,
        Some(hosts) => hosts.contains(child.connection().peer.address()),
    }
}

/// Returns the reason why this segment may not name `client`, if there is one.
#[inline(always)]
fn refuse(
    net: &Net,
    segment: &Segment,
    client: Endpoint,
    policy: &Policy,
    rcu: &rcu::Guard,
) -> Option<Counter> {
    // No balancer is known that turns IPv4 clients into IPv6 connections. An IPv6 client can make a
    // balancer forward an 8-byte option of the client's, where the balancer's 20 bytes do not fit.
    if segment.is_ipv6() && client.address_v4().is_some() && !policy.admits_nat46() {
        return Some(Counter::ForeignLength);
    }
    if own_address::is_own(net, segment, client, policy.refused_addresses(), rcu) {
        return Some(Counter::ImpossibleClient);
    }
    None
}
