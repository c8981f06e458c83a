// SPDX-License-Identifier: GPL-2.0

//! The kernel's own tests (`tools/testing/selftests`): each part that passes without the module also
//! passes with it. The tests run without the module, with it, and with it and a set of trusted hosts.
//!
//! A test that never passes here shows nothing about the module: its case is skipped, and
//! `tests/skips.txt` has the reason. A part that passed without the module and fails with it gets
//! two more attempts, and must pass with the module in one of them.

use std::collections::BTreeSet;
use std::fs;
use std::fs::File;
use std::io::Write as _;
use std::path::Path;
use std::path::PathBuf;
use std::time::Duration;
use std::time::Instant;

use crate::ktap::note;
use crate::module;
use crate::namespace::Namespace;
use crate::runner::cases;
use crate::runner::problem;
use crate::runner::skip;
use crate::runner::Case;
use crate::selftests::Results;
use crate::selftests::Selftest;

/// The directory of the tests' output.
const LOGS: &str = "/toa/out/selftests";

/// The table of all results.
const TABLE: &str = "/toa/out/selftests.txt";

/// The number of attempts for a part that fails with the module.
const ATTEMPTS: u32 = 3;

/// The set of trusted hosts that has all hosts. The default trusts them too, but looks up none.
const ALL_HOSTS: &str = "0.0.0.0/0,::/0";

/// `NAME: SECONDS, DIRECTORY, COMMAND…;` rows: the cases with their tests, and the time for each.
macro_rules! selftests {
    ($($name:ident: $bound:literal, $directory:literal, $($word:literal)+;)+) => {
        pub const CASES: &[Case] = cases![Unloaded: $($name),+];

        $(fn $name() {
            check(stringify!($name), &Selftest {
                directory: $directory,
                command: &[$($word),+],
                bound: Duration::from_secs($bound),
            });
        })+
    };
}

