// SPDX-License-Identifier: MIT OR Apache-2.0

//! The peers of a connection that came through the balancer.

use std::os::fd::BorrowedFd;

use crate::ask;
use crate::name::Name;

/// Who they are, in the forms in which nginx uses them.
pub struct Peers {
    client: Name,
    balancer: Option<Name>,
}

impl Peers {
    /// Asks the kernel. None: no balancer told the client, or there is no `toa.ko`.
    pub(crate) fn of(socket: BorrowedFd<'_>) -> Option<Self> {
        let client = ask::client(socket)?;
        Some(Self {
            client: Name::new(client),
            balancer: ask::balancer(socket).map(Name::new),
        })
    }

    pub fn client(&self) -> &Name {
        &self.client
    }

    pub fn balancer(&self) -> Option<&Name> {
        self.balancer.as_ref()
    }
}
