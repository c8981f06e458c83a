// SPDX-License-Identifier: MIT OR Apache-2.0

//! The configuration of a block `server`, or of the block `http` around it.

use ngx::http::Merge;
use ngx::http::MergeConfigError;
use toa_nginx::Switch;

/// The module's settings of a server.
#[derive(Default)]
#[repr(C)]
pub(crate) struct Server {
    pub(crate) real_ip: Switch,
}

impl Merge for Server {
    fn merge(&mut self, outer: &Self) -> Result<(), MergeConfigError> {
        self.real_ip.inherit(&outer.real_ip);
        Ok(())
    }
}
