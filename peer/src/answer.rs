// SPDX-License-Identifier: MIT OR Apache-2.0

//! The module's answers, in Rust's types. The code here makes no system calls.

use std::io;
use std::net::Ipv6Addr;
use std::net::SocketAddr;

use crate::unmapped;
use crate::NoClient;

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

/// Interprets the result of `getsockopt`. The inner error is the reason why the module
/// has no client.
pub(crate) fn read(told: io::Result<&[u8]>) -> io::Result<Result<SocketAddr, NoClient>> {
    match told {
        Ok(answer) => Ok(parse(answer).ok_or(NoClient::OtherModule)),
        Err(error) => match error.raw_os_error().and_then(reason) {
            Some(reason) => Ok(Err(reason)),
            None => Err(error),
        },
    }
}

/// Returns the reason that an error number of `getsockopt` stands for.
fn reason(number: i32) -> Option<NoClient> {
    match number {
        libc::ENOPROTOOPT => Some(NoClient::NoModule),
        libc::EINVAL => Some(NoClient::NoOption),
        libc::EOPNOTSUPP => Some(NoClient::Unsupported),
        // The buffer is valid, so the error has no other cause.
        libc::EFAULT => Some(NoClient::OtherModule),
        _ => None,
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
    fn errors_that_mean_no_client_become_reasons() {
        for (number, reason) in [
            (libc::ENOPROTOOPT, NoClient::NoModule),
            (libc::EINVAL, NoClient::NoOption),
            (libc::EOPNOTSUPP, NoClient::Unsupported),
            (libc::EFAULT, NoClient::OtherModule),
        ] {
            let told = read(Err(io::Error::from_raw_os_error(number)));
            assert_eq!(told.expect("no error"), Err(reason), "{number}");
        }
    }

    #[test]
    fn answer_of_another_length_comes_from_another_module() {
        let told = read(Ok(&[0; LENGTH - 1]));
        assert_eq!(told.expect("no error"), Err(NoClient::OtherModule));
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
