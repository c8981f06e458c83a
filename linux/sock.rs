// SPDX-License-Identifier: GPL-2.0

//! Views of the kernel's sockets and packets: the few fields that toa reads, none that it writes.
//!
//! Each field is read once and in aligned pieces (C's `READ_ONCE`), because other CPUs may write it
//! at the same time: `connect` and `disconnect` hold the socket's lock, toa's look-ups do not. A
//! caller must expect a mixture of old and new fields.
//!
//! C headers: [`include/net/sock.h`](srctree/include/net/sock.h),
//! [`include/net/inet_sock.h`](srctree/include/net/inet_sock.h),
//! [`include/linux/skbuff.h`](srctree/include/linux/skbuff.h)

use crate::{
    endpoint::{
        Connection,
        Tuple, //
    },
    linux::{
        c,
        pernet::Net, //
    }, //
};
use core::hint::assert_unchecked;
use core::marker::PhantomData;
use core::slice;
use kernel::ffi::{
    c_int,
    c_void, //
};
use kernel::transmute::FromBytes;
use kernel::types::Opaque;

/// A field of the C structure `S`, whose bits are a `T`.
///
/// # Invariants
///
/// `S` has at `offset` an aligned field of the size of `T`.
struct Field<S, T> {
    offset: usize,
    _types: PhantomData<fn(&S) -> T>,
}

impl<S, T: FromBytes + Copy> Field<S, T> {
    /// # Safety
    ///
    /// The type invariant must be true of `offset`.
    const unsafe fn at(offset: usize) -> Self {
        // INVARIANT: By the function's safety requirements.
        Self {
            offset,
            _types: PhantomData,
        }
    }

    /// Reads the field once.
    ///
    /// # Safety
    ///
    /// `base` must point to a live `S`.
    #[inline(always)]
    unsafe fn read(&self, base: *const c_void) -> T {
        // SAFETY: By the type invariant and the function's safety requirements. Any bits are a `T`.
        unsafe { base.byte_add(self.offset).cast::<T>().read_volatile() }
    }
}

