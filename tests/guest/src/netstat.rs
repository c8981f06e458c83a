// SPDX-License-Identifier: GPL-2.0

//! The kernel's own TCP counters, by which a test checks that a provoked event
//! happened.

use std::fs;

use crate::namespace::Namespace;

/// Returns a counter of `TcpExt` in `/proc/net/netstat`.
#[track_caller]
pub fn tcp(namespace: &Namespace, name: &str) -> u64 {
    counter(namespace, "TcpExt:", name).unwrap_or_else(|| panic!("netstat has no {name}"))
}

/// Whether the kernel has that counter of `TcpExt`.
#[track_caller]
pub fn has(namespace: &Namespace, name: &str) -> bool {
    counter(namespace, "TcpExt:", name).is_some()
}

/// Returns a counter of `MPTcpExt`.
#[track_caller]
pub fn mptcp(namespace: &Namespace, name: &str) -> u64 {
    counter(namespace, "MPTcpExt:", name).unwrap_or_else(|| panic!("netstat has no {name}"))
}

#[track_caller]
fn counter(namespace: &Namespace, table: &str, name: &str) -> Option<u64> {
    let text = namespace
        .enter(|| fs::read_to_string("/proc/thread-self/net/netstat"))
        .expect("/proc/net/netstat");
    find(&text, table, name)
}

/// Finds a counter. Two lines form a table: the names, and their numbers.
fn find(text: &str, table: &str, name: &str) -> Option<u64> {
    let mut lines = text.lines().filter(|line| line.starts_with(table));
    let names = lines.next()?.split_whitespace();
    let numbers = lines.next()?.split_whitespace();
    let (_, number) = names.zip(numbers).find(|(found, _)| *found == name)?;
    number.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_stand_below_their_names() {
        let text = "TcpExt: A B\nTcpExt: 1 2\nIpExt: B C\nIpExt: 3 4\n";
        assert_eq!(find(text, "TcpExt:", "B"), Some(2));
        assert_eq!(find(text, "TcpExt:", "C"), None);
    }
}
