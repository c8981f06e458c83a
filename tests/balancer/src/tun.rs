// SPDX-License-Identifier: GPL-2.0

//! A TUN device (`linux/if_tun.h`): packets without a frame. No offload is enabled, so
//! the kernel delivers whole packets with their checksums.

use std::fs::File;
use std::fs::OpenOptions;
use std::io;
use std::io::Read;
use std::io::Write;
use std::os::fd::AsFd;
use std::os::fd::AsRawFd;
use std::os::fd::BorrowedFd;
use std::os::unix::fs::OpenOptionsExt;

use nix::errno::Errno;
use nix::libc;

use crate::namespace::Namespace;

/// The driver's device node, which exists if the driver is loaded or built in.
const DEVICE: &str = "/dev/net/tun";

/// `struct ifreq` as TUNSETIFF reads it, with its whole length on 64-bit machines.
#[repr(C)]
pub struct Request {
    name: [u8; libc::IFNAMSIZ],
    flags: libc::c_short,
    unused: [u8; 22],
}

// TUNSETIFF is declared with an int and reads an ifreq.
nix::ioctl_readwrite_bad!(
    set_interface,
    nix::request_code_write!(b'T', 202, size_of::<libc::c_int>()),
    Request
);

/// A TUN device that exists until the value is dropped.
#[derive(Debug)]
pub struct Tun {
    file: File,
}

impl Tun {
    /// Creates the device in a namespace. The device is down.
    pub fn create(namespace: &Namespace, name: &str) -> Result<Self, String> {
        Self::try_create(namespace, name).map_err(|error| match error.kind() {
            io::ErrorKind::NotFound => format!("{DEVICE}: {error}: run modprobe tun"),
            _ => format!("device {name}: {error}"),
        })
    }

    fn try_create(namespace: &Namespace, name: &str) -> io::Result<Self> {
        let mut request = Request::new(name)?;
        namespace.enter(move || {
            let file = OpenOptions::new()
                .read(true)
                .write(true)
                .custom_flags(libc::O_NONBLOCK)
                .open(DEVICE)?;
            // SAFETY: `Request` has the length and layout of the `ifreq` that TUNSETIFF
            // reads and writes back, and the name in it ends with a zero.
            unsafe { set_interface(file.as_raw_fd(), &mut request) }?;
            Ok(Self { file })
        })
    }

    /// Returns the next packet, if any.
    pub fn receive<'a>(&self, buffer: &'a mut [u8]) -> io::Result<Option<&'a [u8]>> {
        match (&self.file).read(buffer) {
            Ok(length) => Ok(Some(&buffer[..length])),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Passes a packet to the kernel.
    pub fn send(&self, packet: &[u8]) -> io::Result<()> {
        (&self.file).write(packet).map(drop)
    }
}

impl AsFd for Tun {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.file.as_fd()
    }
}

impl Request {
    fn new(device: &str) -> io::Result<Self> {
        let mut name = [0; libc::IFNAMSIZ];
        match name.get_mut(..device.len()) {
            Some(start) if (1..libc::IFNAMSIZ).contains(&device.len()) => {
                start.copy_from_slice(device.as_bytes());
            }
            _ => return Err(Errno::ENAMETOOLONG.into()),
        }
        Ok(Self {
            name,
            flags: (libc::IFF_TUN | libc::IFF_NO_PI) as libc::c_short,
            unused: [0; 22],
        })
    }
}
