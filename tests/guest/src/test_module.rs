// SPDX-License-Identifier: GPL-2.0

//! The tests' own module (`tests/kernel`).

use nix::errno::Errno;
use nix::kmod::delete_module;
use nix::kmod::DeleteModuleFlags;

use crate::module;
use crate::runner::problem;

const PATH: &str = "/toa/toa_test.ko";

/// The loaded module, which is unloaded on drop.
#[derive(Debug)]
pub struct TestModule(());

impl TestModule {
    pub fn load(parameters: &str) -> Result<Self, Errno> {
        module::insert_file(PATH, parameters)?;
        Ok(Self(()))
    }
}

impl Drop for TestModule {
    fn drop(&mut self) {
        if let Err(error) = delete_module(c"toa_test", DeleteModuleFlags::O_NONBLOCK) {
            problem(format!("rmmod toa_test: {error}"));
        }
    }
}
