// SPDX-License-Identifier: GPL-2.0

//! The TCP option that carries the client's address.
//!
//! ```text
//! kind 254, length 8:   port (2 bytes, big endian), IPv4 address (4 bytes)
//! kind 254, length 20:  port (2 bytes, big endian), IPv6 address (16 bytes)
//! ```
//!
//! DPVS, LVS FullNAT and the load balancers of Huawei, Alibaba and UCloud write it so (`toa.h` of
//! DPVS: `TCPOPT_TOA`). Other balancers use other kinds and layouts, so the rules for them are a
//! policy ([`kinds`](crate::kinds)). The option stands anywhere in the option list of RFC 9293 §3.1, and
//! need not be aligned.
//!
//! Pure: no kernel imports. The host tests compile this file too.

use crate::endpoint::Endpoint;
use crate::kinds::{
    self,
    Dialect,
    Kinds, //
};
use core::mem;
use core::net::{
    Ipv4Addr,
    Ipv6Addr, //
};

/// RFC 9293 §3.2: end of the option list, one byte.
const END_OF_LIST: u8 = 0;

/// RFC 9293 §3.2: no operation, one byte.
const NO_OPERATION: u8 = 1;

/// The option that counts, of two that carry a client.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Pick {
    /// The first one. Balancers insert theirs in front, so one further back may be the client's own
    /// forgery.
    First,
    /// The last one. Of balancers in a row, the first in the row inserts it.
    Last,
}

/// The options of one segment, as far as they concern kinds that carry clients.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct ParsedOptions {
    /// The content of the option that counts, unless no rule has its length.
    pub(crate) claim: Option<Claim>,
    /// There are several options of kinds that carry clients, and all but one are ignored.
    pub(crate) duplicate: bool,
    /// The list is truncated, or no rule has the length of the option that counts.
    pub(crate) malformed: bool,
}

/// The content of an option for whose length there is a rule.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Claim {
    /// A client.
    Client(Endpoint),
    /// A client's address, with port 0: the client's port is the connection's.
    Address(Endpoint),
    /// An endpoint that cannot be the source of a segment ([`Endpoint::is_possible_source`]), or an
    /// IPv4-mapped address in an option for IPv6 clients.
    Impossible,
}

/// Reads the option list of a segment: the bytes between the fixed TCP header and the data.
///
/// The option that `pick` selects decides, even if it has a wrong length or an impossible client.
/// Options before the place where the list is truncated count.
#[inline(always)]
pub(crate) fn find_client(options: &[u8], kinds: &impl Kinds, pick: Pick) -> ParsedOptions {
    let mut chosen: Option<TcpOption<'_>> = None;
    let (mut duplicate, mut truncated) = (false, false);
    for option in Options(options) {
        match option {
            Err(Truncated) => truncated = true,
            Ok(option) => {
                if !kinds.names_clients(option.kind) || kinds.is_vip(option.kind, option.len()) {
                    continue;
                }
                duplicate |= chosen.is_some();
                if chosen.is_none() || pick == Pick::Last {
                    chosen = Some(option);
                }
            }
        }
    }
    let claim = chosen.and_then(|option| {
        let dialect = kinds.dialect(option.kind, option.len())?;
        read(dialect, option.data)
    });
    ParsedOptions {
        malformed: truncated || (chosen.is_some() && claim.is_none()),
        claim,
        duplicate,
    }
}

/// Reads a list that begins with a client by the default rules, and has at most timestamps behind it.
/// Returns `None` for any other list: then [`find_client`] reads it. Most lists with a client are such,
/// and need no loop.
#[inline(always)]
pub(crate) fn first_client(options: &[u8]) -> Option<Claim> {
    let [kind, length, ..] = *options else {
        return None;
    };
    if kind != kinds::DEFAULT_KIND {
        return None;
    }
    let (option, rest) = options.split_at_checked(length.into())?;
    if !rest.is_empty() && !is_aligned_timestamp(rest) {
        return None;
    }
    let dialect = kinds::Default.dialect(kind, option.len())?;
    read(dialect, option.get(HEADER_LEN..)?)
}

/// Whether a list is RFC 7323's timestamps in the form that its appendix A recommends: the kernel looks
/// for that form first too (`tcp_parse_aligned_timestamp`). Such a list carries no client, and has room
/// for one.
#[inline(always)]
pub(crate) fn is_aligned_timestamp(list: &[u8]) -> bool {
    const KIND: u8 = 8;
    const LEN: u8 = 10;
    list.len() == 12 && list.starts_with(&[NO_OPERATION, NO_OPERATION, KIND, LEN])
}

/// Returns whether a list in which no option counts has one of another kind that could carry a client: a
/// kind that no client's kernel sends, with the length of a client. Then the balancer may write that
/// kind. A rule for a virtual server's address is an answer, so its options are left out.
pub(crate) fn has_other_kind(options: &[u8], kinds: &impl Kinds) -> bool {
    // An IPv4 or IPv6 address (4, 16), with a port (6, 18), or with the version byte of kind 28 (5, 17).
    Options(options).flatten().any(|option| {
        may_carry_client(option.kind)
            && matches!(option.data.len(), 4 | 16 | 6 | 18 | 5 | 17)
            && !kinds.is_vip(option.kind, option.len())
    })
}

