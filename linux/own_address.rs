// SPDX-License-Identifier: GPL-2.0

//! The server's own addresses, by the kernel's routing.
//!
//! Only segments with an option pay for these look-ups. They walk under RCU and take no lock, so a
//! hook's handler may call them, also on PREEMPT_RT.
//!
//! C headers: [`include/net/route.h`](srctree/include/net/route.h),
//! [`include/net/addrconf.h`](srctree/include/net/addrconf.h)

use crate::{
    endpoint::Endpoint,
    linux::{
        c,
        pernet::Net,
        rcu,
        sock::Segment, //
    }, //
};
use core::net::{
    Ipv4Addr,
    Ipv6Addr, //
};

/// The clients that no other host can be.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Refused {
    /// The server's own addresses, and broadcast and multicast addresses.
    OwnAndGroups,
    /// Broadcast and multicast addresses.
    Groups,
}

/// A network device, or null: then the look-ups use the tables of no VRF.
type Device = *mut c::net_device;

/// Returns whether the address of `client` is one of `refused` in `net`, in the VRF that `segment`
/// arrived in. Softirq.
///
/// Not covered: IPv6 anycast addresses, and addresses that only a route makes local, for IPv6 any
/// route (`ip -6 route add local …`), for IPv4 one in another table than `local` or the VRF's.
#[inline(always)]
pub(crate) fn is_own<T>(
    net: &Net<T>,
    segment: &Segment,
    client: Endpoint,
    refused: impl FnOnce() -> Refused,
) -> bool {
    // For `make bench` (`TOA_NO_LOOKUP=1`).
    if cfg!(toa_no_lookup) {
        return false;
    }
    let refused = refused();
    let rcu = rcu::read_lock();
    match client.address_v4() {
        Some(address) => match kind_v4(net, device(net, segment, &rcu), address) as usize {
            c::TOA_RTN_UNICAST => false,
            c::TOA_RTN_LOCAL => refused == Refused::OwnAndGroups,
            _ => true,
        },
        // `Endpoint::is_possible_source` refuses multicast addresses.
        None if refused == Refused::Groups => false,
        None => is_own_v6(net, device(net, segment, &rcu), client.address()),
    }
}

/// The device that `segment` arrived by: the VRF's where that device is in one.
fn device<T>(net: &Net<T>, segment: &Segment, _rcu: &rcu::Guard) -> Device {
    let device = segment.device();
    if !device.is_null() {
        return device;
    }
    // A segment that a listener received, such as one with a syncookie, has only the index left.
    // SAFETY: `net` is a live namespace, and a device that the index finds stays until the RCU
    // section that `_rcu` stands for ends.
    unsafe { c::dev_get_by_index_rcu(net.as_ptr(), segment.device_index()) }
}

/// The kind of route to an address, `RTN_…`.
fn kind_v4<T>(net: &Net<T>, device: Device, address: Ipv4Addr) -> u32 {
    // SAFETY: `net` is a live namespace; `device` is null or a live device, which RCU keeps.
    unsafe { c::inet_addr_type_dev_table(net.as_ptr(), device, address.to_bits().to_be()) }
}

#[cfg(CONFIG_IPV6)]
fn is_own_v6<T>(net: &Net<T>, device: Device, address: Ipv6Addr) -> bool {
    // With `ipv6.disable=1` there are no IPv6 addresses, and the list that
    // `ipv6_chk_addr_and_flags` walks is a null pointer.
    if !is_ipv6_enabled() {
        return false;
    }
    let wire = c::in6_addr(address.octets());
    // On any device of the segment's VRF: the server's link-local address on another link is the
    // server's too. In any state: an address that another host has as well stays tentative.
    const SKIP_DEVICE: bool = true;
    const STRICT: kernel::ffi::c_int = 0;
    const BANNED_FLAGS: u32 = 0;
    // SAFETY: As in `kind_v4`. IPv6 is enabled, so `inet6_init` gave each namespace its list of
    // addresses: made with the namespace, before any socket, and freed after the last.
    unsafe {
        c::ipv6_chk_addr_and_flags(
            net.as_ptr(),
            &raw const wire,
            device,
            SKIP_DEVICE,
            STRICT,
            BANNED_FLAGS,
        ) != 0
    }
}

/// C's `ipv6_mod_enabled()`, a function or inlined.
#[cfg(CONFIG_IPV6)]
fn is_ipv6_enabled() -> bool {
    if c::TOA_HAS_IPV6_MOD_ENABLED != 0 {
        // SAFETY: An FFI call with no additional requirements.
        unsafe { c::ipv6_mod_enabled() }
    } else {
        // SAFETY: An `int` that a boot parameter sets, and that is constant afterwards.
        unsafe { c::disable_ipv6_mod == 0 }
    }
}

/// A kernel without IPv6 has no IPv6 addresses.
#[cfg(not(CONFIG_IPV6))]
fn is_own_v6<T>(_net: &Net<T>, _device: Device, _address: Ipv6Addr) -> bool {
    false
}
