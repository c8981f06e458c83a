// SPDX-License-Identifier: MIT OR Apache-2.0

//! The configuration of a location, or of a block around it.

use nginx_sys::ngx_flag_t;
use nginx_sys::NGX_CONF_UNSET;
use ngx::http::Merge;
use ngx::http::MergeConfigError;

const UNSET: ngx_flag_t = NGX_CONF_UNSET as ngx_flag_t;

/// The module's settings of a location, in the layout for nginx's own flag setter.
#[repr(C)]
pub(crate) struct Location {
    pub(crate) real_ip: ngx_flag_t,
}

impl Location {
    pub(crate) fn has_real_ip(&self) -> bool {
        self.real_ip == 1
    }
}

impl Default for Location {
    fn default() -> Self {
        Self { real_ip: UNSET }
    }
}

impl Merge for Location {
    /// Takes unset values from the outer block; the default is off.
    fn merge(&mut self, outer: &Self) -> Result<(), MergeConfigError> {
        if self.real_ip == UNSET {
            self.real_ip = outer.real_ip;
        }
        if self.real_ip == UNSET {
            self.real_ip = 0;
        }
        Ok(())
    }
}
