// SPDX-License-Identifier: GPL-2.0

//! The rules by which options count: `KIND[/LENGTH][:DIALECT]`.
//!
//! A kind's number does not determine its meaning. 253 is a client's IPv6 address, a client's IPv4
//! address or a virtual server's address, depending on the vendor.
//!
//! Pure: no kernel imports. The host tests compile this file too.

use crate::syntax::{
    self,
    Items,
    Refusal, //
};
use core::fmt;

/// The most rules of a set.
pub(crate) const MAX: usize = 32;

/// The most bytes of a set's text.
pub(crate) const MAX_TEXT: usize = 1023;

/// The layout of an option after its kind and length bytes, and its meaning.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Dialect {
    /// Port and IPv4 address of a client.
    Client4,
    /// Port and IPv6 address of a client.
    Client6,
    /// IPv4 address of a client, whose port is the connection's.
    Client4NoPort,
    /// IPv6 address of a client, whose port is the connection's.
    Client6NoPort,
    /// The virtual server's address: never a client.
    Vip,
}

/// All dialects with their names.
const DIALECTS: [(Dialect, &str); 5] = [
    (Dialect::Client4, "client4"),
    (Dialect::Client6, "client6"),
    (Dialect::Client4NoPort, "client4-noport"),
    (Dialect::Client6NoPort, "client6-noport"),
    (Dialect::Vip, "vip"),
];

impl Dialect {
    fn parse(name: &[u8]) -> Option<Self> {
        let mut all = DIALECTS.iter();
        let found = all.find(|(_, known)| known.as_bytes() == name);
        found.map(|(dialect, _)| *dialect)
    }

    fn name(self) -> &'static str {
        let mut all = DIALECTS.iter();
        let found = all.find(|(dialect, _)| *dialect == self);
        found.map_or("", |(_, name)| name)
    }

    /// The length of the dialect's options. Those of [`Dialect::Vip`] may have another one.
    const fn length(self) -> u8 {
        match self {
            Self::Client4 | Self::Vip => 8,
            Self::Client6 => 20,
            Self::Client4NoPort => 6,
            Self::Client6NoPort => 18,
        }
    }
}

/// RFC 9293 §3.1: the most bytes of all options of a segment.
const MAX_LENGTH: u32 = 40;

/// The meaning of the options of one kind and length.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Rule {
    /// The option's kind.
    pub(crate) kind: u8,
    /// The option's length, with its kind and length bytes.
    pub(crate) length: u8,
    /// The option's meaning.
    pub(crate) dialect: Dialect,
}

impl fmt::Display for Rule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            kind,
            length,
            dialect,
        } = self;
        write!(f, "{kind}/{length}:{}", dialect.name())
    }
}

/// The kinds of the default rules: DPVS `kmod/toa/toa.h`, an experimental kind of RFC 4727, also used
/// by RFC 6994.
pub(crate) const DEFAULT_KIND: u8 = 254;

/// The default rules.
pub(crate) const DEFAULT: [Rule; 2] = [
    Rule {
        kind: DEFAULT_KIND,
        length: Dialect::Client4.length(),
        dialect: Dialect::Client4,
    },
    Rule {
        kind: DEFAULT_KIND,
        length: Dialect::Client6.length(),
        dialect: Dialect::Client6,
    },
];

/// Returns the reason for which a kind cannot carry clients.
const fn refused(kind: u32) -> Option<&'static str> {
    match kind {
        // `tcp_inbound_hash`
        19 => Some("kind 19 is TCP-MD5: the kernel drops its segments unless the socket has a key"),
        29 => Some("kind 29 is TCP-AO: the kernel drops its segments unless the socket has a key"),
        // RFC 9293 and 7323, 2018, 8684, 7413: every client can write these, and the kernel's TCP
        // reads them.
        0..=5 | 8 | 30 | 34 => Some("TCP itself uses this kind"),
        6..=255 => None,
        _ => Some("not a kind: 6 to 255"),
    }
}

/// The most rules that one item makes.
const PER_ITEM: usize = 2;

/// Reads `KIND[/LENGTH][:DIALECT]`. Without a length and a dialect there are two rules.
fn parse_item(item: &[u8]) -> Result<[Option<Rule>; PER_ITEM], Refusal> {
    let (front, dialect) = syntax::split(item, b':');
    let (kind, length) = syntax::split(front, b'/');
    let kind = syntax::number(kind).ok_or(Refusal::invalid(1, "not a kind: 6 to 255"))?;
    if let Some(reason) = refused(kind) {
        return Err(Refusal::invalid(1, reason));
    }
    let kind = kind as u8;
    let dialect = match dialect {
        None => None,
        Some((column, name)) => Some(Dialect::parse(name).ok_or(Refusal::invalid(
            column,
            "not a dialect: client4, client6, client4-noport, client6-noport or vip",
        ))?),
    };
    let Some((column, length)) = length else {
        let rule = |dialect: Dialect| Rule {
            kind,
            length: dialect.length(),
            dialect,
        };
        return Ok(match dialect {
            Some(dialect) => [Some(rule(dialect)), None],
            None => [Some(rule(Dialect::Client4)), Some(rule(Dialect::Client6))],
        });
    };
    let length = syntax::number(length)
        .filter(|length| (2..=MAX_LENGTH).contains(length))
        .ok_or(Refusal::invalid(column, "not an option's length: 2 to 40"))? as u8;
    let fits = |dialect: &Dialect| *dialect == Dialect::Vip || dialect.length() == length;
    let dialect = match dialect {
        Some(dialect) => Some(dialect).filter(fits),
        None => [Dialect::Client4, Dialect::Client6].into_iter().find(fits),
    };
    let dialect = dialect.ok_or(Refusal::invalid(
        column,
        "the dialect has another length: client4 8, client6 20, client4-noport 6, client6-noport 18",
    ))?;
    Ok([
        Some(Rule {
            kind,
            length,
            dialect,
        }),
        None,
    ])
}

