// SPDX-License-Identifier: MIT OR Apache-2.0

//! Tests of the parsers with damaged files, values and arguments: no parser panics, and messages about
//! them have printable characters only.

use proptest::prelude::*;
use proptest::sample::Index;

use crate::connections;
use crate::doctor;
use crate::filter::Filter;
use crate::host::Host;
use crate::module;
use crate::netstat;
use crate::output;
use crate::output::Side;
use crate::output::Table;
use crate::policy;
use crate::policy::Assignment;
use crate::policy::Policy;
use crate::policy::Setting;
use crate::policy::Trusted;
use crate::policy_commands;
use crate::reload;
use crate::sockets;
use crate::stats::Stats;
use crate::status;
use crate::why;

/// A server's files.
const FILES: &[&str] = &[
    include_str!("../tests/hosts/server/proc/net/toa"),
    include_str!("../tests/hosts/server/proc/net/toa_stats"),
    include_str!("../tests/hosts/server/proc/net/tcp"),
    include_str!("../tests/hosts/server/proc/net/tcp6"),
];

/// Values of the policy, filters and options.
const VALUES: &[&str] = &[
    "10.0.1.0/28, fd00:0:0:1::/124",
    "254,253/20:client6 200:client4-noport",
    "none",
    "enabled kinds own_addresses",
    "168028",
    "client 203.0.113.0/24 balancer [fd00::1]:443 :8080 port 80",
    "254/8",
];

/// Texts of the kernel and of programs, which each have a parser.
const TEXTS: &[&str] = &[
    "Tcp: RtoMin ActiveOpens PassiveOpens\nTcp: 200 7 9\n",
    "TcpExt: SyncookiesSent TCPFastOpenPassive\nTcpExt: 0 3\n",
    "100 (nginx) S 1 100 100 0 -1 4194560 1 2 3 4 5 6 7 8 20 0 1 0 4711 9\n",
    "6,339,5140900,-;TOA: toa loaded, version 0.1.0, IPv4 and IPv6\n",
    "socket:[4711]",
    "filename:       /lib/modules/7.3.4/updates/dkms/toa.ko.xz\nversion:        0.1.0\ncrate:          kernel\n",
    "tcp_child_process (1) R I M \ninet_getname (1) R I M \n",
    "ready 0.1.0 9.9.9\n",
    "same 0.1.0\n",
    "# comment\n-net.toa.trusted = 10.0.1.0/28\nnet/toa/enabled=1\nnet.ipv4.ip_forward = 1\n",
];

/// Files of a host, which `toa doctor` and the policy read.
const HOST: &[(&str, &str)] = &[
    ("proc/sys/kernel/osrelease", "7.3.4+deb13-amd64\n"),
    (
        "proc/sys/kernel/version",
        "#1 SMP PREEMPT_DYNAMIC Debian 7.3.4-1\n",
    ),
    (
        "etc/os-release",
        "PRETTY_NAME=\"Debian GNU/Linux 13 (trixie)\"\n",
    ),
    (
        "boot/config-7.3.4+deb13-amd64",
        "CONFIG_RUST=y\nCONFIG_RUSTC_VERSION=108500\nCONFIG_FUNCTION_TRACER=y\n",
    ),
    (
        "sys/kernel/security/lockdown",
        "none [integrity] confidentiality\n",
    ),
    ("sys/module/module/parameters/sig_enforce", "Y\n"),
    ("sys/module/toa/initstate", "live\n"),
    ("sys/module/toa/version", "0.1.0\n"),
    (
        "proc/net/toa_stats",
        "CPU0 CPU1\nmalformed: 1 2\nrecords_live: 3 18446744073709551613\n",
    ),
    ("proc/sys/net/toa/trusted", "10.0.1.0/28\n"),
    ("proc/sys/net/toa/kinds", "254\n"),
    ("proc/sys/net/toa/enabled", "1\n"),
    ("etc/modules-load.d/toa.conf", "toa\n"),
];

/// A host's files, which are removed on drop.
struct Files(std::path::PathBuf);

impl Files {
    fn new() -> Self {
        static MADE: std::sync::atomic::AtomicUsize = std::sync::atomic::AtomicUsize::new(0);
        let number = MADE.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
        let name = format!("toa-hostile-{}-{number}", std::process::id());
        let files = Self(std::env::temp_dir().join(name));
        for (path, text) in HOST {
            files.write(path, text);
        }
        files
    }

    fn write(&self, path: &str, text: &str) {
        let path = self.0.join(path);
        std::fs::create_dir_all(path.parent().expect("a directory")).expect("the directory");
        std::fs::write(path, text).expect("the file");
    }
}

impl Drop for Files {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

/// Pieces that terminals and parsers treat in a special way.
const PIECES: &[&str] = &[
    "\u{1b}[2J",
    "\u{1b}]0;x\u{7}",
    "\u{9b}",
    "\u{202e}",
    "\u{301}",
    "\0",
    "\r",
    "\n",
    "é",
    "データ",
    "\u{3164}",
    "::",
    ":",
    "/",
    ",",
    "-1",
    "18446744073709551616",
    "FFFF",
    "%eth0",
];

/// A piece in place of some bytes.
type Damage = (Index, usize, String);

fn damage() -> impl Strategy<Value = Damage> {
    let piece = prop_oneof![
        prop::sample::select(PIECES).prop_map(str::to_owned),
        any::<char>().prop_map(String::from),
        Just(String::new()),
    ];
    (any::<Index>(), 0..6_usize, piece)
}

/// A text, damaged at some places. As in files, bytes that are no UTF-8 are replaced.
fn damaged(texts: &'static [&'static str]) -> impl Strategy<Value = String> {
    let damages = prop::collection::vec(damage(), 0..5);
    (prop::sample::select(texts), damages).prop_map(|(text, damages)| with(text, damages))
}

