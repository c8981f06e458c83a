// SPDX-License-Identifier: GPL-2.0

//! The sockets in `/proc/net/tcp` and `/proc/net/tcp6`, as the kernel has them. These
//! files never call getname, so the module does not change them.

use std::fs;
use std::io::ErrorKind;
use std::net::IpAddr;
use std::net::Ipv4Addr;
use std::net::Ipv6Addr;
use std::net::SocketAddr;

use crate::namespace::Namespace;

/// `TCP_ESTABLISHED` of `include/net/tcp_states.h`.
pub const ESTABLISHED: u8 = 1;

/// `TCP_SYN_RECV` of `include/net/tcp_states.h`.
pub const SYN_RECV: u8 = 3;

/// `TCP_LISTEN` of `include/net/tcp_states.h`.
pub const LISTEN: u8 = 10;

/// A socket in the table.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Row {
    pub local: SocketAddr,
    pub remote: SocketAddr,
    pub state: u8,
    /// The socket's inode: 0 before accept, and after close.
    pub inode: u64,
}

/// Returns all TCP sockets of a namespace. AF_INET6 sockets have IPv6 addresses,
/// mapped ones if the traffic is IPv4.
pub fn rows(namespace: &Namespace) -> Vec<Row> {
    namespace.enter(|| {
        let v4 = parse(&read("tcp"), parse_v4);
        let v6 = parse(&read("tcp6"), parse_v6);
        v4.into_iter().chain(v6).collect()
    })
}

/// Reads a table; returns an empty one if the kernel has no IPv6 and no such file.
fn read(file: &str) -> String {
    match fs::read_to_string(format!("/proc/thread-self/net/{file}")) {
        Err(error) if error.kind() == ErrorKind::NotFound => String::new(),
        text => text.expect("the table of sockets"),
    }
}

/// Parses the columns `sl local remote state queues timer retransmits uid timeout inode …`.
fn parse(table: &str, address: fn(&str) -> Option<IpAddr>) -> Vec<Row> {
    let row = |line: &str| {
        let columns: Vec<&str> = line.split_whitespace().collect();
        Some(Row {
            local: endpoint(columns.get(1)?, address)?,
            remote: endpoint(columns.get(2)?, address)?,
            state: u8::from_str_radix(columns.get(3)?, 16).ok()?,
            inode: columns.get(9)?.parse().ok()?,
        })
    };
    table.lines().skip(1).filter_map(row).collect()
}

fn endpoint(text: &str, address: fn(&str) -> Option<IpAddr>) -> Option<SocketAddr> {
    let (ip, port) = text.split_once(':')?;
    let port = u16::from_str_radix(port, 16).ok()?;
    Some(SocketAddr::new(address(ip)?, port))
}

/// Parses a word, which is printed as the machine's number of its four bytes.
fn word(text: &str) -> Option<[u8; 4]> {
    Some(u32::from_str_radix(text, 16).ok()?.to_ne_bytes())
}

fn parse_v4(text: &str) -> Option<IpAddr> {
    Some(Ipv4Addr::from(word(text)?).into())
}

fn parse_v6(text: &str) -> Option<IpAddr> {
    let mut bytes = [0; 16];
    for (number, four) in bytes.chunks_exact_mut(4).enumerate() {
        let start = number * 8;
        four.copy_from_slice(&word(text.get(start..start + 8)?)?);
    }
    Some(Ipv6Addr::from(bytes).into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_are_read() {
        let table = "  sl  local_address rem_address   st …\n   \
            0: 0100007F:1F90 077100CB:0050 01 00000000:00000000 00:00000000 00000000     0        0 4711 1 0\n";
        let row = Row {
            local: "127.0.0.1:8080".parse().expect("an address"),
            remote: "203.0.113.7:80".parse().expect("an address"),
            state: 1,
            inode: 4711,
        };
        assert_eq!(parse(table, parse_v4), [row]);
    }

    #[test]
    fn words_of_an_ipv6_address_are_turned() {
        let address = parse_v6("B80D0120000007000000000007000000");
        assert_eq!(address, "2001:db8:7::7".parse().ok());
    }
}
