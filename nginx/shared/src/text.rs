// SPDX-License-Identifier: MIT OR Apache-2.0

//! Static texts in nginx's form (`src/core/ngx_string.h`).

use core::ffi::CStr;

use nginx_sys::ngx_str_t;

/// Returns the text for nginx, which does not write to it. nginx compares the names of
/// directives up to a zero byte.
pub const fn ngx_str(text: &'static CStr) -> ngx_str_t {
    ngx_str_t {
        data: text.as_ptr().cast_mut().cast(),
        len: text.count_bytes(),
    }
}
