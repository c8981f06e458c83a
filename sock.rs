// SPDX-License-Identifier: GPL-2.0

//! Views of the kernel's sockets and packets: the few fields that toa reads, none that it writes.
//!
//! The fields are read one by one, each once and in aligned pieces (C's `READ_ONCE`), because other
//! CPUs may write them meanwhile: `connect` and `disconnect` hold the socket's lock, toa's look-ups
//! do not. Callers must take a mixture of old and new fields for what it is.
//!
//! C headers: [`include/net/sock.h`](srctree/include/net/sock.h),
//! [`include/net/inet_sock.h`](srctree/include/net/inet_sock.h),
//! [`include/linux/skbuff.h`](srctree/include/linux/skbuff.h)

use crate::{
    endpoint::{
        Connection,
        Endpoint, //
    },
    pernet::Net,
    toa_bindings as bindings, //
};
use core::mem::offset_of;
use core::net::{
    Ipv4Addr,
    Ipv6Addr, //
};
use core::slice;
use kernel::ffi::{
    c_int,
    c_uint,
    c_void, //
};
use kernel::types::Opaque;

// The bit-field of `Sock::net` lies between these two.
const _: () = assert!(
    offset_of!(bindings::sock_common, skc_state) == bindings::TOA_SOCK_STATE as usize
        && offset_of!(bindings::sock_common, skc_bound_dev_if)
            == bindings::TOA_SOCK_BOUND_DEV_IF as usize
);

/// Reads the field at `offset` of the structure at `base`, once.
///
/// # Safety
///
/// There must be a valid, aligned `T` at `offset` of a live structure at `base`; any bits must be a
/// valid `T`.
unsafe fn read_once<T: Copy>(base: *const c_void, offset: c_uint) -> T {
    // SAFETY: By the function's safety requirements.
    unsafe { base.byte_add(offset as usize).cast::<T>().read_volatile() }
}

/// A `struct sock` of AF_INET or AF_INET6, by shared reference.
///
/// # Invariants
///
/// - The socket is a live `struct inet_sock`, as all sockets of these families are, and stays so
///   while the reference lives.
/// - toa's state is in every namespace while the reference lives: [`Pernet`](crate::pernet::Pernet)
///   is registered.
#[repr(transparent)]
pub(crate) struct Sock(Opaque<kernel::bindings::sock>);

impl Sock {
    /// # Safety
    ///
    /// `sk` must point to a live `struct inet_sock` that stays alive during `'a`, and
    /// [`Pernet`](crate::pernet::Pernet) must be registered during `'a`: true of each callback,
    /// which is registered after it and gone before it (`Toa` in `toa.rs`).
    pub(crate) unsafe fn from_raw<'a>(sk: *const c_void) -> &'a Self {
        // INVARIANT: By the function's safety requirements.
        // SAFETY: As above; `Sock` is transparent over an opaque `struct sock`.
        unsafe { &*sk.cast() }
    }

    /// What tells this socket from all others that live now: its address.
    pub(crate) fn id(&self) -> usize {
        self.base() as usize
    }

    /// The namespace, if the socket holds a reference on it: then the namespace outlives the
    /// socket, and so do its counters. Most kernel sockets, and the children of kernel listeners
    /// that did not ask for one, hold none.
    pub(crate) fn net(&self) -> Option<&Net> {
        // SAFETY: By the type invariant, and `struct sock` begins with `struct sock_common`. The
        // bit is never cleared. Kernel code may set it later (`sk_net_refcnt_upgrade`), which
        // makes the namespace stay all the same.
        let counted = unsafe { bindings::sock_common::skc_net_refcnt_raw(self.base().cast()) } != 0;
        // SAFETY: By the type invariant; the pointer is set when the socket is made.
        let net = unsafe { self.field::<*const c_void>(bindings::TOA_SOCK_NET) };
        // SAFETY: The socket's reference keeps the namespace while the socket is alive: its exit,
        // which drops toa's state, has not begun. By the type invariant the state has been made.
        counted.then(|| unsafe { Net::from_raw(net) })
    }

    /// Whether this is a TCP socket; the subflows of MPTCP are, its own sockets are not, nor are
    /// raw sockets of TCP's protocol.
    pub(crate) fn is_tcp(&self) -> bool {
        // SAFETY: By the type invariant; u16.
        unsafe {
            self.field::<u16>(bindings::TOA_SOCK_PROTOCOL) == bindings::TOA_IPPROTO_TCP as u16
                && self.field::<u16>(bindings::TOA_SOCK_TYPE) == bindings::TOA_SOCK_STREAM as u16
        }
    }