/// Whether vendors use the kind, or could. Kind 28 has another length in its standard (RFC 5482). IANA
/// assigns or reserves 0 to 69, and of the rest 172 and 174 (Accurate ECN, whose length may be 8).
/// Kinds 253 and 254 are for experiments.
const fn may_carry_client(kind: u8) -> bool {
    match kind {
        28 => true,
        172 | 174 => false,
        _ => kind >= 70,
    }
}

/// RFC 9293 §3.1: the header's length counts up to 15 words, and 20 bytes are its fixed part.
const MOST_OPTIONS: usize = 40;

/// Whether a balancer could have added its option to the header of a segment: 20 bytes in an IPv6
/// segment, and the 8 bytes of an IPv4 client in others. With NAT64 an IPv4 segment needs 20 bytes as
/// well, which the segment does not show.
pub(crate) const fn has_room(options: &[u8], is_ipv6: bool) -> bool {
    let needed = if is_ipv6 { 20 } else { 8 };
    MOST_OPTIONS.saturating_sub(options.len()) >= needed
}

/// The bytes of an option's kind and length.
const HEADER_LEN: usize = 2;

/// Reads an option's data, or returns `None` if it has another dialect's length.
#[inline(always)]
fn read(dialect: Dialect, data: &[u8]) -> Option<Claim> {
    match dialect {
        Dialect::Client4 => {
            let (port, address) = data.split_first_chunk()?;
            let client = Endpoint::from_v4(address4(address)?, u16::from_be_bytes(*port));
            Some(Claim::of(client))
        }
        Dialect::Client6 => {
            let (port, address) = data.split_first_chunk()?;
            let client = Endpoint::new(address6(address)?, u16::from_be_bytes(*port));
            Some(Claim::of_v6(client))
        }
        Dialect::Client4NoPort => {
            let client = Endpoint::from_v4(address4(data)?, ANY_PORT);
            Some(Claim::of(client).without_port())
        }
        Dialect::Client6NoPort => {
            let client = Endpoint::new(address6(data)?, ANY_PORT);
            Some(Claim::of_v6(client).without_port())
        }
        Dialect::Vip => None,
    }
}

/// A possible port, for clients whose port is the connection's.
const ANY_PORT: u16 = 1;

fn address4(bytes: &[u8]) -> Option<Ipv4Addr> {
    Some(Ipv4Addr::from(<[u8; 4]>::try_from(bytes).ok()?))
}

fn address6(bytes: &[u8]) -> Option<Ipv6Addr> {
    Some(Ipv6Addr::from(<[u8; 16]>::try_from(bytes).ok()?))
}

impl Claim {
    #[inline(always)]
    fn of(client: Endpoint) -> Self {
        if client.is_possible_source() {
            Self::Client(client)
        } else {
            Self::Impossible
        }
    }

    /// The kernel drops IPv6 segments with a mapped source, and a balancer writes an IPv4 client in
    /// an option for IPv4.
    #[inline(always)]
    fn of_v6(client: Endpoint) -> Self {
        match client.address_v4() {
            Some(_) => Self::Impossible,
            None => Self::of(client),
        }
    }

    fn without_port(self) -> Self {
        match self {
            Self::Client(client) => Self::Address(Endpoint::new(client.address(), 0)),
            other => other,
        }
    }
}

/// An option that has a length, without its kind and length bytes in `data`.
#[derive(Clone, Copy)]
struct TcpOption<'a> {
    kind: u8,
    data: &'a [u8],
}

impl TcpOption<'_> {
    /// The length with kind and length bytes: 255 at most.
    fn len(&self) -> usize {
        self.data.len().wrapping_add(HEADER_LEN)
    }
}

/// The list ends within an option, or an option is shorter than its own first two bytes.
struct Truncated;

/// An iterator over the options that have a length. Ends after [`Truncated`].
struct Options<'a>(&'a [u8]);

impl<'a> Iterator for Options<'a> {
    type Item = Result<TcpOption<'a>, Truncated>;

    fn next(&mut self) -> Option<Self::Item> {
        loop {
            match *self.0 {
                [] | [END_OF_LIST, ..] => return None,
                [NO_OPERATION, ref rest @ ..] => self.0 = rest,
                _ => return Some(self.take_option().ok_or(Truncated)),
            }
        }
    }
}

impl<'a> Options<'a> {
    /// Takes the first option, or leaves the list empty if it is truncated here.
    fn take_option(&mut self) -> Option<TcpOption<'a>> {
        let list = mem::take(&mut self.0);
        let (option, rest) = list.split_at_checked(usize::from(*list.get(1)?))?;
        let ([kind, _length], data) = option.split_first_chunk()?;
        self.0 = rest;
        Some(TcpOption { kind: *kind, data })
    }
}