selftests! {
    bind_bhash_passes_as_without_the_module: 300, "net", "./bind_bhash.sh";
    bind_timewait_passes_as_without_the_module: 300, "net", "./bind_timewait";
    bind_wildcard_passes_as_without_the_module: 300, "net", "./bind_wildcard";
    epoll_busy_poll_passes_as_without_the_module: 300, "net", "./epoll_busy_poll";
    getsockopt_iter_passes_as_without_the_module: 300, "net", "./getsockopt_iter";
    ip_local_port_range_passes_as_without_the_module: 300, "net", "./ip_local_port_range.sh";
    msg_zerocopy_ipv4_passes_as_without_the_module: 300, "net", "./msg_zerocopy.sh" "4" "tcp" "-t" "1";
    msg_zerocopy_ipv6_passes_as_without_the_module: 300, "net", "./msg_zerocopy.sh" "6" "tcp" "-t" "1";
    reuseaddr_conflict_passes_as_without_the_module: 300, "net", "./reuseaddr_conflict";
    reuseaddr_ports_exhausted_passes_as_without_the_module: 300, "net", "./reuseaddr_ports_exhausted.sh";
    reuseport_addr_any_passes_as_without_the_module: 300, "net", "./reuseport_addr_any.sh";
    reuseport_bpf_passes_as_without_the_module: 300, "net", "./reuseport_bpf";
    reuseport_bpf_cpu_passes_as_without_the_module: 300, "net", "./reuseport_bpf_cpu";
    reuseport_bpf_numa_passes_as_without_the_module: 300, "net", "./reuseport_bpf_numa";
    reuseport_dualstack_passes_as_without_the_module: 300, "net", "./reuseport_dualstack";
    run_netsocktests_passes_as_without_the_module: 300, "net", "./run_netsocktests";
    sk_bind_sendto_listen_passes_as_without_the_module: 300, "net", "./sk_bind_sendto_listen";
    sk_connect_zero_addr_passes_as_without_the_module: 300, "net", "./sk_connect_zero_addr";
    sk_so_peek_off_passes_as_without_the_module: 300, "net", "./sk_so_peek_off";
    so_incoming_cpu_passes_as_without_the_module: 300, "net", "./so_incoming_cpu";
    so_netns_cookie_passes_as_without_the_module: 300, "net", "./so_netns_cookie";
    stress_reuseport_listen_passes_as_without_the_module: 300, "net", "./stress_reuseport_listen.sh";
    tcp_inq_passes_as_without_the_module: 300, "net", "./tcp_inq";
    tcp_port_share_passes_as_without_the_module: 300, "net", "./tcp_port_share";
    tls_passes_as_without_the_module: 600, "net", "./tls" "-f" "tls_basic" "-v" "13_aes_gcm";
    mptcp_connect_passes_as_without_the_module: 1200, "net/mptcp", "./mptcp_connect.sh" "-d" "1" "-l" "0%" "-r" "0" "-e" "tso" "-f" "20000";
    mptcp_sockopt_passes_as_without_the_module: 300, "net/mptcp", "./mptcp_sockopt.sh";
    mptcp_diag_passes_as_without_the_module: 300, "net/mptcp", "./diag.sh";
    mptcp_pm_netlink_passes_as_without_the_module: 300, "net/mptcp", "./pm_netlink.sh";
    mptcp_userspace_pm_passes_as_without_the_module: 300, "net/mptcp", "./userspace_pm.sh";
    mptcp_join_of_subflows_passes_as_without_the_module: 600, "net/mptcp", "./mptcp_join.sh" "-f";
    mptcp_join_with_syncookies_passes_as_without_the_module: 600, "net/mptcp", "./mptcp_join.sh" "-k";
    mptcp_join_of_mapped_addresses_passes_as_without_the_module: 600, "net/mptcp", "./mptcp_join.sh" "-4";
    tcp_ao_connect_ipv4_passes_as_without_the_module: 400, "net/tcp_ao", "./connect_ipv4";
    tcp_ao_connect_deny_ipv4_passes_as_without_the_module: 400, "net/tcp_ao", "./connect-deny_ipv4";
    tcp_ao_icmps_accept_ipv4_passes_as_without_the_module: 400, "net/tcp_ao", "./icmps-accept_ipv4";
    tcp_ao_icmps_discard_ipv4_passes_as_without_the_module: 400, "net/tcp_ao", "./icmps-discard_ipv4";
    tcp_ao_key_management_ipv4_passes_as_without_the_module: 400, "net/tcp_ao", "./key-management_ipv4";
    tcp_ao_restore_ipv4_passes_as_without_the_module: 400, "net/tcp_ao", "./restore_ipv4";
    tcp_ao_rst_ipv4_passes_as_without_the_module: 400, "net/tcp_ao", "./rst_ipv4";
    tcp_ao_self_connect_ipv4_passes_as_without_the_module: 400, "net/tcp_ao", "./self-connect_ipv4";
    tcp_ao_seq_ext_ipv4_passes_as_without_the_module: 400, "net/tcp_ao", "./seq-ext_ipv4";
    tcp_ao_setsockopt_closed_ipv4_passes_as_without_the_module: 400, "net/tcp_ao", "./setsockopt-closed_ipv4";
    tcp_ao_unsigned_md5_ipv4_passes_as_without_the_module: 400, "net/tcp_ao", "./unsigned-md5_ipv4";
    tcp_ao_connect_ipv6_passes_as_without_the_module: 400, "net/tcp_ao", "./connect_ipv6";
    tcp_ao_connect_deny_ipv6_passes_as_without_the_module: 400, "net/tcp_ao", "./connect-deny_ipv6";
    tcp_ao_icmps_accept_ipv6_passes_as_without_the_module: 400, "net/tcp_ao", "./icmps-accept_ipv6";
    tcp_ao_icmps_discard_ipv6_passes_as_without_the_module: 400, "net/tcp_ao", "./icmps-discard_ipv6";
    tcp_ao_key_management_ipv6_passes_as_without_the_module: 400, "net/tcp_ao", "./key-management_ipv6";
    tcp_ao_restore_ipv6_passes_as_without_the_module: 400, "net/tcp_ao", "./restore_ipv6";
    tcp_ao_rst_ipv6_passes_as_without_the_module: 400, "net/tcp_ao", "./rst_ipv6";
    tcp_ao_self_connect_ipv6_passes_as_without_the_module: 400, "net/tcp_ao", "./self-connect_ipv6";
    tcp_ao_seq_ext_ipv6_passes_as_without_the_module: 400, "net/tcp_ao", "./seq-ext_ipv6";
    tcp_ao_setsockopt_closed_ipv6_passes_as_without_the_module: 400, "net/tcp_ao", "./setsockopt-closed_ipv6";
    tcp_ao_unsigned_md5_ipv6_passes_as_without_the_module: 400, "net/tcp_ao", "./unsigned-md5_ipv6";
    bpf_test_sockmap_passes_as_without_the_module: 900, "bpf", "./test_sockmap";
    bpf_sockmap_passes_as_without_the_module: 900, "bpf", "./test_progs" "-t" "sockmap";
    bpf_socket_options_passes_as_without_the_module: 600, "bpf", "./test_progs" "-t" "connect_force_port,sock_fields,sockopt_sk";
    bpf_tcp_passes_as_without_the_module: 600, "bpf", "./test_progs" "-t" "tcp,mptcp";
    bpf_lookup_and_migration_passes_as_without_the_module: 600, "bpf", "./test_progs" "-t" "sk_lookup,migrate_reuseport,select_reuseport,sock_destroy,sock_ops_get_sk";
}