    /// Whether the connection is over: also that of a child which the kernel disposed of while it
    /// made it.
    pub(crate) fn is_closed(&self) -> bool {
        u32::from(self.state()) == bindings::TOA_TCP_CLOSE as u32
    }

    fn state(&self) -> u8 {
        // SAFETY: By the type invariant; u8.
        unsafe { self.field(bindings::TOA_SOCK_STATE) }
    }

    /// Whether there is a peer to be told of: the condition of `inet_getname` and `inet6_getname`.
    /// `strict` is `peer == 1`, the call of getpeername: then a connection that is gone, or not
    /// there yet, has none.
    pub(crate) fn has_peer(&self, strict: bool) -> bool {
        // SAFETY: By the type invariant; u16.
        let dport = unsafe { self.field::<u16>(bindings::TOA_SOCK_DPORT) };
        let gone =
            [bindings::TOA_TCP_CLOSE, bindings::TOA_TCP_SYN_SENT].contains(&self.state().into());
        dport != 0 && !(strict && gone)
    }

    /// The connection's two ends.
    pub(crate) fn connection(&self) -> Connection {
        // SAFETY: By the type invariant; both are `__be16`.
        let (sport, dport) = unsafe {
            (
                u16::from_be(self.field(bindings::TOA_INET_SPORT)),
                u16::from_be(self.field(bindings::TOA_SOCK_DPORT)),
            )
        };
        #[cfg(CONFIG_IPV6)]
        if self.is_inet6() {
            // SAFETY: Both are a `struct in6_addr`.
            let (local, peer) = unsafe {
                (
                    self.address6(bindings::TOA_SOCK_V6_RCV_SADDR),
                    self.address6(bindings::TOA_SOCK_V6_DADDR),
                )
            };
            return Connection {
                local: Endpoint::new(local, sport),
                peer: Endpoint::new(peer, dport),
            };
        }
        // SAFETY: Both are a `__be32` address.
        let (local, peer) = unsafe {
            (
                self.address4(bindings::TOA_SOCK_RCV_SADDR),
                self.address4(bindings::TOA_SOCK_DADDR),
            )
        };
        Connection {
            local: Endpoint::from_v4(local, sport),
            peer: Endpoint::from_v4(peer, dport),
        }
    }

    /// # Safety
    ///
    /// `offset` must be that of a `__be32` in `struct inet_sock` that is an address.
    unsafe fn address4(&self, offset: c_uint) -> Ipv4Addr {
        // SAFETY: By the type invariant.
        Ipv4Addr::from_bits(u32::from_be(unsafe { self.field(offset) }))
    }

    /// # Safety
    ///
    /// `offset` must be that of a `struct in6_addr` in `struct inet_sock`.
    #[cfg(CONFIG_IPV6)]
    unsafe fn address6(&self, offset: c_uint) -> Ipv6Addr {
        // SAFETY: By the type invariant; the address has the layout of four `__be32`.
        let [a, b, c, d] = unsafe { self.field::<[u32; 4]>(offset) }.map(u128::from);
        Ipv6Addr::from_bits(u128::from_be(a | b << 32 | c << 64 | d << 96))
    }

    /// Whether the socket's family is AF_INET6: IPV6_ADDRFORM can turn it into AF_INET.
    #[cfg(CONFIG_IPV6)]
    fn is_inet6(&self) -> bool {
        // SAFETY: By the type invariant; u16.
        unsafe { self.field::<u16>(bindings::TOA_SOCK_FAMILY) == bindings::TOA_AF_INET6 as u16 }
    }

    /// The flow label, in network order, if the socket asks for it with its peer's name
    /// (IPV6_FLOWINFO_SEND), and 0 otherwise.
    #[cfg(CONFIG_IPV6)]
    pub(crate) fn reported_flow_label(&self) -> u32 {
        // SAFETY: By the type invariant; an unsigned long.
        let flags = unsafe { self.field::<usize>(bindings::TOA_INET_FLAGS) };
        if flags & (1 << bindings::TOA_INET_FLAGS_SNDFLOW) == 0 {
            return 0;
        }
        // SAFETY: By the type invariant; a pointer, which points into the socket itself.
        let pinet6 = unsafe { self.field::<*const c_void>(bindings::TOA_INET_PINET6) };
        if pinet6.is_null() {
            return 0;
        }
        // SAFETY: Not null: the socket's own `struct ipv6_pinfo`. The flow label is a `__be32`.
        unsafe { read_once(pinet6, bindings::TOA_IPV6_FLOW_LABEL) }
    }

    fn base(&self) -> *const c_void {
        self.0.get().cast_const().cast()
    }

