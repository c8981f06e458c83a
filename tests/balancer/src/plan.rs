// SPDX-License-Identifier: GPL-2.0

//! The bytes that the balancer inserts for a client: an ordered list of items.

use std::net::SocketAddr;
use std::str::FromStr;

use etherparse::tcp_option::KIND_END;
use etherparse::tcp_option::KIND_NOOP;

use crate::options;
use crate::options::Options;

/// RFC 6994's second experimental kind, DPVS's `TCP_OPT_ADDR`.
pub const DEFAULT_KIND: u8 = 254;

/// One piece of a plan; the program's `--help` has the grammar.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Item {
    /// The client's address and port, well formed.
    Client,
    /// A forged address and port, well formed.
    Forged(SocketAddr),
    /// Bytes as given, valid or not.
    Raw(Vec<u8>),
}

/// The padding to whole 32-bit words.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Pad {
    Nop,
    Eol,
}

/// The items, the kind of their well-formed options, and the padding.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Plan {
    pub items: Vec<Item>,
    pub kind: u8,
    pub pad: Pad,
}

impl Default for Plan {
    /// DPVS's plan: the client's address alone.
    fn default() -> Self {
        Self {
            items: vec![Item::Client],
            kind: DEFAULT_KIND,
            pad: Pad::Nop,
        }
    }
}

impl Plan {
    /// Renders the bytes for a client in whole 32-bit words. Returns `None` if a header
    /// cannot hold them.
    pub fn render(&self, client: SocketAddr) -> Option<Options> {
        let mut bytes = Options::new();
        for item in &self.items {
            match item {
                Item::Client => push_option(&mut bytes, self.kind, client)?,
                Item::Forged(address) => push_option(&mut bytes, self.kind, *address)?,
                Item::Raw(raw) => bytes.try_extend_from_slice(raw).ok()?,
            }
        }
        options::pad(
            &mut bytes,
            match self.pad {
                Pad::Nop => KIND_NOOP,
                Pad::Eol => KIND_END,
            },
        );
        Some(bytes)
    }
}

/// Appends kind, length, port and address: 8 bytes for IPv4, 20 for IPv6.
fn push_option(bytes: &mut Options, kind: u8, address: SocketAddr) -> Option<()> {
    let length = match address {
        SocketAddr::V4(_) => 8,
        SocketAddr::V6(_) => 20,
    };
    bytes.try_extend_from_slice(&[kind, length]).ok()?;
    bytes
        .try_extend_from_slice(&address.port().to_be_bytes())
        .ok()?;
    match address {
        SocketAddr::V4(v4) => bytes.try_extend_from_slice(&v4.ip().octets()).ok(),
        SocketAddr::V6(v6) => bytes.try_extend_from_slice(&v6.ip().octets()).ok(),
    }
}

/// Parses items such as `toa+nop+hex:fe08`; `none` has no items.
pub fn parse_items(text: &str) -> Result<Vec<Item>, String> {
    match text {
        "none" => Ok(Vec::new()),
        _ => text.split('+').map(str::parse).collect(),
    }
}

impl FromStr for Item {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let (name, value) = match text.split_once(':') {
            Some((name, value)) => (name, Some(value)),
            None => (text, None),
        };
        match (name, value) {
            ("toa", None) => Ok(Self::Client),
            ("toa", Some(address)) => match address.parse() {
                Ok(address) => Ok(Self::Forged(address)),
                Err(_) => Err(format!("`{address}` is not an address and port")),
            },
            ("nop", None) => Ok(Self::Raw(vec![KIND_NOOP])),
            ("eol", None) => Ok(Self::Raw(vec![KIND_END])),
            ("hex", Some(digits)) => parse_hex(digits).map(Self::Raw),
            _ => Err(format!(
                "`{text}` is not none, toa, toa:ADDR:PORT, nop, eol or hex:BYTES"
            )),
        }
    }
}

fn parse_hex(digits: &str) -> Result<Vec<u8>, String> {
    let digit = |c: char| c.to_digit(16).and_then(|value| u8::try_from(value).ok());
    let nibbles: Option<Vec<u8>> = digits.chars().map(digit).collect();
    match nibbles {
        Some(nibbles) if !nibbles.is_empty() && nibbles.len() % 2 == 0 => Ok(nibbles
            .chunks_exact(2)
            .map(|pair| (pair[0] << 4) | pair[1])
            .collect()),
        _ => Err(format!("`{digits}` is not pairs of hexadecimal digits")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rendered(items: &str, client: &str) -> Option<Vec<u8>> {
        let plan = Plan {
            items: parse_items(items).expect("valid items"),
            ..Plan::default()
        };
        let bytes = plan.render(client.parse().expect("valid client"))?;
        Some(bytes.to_vec())
    }

    const V4: &str = "203.0.113.7:4660";
    const V6: &str = "[2001:db8:7::7]:4660";

    #[test]
    fn ipv4_client_is_8_bytes() {
        let option = [254, 8, 0x12, 0x34, 203, 0, 113, 7];
        assert_eq!(rendered("toa", V4).expect("the plan fits"), option);
    }

    #[test]
    fn ipv6_client_is_20_bytes() {
        let option = [
            254, 20, 0x12, 0x34, 0x20, 1, 0xd, 0xb8, 0, 7, 0, 0, 0, 0, 0, 0, 0, 0, 0, 7,
        ];
        assert_eq!(rendered("toa", V6).expect("the plan fits"), option);
    }

    #[test]
    fn items_follow_each_other_and_are_filled_with_nops() {
        let bytes = rendered("nop+hex:4d00+toa:1.2.3.4:5+eol", V4).expect("the plan fits");
        assert_eq!(bytes, [1, 77, 0, 254, 8, 0, 5, 1, 2, 3, 4, 0]);
        assert_eq!(
            rendered("hex:fe", V4).expect("the plan fits"),
            [254, 1, 1, 1]
        );
    }

    #[test]
    fn filling_with_the_end_of_the_list() {
        let plan = Plan {
            items: vec![Item::Raw(vec![77, 2])],
            kind: 253,
            pad: Pad::Eol,
        };
        let bytes = plan.render(V4.parse().expect("valid address"));
        assert_eq!(bytes.expect("the plan fits")[..], [77, 2, 0, 0]);
    }

    #[test]
    fn none_is_nothing() {
        assert_eq!(rendered("none", V4).expect("the plan fits"), []);
    }

    #[test]
    fn more_than_40_bytes_are_refused() {
        assert!(rendered("toa+toa", V6).is_some());
        assert_eq!(rendered("toa+toa+nop", V6), None);
    }

    #[test]
    fn bad_items_are_named() {
        for bad in [
            "",
            "tao",
            "toa:",
            "toa:1.2.3.4",
            "hex",
            "hex:",
            "hex:f",
            "hex:fg",
            "hex:+1",
            "nop:1",
            "none+nop",
        ] {
            let error = parse_items(bad).expect_err(bad);
            assert!(error.starts_with('`'), "{error}");
        }
    }
}
