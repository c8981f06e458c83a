// SPDX-License-Identifier: GPL-2.0

//! From the segment that completes a handshake to a record of the client.

use crate::{
    endpoint::Endpoint,
    kinds,
    linux::{
        own_address,
        rcu,
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
    records::Records,
    stats::{
        Counter,
        Outcome, //
    }, //
};

/// Records the client of `child` from the options of `segment`, which created it, and counts the
/// outcome.
///
/// Softirq; the child is locked by `tcp_v4_syn_recv_sock` or its kin, and not yet in any process'
/// hands.
///
/// Only sockets that hold a reference on their namespace are served: then its counters outlive the
/// record. The children of some kernel listeners hold none. They belong to kernel threads, which
/// see the balancer anyway.
#[inline(always)]
pub(crate) fn capture(records: &Records, child: &Sock, segment: &Segment) {
    // MPTCP disposes of a child whose join fails (`subflow_syn_recv_sock`) and passes it on all the
    // same. `tcp_destroy_sock` has fired for it, and nothing would remove its record.
    if child.is_closed() {
        return;
    }
    let Some(net) = child.net() else {
        return;
    };
    match net.data_if_first() {
        Some(namespace) => capture_in::<true>(records, child, segment, namespace),
        None => capture_elsewhere(records, child, segment, net),
    }
}

/// Does as [`capture`] in another namespace. Out of line, so that the first one's code is short; so are the
/// two others.
#[inline(never)]
fn capture_elsewhere(records: &Records, child: &Sock, segment: &Segment, net: &Net) {
    capture_in::<false>(records, child, segment, net.data_of_another());
}

/// Does so in the first namespace (`FIRST`), or in any.
#[inline(always)]
fn capture_in<const FIRST: bool>(
    records: &Records,
    child: &Sock,
    segment: &Segment,
    namespace: &Namespace,
) {
    if !namespace.policy.is_default() {
        return capture_by_policy(records, child, segment, namespace);
    }
    let options = segment.options();
    // For servers that are mostly reached without a balancer.
    if has_none(options) {
        namespace.stats.count(Outcome::NoOption);
    } else if FIRST && !segment.is_ipv6() {
        capture_by_default::<true>(records, child, segment, namespace, options);
    } else {
        capture_by_default::<false>(records, child, segment, namespace, options);
    }
}

/// Whether a list has no option that counts by default, at first sight: none at all, or the timestamps that
/// most clients send.
#[inline(always)]
fn has_none(options: &[u8]) -> bool {
    options.is_empty() || option::is_aligned_timestamp(options)
}

/// Does so where the policy is the default one, but for the trusted hosts: for IPv4 segments in the first
/// namespace only (`COMMON`), or for all.
#[inline(never)]
fn capture_by_default<const COMMON: bool>(
    records: &Records,
    child: &Sock,
    segment: &Segment,
    namespace: &Namespace,
    options: &[u8],
) {
    let outcome = match option::first_client(options) {
        Some(Claim::Client(client)) if is_trusted(child, namespace) => {
            record::<COMMON>(records, child, segment, namespace, client)
        }
        // Each reason, in the order in which they count.
        _ => by_default(records, child, segment, namespace),
    };
    namespace.stats.count(outcome);
}

/// Does so under a policy that was written.
#[inline(never)]
fn capture_by_policy(records: &Records, child: &Sock, segment: &Segment, namespace: &Namespace) {
    let policy = &namespace.policy;
    let outcome = if policy.is_enabled() {
        let parsed = policy.find_client(segment.options(), &rcu::read_lock());
        settle(records, child, segment, namespace, &parsed)
    } else {
        Outcome::Disabled
    };
    namespace.stats.count(outcome);
}

/// Records the client in any options by the default rules, or returns the reason why there is none.
#[inline(never)]
fn by_default(
    records: &Records,
    child: &Sock,
    segment: &Segment,
    namespace: &Namespace,
) -> Outcome {
    let parsed = option::find_client(segment.options(), &kinds::Default, Pick::First);
    settle(records, child, segment, namespace, &parsed)
}

/// Records the client in the options, or returns the reason why there is none.
fn settle(
    records: &Records,
    child: &Sock,
    segment: &Segment,
    namespace: &Namespace,
    parsed: &ParsedOptions,
) -> Outcome {
    if parsed.duplicate {
        namespace.stats.inc(Counter::Duplicate);
    }
    let Some(claim) = parsed.claim else {
        return if parsed.malformed {
            Outcome::Malformed
        } else {
            missing(segment, namespace)
        };
    };
    if !is_trusted(child, namespace) {
        return Outcome::Untrusted;
    }
    let client = match claim {
        Claim::Client(client) => client,
        // The port is the connection's.
        Claim::Address(client) => Endpoint::new(client.address(), child.connection().peer.port()),
        Claim::Impossible => return Outcome::ImpossibleClient,
    };
    record::<false>(records, child, segment, namespace, client)
}

/// Returns the reason why options without one of a kind that counts carry no client.
fn missing(segment: &Segment, namespace: &Namespace) -> Outcome {
    let options = segment.options();
    if namespace.policy.has_other_kind(options, &rcu::read_lock()) {
        Outcome::KindNotConfigured
    } else if !option::has_room(options, segment.is_ipv6()) {
        Outcome::NoOptionHeaderFull
    } else {
        Outcome::NoOption
    }
}

/// Whether the connection's other end may name clients.
#[inline(always)]
fn is_trusted(child: &Sock, namespace: &Namespace) -> bool {
    namespace.policy.trusts_any_host() || is_among_trusted(child, namespace)
}

/// Whether that end is one of the trusted hosts. Out of line, so that other ways save fewer registers.
#[inline(never)]
fn is_among_trusted(child: &Sock, namespace: &Namespace) -> bool {
    match namespace.policy.trusted(&rcu::read_lock()) {
        None => true,
        Some(hosts) => hosts.contains(child.connection().peer.address()),
    }
}

/// Records a client that a trusted host names, or returns the reason why this segment may not name it.
/// `COMMON`: the segment is an IPv4 one in the first namespace.
#[inline(always)]
fn record<const COMMON: bool>(
    records: &Records,
    child: &Sock,
    segment: &Segment,
    namespace: &Namespace,
    client: Endpoint,
) -> Outcome {
    let policy = &namespace.policy;
    // No balancer is known that turns IPv4 clients into IPv6 connections. An IPv6 client can make
    // a balancer forward an 8-byte option of the client's, where the balancer's 20 bytes do not
    // fit.
    if !COMMON && segment.is_ipv6() && client.address_v4().is_some() && !policy.admits_nat46() {
        return Outcome::ForeignLength;
    }
    // `capture` found it.
    let Some(net) = child.net() else {
        return Outcome::NoOption;
    };
    if own_address::is_own(net, segment, client, || policy.refused_addresses()) {
        return Outcome::ImpossibleClient;
    }
    if COMMON {
        // The child of an IPv4 segment has the addresses of an IPv4 socket.
        records.record::<COMMON>(child, || child.tuple_v4(), client, net, namespace)
    } else {
        records.record::<COMMON>(child, || child.tuple(), client, net, namespace)
    }
}
