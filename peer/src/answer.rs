// SPDX-License-Identifier: MIT OR Apache-2.0

//! The module's answers, in Rust's types. The code here makes no system calls.

use std::io;
use std::net::Ipv6Addr;
use std::net::SocketAddr;

use crate::unmapped;

/// The size of DPVS's `struct toa_nat64_peer`: an IPv6 address (16 bytes), a port
/// (2 bytes) and padding (2 bytes). Address and port are in network order; IPv4
/// addresses have the mapped form.
pub(crate) const LENGTH: usize = 20;

/// Parses an answer. `None` for other lengths, which no module for TOA returns.
pub(crate) fn parse(answer: &[u8]) -> Option<SocketAddr> {
    let answer: &[u8; LENGTH] = answer.try_into().ok()?;
    let (address, rest) = answer.split_first_chunk::<16>()?;
    let port = u16::from_be_bytes(*rest.first_chunk()?);
    Some(unmapped(SocketAddr::new(
        Ipv6Addr::from(*address).into(),
        port,
    )))
}

/// Interprets the result of `getsockopt`. `None` if the module has no answer:
///
/// - `ENOPROTOOPT`: no module is loaded, or the socket is not TCP;
/// - `EINVAL`: the module has no client;
/// - `EOPNOTSUPP`: a true MPTCP connection, or a UNIX socket;
/// - `EFAULT`: DPVS's module, whose option answers only for clients that getpeername
///   cannot return. The buffer is valid, so the error has no other cause.
pub(crate) fn read(told: io::Result<&[u8]>) -> io::Result<Option<SocketAddr>> {
    match told {
        Ok(answer) => Ok(parse(answer)),
        Err(error) => match error.raw_os_error() {
            Some(libc::ENOPROTOOPT | libc::EINVAL | libc::EOPNOTSUPP | libc::EFAULT) => Ok(None),
            _ => Err(error),
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::collection::vec;
    use proptest::prelude::*;
    use std::net::IpAddr;
    use std::net::Ipv4Addr;

    /// Builds an answer in the format of the module's lookup.rs.
    fn answer(address: Ipv6Addr, port: u16, padding: [u8; 2]) -> [u8; LENGTH] {
        let mut answer = [0; LENGTH];
        answer[..16].copy_from_slice(&address.octets());
        answer[16..18].copy_from_slice(&port.to_be_bytes());
        answer[18..].copy_from_slice(&padding);
        answer
    }

    #[test]
    fn bytes_of_an_ipv6_client_are_read() {
        let bytes = b"\x20\x01\x0d\xb8\0\x07\0\0\0\0\0\0\0\0\0\x07\x12\x34\0\0";
        assert_eq!(parse(bytes), "[2001:db8:7::7]:4660".parse().ok());
    }

    #[test]
    fn bytes_of_an_ipv4_client_are_read_as_ipv4() {
        let bytes = b"\0\0\0\0\0\0\0\0\0\0\xff\xff\xcb\0\x71\x07\x12\x34\0\0";
        assert_eq!(parse(bytes), "203.0.113.7:4660".parse().ok());
    }

    #[test]
    fn ipv4_compatible_addresses_stay_ipv6() {
        let address = Ipv6Addr::from([0, 0, 0, 0, 0, 0, 0xcb00, 0x7107]);
        let told = parse(&answer(address, 1, [0, 0]));
        assert_eq!(told, Some(SocketAddr::new(address.into(), 1)));
    }

    #[test]
    fn errors_that_mean_no_answer_are_no_errors() {
        for number in [
            libc::ENOPROTOOPT,
            libc::EINVAL,
            libc::EOPNOTSUPP,
            libc::EFAULT,
        ] {
            let told = read(Err(io::Error::from_raw_os_error(number)));
            assert_eq!(told.expect("no error"), None, "{number}");
        }
    }

    #[test]
    fn other_errors_are_passed_on() {
        for number in [libc::ENOTCONN, libc::EBADF, libc::ENOTSOCK, libc::ENOMEM] {
            let told = read(Err(io::Error::from_raw_os_error(number)));
            let error = told.expect_err("an error");
            assert_eq!(error.raw_os_error(), Some(number));
        }
    }

    proptest! {
        #[test]
        fn every_ipv6_endpoint_is_read_back(address: u128, port: u16, padding: [u8; 2]) {
            let address = Ipv6Addr::from(address);
            let told = parse(&answer(address, port, padding));
            prop_assert_eq!(told, Some(SocketAddr::new(IpAddr::V6(address).to_canonical(), port)));
        }

        #[test]
        fn every_ipv4_endpoint_is_read_back(address: u32, port: u16, padding: [u8; 2]) {
            let address = Ipv4Addr::from(address);
            let told = parse(&answer(address.to_ipv6_mapped(), port, padding));
            prop_assert_eq!(told, Some(SocketAddr::new(address.into(), port)));
        }

        #[test]
        fn bytes_of_every_length_are_read_or_refused(bytes in vec(any::<u8>(), 0..=2 * LENGTH)) {
            prop_assert_eq!(parse(&bytes).is_some(), bytes.len() == LENGTH);
        }
    }
}