    /// # Safety
    ///
    /// `offset` must be that of a `T` in `struct inet_sock`, whose bits are all valid.
    unsafe fn field<T: Copy>(&self, offset: c_uint) -> T {
        // SAFETY: By the type invariant and the function's safety requirements.
        unsafe { read_once(self.base(), offset) }
    }
}

/// A `struct socket` that has a socket of AF_INET or AF_INET6, by shared reference.
#[repr(transparent)]
pub(crate) struct Socket(Opaque<kernel::bindings::socket>);

impl Socket {
    /// # Safety
    ///
    /// `socket` must point to a `struct socket` whose `sk` fulfils the requirements of
    /// [`Sock::from_raw`], and both must stay so during `'a`.
    pub(crate) unsafe fn from_raw<'a>(socket: *const c_void) -> &'a Self {
        // SAFETY: By the function's safety requirements; `Socket` is transparent.
        unsafe { &*socket.cast() }
    }

    /// The protocol's side of the socket.
    pub(crate) fn sk(&self) -> &Sock {
        // SAFETY: By the requirements of `from_raw`.
        unsafe {
            Sock::from_raw(read_once(
                self.0.get().cast_const().cast(),
                bindings::TOA_SOCKET_SK,
            ))
        }
    }
}

/// A `struct sk_buff` that holds a TCP segment, by shared reference.
///
/// # Invariants
///
/// The transport header is set, and the whole TCP header with its options lies in the linear part.
#[repr(transparent)]
pub(crate) struct Segment(Opaque<kernel::bindings::sk_buff>);

impl Segment {
    /// # Safety
    ///
    /// `skb` must point to a `struct sk_buff` of which the type invariant is true during `'a`, and
    /// nobody may write to its header meanwhile.
    pub(crate) unsafe fn from_raw<'a>(skb: *const c_void) -> &'a Self {
        // INVARIANT: By the function's safety requirements.
        // SAFETY: As above; `Segment` is transparent.
        unsafe { &*skb.cast() }
    }

    /// The option list: what is between the fixed header and the data. Empty for a segment with
    /// SYN, where the experimental kinds mean something else (RFC 6994, TCP Fast Open).
    pub(crate) fn options(&self) -> &[u8] {
        let header = self.header();
        // SAFETY: By the type invariant the fixed header is readable.
        let (data_offset, flags) = unsafe { (*header.add(DATA_OFFSET), *header.add(FLAGS)) };
        if flags & SYN != 0 {
            return &[];
        }
        let length = usize::from(data_offset >> 4) * 4;
        // SAFETY: By the type invariant `length` bytes of header are readable. Where `length` is
        // less than the fixed header, which the stack never lets through, the slice is empty.
        unsafe { slice::from_raw_parts(header.add(HEADER_LEN), length.saturating_sub(HEADER_LEN)) }
    }

    /// Whether the segment came in an IPv6 packet.
    pub(crate) fn is_ipv6(&self) -> bool {
        // SAFETY: By the type invariant; a `__be16`.
        let protocol: u16 = unsafe { read_once(self.base(), bindings::TOA_SKB_PROTOCOL) };
        u16::from_be(protocol) == bindings::TOA_ETH_P_IPV6 as u16
    }

    /// The device that the segment was received by, or null.
    pub(crate) fn device(&self) -> *mut bindings::net_device {
        // SAFETY: By the type invariant; a pointer.
        unsafe { read_once(self.base(), bindings::TOA_SKB_DEV) }
    }

    /// The index of the device that the segment was received by.
    pub(crate) fn device_index(&self) -> c_int {
        // SAFETY: By the type invariant; an `int`.
        unsafe { read_once(self.base(), bindings::TOA_SKB_IIF) }
    }

    fn base(&self) -> *const c_void {
        self.0.get().cast_const().cast()
    }

    /// C's `skb_transport_header`.
    fn header(&self) -> *const u8 {
        // SAFETY: By the type invariant; a pointer and a u16.
        unsafe {
            let head: *const u8 = read_once(self.base(), bindings::TOA_SKB_HEAD);
            let offset: u16 = read_once(self.base(), bindings::TOA_SKB_TRANSPORT_HEADER);
            head.add(usize::from(offset))
        }
    }
}

/// RFC 9293 §3.1: bytes of the fixed header.
const HEADER_LEN: usize = 20;

/// RFC 9293 §3.1: the byte whose high half is the header's length in 32-bit words.
const DATA_OFFSET: usize = 12;

/// RFC 9293 §3.1: the byte with the control bits.
const FLAGS: usize = 13;

/// RFC 9293 §3.1.
const SYN: u8 = 0x02;
