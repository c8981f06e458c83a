// SPDX-License-Identifier: GPL-2.0

//! The tests, with a file for each topic and a list for each boot of the machine.

mod answers;
mod asked;
mod born;
mod command;
mod die;
mod errors;
mod forged_clients;
mod forged_options;
mod getsockopt;
mod hostile;
mod impossible_clients;
mod in_kernel;
mod lifetime;
mod load;
mod many;
mod mptcp;
mod namespaces;
mod nftables;
mod nginx_module;
mod no_ipv6;
mod options;
mod own_addresses;
mod paths;
mod peer_servers;
mod programs;
mod real_servers;
mod reconnect;
mod secure_boot;
mod shares;
mod unload;
mod wire;

use std::str::FromStr;
use std::time::Duration;

use crate::runner::Case;

/// A boot of the machine, by the kernel's command line.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Boot {
    /// The command line of a server.
    #[default]
    Stock,
    /// No IPv6, and no clearing of memory.
    NoIpv6,
    /// The command line of a server, for the tests of a hundred loads.
    Unload,
    /// One processor, for all tests of loads.
    OneCpu,
    /// The command line of a server, with servers that are large.
    Servers,
    /// The command line of a server, by firmware with Secure Boot.
    Secure,
}

impl Boot {
    /// The parameters that the tests depend on.
    pub fn parameters(self) -> &'static [&'static str] {
        match self {
            Self::Stock | Self::Unload | Self::Servers | Self::Secure => &[],
            Self::NoIpv6 => &["ipv6.disable=1", "init_on_alloc=0", "slab_debug=FZP"],
            Self::OneCpu => &["nr_cpus=1"],
        }
    }

    /// The bound of a case, above all bounds of its waits. A case that exceeds the bound is in a
    /// call that the kernel does not end.
    pub fn case_bound(self) -> Duration {
        match self {
            Self::Stock | Self::NoIpv6 | Self::Servers | Self::Secure => Duration::from_secs(1200),
            Self::Unload | Self::OneCpu => Duration::from_secs(3600),
        }
    }

    /// The tests of the boot. Tests that need the module loaded follow each other, so that the
    /// module is loaded once for them.
    pub fn cases(self) -> Vec<&'static Case> {
        match self {
            Self::Stock => stock(),
            Self::NoIpv6 => [no_ipv6::LOADED, no_ipv6::CASES]
                .into_iter()
                .flatten()
                .collect(),
            Self::Unload => unload::LONG.iter().collect(),
            Self::OneCpu => [load::CASES, unload::CASES, unload::LONG]
                .into_iter()
                .flatten()
                .collect(),
            Self::Servers => [programs::MORE, forged_clients::MORE]
                .into_iter()
                .flatten()
                .collect(),
            Self::Secure => secure_boot::CASES.iter().collect(),
        }
    }
}

impl FromStr for Boot {
    type Err = String;

    fn from_str(name: &str) -> Result<Self, String> {
        match name {
            "stock" => Ok(Self::Stock),
            "no-ipv6" => Ok(Self::NoIpv6),
            "unload" => Ok(Self::Unload),
            "one-cpu" => Ok(Self::OneCpu),
            "servers" => Ok(Self::Servers),
            "secure-boot" => Ok(Self::Secure),
            _ => Err(format!("there is no boot {name}")),
        }
    }
}

fn stock() -> Vec<&'static Case> {
    [
        errors::COMPARED,
        answers::CASES,
        options::CASES,
        errors::CASES,
        getsockopt::CASES,
        wire::CASES,
        mptcp::CASES,
        peer_servers::LOADED,
        namespaces::CASES,
        command::LOADED,
        many::CASES,
        real_servers::CASES,
        nginx_module::CASES,
        asked::CASES,
        die::CASES,
        reconnect::LOADED,
        asked::UNLOADED,
        born::CASES,
        hostile::CASES,
        impossible_clients::CASES,
        own_addresses::CASES,
        forged_options::CASES,
        forged_clients::CASES,
        nftables::CASES,
        paths::CASES,
        programs::CASES,
        peer_servers::CASES,
        nginx_module::UNLOADED,
        lifetime::CASES,
        shares::CASES,
        load::CASES,
        born::UNLOADED,
        getsockopt::UNLOADED,
        command::CASES,
        in_kernel::LOADED,
        in_kernel::CASES,
        reconnect::CASES,
        unload::CASES,
    ]
    .into_iter()
    .flatten()
    .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    const SKIPS: &str = include_str!("../../../skips.txt");

    const SHORT: &str = include_str!("../../../short.txt");

    #[test]
    fn listed_skips_are_tests_of_a_boot() {
        let names = names();
        for test in lines(SKIPS).filter_map(|line| line.split_whitespace().nth(1)) {
            assert!(names.contains(&test), "{test}");
        }
    }

    #[test]
    fn the_short_set_has_tests_of_a_boot() {
        let names = names();
        for test in lines(SHORT).filter(|line| !line.is_empty()) {
            assert!(names.contains(&test), "{test}");
        }
    }

    fn lines(file: &str) -> impl Iterator<Item = &str> {
        file.lines().filter(|line| !line.starts_with('#'))
    }

    fn names() -> Vec<&'static str> {
        let boots = [
            Boot::Stock,
            Boot::NoIpv6,
            Boot::Unload,
            Boot::OneCpu,
            Boot::Servers,
            Boot::Secure,
        ];
        boots
            .into_iter()
            .flat_map(Boot::cases)
            .map(|case| case.name)
            .collect()
    }
}
