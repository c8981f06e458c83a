// SPDX-License-Identifier: MIT OR Apache-2.0

//! nginx's stream module for servers behind a TOA balancer: `ngx_stream_toa_module`.
//!
//! The module adds the variables `$toa_remote_addr`, `$toa_remote_port` and
//! `$toa_balancer_addr` ([`toa_nginx`]). [`module`] is the interface that nginx calls.

mod module;
