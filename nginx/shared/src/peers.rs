// SPDX-License-Identifier: MIT OR Apache-2.0

//! The peers of a connection that came through the balancer.

use std::os::fd::BorrowedFd;

use crate::ask;
use crate::name::Name;

/// The client and the balancer, in the forms that nginx uses.
pub struct Peers {
    client: Name,
    balancer: Option<Name>,
}

impl Peers {
    /// Asks the kernel. None if no balancer sent the client, or without `toa.ko`.
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
