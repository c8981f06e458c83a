// SPDX-License-Identifier: GPL-2.0

//! Where the kernel enters toa: hooks on its functions, the functions that answer in place of the
//! kernel's own, the probe that sees sockets die, and the options of getsockopt. Each turns raw
//! arguments into safe views and calls [`capture`](crate::capture),
//! [`substitute`](crate::substitute) or [`lookup`](crate::lookup).
//!
//! The C prototypes that this file assumes are asserted in `toa_bindings.h`.

use crate::{
    capture,
    ftrace::{
        Call,
        Hooked, //
    },
    lookup::{
        self,
        Answer, //
    },
    sock::{
        Segment,
        Sock,
        Socket, //
    },
    sockopt::{
        Level,
        Sockopts, //
    },
    substitute::{
        self,
        Form, //
    },
    toa_bindings as bindings,
    tracepoint::Probe, //
};
use kernel::ffi::{
    c_int,
    c_void, //
};
use kernel::prelude::*;
use kernel::transmute::AsBytes;
use kernel::uaccess::{
    UserPtr,
    UserSlice, //
};

const _: () = assert!(
    size_of::<bindings::sockaddr_in>() == bindings::TOA_SIZEOF_SOCKADDR_IN as usize
        && size_of::<bindings::sockaddr_in6>() == bindings::TOA_SIZEOF_SOCKADDR_IN6 as usize
);

/// `tcp_child_process(parent, child, skb)`: every child socket passes it once, with the segment
/// that created it, whichever way it came (`net/ipv4/tcp_minisocks.c`).
pub(crate) struct TcpChildProcess;

impl Hooked for TcpChildProcess {
    const FUNCTION: &'static str = "tcp_child_process";
    const REDIRECTS: bool = false;

    fn enter(call: &mut Call) {
        // SAFETY: The second argument is the child, a TCP socket that the caller has locked and
        // holds; the third is the segment, owned by the caller, with its header pulled and checked
        // by `tcp_v4_rcv` or `tcp_v6_rcv`.
        let (child, segment) = unsafe {
            (
                Sock::from_raw(call.argument1() as *const c_void),
                Segment::from_raw(call.argument2() as *const c_void),
            )
        };
        capture::capture(child, segment);
    }
}

/// `tcp_disconnect(sk, flags)`: the connection ends and the socket stays (`net/ipv4/tcp.c`). It may
/// connect to the same address again, so the record must go.
pub(crate) struct TcpDisconnect;

impl Hooked for TcpDisconnect {
    const FUNCTION: &'static str = "tcp_disconnect";
    const REDIRECTS: bool = false;

    fn enter(call: &mut Call) {
        // SAFETY: The first argument is a TCP socket that the caller has locked.
        capture::forget(unsafe { Sock::from_raw(call.argument0() as *const c_void) });
    }
}

/// `inet_getname(sock, uaddr, peer)` (`net/ipv4/af_inet.c`).
pub(crate) struct InetGetname;

impl Hooked for InetGetname {
    const FUNCTION: &'static str = "inet_getname";
    const REDIRECTS: bool = true;

    fn enter(call: &mut Call) {
        if is_for_client(call, Form::V4) {
            // SAFETY: Same prototype, and it does not sleep.
            unsafe { call.redirect(toa_inet_getname as *const c_void) };
        }
    }
}

/// `inet6_getname(sock, uaddr, peer)` (`net/ipv6/af_inet6.c`).
#[cfg(CONFIG_IPV6)]
pub(crate) struct Inet6Getname;

#[cfg(CONFIG_IPV6)]
impl Hooked for Inet6Getname {
    const FUNCTION: &'static str = "inet6_getname";
    const REDIRECTS: bool = true;

    fn enter(call: &mut Call) {
        if is_for_client(call, Form::V6) {
            // SAFETY: Same prototype, and it does not sleep.
            unsafe { call.redirect(toa_inet6_getname as *const c_void) };
        }
    }
}

/// Whether a call of a getname function asks for the peer of a socket that has a client to tell.
#[inline(always)]
fn is_for_client(call: &Call, form: Form) -> bool {
    if call.argument2() as c_int == 0 {
        return false;
    }
    // SAFETY: The first argument of both functions is a socket of their family, which the caller
    // holds.
    let socket = unsafe { Socket::from_raw(call.argument0() as *const c_void) };
    substitute::substitutes(socket.sk(), form)
}

