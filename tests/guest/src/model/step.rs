// SPDX-License-Identifier: GPL-2.0

//! The steps of a script: each is a line of words, such as `connect 0 dual nat64 good`.

use std::fmt;
use std::str::FromStr;

use proptest::prelude::*;
use proptest::sample::select;

use crate::net;
use crate::net::Way;
use crate::sockets::Family;

/// The connections that a script can have at a time.
pub const SLOTS: u8 = 5;

/// A value with a word for scripts.
pub trait Word: Copy + PartialEq + 'static {
    /// All values, each with its word.
    const WORDS: &'static [(Self, &'static str)];

    fn word(self) -> &'static str {
        let mut words = Self::WORDS.iter();
        let found = words.find(|(value, _)| *value == self);
        found.map_or("?", |(_, word)| word)
    }

    fn parse(word: &str) -> Result<Self, String> {
        let mut words = Self::WORDS.iter();
        let found = words.find(|(_, other)| *other == word);
        found
            .map(|(value, _)| *value)
            .ok_or_else(|| format!("{word} is none of {:?}", Self::all_words()))
    }

    fn all_words() -> Vec<&'static str> {
        Self::WORDS.iter().map(|(_, word)| *word).collect()
    }

    /// Any value.
    fn any() -> BoxedStrategy<Self>
    where
        Self: fmt::Debug,
    {
        let values: Vec<Self> = Self::WORDS.iter().map(|(value, _)| *value).collect();
        select(values).boxed()
    }
}

impl Word for Family {
    const WORDS: &'static [(Self, &'static str)] = &[
        (Self::V4, "v4"),
        (Self::V6Only, "v6only"),
        (Self::DualStack, "dual"),
    ];
}

impl Word for Way {
    const WORDS: &'static [(Self, &'static str)] =
        &[(Self::V4, "v4"), (Self::V6, "v6"), (Self::Nat64, "nat64")];
}

/// The options in the segment that completes the handshake.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Options {
    /// The client's address, as DPVS writes it.
    Good,
    /// None.
    None,
    /// An option of no client's length.
    Malformed,
    /// An option that names the loopback address.
    Impossible,
    /// An option that names an IPv4 client, over whichever protocol.
    Ipv4,
    /// Two options that name different IPv4 clients.
    Two,
    /// An IPv4 client in an option of another kind.
    OtherKind,
}

impl Word for Options {
    const WORDS: &'static [(Self, &'static str)] = &[
        (Self::Good, "good"),
        (Self::None, "none"),
        (Self::Malformed, "malformed"),
        (Self::Impossible, "impossible"),
        (Self::Ipv4, "ipv4"),
        (Self::Two, "two"),
        (Self::OtherKind, "other-kind"),
    ];
}

/// The end of a connection that acts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Side {
    Server,
    Client,
}

impl Word for Side {
    const WORDS: &'static [(Self, &'static str)] =
        &[(Self::Server, "server"), (Self::Client, "client")];
}

/// The directions that a shutdown ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Direction {
    Read,
    Write,
    Both,
}

impl Word for Direction {
    const WORDS: &'static [(Self, &'static str)] = &[
        (Self::Read, "read"),
        (Self::Write, "write"),
        (Self::Both, "both"),
    ];
}

/// The segment by which a close ends the connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum End {
    Fin,
    Rst,
}

impl Word for End {
    const WORDS: &'static [(Self, &'static str)] = &[(Self::Fin, "fin"), (Self::Rst, "rst")];
}

/// The task that asks for a peer in place of the executor's thread.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Asker {
    Thread,
    Child,
}

impl Word for Asker {
    const WORDS: &'static [(Self, &'static str)] =
        &[(Self::Thread, "thread"), (Self::Child, "child")];
}

/// The hosts that may name clients.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Trusted {
    All,
    Balancer,
    Others,
}

impl Word for Trusted {
    const WORDS: &'static [(Self, &'static str)] = &[
        (Self::All, "all"),
        (Self::Balancer, "balancer"),
        (Self::Others, "others"),
    ];
}

impl Word for bool {
    const WORDS: &'static [(Self, &'static str)] = &[(false, "0"), (true, "1")];
}

/// The records that the server's namespace may hold.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Share {
    None,
    One,
    Two,
    Default,
}

impl Word for Share {
    const WORDS: &'static [(Self, &'static str)] = &[
        (Self::None, "0"),
        (Self::One, "1"),
        (Self::Two, "2"),
        (Self::Default, "default"),
    ];
}

/// A connection, by its number in the script.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Slot(pub u8);

impl Slot {
    pub fn all() -> impl Iterator<Item = Self> {
        (0..SLOTS).map(Self)
    }

