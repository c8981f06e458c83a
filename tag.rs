// SPDX-License-Identifier: GPL-2.0

//! A connection in two words, which differ from those of each other connection that its socket can have.
//!
//! The tag of a connection over IPv4 is its 4-tuple itself. That of one over IPv6 is a keyed hash of the
//! 36 bytes: NH of UMAC (Black, Halevi, Krawczyk, Krovetz, Rogaway: "UMAC: Fast and Secure Message
//! Authentication", CRYPTO '99), with words of 64 bits and a random key that never leaves the module. Two
//! different tuples have the same tag with a probability of at most 2⁻⁶³, over the choice of the key,
//! whoever chose the tuples: NH's 2⁻⁶⁴, and one bit that distinguishes the two kinds of tag.
//!
//! Pure: no kernel imports. The host tests compile this file too.

use crate::endpoint::Tuple;

/// A connection's tag.
pub(crate) type Tag = [u64; 2];

/// Set in the second word of a hash, and clear in that of a 4-tuple.
const HASH: u64 = 1 << 63;

/// The words of a [`Key`].
pub(crate) const KEY_WORDS: usize = 6;

/// The key of the hash: as many random words as a 4-tuple over IPv6 has, one of them for the ports.
pub(crate) struct Key([u64; KEY_WORDS]);

impl Key {
    /// The words must be random and secret.
    pub(crate) const fn new(words: [u64; KEY_WORDS]) -> Self {
        Self(words)
    }

    /// Returns the tag of a connection.
    #[inline(always)]
    pub(crate) fn tag(&self, tuple: &Tuple) -> Tag {
        match *tuple {
            Tuple::V4 { addresses, ports } => [addresses, word(ports)],
            Tuple::V6 { peer, local, ports } => self.hash(peer, local, word(ports)),
        }
    }

    /// NH: the sum of the products of pairs, each word with its key's word added. The third pair is that of
    /// the ports and 0.
    #[inline(always)]
    fn hash(&self, peer: [u64; 2], local: [u64; 2], ports: u64) -> Tag {
        let product = |first: u64, second: u64| u128::from(first) * u128::from(second);
        let [a, b, c, d, e, f] = self.0;
        let sum = product(peer[0].wrapping_add(a), peer[1].wrapping_add(b))
            .wrapping_add(product(local[0].wrapping_add(c), local[1].wrapping_add(d)))
            .wrapping_add(product(ports.wrapping_add(e), f));
        [sum as u64, ((sum >> u64::BITS) as u64) | HASH]
    }
}

/// Returns the 4-tuple that a tag is, unless it is a hash.
pub(crate) fn tuple_of([addresses, ports]: Tag) -> Option<Tuple> {
    if ports & HASH != 0 {
        return None;
    }
    Some(Tuple::V4 {
        addresses,
        ports: [ports as u16, (ports >> u16::BITS) as u16],
    })
}

/// Both ports in one word.
#[inline(always)]
fn word([peer, local]: [u16; 2]) -> u64 {
    u64::from(peer) | (u64::from(local) << u16::BITS)
}
