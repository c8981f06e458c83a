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
        // For servers that are mostly reached without a balancer.
        Some(namespace) if has_none(namespace, segment) => namespace.stats.count(Outcome::NoOption),
        _ => capture_any(records, child, segment, net),
    }
}

/// Whether a segment has no option that counts, at first sight: none at all, or the timestamps that most
/// clients send.
#[inline(always)]
fn has_none(namespace: &Namespace, segment: &Segment) -> bool {
    let options = segment.options();
    namespace.policy.is_default() && (options.is_empty() || option::is_aligned_timestamp(options))
}

/// Does the rest of [`capture`], in any namespace. Out of line, so that the short way saves no registers.
#[inline(never)]
fn capture_any(records: &Records, child: &Sock, segment: &Segment, net: &Net) {
    let namespace = net.data();
    let connection = NewConnection {
        records,
        child,
        segment,
        net,
        namespace,
    };
    let options = segment.options();
    let outcome = if !namespace.policy.is_default() {
        connection.by_policy(options)
    } else if has_none(namespace, segment) {
        Outcome::NoOption
    } else {
        connection.by_default(options)
    };
    namespace.stats.count(outcome);
}

/// A child with the segment that created it.
#[derive(Clone, Copy)]
struct NewConnection<'a> {
    records: &'a Records,
    child: &'a Sock,
    segment: &'a Segment,
    net: &'a Net,
    namespace: &'a Namespace,
}

impl NewConnection<'_> {
    /// Records the client under the default policy, or returns the reason why there is none.
    #[inline(always)]
    fn by_default(self, options: &[u8]) -> Outcome {
        let rcu = rcu::read_lock();
        match option::first_client(options) {
            Some(claim) => self.settle_claim(&claim, &rcu),
            None => self.by_default_rules(options, &rcu),
        }
    }

    /// Does the same for any options.
    #[inline(never)]
    fn by_default_rules(self, options: &[u8], rcu: &rcu::Guard) -> Outcome {
        let parsed = option::find_client(options, &kinds::Default, Pick::First);
        self.settle(&parsed, rcu)
    }

    /// Does the same under a policy that was written. Out of line, so that the code for the default
    /// one is short.
    #[inline(never)]
    fn by_policy(self, options: &[u8]) -> Outcome {
        let policy = &self.namespace.policy;
        if !policy.is_enabled() {
            return Outcome::Disabled;
        }
        let rcu = rcu::read_lock();
        let parsed = policy.find_client(options, &rcu);
        self.settle(&parsed, &rcu)
    }

    /// Records the client in the options, or returns the reason why there is none.
    #[inline(always)]
    fn settle(self, parsed: &ParsedOptions, rcu: &rcu::Guard) -> Outcome {
        if parsed.duplicate {
            self.namespace.stats.inc(Counter::Duplicate);
        }
        match &parsed.claim {
            Some(claim) => self.settle_claim(claim, rcu),
            None if parsed.malformed => Outcome::Malformed,
            None => self.missing(rcu),
        }
    }

    /// Records the client that an option names, or returns the reason why not.
    #[inline(always)]
    fn settle_claim(self, claim: &Claim, rcu: &rcu::Guard) -> Outcome {
        if !self.is_trusted(rcu) {
            return Outcome::Untrusted;
        }
        match claim {
            Claim::Client(client) => self.record(client, rcu),
            Claim::Address(client) => self.record_address(client, rcu),
            Claim::Impossible => Outcome::ImpossibleClient,
        }
    }

    /// Returns the reason why options without one of a kind that counts carry no client. Out of line,
    /// so that the other ways save fewer registers.
    #[inline(never)]
    fn missing(self, rcu: &rcu::Guard) -> Outcome {
        let options = self.segment.options();
        if self.namespace.policy.has_other_kind(options, rcu) {
            Outcome::KindNotConfigured
        } else if !option::has_room(options, self.segment.is_ipv6()) {
            Outcome::NoOptionHeaderFull
        } else {
            Outcome::NoOption
        }
    }

    /// Whether the source of the segment may name clients.
    #[inline(always)]
    fn is_trusted(self, rcu: &rcu::Guard) -> bool {
        match self.namespace.policy.trusted(rcu) {
            None => true,
            Some(hosts) => hosts.contains(self.child.connection().peer.address()),
        }
    }

    /// Records a client without a port, whose port is the connection's.
    #[inline(never)]
    fn record_address(self, client: &Endpoint, rcu: &rcu::Guard) -> Outcome {
        let port = self.child.connection().peer.port();
        self.record(&Endpoint::new(client.address(), port), rcu)
    }

    /// Records a client, unless this segment may not name it.
    #[inline(always)]
    fn record(self, client: &Endpoint, rcu: &rcu::Guard) -> Outcome {
        let Self {
            records,
            child,
            net,
            namespace,
            ..
        } = self;
        match self.refuse(*client, rcu) {
            None => records.record(child, client, net, namespace),
            Some(reason) => reason,
        }
    }

    /// Returns the reason why this segment may not name `client`, if there is one.
    #[inline(always)]
    fn refuse(self, client: Endpoint, rcu: &rcu::Guard) -> Option<Outcome> {
        let Self { net, segment, .. } = self;
        let policy = &self.namespace.policy;
        // No balancer is known that turns IPv4 clients into IPv6 connections. An IPv6 client can make
        // a balancer forward an 8-byte option of the client's, where the balancer's 20 bytes do not
        // fit.
        if segment.is_ipv6() && client.address_v4().is_some() && !policy.admits_nat46() {
            return Some(Outcome::ForeignLength);
        }
        if own_address::is_own(net, segment, client, policy.refused_addresses(), rcu) {
            return Some(Outcome::ImpossibleClient);
        }
        None
    }
}
