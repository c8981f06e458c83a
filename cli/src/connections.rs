// SPDX-License-Identifier: MIT OR Apache-2.0

//! `/proc/net/toa`: a line with the columns' names, then a row for each connection that has a client.

use std::net::SocketAddr;

use crate::failure::Failure;
use crate::failure::Result;
use crate::failure::Status;
use crate::host::Host;

/// A connection of the server.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Connection {
    /// The client from the option.
    pub client: SocketAddr,
    /// The end that the kernel sees.
    pub balancer: SocketAddr,
    /// The server's end.
    pub server: SocketAddr,
}

/// Reads the connections of the thread's network namespace.
///
/// # Errors
///
/// A missing right, a module that is not loaded or has no such file, and a content that no toa writes.
pub fn read(host: &Host) -> Result<Vec<Connection>> {
    let path = host.net("toa");
    let Some(text) = host.read_path(&path)? else {
        return Err(if host.net("toa_stats").exists() {
            Failure::new(
                Status::Failed,
                "the toa that runs has no list of connections: upgrade it, then run rmmod toa && modprobe toa",
            )
        } else {
            Failure::not_loaded()
        });
    };
    parse(&text).map_err(|line| {
        Failure::failed(format!("{}: line {line} is no connection", path.display()))
    })
}

/// Parses the file. The error is the number of the line that is wrong.
pub fn parse(text: &str) -> Result<Vec<Connection>, usize> {
    let mut lines = text.lines().zip(1_usize..);
    let columns = lines.next().map(|(line, _)| line.split_whitespace());
    if !columns.is_some_and(|columns| columns.eq(["local", "balancer", "client"])) {
        return Err(1);
    }
    lines
        .map(|(line, number)| row(line).ok_or(number))
        .collect()
}

fn row(line: &str) -> Option<Connection> {
    let mut columns = line.split_whitespace().map(|column| column.parse().ok());
    let mut next = || columns.next().flatten();
    let (server, balancer, client) = (next()?, next()?, next()?);
    columns.next().is_none().then_some(Connection {
        client,
        balancer,
        server,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const HEADER: &str = "local balancer client\n";

    #[test]
    fn rows_are_read() {
        let text = "10.0.0.1:8080 10.0.1.1:1027 203.0.113.7:50412\n\
                    [fd00::1]:8080 [fd00:0:0:1::1]:1031 [2001:db8:7::7]:50416\n";
        let found = parse(&format!("{HEADER}{text}")).expect("a table");
        let ends: Vec<String> = found
            .iter()
            .map(|row| format!("{} {} {}", row.server, row.balancer, row.client))
            .collect();
        assert_eq!(ends, text.lines().collect::<Vec<_>>());
        assert_eq!(parse(HEADER), Ok(Vec::new()));
    }

    #[test]
    fn garbage_is_refused_with_its_line() {
        for (text, line) in [
            ("", 1),
            ("local client balancer\n", 1),
            ("local balancer client\n1.2.3.4:5\n", 2),
            ("local balancer client\n1.2.3.4:5 1.2.3.4:5 1.2.3.4\n", 2),
            (
                "local balancer client\n1.2.3.4:5 1.2.3.4:5 1.2.3.4:5 x\n",
                2,
            ),
            (
                "local balancer client\n1.2.3.4:5 1.2.3.4:5 1.2.3.4:65536\n",
                2,
            ),
            (
                "local balancer client\n1.2.3.4:5 1.2.3.4:5 1.2.3.4:6\n\n",
                3,
            ),
        ] {
            assert_eq!(parse(text), Err(line), "{text:?}");
        }
    }
}