/// Declares the fields of a C structure: `NAME: type = offset`. The build asserts each size beside
/// the offset, by `OFFSET_OF` in `offsets.c`, and C aligns its fields.
macro_rules! fields {
    ($structure:ident: $($(#[$attribute:meta])* $name:ident: $type:ty = $offset:ident;)+) => {
        $(
            $(#[$attribute])*
            // SAFETY: `OFFSET_OF` takes the offset of a field, and asserts that its size is the
            // one that this type has.
            const $name: Field<$structure, $type> = unsafe { Field::at(c::$offset) };
        )+
    };
}

/// C's `struct inet_sock`, which begins with a `struct sock`.
struct InetSock;

fields! { InetSock:
    FAMILY: u16 = TOA_SOCK_FAMILY;
    STATE: u8 = TOA_SOCK_STATE;
    TYPE: u16 = TOA_SOCK_TYPE;
    PROTOCOL: u16 = TOA_SOCK_PROTOCOL;
    /// The byte that has the bit-field `skc_net_refcnt`.
    NET_REFCNT: u8 = TOA_SOCK_NET_REFCNT;
    /// A `struct net *`, set when the socket is made.
    NET: usize = TOA_SOCK_NET;
    /// Ports and addresses are in network order.
    SPORT: u16 = TOA_INET_SPORT;
    DPORT: u16 = TOA_SOCK_DPORT;
    /// The peer's IPv4 address and then the socket's own.
    ADDRPAIR: u64 = TOA_SOCK_ADDRPAIR;
    #[cfg(CONFIG_IPV6)]
    V6_RCV_SADDR: [u32; 4] = TOA_SOCK_V6_RCV_SADDR;
    #[cfg(CONFIG_IPV6)]
    V6_DADDR: [u32; 4] = TOA_SOCK_V6_DADDR;
    #[cfg(CONFIG_IPV6)]
    INET_FLAGS: usize = TOA_INET_FLAGS;
    /// A `struct ipv6_pinfo *`, into the socket itself, or null.
    #[cfg(CONFIG_IPV6)]
    PINET6: usize = TOA_INET_PINET6;
}

/// Whether `sk_protocol` and then `sk_type` are the halves of an aligned word.
const PROTOCOL_AND_TYPE_ADJOIN: bool =
    c::TOA_SOCK_TYPE == c::TOA_SOCK_PROTOCOL + 2 && c::TOA_SOCK_PROTOCOL % 4 == 0;

/// That word, if they are.
// SAFETY: The field of `sk_protocol` is there, and is aligned for a `u16`, which is all that is read
// unless the other one follows it and both are aligned.
const PROTOCOL_AND_TYPE: Field<InetSock, u32> = unsafe { Field::at(c::TOA_SOCK_PROTOCOL) };

/// Its value in a TCP socket. The machine is little-endian.
const TCP_AND_STREAM: u32 = c::TOA_IPPROTO_TCP as u32 | (c::TOA_SOCK_STREAM as u32) << 16;

/// C's `struct ipv6_pinfo`.
#[cfg(CONFIG_IPV6)]
struct Ipv6Pinfo;

#[cfg(CONFIG_IPV6)]
fields! { Ipv6Pinfo:
    FLOW_LABEL: u32 = TOA_IPV6_FLOW_LABEL;
    /// The byte that has the bit-field `sndflow`, where the socket has no `inet_flags`.
    SNDFLOW: u8 = TOA_IPV6_SNDFLOW;
}

/// C's `struct sk_buff`.
struct SkBuff;

fields! { SkBuff:
    /// A pointer.
    HEAD: usize = TOA_SKB_HEAD;
    TRANSPORT_HEADER: u16 = TOA_SKB_TRANSPORT_HEADER;
    /// A `struct net_device *`, or null.
    DEV: usize = TOA_SKB_DEV;
    IIF: i32 = TOA_SKB_IIF;
    /// In network order.
    ETHERTYPE: u16 = TOA_SKB_PROTOCOL;
}

/// C's `struct socket`.
struct CSocket;

fields! { CSocket:
    /// A `struct sock *`.
    SK: usize = TOA_SOCKET_SK;
}

/// A `struct sock` of AF_INET or AF_INET6, by shared reference.
///
/// # Invariants
///
/// - The socket is a live `struct inet_sock`, as all sockets of these families are, and stays so
///   while the reference lives.
/// - If `T` is a [`PerNet`](super::pernet::PerNet), every namespace that a socket holds a reference on
///   has a `T`, which stays while the references live: `T` is registered.
#[repr(transparent)]
pub(crate) struct Sock<T>(Opaque<c::sock>, PhantomData<T>);

impl<T> Sock<T> {
    /// # Safety
    ///
    /// The type invariants must be true of `sk` during `'a`.
    pub(crate) unsafe fn from_raw<'a>(sk: *const c_void) -> &'a Self {
        // INVARIANT: By the function's safety requirements.
        // SAFETY: As above; `Sock` is transparent over an opaque `struct sock`.
        unsafe { &*sk.cast() }
    }

    /// A key that is unique among live sockets: the address of the `struct sock`.
    pub(crate) fn id(&self) -> usize {
        self.base() as usize
    }

    /// The namespace, if the socket holds a reference on it: then the namespace outlives the
    /// socket, and so does its data. Most kernel sockets, and the children of kernel listeners
    /// that did not ask for one, hold none.
    #[inline(always)]
    pub(crate) fn net(&self) -> Option<&Net<T>> {
        // The bit is never cleared. Kernel code may set it later (`sk_net_refcnt_upgrade`), which
        // makes the namespace stay all the same.
        let counted = self.read(&NET_REFCNT) & c::TOA_SOCK_NET_REFCNT_MASK as u8 != 0;
        if !counted {
            return None;
        }
        let net = self.read(&NET) as *const c_void;
        // SAFETY: The socket's reference keeps the namespace while the socket is alive: its setup is
        // complete and its exit has not begun. So the pointer is not null. By the type invariant the
        // namespace has the data.
        unsafe {
            assert_unchecked(!net.is_null());
            Some(Net::from_raw(net))
        }
    }

    /// Whether this is a TCP socket; the subflows of MPTCP are, its own sockets are not, nor are
    /// raw sockets of TCP's protocol.
    #[inline(always)]
    pub(crate) fn is_tcp(&self) -> bool {
        if PROTOCOL_AND_TYPE_ADJOIN {
            self.read(&PROTOCOL_AND_TYPE) == TCP_AND_STREAM
        } else {
            self.read(&PROTOCOL) == c::TOA_IPPROTO_TCP as u16
                && self.read(&TYPE) == c::TOA_SOCK_STREAM as u16
        }
    }

    /// Whether the connection is over: also that of a child which the kernel disposed of while it
    /// made it, and that of a socket which is being disconnected.
    pub(crate) fn is_closed(&self) -> bool {
        usize::from(self.read(&STATE)) == c::TOA_TCP_CLOSE
    }

    /// Whether the socket has a peer: the condition of `inet_getname` and `inet6_getname`.
    /// `strict` is `peer == 1`, the call of getpeername: then a connection that is gone, or not
    /// there yet, has none.
    pub(crate) fn has_peer(&self, strict: bool) -> bool {
        const GONE: u32 = 1 << c::TOA_TCP_CLOSE | 1 << c::TOA_TCP_SYN_SENT;
        self.read(&DPORT) != 0 && !(strict && GONE >> (self.read(&STATE) % 32) & 1 != 0)
    }

    /// The connection's two ends, as the socket has them. A dual-stack socket whose peer has an IPv4
    /// address also has the addresses of an IPv4 socket.
    #[inline(always)]
    pub(crate) fn tuple(&self) -> Tuple {
        #[cfg(CONFIG_IPV6)]
        if self.is_inet6() {
            let peer = self.read(&V6_DADDR);
            if !is_mapped(peer) {
                return Tuple::V6 {
                    peer: words(peer),
                    local: words(self.read(&V6_RCV_SADDR)),
                    ports: [self.read(&DPORT), self.read(&SPORT)],
                };
            }
        }
        self.tuple_v4()
    }

    /// The connection's two ends in the fields that a socket of AF_INET has, and one whose peer's address is
    /// an IPv4-mapped one.
    #[inline(always)]
    pub(crate) fn tuple_v4(&self) -> Tuple {
        Tuple::V4 {
            addresses: self.read(&ADDRPAIR),
            ports: [self.read(&DPORT), self.read(&SPORT)],
        }
    }

    /// The connection's two ends.
    pub(crate) fn connection(&self) -> Connection {
        self.tuple().into()
    }

    /// Whether the socket's family is AF_INET6: IPV6_ADDRFORM can turn it into AF_INET.
    #[cfg(CONFIG_IPV6)]
    fn is_inet6(&self) -> bool {
        self.read(&FAMILY) == c::TOA_AF_INET6 as u16
    }

    /// The flow label, in network order, if the socket asks for it with its peer's name
    /// (IPV6_FLOWINFO_SEND), and 0 otherwise.
    #[cfg(CONFIG_IPV6)]
    pub(crate) fn reported_flow_label(&self) -> u32 {
        if c::TOA_HAS_INET_FLAGS != 0
            && self.read(&INET_FLAGS) & (1 << c::TOA_INET_FLAGS_SNDFLOW) == 0
        {
            return 0;
        }
        let pinet6 = self.read(&PINET6) as *const c_void;
        if pinet6.is_null() {
            return 0;
        }
        // SAFETY: Not null: the socket's own `struct ipv6_pinfo`, which lives as long.
        unsafe {
            if c::TOA_HAS_INET_FLAGS == 0
                && SNDFLOW.read(pinet6) & c::TOA_IPV6_SNDFLOW_MASK as u8 == 0
            {
                return 0;
            }
            FLOW_LABEL.read(pinet6)
        }
    }

    fn base(&self) -> *const c_void {
        self.0.get().cast_const().cast()
    }

    #[inline(always)]
    fn read<V: FromBytes + Copy>(&self, field: &Field<InetSock, V>) -> V {
        // SAFETY: By the type invariant this is a live `struct inet_sock`.
        unsafe { field.read(self.base()) }
    }
}

/// Whether the address in a `struct in6_addr`, which has the layout of four `__be32`, is an IPv4-mapped
/// one (RFC 4291 §2.5.5.2).
#[cfg(CONFIG_IPV6)]
#[inline(always)]
fn is_mapped(wire: [u32; 4]) -> bool {
    let [a, b, c, _] = wire;
    a | b == 0 && c == 0xffff_u32.to_be()
}

/// The address in a `struct in6_addr` in two words of the same bytes.
#[cfg(CONFIG_IPV6)]
#[inline(always)]
fn words(wire: [u32; 4]) -> [u64; 2] {
    let [a, b, c, d] = wire.map(u64::from);
    [a | b << 32, c | d << 32]
}

/// A `struct socket` that has a socket of AF_INET or AF_INET6, by shared reference.
///
/// # Invariants
///
/// The `struct socket` and its `sk` stay while the reference lives, and the invariants of
/// [`Sock<T>`] are true of `sk`.
#[repr(transparent)]
pub(crate) struct Socket<T>(Opaque<c::socket>, PhantomData<T>);

impl<T> Socket<T> {
    /// # Safety
    ///
    /// The type invariants must be true of `socket` during `'a`.
    pub(crate) unsafe fn from_raw<'a>(socket: *const c_void) -> &'a Self {
        // INVARIANT: By the function's safety requirements.
        // SAFETY: As above; `Socket` is transparent.
        unsafe { &*socket.cast() }
    }

    /// The protocol's side of the socket.
    pub(crate) fn sk(&self) -> &Sock<T> {
        // SAFETY: By the type invariants.
        unsafe { Sock::from_raw(SK.read(self.0.get().cast_const().cast()) as *const c_void) }
    }
}

/// A `struct sk_buff` that holds a TCP segment, by shared reference.
///
/// # Invariants
///
/// - The transport header is set, and the whole TCP header with its options lies in the linear part.
///   Nothing writes to the header while the reference lives.
/// - `dev` is null or the device that the segment arrived by: `tcp_v4_rcv` and `tcp_v6_rcv` leave it
///   or clear it before they pass the segment on, and nothing has used its storage otherwise.
#[repr(transparent)]
pub(crate) struct Segment(Opaque<c::sk_buff>);

impl Segment {
    /// # Safety
    ///
    /// `skb` must point to a `struct sk_buff` of which the type invariants are true during `'a`.
    pub(crate) unsafe fn from_raw<'a>(skb: *const c_void) -> &'a Self {
        // INVARIANT: By the function's safety requirements.
        // SAFETY: As above; `Segment` is transparent.
        unsafe { &*skb.cast() }
    }

    /// The option list: the bytes between the fixed header and the data. Empty for a segment with
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
    #[inline(always)]
    pub(crate) fn is_ipv6(&self) -> bool {
        u16::from_be(self.read(&ETHERTYPE)) == c::TOA_ETH_P_IPV6 as u16
    }

    /// The device that the segment was received by, or null.
    #[inline(always)]
    pub(crate) fn device(&self) -> *mut c::net_device {
        self.read(&DEV) as *mut c::net_device
    }

    /// The index of the device that the segment was received by.
    #[inline(always)]
    pub(crate) fn device_index(&self) -> c_int {
        self.read(&IIF)
    }

    /// C's `skb_transport_header`.
    fn header(&self) -> *const u8 {
        let head = self.read(&HEAD) as *const u8;
        let offset = self.read(&TRANSPORT_HEADER);
        // SAFETY: By the type invariant the transport header lies in the buffer.
        unsafe { head.add(usize::from(offset)) }
    }

    #[inline(always)]
    fn read<V: FromBytes + Copy>(&self, field: &Field<SkBuff, V>) -> V {
        // SAFETY: By the type invariant this is a live `struct sk_buff`.
        unsafe { field.read(self.0.get().cast_const().cast()) }
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
