// SPDX-License-Identifier: GPL-2.0

//! From the segment that completes a handshake to a record of the client.

use crate::{
    endpoint::Endpoint,
    linux::{
        own_address,
        sock::Segment, //
    },
    namespace::{
        Net,
        Sock, //
    },
    option::{
        self,
        Claim, //
    },
    records,
    stats::{
        Counter,
        Outcome, //
    }, //
};
use kernel::sync::rcu;

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
    let outcome = outcome(child, segment, net, &rcu);
    net.data(&rcu).stats.count(outcome);
}

/// Records the client, or returns the reason why there is none.
#[inline(always)]
fn outcome(child: &Sock, segment: &Segment, net: &Net, rcu: &rcu::Guard) -> Outcome {
    let options = segment.options();
    // Short of the parser, for servers that are mostly reached without a balancer.
    if options.is_empty() {
        return Outcome::NoOption;
    }
    let parsed = option::find_client(options, option::KINDS);
    if parsed.duplicate {
        net.data(rcu).stats.inc(Counter::Duplicate);
    }
    match parsed.claim {
        Some(Claim::Client(client)) => match refuse(net, segment, client, rcu) {
            None => records::record(child, client, net, rcu),
            Some(reason) => reason,
        },
        Some(Claim::Impossible) => Outcome::ImpossibleClient,
        None if parsed.malformed => Outcome::Malformed,
        None => missing(options, segment.is_ipv6()),
    }
}

/// Returns the reason why options without one of a kind that counts carry no client. Out of line, so
/// that the other ways save fewer registers.
#[inline(never)]
fn missing(options: &[u8], is_ipv6: bool) -> Outcome {
    if option::has_other_kind(options) {
        Outcome::KindNotConfigured
    } else if !option::has_room(options, is_ipv6) {
        Outcome::NoOptionHeaderFull
    } else {
        Outcome::NoOption
    }
}

/// Returns the reason why this segment may not name `client`, if there is one.
fn refuse(net: &Net, segment: &Segment, client: Endpoint, rcu: &rcu::Guard) -> Option<Outcome> {
    // No balancer turns IPv4 clients into IPv6 connections. An IPv6 client can make a balancer
    // forward an 8-byte option of the client's, where the balancer's 20 bytes do not fit.
    if segment.is_ipv6() && client.address_v4().is_some() {
        return Some(Outcome::ForeignLength);
    }
    if own_address::is_own(net, segment, client, rcu) {
        return Some(Outcome::ImpossibleClient);
    }
    None
}