/// The rules of a policy. The default ones are a constant, so the code that reads with them is as
/// fast as code for one kind.
pub(crate) trait Kinds {
    /// Whether a rule makes options of the kind name clients.
    fn names_clients(&self, kind: u8) -> bool;

    /// Whether an option's meaning is [`Dialect::Vip`]: see [`Kinds::dialect`].
    fn is_vip(&self, kind: u8, length: usize) -> bool {
        self.dialect(kind, length) == Some(Dialect::Vip)
    }

    /// The meaning of an option whose kind names clients, by its length with kind and length bytes.
    fn dialect(&self, kind: u8, length: usize) -> Option<Dialect>;
}

/// The default rules, [`DEFAULT`].
pub(crate) struct Default;

impl Kinds for Default {
    #[inline(always)]
    fn names_clients(&self, kind: u8) -> bool {
        kind == DEFAULT_KIND
    }

    #[inline(always)]
    fn dialect(&self, _kind: u8, length: usize) -> Option<Dialect> {
        let [client4, client6] = DEFAULT;
        match length {
            _ if length == usize::from(client4.length) => Some(client4.dialect),
            _ if length == usize::from(client6.length) => Some(client6.dialect),
            _ => None,
        }
    }
}

/// Finds the rule for an option among `rules`.
fn dialect_of<'a>(
    mut rules: impl Iterator<Item = &'a Rule>,
    kind: u8,
    length: usize,
) -> Option<Dialect> {
    let rule = rules.find(|rule| rule.kind == kind && usize::from(rule.length) == length)?;
    Some(rule.dialect)
}

/// Rules that an operator wrote.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Rules {
    rules: [Option<Rule>; MAX],
    /// A bit for each kind whose options name clients.
    clients: [u64; 4],
}

impl Rules {
    /// Reads a set's text.
    ///
    /// # Errors
    ///
    /// A text without a rule is refused. So is a second rule for the same kind and length.
    pub(crate) fn parse(line: &[u8]) -> Result<Self, Refusal> {
        let mut all = Self {
            rules: [None; MAX],
            clients: [0; 4],
        };
        for (column, item) in Items::new(line) {
            let rules = parse_item(item).map_err(|refusal| refusal.within(column))?;
            for rule in rules.into_iter().flatten() {
                all.add(rule, column)?;
            }
        }
        if all.iter().next().is_none() {
            return Err(Refusal::invalid(1, "no rule: write enabled=0 instead"));
        }
        Ok(all)
    }

    fn add(&mut self, rule: Rule, column: usize) -> Result<(), Refusal> {
        if dialect_of(self.iter(), rule.kind, rule.length.into()).is_some() {
            return Err(Refusal::invalid(
                column,
                "a second rule for the same kind and length",
            ));
        }
        let free = self.rules.iter_mut().find(|place| place.is_none());
        *free.ok_or(Refusal::too_long(column, "more than 32 rules"))? = Some(rule);
        if rule.dialect != Dialect::Vip {
            if let Some(word) = self.clients.get_mut(usize::from(rule.kind >> 6)) {
                *word |= 1 << (rule.kind & 63);
            }
        }
        Ok(())
    }

    /// The rules in the order in which they were written.
    pub(crate) fn iter(&self) -> impl Iterator<Item = &Rule> {
        self.rules.iter().flatten()
    }

    /// Whether these are the default rules.
    pub(crate) fn is_default(&self) -> bool {
        self.iter().eq(DEFAULT.iter())
    }
}

impl Kinds for Rules {
    fn names_clients(&self, kind: u8) -> bool {
        let word = self.clients.get(usize::from(kind >> 6));
        word.is_some_and(|word| (word >> (kind & 63)) & 1 != 0)
    }

    fn dialect(&self, kind: u8, length: usize) -> Option<Dialect> {
        dialect_of(self.iter(), kind, length)
    }
}

/// Writes rules in the form that [`Rules::parse`] reads.
pub(crate) fn write<'a>(
    rules: impl Iterator<Item = &'a Rule>,
    f: &mut fmt::Formatter<'_>,
) -> fmt::Result {
    let mut separator = "";
    for rule in rules {
        write!(f, "{separator}{rule}")?;
        separator = ",";
    }
    Ok(())
}

impl fmt::Display for Rules {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write(self.iter(), f)
    }
}

impl fmt::Display for Default {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write(DEFAULT.iter(), f)
    }
}