/// The module's state while a test runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Mode {
    Without,
    /// The default policy, which trusts any host.
    Default,
    /// The set of [`ALL_HOSTS`].
    Set,
}

/// The results of an attempt, in the order of [`Mode`].
struct Attempt {
    without: Results,
    default: Results,
    set: Results,
}

impl Attempt {
    /// Runs the test in all modes. Ends the case as skipped if no part passes without the module.
    fn make(name: &str, selftest: &Selftest, number: u32) -> Self {
        let without = run(name, selftest, Mode::Without, number);
        if number == 1 && without.passes().next().is_none() {
            row(selftest, [&without.to_string(), "-", "-", ""]);
            skip(&format!("{without} without the module"));
        }
        module::load();
        let default = run(name, selftest, Mode::Default, number);
        Namespace::first().set_policy("trusted", ALL_HOSTS);
        let set = run(name, selftest, Mode::Set, number);
        module::unload();
        Self {
            without,
            default,
            set,
        }
    }

    fn with(&self, mode: Mode) -> &Results {
        match mode {
            Mode::Without => &self.without,
            Mode::Default => &self.default,
            Mode::Set => &self.set,
        }
    }

    /// The parts that passed without the module and did not pass with it.
    fn lost(&self) -> BTreeSet<(Mode, String)> {
        let lost = |mode| {
            let parts = self.without.passes();
            let parts = parts.filter(move |part| !self.with(mode).passed(part));
            parts.map(move |part| (mode, part.to_owned()))
        };
        lost(Mode::Default).chain(lost(Mode::Set)).collect()
    }
}

/// Compares the runs of a test without the module and with it.
fn check(name: &str, selftest: &Selftest) {
    let first = Attempt::make(name, selftest, 1);
    let mut lost = first.lost();
    let flaky = !lost.is_empty();
    for number in 2..=ATTEMPTS {
        if lost.is_empty() {
            break;
        }
        note(&format!("attempt {number}, for {lost:?}"));
        let again = Attempt::make(name, selftest, number);
        lost.retain(|(mode, part)| !again.with(*mode).passed(part));
    }
    let verdict = match (lost.is_empty(), flaky) {
        (false, _) => "FAILED",
        (true, true) => "flaky",
        (true, false) => "",
    };
    let [without, default, set] =
        [&first.without, &first.default, &first.set].map(Results::to_string);
    row(selftest, [&without, &default, &set, verdict]);
    for (mode, part) in lost {
        problem(format!(
            "{selftest}: {part}: passed without the module, but not with it: {mode:?}"
        ));
    }
}

