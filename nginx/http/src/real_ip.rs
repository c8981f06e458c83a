// SPDX-License-Identifier: MIT OR Apache-2.0

//! The directive `toa_real_ip`: nginx's connection has the client's address for the
//! duration of a request.
//!
//! The address changes when nginx has read a request's header and found its server, before
//! all phases that evaluate variables. A location could only change it after `set`,
//! `return` and `map` have used the balancer's address, so the directive is refused there.
//!
//! nginx calls modules from `load_module` first, so its own realip module finds the client.
//! Internal redirects and subrequests do not begin this phase again: they share the
//! connection, and its address, with their request.

use toa_nginx::NoMemory;

use crate::request::Request;

/// Gives the request the client, unless the kernel has already returned it to nginx.
pub(crate) fn apply(request: &Request<'_>) -> Result<(), NoMemory> {
    if !request.server().real_ip.is_on() {
        return Ok(());
    }
    match request.connection().hidden_client() {
        Some(client) => request.substitute(client),
        None => Ok(()),
    }
}
