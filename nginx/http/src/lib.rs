// SPDX-License-Identifier: MIT OR Apache-2.0

//! nginx's HTTP module for servers behind a TOA balancer: `ngx_http_toa_module`.
//!
//! It adds the variables `$toa_remote_addr`, `$toa_remote_port` and
//! `$toa_balancer_addr` ([`toa_nginx`]), and the directive `toa_real_ip`
//! ([`real_ip`]), which puts the client in the place of nginx's own
//! `$remote_addr`.
//!
//! [`module`] is what nginx sees of it, and [`request`] what it sees of nginx; no
//! other file has unsafe code.

mod location;
mod module;
mod real_ip;
mod request;
