// SPDX-License-Identifier: GPL-2.0

//! The tests, with a file for each topic and a list for each boot of the machine.

mod answers;
mod asked;
mod born;
mod command;
mod connections;
mod die;
mod errors;
mod failed_allocations;
mod forged_clients;
mod forged_options;
pub mod getsockopt;
mod hostile;
mod impossible_clients;
mod in_kernel;
mod lifetime;
mod load;
mod many;
pub mod model;
mod mptcp;
mod namespaces;
mod nftables;
mod nginx_module;
mod no_ipv6;
pub mod options;
mod outcomes;
mod own_addresses;
mod paths;
mod peer_servers;
mod planted;
mod policy;
mod policy_files;
mod policy_startup;
mod policy_writers;
mod processors;
mod programs;
mod proxies;
mod real_servers;
mod reconnect;
mod reload;
mod screens;
mod secure_boot;
mod selftests;
mod shares;
mod soak;
mod trampolines;
mod unload;
mod why;
mod why_servers;
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
    /// The command line of a debug kernel: allocations fail.
    Faults,
    /// The command line of a debug kernel, for one planted bug.
    Planted,
    /// The command line of a server, for a long run of random scripts.
    Model,
    /// The command line of a server, for the kernel's own tests.
    Selftests,
    /// The command line of a server, for an hour of traffic.
    Soak,
}

impl Boot {
    /// The parameters that the tests depend on.
    pub fn parameters(self) -> &'static [&'static str] {
        match self {
            Self::Stock | Self::Unload | Self::Servers | Self::Secure => &[],
            Self::Faults | Self::Planted | Self::Model | Self::Soak | Self::Selftests => &[],
            Self::NoIpv6 => &["ipv6.disable=1", "init_on_alloc=0", "slab_debug=FZP"],
            Self::OneCpu => &["nr_cpus=1"],
        }
    }

    /// The bound of a case, above all bounds of its waits. A case that exceeds the bound is in a
    /// call that the kernel does not end.
    pub fn case_bound(self) -> Duration {
        match self {
            Self::Stock | Self::NoIpv6 | Self::Servers | Self::Secure | Self::Planted => {
                Duration::from_secs(1200)
            }
            Self::Faults => Duration::from_secs(3600),
            Self::Unload | Self::OneCpu | Self::Model | Self::Soak | Self::Selftests => {
                Duration::from_secs(8 * 3600)
            }
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
            Self::Servers => [programs::MORE, proxies::MORE, forged_clients::MORE]
                .into_iter()
                .flatten()
                .collect(),
            Self::Secure => secure_boot::CASES.iter().collect(),
            Self::Faults => failed_allocations::CASES.iter().collect(),
            Self::Planted => planted::CASES.iter().collect(),
            Self::Model => model::LONG.iter().collect(),
            Self::Selftests => selftests::CASES.iter().collect(),
            Self::Soak => soak::LONG.iter().collect(),
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
            "faults" => Ok(Self::Faults),
            "planted" => Ok(Self::Planted),
            "model" => Ok(Self::Model),
            "selftests" => Ok(Self::Selftests),
            "soak" => Ok(Self::Soak),
            _ => Err(format!("there is no boot {name}")),
        }
    }
}

fn stock() -> Vec<&'static Case> {
    [
        errors::COMPARED,
        answers::CASES,
        options::CASES,
        outcomes::CASES,
        connections::CASES,
        errors::CASES,
        getsockopt::CASES,
        wire::CASES,
        mptcp::CASES,
        peer_servers::LOADED,
        namespaces::CASES,
        command::LOADED,
        screens::LOADED,
        why::LOADED,
        why_servers::LOADED,
        many::CASES,
        processors::CASES,
        real_servers::CASES,
        nginx_module::CASES,
        asked::CASES,
        die::CASES,
        reconnect::LOADED,
        model::CASES,
        asked::UNLOADED,
        born::CASES,
        hostile::CASES,
        soak::CASES,
        impossible_clients::CASES,
        own_addresses::CASES,
        forged_options::CASES,
        forged_clients::CASES,
        nftables::CASES,
        policy::CASES,
        policy_files::CASES,
        policy_writers::CASES,
        paths::CASES,
        programs::CASES,
        proxies::CASES,
        peer_servers::CASES,
        nginx_module::UNLOADED,
        lifetime::CASES,
        shares::CASES,
        outcomes::UNLOADED,
        connections::UNLOADED,
        policy::UNLOADED,
        policy_startup::CASES,
        load::CASES,
        born::UNLOADED,
        getsockopt::UNLOADED,
        command::CASES,
        reload::CASES,
        screens::CASES,
        why::CASES,
        in_kernel::LOADED,
        in_kernel::CASES,
        reconnect::CASES,
        unload::CASES,
        trampolines::CASES,
    ]
    .into_iter()
    .flatten()
    .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::stats::OUTCOMES;
    use crate::stats::ROWS;

    const SKIPS: &str = include_str!("../../../skips.txt");
    const OPERATING: &str = include_str!("../../../../doc/operating.md");
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
        for part in lines(SHORT).filter(|line| !line.is_empty()) {
            assert!(names.iter().any(|name| name.contains(part)), "{part}");
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
            Boot::Model,
            Boot::Soak,
            Boot::Faults,
            Boot::Planted,
            Boot::Selftests,
        ];
        let cases = boots.into_iter().flat_map(Boot::cases);
        cases.map(|case| case.name).collect()
    }

    /// The text of a chapter of the manual, and what follows it.
    fn chapter(title: &str) -> &'static str {
        let (_, text) = OPERATING.split_once(title).expect("the chapter");
        text
    }

    /// The words in backticks.
    fn quoted(text: &str) -> impl Iterator<Item = &str> {
        text.split('`').skip(1).step_by(2)
    }

    #[test]
    fn each_answer_of_the_manual_to_a_missing_client_is_a_test() {
        let answers = chapter("\n## My server logs the balancer: why?\n");
        let (answers, _) = answers.split_once("\n## ").expect("another chapter");
        let is_name = |word: &&str| {
            word.matches('_').count() >= 3 && !ROWS.contains(word) && !word.contains(' ')
        };
        let answered: Vec<_> = quoted(answers).filter(is_name).collect();
        assert!(answered.len() >= 15, "{answered:?}");
        let names = names();
        for test in answered {
            assert!(names.contains(&test), "{test}");
        }
        let explained: Vec<_> = why::explained().collect();
        for row in OUTCOMES {
            assert!(explained.contains(row), "toa why: {row}");
            assert!(answers.contains(&format!("\n| `{row}` | ")), "{row}");
        }
    }

    #[test]
    fn statistics_of_the_manual_are_the_rows() {
        let tables = chapter("\n## Statistics\n");
        let (tables, _) = tables.split_once("\n### ").expect("another chapter");
        let lines = tables.lines().filter(|line| line.starts_with("| `"));
        let rows = lines.flat_map(|line| quoted(line.split('|').nth(1).unwrap_or_default()));
        assert!(rows.eq(ROWS));
    }
}
