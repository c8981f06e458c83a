// SPDX-License-Identifier: MIT OR Apache-2.0

//! The directive `toa_real_ip`: for a request, nginx's connection is from the
//! client.
//!
//! It is looked at when a request's header has been read, as the server has it,
//! and once more when its location is known, before `allow`, `limit_conn` and
//! `limit_req` are. Modules that are loaded with `load_module` are asked first, so
//! nginx's own realip module, in both places, finds the client there already. A
//! subrequest has the connection of its request, and leaves it as it is.

use crate::request::NoMemory;
use crate::request::Request;

/// Does what the location of the request says.
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

/// Nothing is to do where the kernel has told nginx the client by itself.
fn substitute(request: &Request<'_>) -> Result<(), NoMemory> {
    let connection = request.connection();
    match connection.peers() {
        Some(peers) if connection.remote() != Some(peers.client().address()) => {
            request.substitute(peers.client())
        }
        _ => Ok(()),
    }
}
