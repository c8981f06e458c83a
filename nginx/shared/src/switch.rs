// SPDX-License-Identifier: MIT OR Apache-2.0

//! The value of a directive that is `on` or `off`.

use nginx_sys::ngx_flag_t;
use nginx_sys::NGX_CONF_UNSET;

const UNSET: ngx_flag_t = NGX_CONF_UNSET as ngx_flag_t;

/// A setting in the layout for nginx's own flag setter (`ngx_conf_set_flag_slot`).
#[repr(transparent)]
pub struct Switch(ngx_flag_t);

impl Switch {
    pub fn is_on(&self) -> bool {
        self.0 == 1
    }

    /// Takes an unset value from the outer block. The default is off.
    pub fn inherit(&mut self, outer: &Self) {
        if self.0 == UNSET {
            self.0 = if outer.0 == UNSET { 0 } else { outer.0 };
        }
    }
}

impl Default for Switch {
    fn default() -> Self {
        Self(UNSET)
    }
}
