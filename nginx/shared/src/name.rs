// SPDX-License-Identifier: MIT OR Apache-2.0

//! The name of a connection's end, in C's form and as text.

use core::mem::offset_of;
use core::mem::size_of;
use std::net::SocketAddr;

use nginx_sys::ngx_sock_ntop;
use nginx_sys::sockaddr;
use nginx_sys::sockaddr_in;
use nginx_sys::sockaddr_in6;
use nginx_sys::socklen_t;
use nginx_sys::AF_INET;
use nginx_sys::AF_INET6;

/// An address and a port.
pub struct Name {
    raw: RawName,
    length: socklen_t,
    address: SocketAddr,
    text: Text<ADDRESS_LENGTH>,
    port: Text<PORT_LENGTH>,
}

#[repr(C)]
union RawName {
    v4: sockaddr_in,
    v6: sockaddr_in6,
    any: sockaddr,
}

/// INET6_ADDRSTRLEN: the longest address, and the byte that ends it.
const ADDRESS_LENGTH: usize = 46;
const PORT_LENGTH: usize = "65535".len();

impl Name {
    pub fn new(address: SocketAddr) -> Self {
        let (raw, length) = raw_name(address);
        let mut name = Self {
            raw,
            length,
            address,
            text: Text::new(),
            port: Text::decimal(address.port()),
        };
        name.write_text();
        name
    }

    /// Formats the address in nginx's form of `$remote_addr`.
    fn write_text(&mut self) {
        // SAFETY: `raw` is a name of its family and `length` bytes long. nginx writes at
        // most ADDRESS_LENGTH bytes of text, and returns their number.
        let written = unsafe {
            ngx_sock_ntop(
                (&raw mut self.raw).cast(),
                self.length,
                self.text.bytes.as_mut_ptr(),
                ADDRESS_LENGTH,
                0,
            )
        };
        self.text.length = written.min(ADDRESS_LENGTH);
    }

    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Returns the address as text, without the port.
    pub fn text(&self) -> &[u8] {
        self.text.as_bytes()
    }

    pub fn port_text(&self) -> &[u8] {
        self.port.as_bytes()
    }

    /// Returns the name in C's form for nginx, which does not write to it.
    pub(crate) fn as_ptr(&self) -> *mut sockaddr {
        (&raw const self.raw).cast_mut().cast()
    }

    pub(crate) fn length(&self) -> socklen_t {
        self.length
    }
}

fn raw_name(address: SocketAddr) -> (RawName, socklen_t) {
    // SAFETY: all three names consist of numbers, for which zero is valid.
    let mut raw: RawName = unsafe { core::mem::zeroed() };
    match address {
        SocketAddr::V4(v4) => {
            raw.v4.sin_family = AF_INET as _;
            raw.v4.sin_port = v4.port().to_be();
            raw.v4.sin_addr.s_addr = u32::from_ne_bytes(v4.ip().octets());
            (raw, size_of::<sockaddr_in>() as socklen_t)
        }
        SocketAddr::V6(v6) => {
            raw.v6.sin6_family = AF_INET6 as _;
            raw.v6.sin6_port = v6.port().to_be();
            raw.v6.sin6_addr.__in6_u.__u6_addr8 = v6.ip().octets();
            (raw, size_of::<sockaddr_in6>() as socklen_t)
        }
    }
}

/// Reads a name in C's form, with an IPv4-mapped address as IPv4. None for other
/// families.
///
/// # Safety
///
/// `name` is null or points to a name of its family, `length` bytes long.
pub unsafe fn address_at(name: *const sockaddr, length: socklen_t) -> Option<SocketAddr> {
    let length = length as usize;
    if name.is_null() || length < offset_of!(sockaddr, sa_data) {
        return None;
    }
    // SAFETY: a name begins with its family.
    match u32::from(unsafe { (*name).sa_family }) {
        AF_INET if length >= size_of::<sockaddr_in>() => {
            // SAFETY: a name of that family and length is a sockaddr_in.
            let v4 = unsafe { name.cast::<sockaddr_in>().read_unaligned() };
            let ip = std::net::Ipv4Addr::from(v4.sin_addr.s_addr.to_ne_bytes());
            Some(SocketAddr::new(ip.into(), u16::from_be(v4.sin_port)))
        }
        AF_INET6 if length >= size_of::<sockaddr_in6>() => {
            // SAFETY: a name of that family and length is a sockaddr_in6.
            let v6 = unsafe { name.cast::<sockaddr_in6>().read_unaligned() };
            // SAFETY: every member of the union is sixteen bytes of numbers.
            let ip = std::net::Ipv6Addr::from(unsafe { v6.sin6_addr.__in6_u.__u6_addr8 });
            Some(SocketAddr::new(
                ip.to_canonical(),
                u16::from_be(v6.sin6_port),
            ))
        }
        _ => None,
    }
}

/// A short text.
struct Text<const ROOM: usize> {
    bytes: [u8; ROOM],
    length: usize,
}

impl<const ROOM: usize> Text<ROOM> {
    const fn new() -> Self {
        Self {
            bytes: [0; ROOM],
            length: 0,
        }
    }

    fn as_bytes(&self) -> &[u8] {
        self.bytes.get(..self.length).unwrap_or_default()
    }
}

impl Text<PORT_LENGTH> {
    fn decimal(number: u16) -> Self {
        let mut text = Self::new();
        let digits = [
            number / 10_000,
            number / 1000 % 10,
            number / 100 % 10,
            number / 10 % 10,
            number % 10,
        ];
        let zeros = digits.iter().take_while(|digit| **digit == 0).count();
        let digits = digits.into_iter().skip(zeros.min(PORT_LENGTH - 1));
        for (place, digit) in text.bytes.iter_mut().zip(digits) {
            *place = b'0' + digit as u8;
            text.length += 1;
        }
        text
    }
}