/// Answers in place of `inet_getname`, for peers only.
///
/// # Safety
///
/// As `inet_getname`: a socket that the caller holds, and room for a `struct sockaddr_in`.
unsafe extern "C" fn toa_inet_getname(
    socket: *mut kernel::bindings::socket,
    address: *mut bindings::sockaddr,
    peer: c_int,
) -> c_int {
    kernel::error::from_result(|| {
        // SAFETY: By the function's safety requirements.
        let sk = unsafe { Socket::from_raw(socket.cast()) }.sk();
        let client = substitute::peer(sk, peer == 1)?;
        let name = bindings::sockaddr_in {
            sin_family: bindings::TOA_AF_INET as u16,
            sin_port: client.port().to_be(),
            sin_addr: bindings::in_addr {
                s_addr: client.address_v4().ok_or(EINVAL)?.to_bits().to_be(),
            },
            // Zeroes, as `inet_getname` leaves them.
            ..Default::default()
        };
        // SAFETY: By the function's safety requirements there is room; a sockaddr need not be
        // aligned for its larger fields.
        unsafe {
            address
                .cast::<bindings::sockaddr_in>()
                .write_unaligned(name)
        };
        Ok(size_of::<bindings::sockaddr_in>() as c_int)
    })
}

/// Answers in place of `inet6_getname`, for peers only.
///
/// # Safety
///
/// As `inet6_getname`: a socket that the caller holds, and room for a `struct sockaddr_in6`.
#[cfg(CONFIG_IPV6)]
unsafe extern "C" fn toa_inet6_getname(
    socket: *mut kernel::bindings::socket,
    address: *mut bindings::sockaddr,
    peer: c_int,
) -> c_int {
    kernel::error::from_result(|| {
        // SAFETY: By the function's safety requirements.
        let sk = unsafe { Socket::from_raw(socket.cast()) }.sk();
        let client = substitute::peer(sk, peer == 1)?;
        let mut name = bindings::sockaddr_in6 {
            sin6_family: bindings::TOA_AF_INET6 as u16,
            sin6_port: client.port().to_be(),
            sin6_flowinfo: sk.reported_flow_label(),
            // The scope is 0: a client's address has none on this host.
            ..Default::default()
        };
        name.sin6_addr.in6_u.u6_addr8 = client.address().octets();
        // SAFETY: By the function's safety requirements there is room.
        unsafe {
            address
                .cast::<bindings::sockaddr_in6>()
                .write_unaligned(name)
        };
        Ok(size_of::<bindings::sockaddr_in6>() as c_int)
    })
}

/// Registers the probe on `tcp_destroy_sock`, which fires once for each TCP socket that dies
/// (`tcp_v4_destroy_sock`, for IPv6 as well), after it has been taken from its process.
pub(crate) fn register_destroy_probe() -> Result<Probe> {
    // SAFETY: The prototype is that of the tracepoint's probes, asserted in toa_bindings.h.
    unsafe { Probe::register(c"tcp_destroy_sock", toa_tcp_destroy_sock as *mut c_void) }
}

/// # Safety
///
/// `sk` must be a live TCP socket.
unsafe extern "C" fn toa_tcp_destroy_sock(_private: *mut c_void, sk: *mut kernel::bindings::sock) {
    // SAFETY: By the function's safety requirements.
    capture::forget(unsafe { Sock::from_raw(sk.cast()) });
}

/// Registers what a process can ask for with getsockopt.
pub(crate) fn register_sockopts(module: &'static ThisModule, level: Level) -> Result<Sockopts> {
    // SAFETY: The function is this module's.
    unsafe { Sockopts::register(module, level, lookup::OPTIONS, toa_getsockopt) }
}

// SAFETY: Its fields are bytes in the layout of C, without any padding but the one that is a field.
unsafe impl AsBytes for Answer {}

/// # Safety
///
/// As the kernel calls it (`nf_getsockopt`): `sk` is a live socket of AF_INET or AF_INET6, `len`
/// points to the kernel's copy of the length, `user` is whatever the process gave. Process context.
unsafe extern "C" fn toa_getsockopt(
    sk: *mut bindings::sock,
    option: c_int,
    user: *mut c_void,
    len: *mut c_int,
) -> c_int {
    kernel::error::from_result(|| {
        // SAFETY: By the function's safety requirements.
        let (sk, len_given) = unsafe { (Sock::from_raw(sk.cast()), *len) };
        // DPVS's module takes the null pointer for no room at all.
        let room = if user.is_null() { 0 } else { len_given };
        let answer = lookup::answer(sk, option, usize::try_from(room).unwrap_or(0))?;
        UserSlice::new(UserPtr::from_ptr(user), size_of::<Answer>())
            .writer()
            .write(&answer)?;
        // SAFETY: By the function's safety requirements.
        unsafe { *len = size_of::<Answer>() as c_int };
        Ok(0)
    })
}
