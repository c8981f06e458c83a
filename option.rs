// SPDX-License-Identifier: GPL-2.0

//! The TCP option that carries the client's address.
//!
//! ```text
//! kind 254, length 8:   port (2 bytes, big endian), IPv4 address (4 bytes)
//! kind 254, length 20:  port (2 bytes, big endian), IPv6 address (16 bytes)
//! ```
//!
//! DPVS, LVS FullNAT and the load balancers of Huawei, Alibaba and UCloud write it so (`toa.h` of
//! DPVS: `TCPOPT_TOA`). The option stands anywhere in the option list of RFC 9293 §3.1, and need not
//! be aligned. The kinds are a table ([`KINDS`]).
//!
//! Pure: no kernel imports. The host tests compile this file too.

use crate::endpoint::Endpoint;
use core::mem;
use core::net::{
    Ipv4Addr,
    Ipv6Addr, //
};

/// One row of the table of kinds.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Kind {
    /// The option's kind.
    pub(crate) kind: u8,
    /// The lengths of the kind, with their meanings.
    pub(crate) layouts: &'static [Layout],
}

/// The layout of an option after its kind and length bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Layout {
    /// 8 bytes in all: port and IPv4 address of a client.
    Client4,
    /// 20 bytes in all: port and IPv6 address of a client.
    Client6,
}

/// The kinds that carry a client.
pub(crate) const KINDS: &[Kind] = &[
    // DPVS `kmod/toa/toa.h`, an experimental kind of RFC 4727, also used by RFC 6994.
    Kind {
        kind: 254,
        layouts: &[Layout::Client4, Layout::Client6],
    },
];

/// RFC 9293 §3.2: end of the option list, one byte.
const END_OF_LIST: u8 = 0;

/// RFC 9293 §3.2: no operation, one byte.
const NO_OPERATION: u8 = 1;

/// The options of one segment, as far as they concern the table's kinds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct ParsedOptions {
    /// The first option of a kind in the table, unless none of the kind's layouts has its length.
    pub(crate) claim: Option<Claim>,
    /// A further option of a kind in the table follows, and is ignored.
    pub(crate) duplicate: bool,
    /// The list is truncated, or the first option of a kind in the table has none of its lengths.
    pub(crate) malformed: bool,
}

/// The content of an option whose length is that of a layout.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Claim {
    /// An IPv4 client from [`Layout::Client4`], or an IPv6 client from [`Layout::Client6`].
    Client(Endpoint),
    /// An endpoint that cannot be the source of a segment ([`Endpoint::is_possible_source`]), or an
    /// IPv4-mapped address in [`Layout::Client6`].
    Impossible,
}

/// Reads the option list of a segment: the bytes between the fixed TCP header and the data.
///
/// The first option of a kind in `kinds` decides, even if it has a wrong length or an impossible
/// client. Balancers insert theirs in front, so one further back may be the client's own forgery.
/// Options before the place where the list is truncated count.
#[inline(always)]
pub(crate) fn find_client(options: &[u8], kinds: &[Kind]) -> ParsedOptions {
    let mut parsed = ParsedOptions::default();
    let mut seen = false;
    for option in Options(options) {
        match option {
            Err(Truncated) => parsed.malformed = true,
            Ok(TcpOption { kind, data }) => {
                let Some(row) = kinds.iter().find(|row| row.kind == kind) else {
                    continue;
                };
                if seen {
                    parsed.duplicate = true;
                    continue;
                }
                seen = true;
                parsed.claim = row.layouts.iter().find_map(|layout| layout.read(data));
                parsed.malformed = parsed.claim.is_none();
            }
        }
    }
    parsed
}

/// Returns whether a list without an option of a kind in the table has one of another kind that could
/// carry a client: a kind that no client's kernel sends, with the length of a client. Then the balancer
/// may write that kind.
pub(crate) fn has_other_kind(options: &[u8]) -> bool {
    // An IPv4 or IPv6 address (4, 16), with a port (6, 18), or with the version byte of kind 28 (5, 17).
    Options(options).flatten().any(|TcpOption { kind, data }| {
        may_carry_client(kind) && matches!(data.len(), 4 | 16 | 6 | 18 | 5 | 17)
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

impl Layout {
    /// Reads an option's data, or returns `None` if it has another layout's length.
    fn read(self, data: &[u8]) -> Option<Claim> {
        let (port, address) = data.split_first_chunk()?;
        let port = u16::from_be_bytes(*port);
        match self {
            Self::Client4 => {
                let address = Ipv4Addr::from(<[u8; 4]>::try_from(address).ok()?);
                Some(Claim::of(Endpoint::from_v4(address, port)))
            }
            Self::Client6 => {
                let address = Ipv6Addr::from(<[u8; 16]>::try_from(address).ok()?);
                let client = Endpoint::new(address, port);
                // The kernel drops IPv6 segments with a mapped source, and a balancer writes an
                // IPv4 client as `Client4`.
                if client.address_v4().is_some() {
                    return Some(Claim::Impossible);
                }
                Some(Claim::of(client))
            }
        }
    }
}

impl Claim {
    fn of(client: Endpoint) -> Self {
        if client.is_possible_source() {
            Self::Client(client)
        } else {
            Self::Impossible
        }
    }
}

/// An option that has a length, without its kind and length bytes in `data`.
struct TcpOption<'a> {
    kind: u8,
    data: &'a [u8],
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
