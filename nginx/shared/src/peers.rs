// SPDX-License-Identifier: MIT OR Apache-2.0

//! The peers of a connection that came through the balancer.

use std::os::fd::BorrowedFd;

use crate::ask;
use crate::name::Name;
use crate::reason::Reason;

/// The client and the balancer, in the forms that nginx uses.
pub struct Peers {
    client: Name,
    balancer: Option<Name>,
}

impl Peers {
    /// Asks the kernel.
    pub(crate) fn of(socket: BorrowedFd<'_>) -> Result<Self, Reason> {
        let client = ask::client(socket)?;
        Ok(Self {
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
