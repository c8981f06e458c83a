// SPDX-License-Identifier: MIT OR Apache-2.0

//! The kernel's TCP sockets (`/proc/net/tcp`, `/proc/net/tcp6`), and the processes that hold them.

use std::collections::HashMap;
use std::fs;
use std::net::IpAddr;
use std::net::Ipv4Addr;
use std::net::Ipv6Addr;
use std::net::SocketAddr;

use schemars::JsonSchema;
use serde::Serialize;

use crate::failure::Failure;
use crate::failure::Result;
use crate::host::Host;
use crate::output::printable;

/// `TCP_LISTEN` of `include/net/tcp_states.h`.
pub const LISTEN: u8 = 10;

/// A socket.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Socket {
    /// The local end. IPv4 traffic has IPv4 addresses, also on AF_INET6 sockets.
    pub local: SocketAddr,
    /// The other end.
    pub peer: SocketAddr,
    /// The state's number.
    pub state: u8,
    /// The inode, which is 0 before a process accepts the connection.
    pub inode: u64,
    /// Whether the socket is of AF_INET6.
    pub is_ipv6: bool,
}

/// Reads the sockets of the thread's network namespace.
///
/// # Errors
///
/// A content that no kernel writes.
pub fn read(host: &Host) -> Result<Vec<Socket>> {
    let mut sockets = Vec::new();
    for (name, is_ipv6) in [("tcp", false), ("tcp6", true)] {
        let path = host.net(name);
        // A kernel without IPv6 has no tcp6.
        let text = host.read_path(&path)?.unwrap_or_default();
        sockets.extend(parse(&text, is_ipv6).map_err(|line| {
            Failure::failed(format!("{}: line {line} is no socket", path.display()))
        })?);
    }
    Ok(sockets)
}

/// Parses a file. The error is the number of the line that is wrong.
pub fn parse(text: &str, is_ipv6: bool) -> Result<Vec<Socket>, usize> {
    let lines = text.lines().zip(1_usize..).skip(1);
    lines
        .map(|(line, number)| socket(line, is_ipv6).ok_or(number))
        .collect()
}

fn socket(line: &str, is_ipv6: bool) -> Option<Socket> {
    let mut fields = line.split_whitespace().skip(1);
    let local = endpoint(fields.next()?)?;
    let peer = endpoint(fields.next()?)?;
    let state = u8::from_str_radix(fields.next()?, 16).ok()?;
    let inode = fields.nth(5)?.parse().ok()?;
    Some(Socket {
        local,
        peer,
        state,
        inode,
        is_ipv6,
    })
}

/// Reads `ADDRESS:PORT` in hexadecimal digits. An address is printed as words of the machine.
fn endpoint(text: &str) -> Option<SocketAddr> {
    let (address, port) = text.split_once(':')?;
    let words = |count: usize| -> Option<Vec<u8>> {
        let words = (0..count).map(|at| {
            let word = u32::from_str_radix(address.get(8 * at..8 * at + 8)?, 16).ok()?;
            Some(word.to_ne_bytes())
        });
        Some(words.collect::<Option<Vec<_>>>()?.concat())
    };
    let address = match address.len() {
        8 => IpAddr::from(Ipv4Addr::from(<[u8; 4]>::try_from(words(1)?).ok()?)),
        32 => IpAddr::from(Ipv6Addr::from(<[u8; 16]>::try_from(words(4)?).ok()?)),
        _ => return None,
    };
    let port = u16::from_str_radix(port, 16).ok()?;
    Some(SocketAddr::new(address.to_canonical(), port))
}

/// A process that holds a socket.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, JsonSchema)]
pub struct Process {
    /// The number.
    pub pid: u32,
    /// The command's name.
    pub command: String,
}

/// The processes by the inodes of their sockets.
#[derive(Debug, Default)]
pub struct Holders {
    by_inode: HashMap<u64, Process>,
    /// The number of processes whose files must not be read.
    pub hidden: usize,
}

impl Holders {
    /// Returns the process with the lowest number that holds a socket.
    pub fn of(&self, inode: u64) -> Option<&Process> {
        self.by_inode.get(&inode)
    }
}

/// Finds the processes of all sockets, as far as permissions allow.
pub fn holders(host: &Host) -> Holders {
    let mut found = Holders::default();
    let mut pids: Vec<u32> = host
        .names("/proc")
        .iter()
        .filter_map(|name| name.parse().ok())
        .collect();
    pids.sort_unstable();
    for pid in pids {
        let directory = host.path(&format!("/proc/{pid}/fd"));
        let Ok(entries) = fs::read_dir(directory) else {
            found.hidden += usize::from(host.exists(&format!("/proc/{pid}")));
            continue;
        };
        let mut command = None;
        for entry in entries.flatten() {
            let Ok(target) = fs::read_link(entry.path()) else {
                continue;
            };
            let Some(inode) = socket_inode(&target.to_string_lossy()) else {
                continue;
            };
            let command = command
                .get_or_insert_with(|| host.word(&format!("/proc/{pid}/comm")).unwrap_or_default());
            found.by_inode.entry(inode).or_insert_with(|| Process {
                pid,
                command: printable(command),
            });
        }
    }
    found
}

/// Reads the inode of a link in `/proc/PID/fd`.
pub fn socket_inode(target: &str) -> Option<u64> {
    target
        .strip_prefix("socket:[")?
        .strip_suffix(']')?
        .parse()
        .ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    const TCP: &str = "  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode\n   \
                       0: 0100007F:1F90 00000000:0000 0A 00000000:00000000 00:00000000 00000000     0        0 4711 1 0 100 0 0 10 0\n";

    const TCP6: &str = "  sl  local_address remote_address st\n   \
                        0: 0000000000000000FFFF00000100000A:0050 0000000000000000FFFF00000101000A:0403 01 00000000:00000000 00:00000000 00000000     0        0 12 1 0 100 0 0 10 0\n   \
                        1: 000000FD000000000000000001000000:0050 000000FD000000000000000002000000:0403 06 00000000:00000000 00:00000000 00000000     0        0 0 1 0 100 0 0 10 0\n";

    #[test]
    fn sockets_are_read() {
        let found = parse(TCP, false).expect("sockets");
        assert_eq!(found[0].local, "127.0.0.1:8080".parse().expect("an end"));
        assert_eq!((found[0].state, found[0].inode), (LISTEN, 4711));
        let found = parse(TCP6, true).expect("sockets");
        assert_eq!(found[0].local, "10.0.0.1:80".parse().expect("an end"));
        assert_eq!(found[0].peer, "10.0.1.1:1027".parse().expect("an end"));
        let [_, second] = found[..] else {
            panic!("two sockets")
        };
        assert_eq!(second.local, "[fd00::1]:80".parse().expect("an end"));
        assert_eq!((second.state, second.inode), (6, 0));
    }

    #[test]
    fn garbage_is_refused_with_its_line() {
        for line in [
            "",
            "0:",
            "0: 0100007F:1F90 x 0A 0 0 0 0 0 1",
            "é: é:é é:é 1 2 3 4 5 6 7",
        ] {
            assert_eq!(parse(&format!("header\n{line}\n"), false), Err(2), "{line}");
        }
        assert_eq!(parse("", false), Ok(Vec::new()));
    }
}
