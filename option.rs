// SPDX-License-Identifier: GPL-2.0

//! The TCP option in which a FullNAT balancer tells the client's address.
//!
//! ```text
//! kind 254, length 8:   port (2 bytes, big endian), IPv4 address (4 bytes)
//! kind 254, length 20:  port (2 bytes, big endian), IPv6 address (16 bytes)
//! ```
//!
//! As DPVS, LVS FullNAT and the load balancers of Huawei, Alibaba and UCloud write it (`toa.h` of
//! DPVS: `TCPOPT_TOA`). It stands anywhere in the option list of RFC 9293 §3.1, and need not be
//! aligned.
//!
//! Pure: no kernel imports. The host tests compile this file too.

use crate::endpoint::Endpoint;
use core::mem;
use core::net::{
    Ipv4Addr,
    Ipv6Addr, //
};

/// The option's kind: an experimental one of RFC 4727, also used by RFC 6994.
pub(crate) const KIND: u8 = 254;

/// RFC 9293 §3.2: end of the option list, one byte.
const END_OF_LIST: u8 = 0;

/// RFC 9293 §3.2: no operation, one byte.
const NO_OPERATION: u8 = 1;

/// The findings in the options of one segment.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Findings {
    /// The first option of [`KIND`], unless it has the length of no address.
    pub(crate) claim: Option<Claim>,
    /// A further option of [`KIND`] follows, and is ignored.
    pub(crate) duplicate: bool,
    /// The list breaks off within an option, or the first option of [`KIND`] has the length of no
    /// address.
    pub(crate) malformed: bool,
}

/// The content of an option whose length is that of an address.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Claim {
    /// An IPv4 client from an 8-byte option, or an IPv6 client from a 20-byte option.
    Client(Endpoint),
    /// An endpoint that cannot be the source of a segment ([`Endpoint::is_possible_source`]), or an
    /// IPv4-mapped address in a 20-byte option.
    Impossible,
}

/// Reads the option list of a segment: the bytes between the fixed TCP header and the data.
///
/// The first option of [`KIND`] decides, even if it is no address or an impossible one. Balancers
/// insert theirs in front, so one further back may be the client's own forgery. What a segment says
/// before the list breaks off counts.
pub(crate) fn find_client(options: &[u8]) -> Findings {
    let mut findings = Findings::default();
    let mut seen = false;
    for option in Options(options) {
        match option {
            Err(BrokenOff) => findings.malformed = true,
            Ok(TcpOption { kind: KIND, .. }) if seen => findings.duplicate = true,
            Ok(TcpOption { kind: KIND, data }) => {
                seen = true;
                findings.claim = claim(data);
                findings.malformed = findings.claim.is_none();
            }
            Ok(_) => {}
        }
    }
    findings
}

/// Reads an option's data, or returns `None` if it has the length of no address.
fn claim(data: &[u8]) -> Option<Claim> {
    let (port, address) = data.split_first_chunk()?;
    let port = u16::from_be_bytes(*port);
    let (client, mapped) = match *address {
        [a, b, c, d] => (Endpoint::from_v4(Ipv4Addr::new(a, b, c, d), port), false),
        _ => {
            let address = Ipv6Addr::from(<[u8; 16]>::try_from(address).ok()?);
            let client = Endpoint::new(address, port);
            // The kernel drops IPv6 segments with a mapped source, and a balancer writes an IPv4
            // client as 8 bytes.
            (client, client.address_v4().is_some())
        }
    };
    if mapped || !client.is_possible_source() {
        return Some(Claim::Impossible);
    }
    Some(Claim::Client(client))
}

/// An option that has a length, without its kind and length bytes in `data`.
struct TcpOption<'a> {
    kind: u8,
    data: &'a [u8],
}

/// The list ends within an option, or an option is shorter than its own first two bytes.
struct BrokenOff;

/// Iterates over the options that have a length. Ends after [`BrokenOff`].
struct Options<'a>(&'a [u8]);

impl<'a> Iterator for Options<'a> {
    type Item = Result<TcpOption<'a>, BrokenOff>;

    fn next(&mut self) -> Option<Self::Item> {
        loop {
            match *self.0 {
                [] | [END_OF_LIST, ..] => return None,
                [NO_OPERATION, ref rest @ ..] => self.0 = rest,
                _ => return Some(self.take_option().ok_or(BrokenOff)),
            }
        }
    }
}

impl<'a> Options<'a> {
    /// Leaves the list empty if it breaks off here.
    fn take_option(&mut self) -> Option<TcpOption<'a>> {
        let list = mem::take(&mut self.0);
        let (option, rest) = list.split_at_checked(usize::from(*list.get(1)?))?;
        let ([kind, _length], data) = option.split_first_chunk()?;
        self.0 = rest;
        Some(TcpOption { kind: *kind, data })
    }
}