fn with(text: &str, damages: Vec<Damage>) -> String {
    let mut bytes = text.as_bytes().to_vec();
    for (place, length, piece) in damages {
        let start = place.index(bytes.len() + 1);
        let end = bytes.len().min(start + length);
        bytes.splice(start..end, piece.into_bytes());
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

/// Checks a message as it is printed.
fn is_one_line(message: &str) -> bool {
    !output::printable(message).contains(char::is_control)
}

proptest! {
    #[test]
    fn damaged_files_are_read_or_name_their_line(text in damaged(FILES)) {
        let lines = text.lines().count();
        let wrong = [
            connections::parse(&text).err(),
            Stats::parse(&text).err(),
            sockets::parse(&text, false).err(),
            sockets::parse(&text, true).err(),
        ];
        for line in wrong.into_iter().flatten() {
            // The line after the last one is the one that is missing.
            prop_assert!((1..=lines + 1).contains(&line), "{line} of {lines}");
        }
        // The names of rows are printed.
        for (row, _) in Stats::parse(&text).unwrap_or_default().rows {
            prop_assert_eq!(output::printable(&row), row);
        }
    }

    #[test]
    fn damaged_texts_are_read_or_refused(text in damaged(TEXTS)) {
        for (protocol, name) in [("Tcp", "PassiveOpens"), ("TcpExt", "TCPFastOpenPassive")] {
            netstat::counter(&text, protocol, name);
        }
        why::start_time(&text);
        why::load_line(&text);
        sockets::socket_inode(&text);
        for hook in status::hooks_in(&text) {
            prop_assert!(text.contains(&hook));
        }
        if let reload::Answer::Ready(version) = reload::Answer::parse(&text) {
            prop_assert_eq!(output::printable(&version), version);
        }
        if let Some(found) = module::parse(&text) {
            let fields = [Some(found.filename), found.version, found.kernel_crate, found.vermagic];
            for field in fields.into_iter().flatten() {
                prop_assert_eq!(output::printable(&field), field);
            }
        }
        // A setting has one line afterwards.
        let assignment = Assignment::new(Setting::Enabled, "1").expect("a value");
        let merged = policy_commands::merged(&text, &[assignment]);
        let settings = merged.lines().filter_map(policy_commands::sysctl_line);
        let values: Vec<&str> = settings
            .filter_map(|(setting, value)| (setting == Setting::Enabled).then_some(value))
            .collect();
        prop_assert_eq!(values, ["1"]);
    }

    #[test]
    fn damaged_hosts_are_diagnosed_in_printable_lines(
        (at, damages) in (0..HOST.len(), prop::collection::vec(damage(), 1..5)),
    ) {
        let files = Files::new();
        let (path, text) = HOST[at];
        let text = with(text, damages);
        files.write(path, &text);
        let host = Host::new(Some(files.0.clone()));
        for text in doctor::examine(&host) {
            prop_assert!(text.lines().all(is_one_line), "{text:?}");
            prop_assert_eq!(text.lines().map(output::printable).collect::<Vec<_>>(), text.lines().collect::<Vec<_>>());
        }
        let failures = [Policy::read(&host).err(), Stats::read(&host).err()];
        for failure in failures.into_iter().flatten() {
            prop_assert!(is_one_line(&failure.text), "{:?}", failure.text);
        }
    }

    #[test]
    fn damaged_values_are_refused_or_become_printable(text in damaged(VALUES)) {
        for setting in Setting::ALL {
            match Assignment::new(setting, &text) {
                // The module's form is also the form of the module's form.
                Ok(assignment) => {
                    prop_assert_eq!(&output::printable(&assignment.value), &assignment.value);
                    let again = Assignment::new(setting, &assignment.value);
                    prop_assert_eq!(again.map(|again| again.value), Ok(assignment.value));
                }
                Err(reason) => prop_assert!(is_one_line(&reason), "{reason:?}"),
            }
        }
        let words: Vec<String> = text.split(' ').map(str::to_owned).collect();
        let reasons = [
            Trusted::parse(&text).err(),
            policy::parse_kinds(&text).err(),
            policy::parse_prefix(&text).err(),
            policy::parse_option(&text).err(),
            Filter::parse(&words).err(),
        ];
        for reason in reasons.into_iter().flatten() {
            prop_assert!(is_one_line(&reason), "{reason:?}");
        }
    }

    #[test]
    fn tables_of_any_texts_fit_each_terminal(
        cells in prop::collection::vec(damaged(VALUES), 1..12),
        width in 20..200_usize,
    ) {
        let mut table = Table::new(&[Side::Left, Side::Right, Side::Left]);
        for row in cells.chunks(3) {
            table.row(row.iter().map(|cell| output::printable(cell)));
        }
        let mut text = String::new();
        table.cut(Some(width)).write(&mut text, None);
        for line in text.lines() {
            prop_assert!(output::columns_of(line) <= width, "{line}");
            prop_assert!(!line.contains(char::is_control), "{line:?}");
        }
    }
}
