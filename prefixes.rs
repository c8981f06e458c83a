// SPDX-License-Identifier: GPL-2.0

//! Sets of IPv4 and IPv6 prefixes: the hosts whose options are trusted.
//!
//! A set is two sorted lists of disjoint ranges, one for each family. Prefixes that overlap or touch
//! become one range, so a look-up is a binary search.
//!
//! Pure: no kernel imports. The host tests compile this file too.

use crate::syntax::{
    self,
    Items,
    Refusal, //
};
use core::cmp::Ordering;
use core::fmt;
use core::net::Ipv6Addr;

/// The most prefixes of a set.
pub(crate) const MAX: usize = 1024;

/// The most bytes of a set's text: more than [`MAX`] prefixes of 43 characters take.
pub(crate) const MAX_TEXT: usize = 64 * 1024 - 1;

/// The word for the set that has no host.
const NONE: &[u8] = b"none";

/// An address as a number, which is small for IPv4. Two words instead of one `u128`, whose alignment
/// the kernel's allocator does not give.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Address {
    high: u64,
    low: u64,
}

impl Address {
    /// The address with these bits.
    pub(crate) const fn from_bits(bits: u128) -> Self {
        Self {
            high: (bits >> u64::BITS) as u64,
            low: bits as u64,
        }
    }

    const fn to_bits(self) -> u128 {
        ((self.high as u128) << u64::BITS) | self.low as u128
    }
}

/// The addresses of a family from `first` to `last`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Range {
    first: Address,
    last: Address,
}

impl Range {
    /// Compares the range with an address in it or beside it.
    pub(crate) fn compare(&self, address: Address) -> Ordering {
        if address < self.first {
            Ordering::Greater
        } else if address > self.last {
            Ordering::Less
        } else {
            Ordering::Equal
        }
    }
}

/// The family of addresses.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Family {
    /// IPv4.
    V4,
    /// IPv6.
    V6,
}

impl Family {
    const fn bits(self) -> u32 {
        match self {
            Self::V4 => u32::BITS,
            Self::V6 => u128::BITS,
        }
    }
}

/// A prefix.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Prefix {
    /// The family of its addresses.
    pub(crate) family: Family,
    /// The first address, as a number.
    first: u128,
    /// The number of low bits that differ within the prefix.
    host_bits: u32,
}

/// The bits of which so many low ones are set.
const fn low_bits(count: u32) -> u128 {
    match 1_u128.checked_shl(count) {
        Some(bit) => bit.wrapping_sub(1),
        None => u128::MAX,
    }
}

impl Prefix {
    /// Reads `ADDRESS` or `ADDRESS/LENGTH`.
    ///
    /// # Errors
    ///
    /// A prefix with host bits is refused: `10.0.0.0/2` is the beginning of `10.0.0.0/24`. An
    /// IPv4-mapped one is refused because its segments are IPv4.
    fn parse(item: &[u8]) -> Result<Self, Refusal> {
        let (address, length) = syntax::split(item, b'/');
        let v4 = parse_v4(address).map(|address| (Family::V4, address.into()));
        let v6 = || Some((Family::V6, parse_v6(address)?));
        let (family, first) = v4
            .or_else(v6)
            .ok_or(Refusal::invalid(1, "not an IPv4 or IPv6 prefix"))?;
        if family == Family::V6 && first >> u32::BITS == 0xffff {
            return Err(Refusal::invalid(
                1,
                "an IPv4-mapped prefix: write the IPv4 prefix",
            ));
        }
        let host_bits = match length {
            None => 0,
            Some((column, text)) => syntax::number(text)
                .and_then(|length| family.bits().checked_sub(length))
                .ok_or(Refusal::invalid(
                    column,
                    "not the length of a prefix of that family",
                ))?,
        };
        if first & low_bits(host_bits) != 0 {
            return Err(Refusal::invalid(
                1,
                "the address has bits beyond the prefix's length",
            ));
        }
        Ok(Self {
            family,
            first,
            host_bits,
        })
    }

    /// The addresses of the prefix.
    pub(crate) const fn range(&self) -> Range {
        Range {
            first: Address::from_bits(self.first),
            last: Address::from_bits(self.first | low_bits(self.host_bits)),
        }
    }
}

impl fmt::Display for Prefix {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.family {
            Family::V4 => {
                let [a, b, c, d] = (self.first as u32).to_be_bytes();
                write!(f, "{a}.{b}.{c}.{d}")?;
            }
            Family::V6 => write_v6(Ipv6Addr::from_bits(self.first), f)?,
        }
        write!(f, "/{}", self.family.bits().saturating_sub(self.host_bits))
    }
}

