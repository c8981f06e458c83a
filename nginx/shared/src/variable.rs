// SPDX-License-Identifier: MIT OR Apache-2.0

//! The variables of both modules.

use core::ffi::CStr;

use nginx_sys::ngx_variable_value_t;

use crate::name::Name;
use crate::peers::Peers;
use crate::reason::Reason;

/// A variable of nginx, named after its value.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Variable {
    ClientAddress,
    ClientPort,
    BalancerAddress,
    BalancerPort,
    Status,
}

/// The value for connections without a client, as in DPVS's patch.
const NOBODY: &[u8] = b"-";

/// The value of `$toa_status` for connections with a client.
const CLIENT: &[u8] = b"client";

impl Variable {
    pub const ALL: [Self; 5] = [
        Self::ClientAddress,
        Self::ClientPort,
        Self::BalancerAddress,
        Self::BalancerPort,
        Self::Status,
    ];

    /// Returns the variable's name without the dollar.
    pub const fn name(self) -> &'static CStr {
        match self {
            Self::ClientAddress => c"toa_remote_addr",
            Self::ClientPort => c"toa_remote_port",
            Self::BalancerAddress => c"toa_balancer_addr",
            Self::BalancerPort => c"toa_balancer_port",
            Self::Status => c"toa_status",
        }
    }

    /// Writes the variable's value for a connection with these peers. The value lives as
    /// long as the peers do.
    pub fn evaluate(self, peers: Result<&Peers, Reason>, value: &mut ngx_variable_value_t) {
        let text = self.text(peers);
        value.data = text.as_ptr().cast_mut();
        value.set_len(text.len() as u32);
        value.set_valid(1);
        value.set_no_cacheable(0);
        value.set_not_found(0);
    }

    fn text(self, peers: Result<&Peers, Reason>) -> &[u8] {
        let text = match self {
            Self::Status => Some(peers.map_or_else(|reason| reason.text().as_bytes(), |_| CLIENT)),
            Self::ClientAddress => peers.ok().map(|peers| peers.client().text()),
            Self::ClientPort => peers.ok().map(|peers| peers.client().port_text()),
            Self::BalancerAddress => balancer(peers).map(Name::text),
            Self::BalancerPort => balancer(peers).map(Name::port_text),
        };
        text.unwrap_or(NOBODY)
    }
}

fn balancer(peers: Result<&Peers, Reason>) -> Option<&Name> {
    peers.ok()?.balancer()
}
