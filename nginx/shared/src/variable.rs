// SPDX-License-Identifier: MIT OR Apache-2.0

//! The variables of both modules.

use nginx_sys::ngx_variable_value_t;

use crate::peers::Peers;

/// A variable of nginx, named after its value.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Variable {
    ClientAddress,
    ClientPort,
    BalancerAddress,
}

/// The value for connections without a client, as in DPVS's patch.
const NOBODY: &[u8] = b"-";

impl Variable {
    pub const ALL: [Self; 3] = [Self::ClientAddress, Self::ClientPort, Self::BalancerAddress];

    /// Returns the variable's name without the dollar.
    pub const fn name(self) -> &'static str {
        match self {
            Self::ClientAddress => "toa_remote_addr",
            Self::ClientPort => "toa_remote_port",
            Self::BalancerAddress => "toa_balancer_addr",
        }
    }

    /// Writes the variable's value for a connection with these peers. The value lives as
    /// long as the peers do.
    pub fn evaluate(self, peers: Option<&Peers>, value: &mut ngx_variable_value_t) {
        let text = peers.and_then(|peers| self.text(peers)).unwrap_or(NOBODY);
        value.data = text.as_ptr().cast_mut();
        value.set_len(text.len() as u32);
        value.set_valid(1);
        value.set_no_cacheable(0);
        value.set_not_found(0);
    }

    fn text(self, peers: &Peers) -> Option<&[u8]> {
        match self {
            Self::ClientAddress => Some(peers.client().text()),
            Self::ClientPort => Some(peers.client().port_text()),
            Self::BalancerAddress => Some(peers.balancer()?.text()),
        }
    }
}