/// Runs the test once.
fn run(name: &str, selftest: &Selftest, mode: Mode, number: u32) -> Results {
    fs::create_dir_all(LOGS).expect("a directory for the output");
    let log = format!("{mode:?}-{number}.log").to_lowercase();
    let log: PathBuf = Path::new(LOGS).join(format!("{name}-{log}"));
    let started = Instant::now();
    let results = selftest.run(|namespace| check_policy(namespace, mode), &log);
    let seconds = started.elapsed().as_secs_f32();
    note(&format!("{selftest}, {mode:?}: {results}, {seconds:.1} s"));
    results
}

/// Checks that the namespace of the test has the policy of that mode.
fn check_policy(namespace: &Namespace, mode: Mode) {
    match mode {
        Mode::Without => assert!(!module::is_loaded()),
        Mode::Default => assert_eq!(namespace.policy("trusted"), ""),
        Mode::Set => assert_eq!(namespace.policy("trusted"), ALL_HOSTS),
    }
}

/// Adds a row to the table, below a header.
fn row(selftest: &Selftest, cells: [&str; 4]) {
    let mut table = File::options()
        .create(true)
        .append(true)
        .open(TABLE)
        .expect("the table");
    let is_new = table.metadata().expect("its size").len() == 0;
    if is_new {
        write_row(
            &mut table,
            "test",
            ["without toa", "with toa", "with a set of all hosts", ""],
        );
    }
    write_row(&mut table, &selftest.to_string(), cells);
}

fn write_row(table: &mut File, name: &str, [without, default, set, verdict]: [&str; 4]) {
    let row = format!("{name:<60.60} {without:<30} {default:<30} {set:<30} {verdict}");
    writeln!(table, "{}", row.trim_end()).expect("a row");
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::selftests::EXIT_STATUS;

    fn lost(without: (&str, i32), default: (&str, i32), set: (&str, i32)) -> Vec<(Mode, String)> {
        let [without, default, set] =
            [without, default, set].map(|(output, status)| Results::parse(output, status));
        let attempt = Attempt {
            without,
            default,
            set,
        };
        attempt.lost().into_iter().collect()
    }

    #[test]
    fn parts_that_pass_without_the_module_only_are_lost() {
        let good = ("ok 1 a\nok 2 b\n", 0);
        assert_eq!(lost(good, good, good), []);
        let failed = ("ok 1 a\nnot ok 2 b\n", 1);
        let both = |mode| [(mode, "b".to_owned()), (mode, EXIT_STATUS.to_owned())];
        assert_eq!(lost(good, failed, good), both(Mode::Default));
        assert_eq!(lost(good, good, failed), both(Mode::Set));
        assert_eq!(lost(failed, good, good), []);
        assert_eq!(lost(failed, failed, failed), []);
    }

    #[test]
    fn parts_that_are_skipped_or_missing_with_the_module_are_lost() {
        let good = ("ok 1 a\nok 2 b\n", 0);
        let missing = ("ok 1 a\n", 0);
        let skipped = ("ok 1 a\nok 2 b # SKIP\n", 0);
        assert_eq!(lost(good, missing, good), [(Mode::Default, "b".to_owned())]);
        assert_eq!(lost(good, good, skipped), [(Mode::Set, "b".to_owned())]);
        let killed = ("ok 1 a\nok 2 b\n", 137);
        assert_eq!(
            lost(good, killed, good),
            [(Mode::Default, EXIT_STATUS.to_owned())]
        );
    }
}