/// Reads an IPv4 address of four decimal numbers. The parsers of `core` can panic.
pub(crate) fn parse_v4(text: &[u8]) -> Option<u32> {
    let mut address = 0;
    let mut rest = Some(text);
    for _ in 0..4 {
        let (number, after) = syntax::split(rest?, b'.');
        let number = u8::try_from(syntax::number(number)?).ok()?;
        address = (address << u8::BITS) | u32::from(number);
        rest = after.map(|(_, text)| text);
    }
    rest.is_none().then_some(address)
}

/// The groups of an IPv6 address.
const GROUPS: u32 = 8;

/// Reads an IPv6 address as RFC 4291 §2.2 has it.
pub(crate) fn parse_v6(text: &[u8]) -> Option<u128> {
    let is_gap = |at: &usize| text.get(*at..).is_some_and(|rest| rest.starts_with(b"::"));
    let gap = (0..text.len()).find(is_gap);
    let Some((head, [_, _, tail @ ..])) = gap.and_then(|gap| text.split_at_checked(gap)) else {
        let (groups, address) = parse_groups(text, true)?;
        return (groups == GROUPS).then_some(address);
    };
    let (before, head) = parse_groups(head, false)?;
    let (after, tail) = parse_groups(tail, true)?;
    // The two colons stand for one group at least.
    if before.checked_add(after)? >= GROUPS {
        return None;
    }
    let missing = GROUPS.checked_sub(before)?.checked_mul(u16::BITS)?;
    Some(head.checked_shl(missing).unwrap_or(0) | tail)
}

/// Reads groups with colons between them, and returns their number and value. The last two may be an
/// IPv4 address where `v4` is true.
fn parse_groups(text: &[u8], v4: bool) -> Option<(u32, u128)> {
    let (mut groups, mut address) = (0_u32, 0_u128);
    let mut rest = (!text.is_empty()).then_some(text);
    while let Some(text) = rest {
        let (group, after) = syntax::split(text, b':');
        rest = after.map(|(_, text)| text);
        let last = v4 && rest.is_none();
        let (count, value) = match parse_v4(group).filter(|_| last) {
            Some(address) => (2, address),
            None => (1, parse_group(group)?.into()),
        };
        groups = groups.checked_add(count)?;
        address = (address << (count & 3).wrapping_mul(u16::BITS)) | u128::from(value);
        if groups > GROUPS {
            return None;
        }
    }
    Some((groups, address))
}

/// Reads one to four hexadecimal digits.
fn parse_group(text: &[u8]) -> Option<u16> {
    if text.is_empty() || text.len() > 4 {
        return None;
    }
    text.iter().try_fold(0_u16, |group, byte| {
        let digit = char::from(*byte).to_digit(16)?;
        Some((group << 4) | digit as u16)
    })
}

/// Writes an IPv6 address as RFC 5952 has it. The code of `core` for this can panic.
fn write_v6(address: Ipv6Addr, f: &mut fmt::Formatter<'_>) -> fmt::Result {
    let groups = address.segments();
    // The longest run of zeroes: its first group, and the number of groups.
    let (mut longest, mut run) = ((0, 0), (0, 0_u32));
    for (at, group) in (0..GROUPS).zip(&groups) {
        run = match (group, run) {
            (0, (_, 0)) => (at, 1),
            (0, (start, length)) => (start, length.saturating_add(1)),
            _ => (0, 0),
        };
        if run.1 > longest.1 && run.1 > 1 {
            longest = run;
        }
    }
    let (start, length) = longest;
    let end = start.saturating_add(length);
    for (at, group) in (0..GROUPS).zip(&groups) {
        if at == start && length != 0 {
            f.write_str("::")?;
        }
        if (start..end).contains(&at) {
            continue;
        }
        if at != 0 && (at != end || length == 0) {
            f.write_str(":")?;
        }
        write!(f, "{group:x}")?;
    }
    Ok(())
}

/// The text of a set.
pub(crate) enum Text<'a> {
    /// The empty text: any host.
    Any,
    /// The word `none`, or prefixes.
    Set(Prefixes<'a>),
}

/// Reads a set's text, in which `none` is the set without a host.
pub(crate) fn parse(line: &[u8]) -> Text<'_> {
    if Items::new(line).next().is_none() {
        return Text::Any;
    }
    let none = syntax::only(line) == Some(NONE);
    Text::Set(Prefixes {
        items: Items::new(if none { &[] } else { line }),
        count: 0,
    })
}

/// The prefixes of a text.
pub(crate) struct Prefixes<'a> {
    items: Items<'a>,
    count: usize,
}

