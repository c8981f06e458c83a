// SPDX-License-Identifier: MIT OR Apache-2.0

//! The directive `toa_real_ip`: nginx's connection has the client's address for the
//! duration of a request.
//!
//! The server's setting applies when nginx has read a request's header. The location's
//! setting applies when nginx has found the location, before `allow`, `limit_conn` and
//! `limit_req`. nginx calls modules from `load_module` first, so its own realip module
//! finds the client in both phases. A subrequest shares the connection of its request,
//! and leaves the address unchanged.

use crate::request::NoMemory;
use crate::request::Request;

/// Applies the setting of the request's location.
pub(crate) fn apply(request: &Request<'_>) -> Result<(), NoMemory> {
    if !request.is_main() {
        return Ok(());
    }
    match (request.location().has_real_ip(), request.substitution()) {
        (true, Some(substitution)) => substitution.repeat(),
        (true, None) => substitute(request)?,
        (false, Some(substitution)) => substitution.undo(),
        (false, None) => {}
    }
    Ok(())
}

/// Substitutes the client, unless the kernel has already returned the client to nginx.
fn substitute(request: &Request<'_>) -> Result<(), NoMemory> {
    let connection = request.connection();
    match connection.peers() {
        Some(peers) if connection.remote() != Some(peers.client().address()) => {
            request.substitute(peers.client())
        }
        _ => Ok(()),
    }
}
