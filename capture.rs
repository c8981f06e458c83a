// SPDX-License-Identifier: GPL-2.0

//! From the segment that completes a handshake to a record of the client.

use crate::{
    endpoint::Endpoint,
    linux::{
        own_address,
        sock::Segment, //
    },
    namespace::{
        Namespace,
        Net,
        Sock, //
    },
    option::Claim,
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
    let Namespace { stats, policy, .. } = net.data(&rcu);
    if !policy.is_enabled() {
        stats.inc(Counter::Disabled);
        stats.inc(Counter::SynRecvSockNoToa);
        return;
    }
    let parsed = policy.find_client(segment.options(), &rcu);
    if parsed.malformed {
        stats.inc(Counter::Malformed);
    }
    if parsed.duplicate {
        stats.inc(Counter::Duplicate);
    }
    let refused = match parsed.claim {
        None => None,
        Some(claim) => match decide(child, segment, claim, net, &rcu) {
            Ok(client) => {
                stats.inc(Counter::SynRecvSockToa);
                records::record(child, client, net, &rcu);
                return;
            }
            Err(reason) => Some(reason),
        },
    };
    if let Some(reason) = refused {
        stats.inc(reason);
    }
    stats.inc(Counter::SynRecvSockNoToa);
}

/// Returns the client that the segment may name, or the reason why there is none.
fn decide(
    child: &Sock,
    segment: &Segment,
    claim: Claim,
    net: &Net,
    rcu: &rcu::Guard,
) -> Result<Endpoint, Counter> {
    let policy = &net.data(rcu).policy;
    let peer = child.connection().peer;
    if !policy.trusts(peer, rcu) {
        return Err(Counter::Untrusted);
    }
    let client = match claim {
        Claim::Client(client) => client,
        Claim::Address(client) => Endpoint::new(client.address(), peer.port()),
        Claim::Impossible => return Err(Counter::ImpossibleClient),
    };
    // No balancer is known that turns IPv4 clients into IPv6 connections. An IPv6 client can make a
    // balancer forward an 8-byte option of the client's, where the balancer's 20 bytes do not fit.
    if segment.is_ipv6() && client.address_v4().is_some() && !policy.admits_nat46() {
        return Err(Counter::ForeignLength);
    }
    if own_address::is_own(net, segment, client, policy.refused_addresses(), rcu) {
        return Err(Counter::ImpossibleClient);
    }
    Ok(client)
}