impl Iterator for Prefixes<'_> {
    type Item = Result<Prefix, Refusal>;

    fn next(&mut self) -> Option<Self::Item> {
        let (column, item) = self.items.next()?;
        if self.count == MAX {
            return Some(Err(Refusal::too_long(column, "more than 1,024 prefixes")));
        }
        self.count = self.count.saturating_add(1);
        Some(Prefix::parse(item).map_err(|refusal| refusal.within(column)))
    }
}

/// Inserts a range into a sorted list, and returns the greatest range: the caller appends it.
pub(crate) fn insert(sorted: &mut [Range], mut new: Range) -> Range {
    if sorted.last().is_some_and(|last| *last <= new) {
        return new;
    }
    for place in sorted {
        if new < *place {
            core::mem::swap(place, &mut new);
        }
    }
    new
}

/// The ranges of a sorted list, of which those that overlap or touch are one.
pub(crate) struct Merged<'a> {
    sorted: &'a [Range],
}

impl<'a> Merged<'a> {
    /// Merges a list that [`insert`] sorted.
    pub(crate) const fn new(sorted: &'a [Range]) -> Self {
        Self { sorted }
    }

    /// The number of ranges.
    pub(crate) fn len(self) -> usize {
        self.fold(0, |len: usize, _| len.saturating_add(1))
    }
}

impl Iterator for Merged<'_> {
    type Item = Range;

    fn next(&mut self) -> Option<Range> {
        let (mut merged, mut rest) = match *self.sorted {
            [first, ref rest @ ..] => (first, rest),
            [] => return None,
        };
        while let [next, after @ ..] = rest {
            let touches = match merged.last.to_bits().checked_add(1) {
                Some(bits) => next.first <= Address::from_bits(bits),
                None => true,
            };
            if !touches {
                break;
            }
            merged.last = merged.last.max(next.last);
            rest = after;
        }
        self.sorted = rest;
        Some(merged)
    }
}

/// A set: for each family, sorted and disjoint ranges.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Set<'a> {
    /// The ranges of IPv4 addresses.
    pub(crate) v4: &'a [Range],
    /// The ranges of IPv6 addresses.
    pub(crate) v6: &'a [Range],
}

impl Set<'_> {
    /// Whether the set has the address, which is in its IPv4-mapped form if it is an IPv4 address.
    pub(crate) fn contains(&self, address: Ipv6Addr) -> bool {
        let bits = address.to_bits();
        let (list, bits) = match bits >> u32::BITS {
            0xffff => (self.v4, u128::from(bits as u32)),
            _ => (self.v6, bits),
        };
        let address = Address::from_bits(bits);
        find(list, |range| range.compare(address))
    }
}

/// Finds a range by binary search: 1,024 ranges take at most 11 calls of `compare`.
pub(crate) fn find(mut list: &[Range], mut compare: impl FnMut(&Range) -> Ordering) -> bool {
    while let Some((left, [middle, right @ ..])) = list.split_at_checked(list.len() / 2) {
        list = match compare(middle) {
            Ordering::Equal => return true,
            Ordering::Greater => left,
            Ordering::Less => right,
        };
    }
    false
}

impl fmt::Display for Set<'_> {
    /// The smallest list of prefixes with the set's addresses, in the form that [`parse`] reads.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.v4.is_empty() && self.v6.is_empty() {
            return f.write_str("none");
        }
        let mut separator = "";
        for (family, ranges) in [(Family::V4, self.v4), (Family::V6, self.v6)] {
            for range in ranges {
                for prefix in Split::new(family, range) {
                    write!(f, "{separator}{prefix}")?;
                    separator = ",";
                }
            }
        }
        Ok(())
    }
}

/// The prefixes that a range consists of.
struct Split {
    family: Family,
    /// The first and the last address of the rest.
    rest: Option<(u128, u128)>,
}

impl Split {
    const fn new(family: Family, range: &Range) -> Self {
        Self {
            family,
            rest: Some((range.first.to_bits(), range.last.to_bits())),
        }
    }
}

impl Iterator for Split {
    type Item = Prefix;

    fn next(&mut self) -> Option<Prefix> {
        let (first, last) = self.rest?;
        // The largest prefix that begins at `first` and ends at `last` or before.
        let aligned = first.trailing_zeros().min(self.family.bits());
        let fitting = match last.checked_sub(first)?.checked_add(1) {
            Some(count) => count.checked_ilog2()?,
            None => u128::BITS,
        };
        let host_bits = aligned.min(fitting);
        let end = first | low_bits(host_bits);
        self.rest = end
            .checked_add(1)
            .filter(|_| end < last)
            .map(|next| (next, last));
        Some(Prefix {
            family: self.family,
            first,
            host_bits,
        })
    }
}
