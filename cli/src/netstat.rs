// SPDX-License-Identifier: MIT OR Apache-2.0

//! The kernel's counters of TCP (`/proc/net/snmp`, `/proc/net/netstat`): for each protocol a line of names, and
//! one of numbers.

use crate::host::Host;

/// Returns the connections that the thread's network namespace has accepted, of any service.
pub fn passive_opens(host: &Host) -> Option<u64> {
    read(host, "snmp", "Tcp", "PassiveOpens")
}

/// Returns the connections of the thread's network namespace that the data of a SYN made (RFC 7413).
pub fn fast_opens(host: &Host) -> Option<u64> {
    read(host, "netstat", "TcpExt", "TCPFastOpenPassive")
}

fn read(host: &Host, file: &str, protocol: &str, name: &str) -> Option<u64> {
    let text = host.read_path(&host.net(file)).ok()??;
    counter(&text, protocol, name)
}

/// Finds a counter of a protocol.
pub fn counter(text: &str, protocol: &str, name: &str) -> Option<u64> {
    let mut lines = text
        .lines()
        .filter_map(|line| line.strip_prefix(protocol)?.strip_prefix(':'));
    let (names, numbers) = (lines.next()?, lines.next()?);
    let mut pairs = names.split_whitespace().zip(numbers.split_whitespace());
    let (_, number) = pairs.find(|(found, _)| *found == name)?;
    number.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counters_are_found_by_their_name() {
        let text = "Ip: Forwarding\nIp: 1\nTcp: RtoMin ActiveOpens PassiveOpens\nTcp: 200 7 9\n\
                    TcpExt: A PassiveOpens\nTcpExt: 1 2\n";
        assert_eq!(counter(text, "Tcp", "PassiveOpens"), Some(9));
        assert_eq!(counter(text, "TcpExt", "PassiveOpens"), Some(2));
        assert_eq!(counter(text, "Tcp", "A"), None);
        assert_eq!(
            counter("Tcp: RtoMin\nTcp: 200\n", "Tcp", "PassiveOpens"),
            None
        );
        assert_eq!(counter("Tcp: PassiveOpens\n", "Tcp", "PassiveOpens"), None);
        assert_eq!(counter("", "Tcp", "PassiveOpens"), None);
    }
}
