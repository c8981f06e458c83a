// SPDX-License-Identifier: GPL-2.0

//! Parses `/proc/net/toa`: a line with the columns' names, then a row for each connection.

use std::fs;
use std::net::SocketAddr;

use crate::namespace::Namespace;

/// The file, for the thread that opens it.
pub const PATH: &str = "/proc/thread-self/net/toa";

/// A connection of the server.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Row {
    pub local: SocketAddr,
    pub balancer: SocketAddr,
    pub client: SocketAddr,
}

/// Returns the file's text; the module must be loaded.
#[track_caller]
pub fn text(namespace: &Namespace) -> String {
    namespace
        .enter(|| fs::read_to_string(PATH))
        .unwrap_or_else(|error| panic!("{PATH}: {error}"))
}

/// Returns the rows, in order of their addresses.
#[track_caller]
pub fn rows(namespace: &Namespace) -> Vec<Row> {
    parse(&text(namespace))
}

/// Parses a text, and returns its rows in order of their addresses.
#[track_caller]
pub fn parse(text: &str) -> Vec<Row> {
    let (columns, rows) = text.split_once('\n').expect("the names of the columns");
    let columns: Vec<_> = columns.split_whitespace().collect();
    assert_eq!(columns, ["local", "balancer", "client"]);
    assert!(text.ends_with('\n'), "the last line is whole");
    let mut rows: Vec<_> = rows.lines().map(row).collect();
    rows.sort_unstable();
    rows
}

/// Parses a row.
#[track_caller]
pub fn row(line: &str) -> Row {
    let mut columns = line.split_whitespace().map(|column| {
        column
            .parse()
            .unwrap_or_else(|error| panic!("{line:?}: {error}"))
    });
    let mut next = || columns.next().unwrap_or_else(|| panic!("{line:?}"));
    let row = Row {
        local: next(),
        balancer: next(),
        client: next(),
    };
    assert_eq!(columns.next(), None, "{line:?}");
    row
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_are_read() {
        let text = "local balancer client\n\
                    10.0.0.1:80 10.0.1.1:1024  [2001:db8::7]:4321\n";
        let address = |text: &str| text.parse().expect("an address");
        let expected = Row {
            local: address("10.0.0.1:80"),
            balancer: address("10.0.1.1:1024"),
            client: address("[2001:db8::7]:4321"),
        };
        assert_eq!(parse(text), [expected]);
    }
}
