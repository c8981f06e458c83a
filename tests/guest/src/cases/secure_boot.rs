// SPDX-License-Identifier: GPL-2.0

//! The tests of a boot with Secure Boot ([`Boot::Secure`](super::Boot)), whose
//! firmware trusts a key of the tests. The module under test was signed with it by
//! DKMS.

use std::fs;
use std::process::Command;

use nix::errno::Errno;

use crate::balancer::Plan;
use crate::kmsg::KernelLog;
use crate::module;
use crate::namespace;
use crate::net::Net;
use crate::net::Way;
use crate::runner::cases;
use crate::runner::Case;
use crate::sockets::Family;

pub const CASES: &[Case] = cases![Unloaded:
    secure_boot_is_on_and_locks_the_kernel_down,
    unsigned_module_is_refused,
    module_signed_with_an_unknown_key_is_refused,
    module_changed_after_it_was_signed_is_refused,
    module_signed_with_an_enrolled_key_is_loaded_and_at_work,
];

fn secure_boot_is_on_and_locks_the_kernel_down() {
    let said = KernelLog::from_boot().new_lines();
    let wanted = [
        "Kernel is locked down from EFI Secure Boot; see man kernel_lockdown.7",
        "secureboot: Secure boot enabled",
    ];
    for line in wanted {
        assert!(said.iter().any(|one| one == line), "not in the log: {line}");
    }
    let enrolled = "integrity: Loaded X.509 cert 'toa enrolled key: ";
    assert!(said.iter().any(|line| line.starts_with(enrolled)));
    namespace::run(
        Command::new("mount").args("-t securityfs none /sys/kernel/security".split(' ')),
    );
    let lockdown = fs::read_to_string("/sys/kernel/security/lockdown").expect("it is mounted");
    assert_eq!(lockdown.trim(), "none [integrity] confidentiality");
}

fn unsigned_module_is_refused() {
    let said = refused("unsigned");
    assert_eq!(said, ["Loading of unsigned module is rejected"]);
}

fn module_signed_with_an_unknown_key_is_refused() {
    let said = refused("stranger");
    assert_eq!(said, ["Loading of module with unavailable key is rejected"]);
}

fn module_changed_after_it_was_signed_is_refused() {
    let said = refused("changed");
    assert_eq!(said, [""; 0]);
}

/// Loads a module that the kernel must reject, for which `insmod` prints "Key was rejected by
/// service". Returns the new lines of the kernel's log.
#[track_caller]
fn refused(name: &str) -> Vec<String> {
    let mut log = KernelLog::from_now();
    let answer = module::insert_file(&format!("/toa/refused/{name}.ko"), "");
    assert_eq!(answer, Err(Errno::EKEYREJECTED));
    assert!(!module::is_loaded());
    log.new_lines()
}

fn module_signed_with_an_enrolled_key_is_loaded_and_at_work() {
    let mut log = KernelLog::from_now();
    module::load();
    let said = log.new_lines();
    let complaint = said.iter().find(|line| line.contains("verification"));
    assert_eq!(complaint, None);
    // The module is out of tree (O), and not unsigned (E).
    let taint = fs::read_to_string("/sys/module/toa/taint").expect("it is loaded");
    assert_eq!(taint.trim(), "O");
    for way in [Way::V4, Way::V6] {
        let net = Net::with(&Plan::dpvs());
        let listener = net.listen(Family::DualStack);
        let (client, accepted) = net.pair(&listener, way);
        assert_eq!(accepted.peer(), Family::DualStack.name(client.address));
        drop((client, accepted));
        net.wait_for_no_records();
    }
    module::unload();
}
