// SPDX-License-Identifier: MIT OR Apache-2.0

//! The filter of `toa list`: conditions that a connection must meet, in the manner of `ss`.

use std::net::SocketAddr;
use std::str::FromStr;

use ipnet::IpNet;

use crate::connections::Connection;
use crate::policy::parse_prefix;

/// An end of a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum End {
    Client,
    Balancer,
    Server,
}

impl End {
    fn of(self, connection: &Connection) -> SocketAddr {
        match self {
            Self::Client => connection.client,
            Self::Balancer => connection.balancer,
            Self::Server => connection.server,
        }
    }
}

/// A condition.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Condition {
    /// The end's address is in the prefix.
    In(End, IpNet),
    /// The end is this one.
    Is(End, SocketAddr),
    /// The server's port.
    Port(u16),
    /// The client's family.
    IsIpv6(bool),
}

/// The conditions, all of which hold.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Filter(Vec<Condition>);

impl Filter {
    /// Reads the words of a filter.
    ///
    /// # Errors
    ///
    /// The reason, with the word.
    pub fn parse(words: &[String]) -> Result<Self, String> {
        let mut conditions = Vec::new();
        let mut words = words.iter().flat_map(|word| word.split_whitespace());
        while let Some(word) = words.next() {
            let mut argument = || {
                words
                    .next()
                    .ok_or_else(|| format!("{word} needs a value: toa list {word} VALUE"))
            };
            conditions.push(match word {
                "client" => end(End::Client, argument()?)?,
                "balancer" => end(End::Balancer, argument()?)?,
                "server" => end(End::Server, argument()?)?,
                "port" => Condition::Port(port(argument()?)?),
                _ => match word.strip_prefix(':') {
                    Some(number) if !number.starts_with(':') => Condition::Port(port(number)?),
                    _ => end(End::Client, word)?,
                },
            });
        }
        Ok(Self(conditions))
    }

    /// Adds a condition: the client's family.
    pub fn of_family(mut self, is_ipv6: bool) -> Self {
        self.0.push(Condition::IsIpv6(is_ipv6));
        self
    }

    /// Whether a connection meets all conditions.
    pub fn admits(&self, connection: &Connection) -> bool {
        self.0.iter().all(|condition| match condition {
            Condition::In(end, prefix) => prefix.contains(&end.of(connection).ip()),
            Condition::Is(end, address) => end.of(connection) == *address,
            Condition::Port(port) => connection.server.port() == *port,
            Condition::IsIpv6(is_ipv6) => connection.client.is_ipv6() == *is_ipv6,
        })
    }
}

fn end(end: End, text: &str) -> Result<Condition, String> {
    if let Ok(address) = SocketAddr::from_str(text) {
        return Ok(Condition::Is(end, address));
    }
    match parse_prefix(text) {
        Ok(prefix) => Ok(Condition::In(end, prefix)),
        // A word instead of an address is a misspelt condition.
        Err(_) if !text.contains(['.', ':']) => Err(format!(
            "there is no filter {text:?}: write PREFIX, client PREFIX, balancer PREFIX, server PREFIX, :PORT or \
             port PORT"
        )),
        Err(reason) => Err(reason),
    }
}

fn port(text: &str) -> Result<u16, String> {
    text.parse()
        .map_err(|_| format!("{text:?} is no port: write a number from 0 to 65535"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str) -> Result<Filter, String> {
        let words: Vec<String> = text.split(' ').map(str::to_owned).collect();
        Filter::parse(&words)
    }

    #[test]
    fn all_conditions_must_hold() {
        let connection = Connection {
            client: "203.0.113.7:50412".parse().expect("an end"),
            balancer: "10.0.1.1:1027".parse().expect("an end"),
            server: "[fd00::1]:8080".parse().expect("an end"),
        };
        for (text, admitted) in [
            ("", true),
            ("203.0.113.0/24", true),
            ("203.0.113.7", true),
            ("203.0.113.7:50412", true),
            ("203.0.113.7:50413", false),
            ("203.0.114.0/24", false),
            ("::/0", false),
            ("client 203.0.113.0/24 balancer 10.0.0.0/8", true),
            ("client 203.0.113.0/24 balancer 10.1.0.0/16", false),
            ("balancer 10.0.1.1:1027", true),
            ("server fd00::/8 :8080", true),
            ("server [fd00::1]:8080", true),
            ("port 8080", true),
            ("port 80", false),
        ] {
            let filter = parse(text).expect(text);
            assert_eq!(filter.admits(&connection), admitted, "{text}");
        }
        let filter = parse("").expect("nothing");
        assert!(filter.clone().of_family(false).admits(&connection));
        assert!(!filter.of_family(true).admits(&connection));
    }

    #[test]
    fn unknown_filters_and_malformed_prefixes_are_refused() {
        for (text, reason) in [
            (
                "clients 10.0.0.1",
                "there is no filter \"clients\": write PREFIX, client PREFIX, balancer PREFIX, server PREFIX, \
                 :PORT or port PORT",
            ),
            ("client", "client needs a value: toa list client VALUE"),
            (
                "10.0.0.0/33",
                "\"10.0.0.0/33\" is no IPv4 or IPv6 prefix: write one such as 10.0.1.0/28",
            ),
            (
                "10.0.0.1/8",
                "10.0.0.1/8 has address bits beyond the prefix's length: write 10.0.0.0/8",
            ),
            ("port x", "\"x\" is no port: write a number from 0 to 65535"),
            (":65536", "\"65536\" is no port: write a number from 0 to 65535"),
        ] {
            assert_eq!(parse(text), Err(reason.to_owned()), "{text}");
        }
        // An address that begins with colons is no port.
        assert!(parse("::1").is_ok());
    }
}
