// SPDX-License-Identifier: MIT OR Apache-2.0

//! nginx's HTTP module for servers behind a TOA balancer: `ngx_http_toa_module`.
//!
//! The module adds the variables `$toa_remote_addr` and the like
//! ([`Variable`](toa_nginx::Variable)). Its directive `toa_real_ip` ([`real_ip`])
//! replaces nginx's own `$remote_addr` with the client.
//!
//! [`module`] is the interface that nginx calls, and [`request`] makes nginx's
//! requests safe to use. No other file has unsafe code.

mod module;
mod real_ip;
mod request;
mod server;
