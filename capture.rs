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
    let namespace = net.data(&rcu);
    let connection = NewConnection {
        child,
        segment,
        net,
        namespace,
        rcu: &rcu,
    };
    let options = segment.options();
    let outcome = if !namespace.policy.is_default() {
        connection.by_policy(options)
    } else if options.is_empty() {
        // Short of the parser, for servers that are mostly reached without a balancer.
        Outcome::NoOption
    } else {
        connection.by_default(options)
    };
    namespace.stats.count(outcome);
}

/// A child with the segment that created it.
#[derive(Clone, Copy)]
struct NewConnection<'a> {
    child: &'a Sock,
    segment: &'a Segment,
    net: &'a Net,
    namespace: &'a Namespace,
    rcu: &'a rcu::Guard,
}

impl NewConnection<'_> {
    /// Records the client under the default policy, or returns the reason why there is none. Out of
    /// line, so that a segment without options saves few registers.
    #[inline(never)]
    fn by_default(self, options: &[u8]) -> Outcome {
        if option::is_aligned_timestamp(options) {
            return Outcome::NoOption;
        }
        match option::first_client(options) {
            Some(claim) => self.settle_claim(&claim),
            None => self.by_default_rules(options),
        }
    }

    /// Does the same for any options.
    #[inline(never)]
    fn by_default_rules(self, options: &[u8]) -> Outcome {
        let parsed = option::find_client(options, &kinds::Default, Pick::First);
        self.settle(&parsed)
    }

    /// Does the same under a policy that was written. Out of line, so that the code for the default
    /// one is short.
    #[inline(never)]
    fn by_policy(self, options: &[u8]) -> Outcome {
        let policy = &self.namespace.policy;
        if !policy.is_enabled() {
            return Outcome::Disabled;
        }
        let parsed = policy.find_client(options, self.rcu);
        self.settle(&parsed)
    }

    /// Records the client in the options, or returns the reason why there is none.
    #[inline(always)]
    fn settle(self, parsed: &ParsedOptions) -> Outcome {
        if parsed.duplicate {
            self.namespace.stats.inc(Counter::Duplicate);
        }
        match &parsed.claim {
            Some(claim) => self.settle_claim(claim),
            None if parsed.malformed => Outcome::Malformed,
            None => self.missing(),
        }
    }

    /// Records the client that an option names, or returns the reason why not.
    #[inline(always)]
    fn settle_claim(self, claim: &Claim) -> Outcome {
        if !self.is_trusted() {
            return Outcome::Untrusted;
        }
        match claim {
            Claim::Client(client) => self.record(client),
            Claim::Address(client) => self.record_address(client),
            Claim::Impossible => Outcome::ImpossibleClient,
        }
    }

    /// Returns the reason why options without one of a kind that counts carry no client. Out of line,
    /// so that the other ways save fewer registers.
    #[inline(never)]
    fn missing(self) -> Outcome {
        let options = self.segment.options();
        if self.namespace.policy.has_other_kind(options, self.rcu) {
            Outcome::KindNotConfigured
        } else if !option::has_room(options, self.segment.is_ipv6()) {
            Outcome::NoOptionHeaderFull
        } else {
            Outcome::NoOption
        }
    }

    /// Whether the source of the segment may name clients.
    #[inline(always)]
    fn is_trusted(self) -> bool {
        match self.namespace.policy.trusted(self.rcu) {
            None => true,
            Some(hosts) => hosts.contains(self.child.connection().peer.address()),
        }
    }

    /// Records a client without a port, whose port is the connection's.
    #[inline(never)]
    fn record_address(self, client: &Endpoint) -> Outcome {
        let port = self.child.connection().peer.port();
        self.record(&Endpoint::new(client.address(), port))
    }

    /// Records a client, unless this segment may not name it.
    #[inline(always)]
    fn record(self, client: &Endpoint) -> Outcome {
        match self.refuse(*client) {
            None => records::record(self.child, client, self.net, self.namespace, self.rcu),
            Some(reason) => reason,
        }
    }

    /// Returns the reason why this segment may not name `client`, if there is one.
    #[inline(always)]
    fn refuse(self, client: Endpoint) -> Option<Outcome> {
        let Self { net, segment, .. } = self;
        let policy = &self.namespace.policy;
        // No balancer is known that turns IPv4 clients into IPv6 connections. An IPv6 client can make
        // a balancer forward an 8-byte option of the client's, where the balancer's 20 bytes do not
        // fit.
        if segment.is_ipv6() && client.address_v4().is_some() && !policy.admits_nat46() {
            return Some(Outcome::ForeignLength);
        }
        if own_address::is_own(net, segment, client, policy.refused_addresses(), self.rcu) {
            return Some(Outcome::ImpossibleClient);
        }
        None
    }
}
