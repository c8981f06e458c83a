// SPDX-License-Identifier: GPL-2.0

//! Bugs that the tests' module has on purpose, each in a separate boot ([`Boot::Planted`]). The host
//! passes such a boot if and only if the kernel reports the bug.
//!
//! [`Boot::Planted`]: super::Boot::Planted

use crate::kernel_checks;
use crate::runner::cases;
use crate::runner::problem;
use crate::runner::Case;
use crate::test_module::TestModule;

pub const CASES: &[Case] = cases![Unloaded:
    planted_lock_inversion,
    planted_use_after_free,
    planted_leak,
    planted_call_by_another_prototype,
];

fn plant(number: u32) {
    drop(TestModule::load(&format!("plant={number}")).expect("it loads"));
}

fn planted_lock_inversion() {
    plant(1);
}

fn planted_use_after_free() {
    plant(2);
}

fn planted_leak() {
    plant(3);
    kernel_checks::lost_memory().into_iter().for_each(problem);
}

fn planted_call_by_another_prototype() {
    plant(4);
}
