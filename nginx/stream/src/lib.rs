// SPDX-License-Identifier: MIT OR Apache-2.0

//! nginx's stream module for servers behind a TOA balancer: `ngx_stream_toa_module`.
//!
//! The module adds the variables `$toa_remote_addr` and the like
//! ([`Variable`](toa_nginx::Variable)), and the directive `toa_real_ip`. [`module`] is the
//! interface that nginx calls.

mod module;