    pub fn index(self) -> usize {
        self.0.into()
    }

    fn any() -> impl Strategy<Value = Self> {
        (0..SLOTS).prop_map(Self)
    }
}

/// Declares the steps: each with the word that begins its line, and its fields' types.
macro_rules! steps {
    ($($(#[$doc:meta])* $name:ident = $word:literal { $($field:ident: $type:ty),* },)+) => {
        /// An action of a process, of its peer or of the administrator.
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        pub enum Step {
            $($(#[$doc])* $name { $($field: $type),* },)+
        }

        impl fmt::Display for Step {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                match self {
                    $(Self::$name { $($field),* } => {
                        f.write_str($word)?;
                        $(write!(f, " {}", $field.text())?;)*
                    })+
                }
                Ok(())
            }
        }

        impl FromStr for Step {
            type Err = String;

            fn from_str(line: &str) -> Result<Self, String> {
                let mut words = line.split_whitespace();
                let step = match words.next().unwrap_or_default() {
                    $($word => Self::$name {
                        $($field: Field::read(words.next().unwrap_or_default())?),*
                    },)+
                    other => return Err(format!("no step is named {other:?}")),
                };
                match words.next() {
                    None => Ok(step),
                    Some(word) => Err(format!("{word} follows the step")),
                }
            }
        }
    };
}

/// A field of a step in a script.
trait Field: Sized {
    fn text(&self) -> String;
    fn read(word: &str) -> Result<Self, String>;
}

impl<T: Word> Field for T {
    fn text(&self) -> String {
        self.word().to_owned()
    }

    fn read(word: &str) -> Result<Self, String> {
        Self::parse(word)
    }
}

impl Field for Slot {
    fn text(&self) -> String {
        self.0.to_string()
    }

    fn read(word: &str) -> Result<Self, String> {
        match word.parse() {
            Ok(number) if number < SLOTS => Ok(Self(number)),
            _ => Err(format!("{word:?} is no connection")),
        }
    }
}

steps! {
    /// A client connects through the balancer, which inserts these options.
    Connect = "connect" { slot: Slot, family: Family, way: Way, options: Options },
    /// The server accepts its oldest connection.
    Accept = "accept" { family: Family },
    /// The server closes its listener with all connections in the queue, and opens it again.
    Relisten = "relisten" { family: Family },
    /// One end ends a direction.
    Shutdown = "shutdown" { slot: Slot, side: Side, direction: Direction },
    /// The ends exchange a byte in each direction.
    Exchange = "exchange" { slot: Slot },
    /// One end closes a descriptor. The server's end may have more of them.
    Close = "close" { slot: Slot, side: Side, end: End },
    /// The server disconnects the socket by `connect(AF_UNSPEC)`.
    Disconnect = "disconnect" { slot: Slot },
    /// The server connects a disconnected socket to another listener of its host.
    Reconnect = "reconnect" { slot: Slot },
    /// The server connects a disconnected socket to the balancer's address again, from the same
    /// address. TCP_REPAIR needs no segments for that.
    Restore = "restore" { slot: Slot },
    /// The server duplicates the descriptor.
    Duplicate = "dup" { slot: Slot },
    /// The server sends the descriptor over a UNIX socket, closes it and receives it.
    Pass = "pass" { slot: Slot },
    /// Another task asks for the peer.
    Ask = "ask" { slot: Slot, asker: Asker },
    /// The server turns the socket into an AF_INET socket (IPV6_ADDRFORM).
    AddrForm = "addrform" { slot: Slot },
    /// The server puts kernel TLS on the socket.
    Tls = "tls" { slot: Slot },
    /// The server puts the socket into a sockmap.
    Sockmap = "sockmap" { slot: Slot },
    /// The server switches TCP_REPAIR.
    Repair = "repair" { slot: Slot, on: bool },
    /// The administrator aborts the connection by `ss -K`.
    Kill = "kill" { slot: Slot },
    /// The administrator switches `net.toa.enabled`.
    Enabled = "enabled" { on: bool },
    /// The administrator sets `net.toa.trusted`.
    Trust = "trusted" { hosts: Trusted },
    /// The administrator switches `net.toa.nat46`.
    Nat46 = "nat46" { on: bool },
    /// The administrator lets the last option count, or the first.
    PickLast = "pick-last" { on: bool },
    /// The administrator lets [`Options::OtherKind`] count in place of kind 254.
    OtherKind = "other-kind" { on: bool },
    /// The administrator sets `net.toa.max_records`.
    MaxRecords = "max-records" { share: Share },
    /// The administrator lets all handshakes use SYN cookies, or those of a full queue.
    Cookies = "cookies" { on: bool },
    /// The administrator loads the module.
    Load = "load" {},
    /// The administrator unloads the module.
    Unload = "unload" {},
}

/// Any options, most often those that make a record.
fn any_options() -> impl Strategy<Value = Options> {
    prop_oneof![2 => Just(Options::Good), 1 => Options::any()]
}

/// Any path and listener that the path can reach.
fn any_path() -> impl Strategy<Value = (Family, Way)> {
    select(net::ROWS.to_vec())
}

/// Any step.
pub fn any() -> impl Strategy<Value = Step> {
    let slot = Slot::any;
    let connect = (slot(), any_path(), any_options()).prop_map(|(slot, path, options)| {
        let (family, way) = path;
        Step::Connect {
            slot,
            family,
            way,
            options,
        }
    });
    let connection = prop_oneof![
        2 => (slot(), Side::any(), Direction::any())
            .prop_map(|(slot, side, direction)| Step::Shutdown { slot, side, direction }),
        2 => slot().prop_map(|slot| Step::Exchange { slot }),
        3 => (slot(), End::any())
            .prop_map(|(slot, end)| Step::Close { slot, side: Side::Client, end }),
        9 => (slot(), End::any())
            .prop_map(|(slot, end)| Step::Close { slot, side: Side::Server, end }),
        2 => slot().prop_map(|slot| Step::Disconnect { slot }),
        4 => slot().prop_map(|slot| Step::Reconnect { slot }),
        4 => slot().prop_map(|slot| Step::Restore { slot }),
        1 => slot().prop_map(|slot| Step::Duplicate { slot }),
        1 => slot().prop_map(|slot| Step::Pass { slot }),
        1 => (slot(), Asker::any()).prop_map(|(slot, asker)| Step::Ask { slot, asker }),
        2 => slot().prop_map(|slot| Step::AddrForm { slot }),
        1 => slot().prop_map(|slot| Step::Tls { slot }),
        1 => slot().prop_map(|slot| Step::Sockmap { slot }),
        3 => (slot(), bool::any()).prop_map(|(slot, on)| Step::Repair { slot, on }),
        1 => slot().prop_map(|slot| Step::Kill { slot }),
    ];
    // A policy that hides the others does not last long.
    let seldom = || prop_oneof![3 => Just(false), 1 => Just(true)];
    let policy = prop_oneof![
        2 => seldom().prop_map(|off| Step::Enabled { on: !off }),
        4 => Trusted::any().prop_map(|hosts| Step::Trust { hosts }),
        2 => bool::any().prop_map(|on| Step::Nat46 { on }),
        2 => prop_oneof![Just(Share::Default), Share::any()]
            .prop_map(|share| Step::MaxRecords { share }),
        2 => bool::any().prop_map(|on| Step::PickLast { on }),
        2 => seldom().prop_map(|on| Step::OtherKind { on }),
        2 => bool::any().prop_map(|on| Step::Cookies { on }),
    ];
    let module = prop_oneof![3 => Just(Step::Load {}), 1 => Just(Step::Unload {})];
    prop_oneof![
        60 => connect,
        40 => Family::any().prop_map(|family| Step::Accept { family }),
        1 => Family::any().prop_map(|family| Step::Relisten { family }),
        56 => connection,
        12 => policy,
        2 => module,
    ]
}

/// Reads a script: a step a line. Lines that begin with `#` are comments.
pub fn parse_script(text: &str) -> Result<Vec<Step>, String> {
    let lines = (1..).zip(text.lines().map(str::trim));
    let lines = lines.filter(|(_, line)| !line.is_empty() && !line.starts_with('#'));
    lines
        .map(|(number, line)| {
            line.parse()
                .map_err(|error| format!("line {number}: {error}"))
        })
        .collect()
}

/// Writes a script, a step a line.
pub fn script(steps: &[Step]) -> String {
    let lines: Vec<String> = steps.iter().map(Step::to_string).collect();
    lines.join("\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    proptest! {
        #[test]
        fn scripts_are_read_as_they_are_written(
            steps in proptest::collection::vec(any(), 0..50),
        ) {
            prop_assert_eq!(parse_script(&script(&steps)), Ok(steps));
        }
    }

    #[test]
    fn lines_that_are_no_step_are_refused() {
        for line in ["", "connect 0 dual", "pass 9", "load 1", "ask 0 cat"] {
            assert!(line.parse::<Step>().is_err(), "{line:?}");
        }
        let commented = parse_script("# a comment\n\n load\n");
        assert_eq!(commented, Ok(vec![Step::Load {}]));
    }
}
