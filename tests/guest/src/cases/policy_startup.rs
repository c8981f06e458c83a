// SPDX-License-Identifier: GPL-2.0

//! The files by which packages apply the policy at start-up: modprobe's, udev's and sysctl's. udev
//! does not run here, so the tests run the command of its rule. `tests/upgrade-test.sh` tests the files
//! on a server that systemd boots.

use std::fs;
use std::process::Command;

use crate::module;
use crate::namespace;
use crate::namespace::Namespace;
use crate::runner::cases;
use crate::runner::Case;

pub const CASES: &[Case] = cases![Unloaded:
    module_loaded_by_modprobe_waits_for_the_policy_where_a_file_has_one,
];

const MODPROBE_CONF: &str = include_str!("../../../../packaging/modprobe-policy.conf");
const SYSCTL_CONF: &str = include_str!("../../../../packaging/sysctl.conf");
const RULES: &str = include_str!("../../../../packaging/toa.rules");

/// Directories of modprobe and of systemd-sysctl, which are in memory.
const MODPROBE_DIR: &str = "/run/modprobe.d";
const SYSCTL_DIR: &str = "/run/sysctl.d";

/// The command that udev runs.
fn command_of_the_rule() -> Vec<&'static str> {
    let line = RULES.lines().find(|line| !line.starts_with('#'));
    let line = line.expect("a rule");
    assert!(line.starts_with(
        r#"ACTION=="add", SUBSYSTEM=="module", KERNEL=="toa", TEST!="/run/toa/swap", RUN+=""#
    ));
    let command = line
        .split("RUN+=\"")
        .nth(1)
        .and_then(|rest| rest.strip_suffix('"'));
    command.expect("a command").split(' ').collect()
}

/// Loads the module as systemd-modules-load does, in a mount namespace that has it among the modules.
fn modprobe() {
    let script = "\
        mount -t tmpfs toa /usr/lib/modules
        mkdir /usr/lib/modules/$(uname -r)
        cp /toa/toa.ko /usr/lib/modules/$(uname -r)/
        depmod 2>/dev/null
        modprobe toa";
    namespace::run(Command::new("unshare").args(["--mount", "sh", "-ec", script]));
}

fn module_loaded_by_modprobe_waits_for_the_policy_where_a_file_has_one() {
    let uncommented = SYSCTL_CONF.replace("#net.toa.", "net.toa.");
    let trusted = "10.0.1.0/28,fd00:0:0:1::/124";
    let rows = [
        ("", "", ""),
        (SYSCTL_CONF, "", ""),
        (&uncommented, "none", trusted),
        ("-net/toa/trusted=192.0.2.0/24\n", "none", "192.0.2.0/24"),
        ("net.toa.kinds = 253/20\n", "", ""),
    ];
    for dir in [MODPROBE_DIR, SYSCTL_DIR] {
        fs::create_dir_all(dir).expect("the directory");
    }
    fs::write(format!("{MODPROBE_DIR}/toa-policy.conf"), MODPROBE_CONF).expect("the file");
    let node = Namespace::first();
    let command = command_of_the_rule();
    for (conf, loaded, applied) in rows {
        fs::write(format!("{SYSCTL_DIR}/toa.conf"), conf).expect("the file");
        modprobe();
        assert_eq!(node.policy("trusted"), loaded, "{conf}");
        namespace::run(Command::new(command[0]).args(&command[1..]));
        assert_eq!(node.policy("trusted"), applied, "{conf}");
        module::unload();
    }
    fs::remove_file(format!("{SYSCTL_DIR}/toa.conf")).expect("the file");
    fs::remove_file(format!("{MODPROBE_DIR}/toa-policy.conf")).expect("the file");
}
