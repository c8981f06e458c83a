// SPDX-License-Identifier: MIT OR Apache-2.0

//! A TUN device (`linux/if_tun.h`): packets without a frame. It exists until the value is dropped.

use std::fs::File;
use std::io;
use std::io::Read;
use std::io::Write;
use std::os::fd::AsFd;
use std::os::fd::AsRawFd;
use std::os::unix::fs::OpenOptionsExt;
use std::time::Duration;
use std::time::Instant;

use nix::libc;
use nix::poll::poll;
use nix::poll::PollFd;
use nix::poll::PollFlags;
use nix::poll::PollTimeout;

/// The driver's device node.
pub const DEVICE: &str = "/dev/net/tun";

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

/// A device in the thread's network namespace.
#[derive(Debug)]
pub struct Tun {
    file: File,
}

impl Tun {
    /// Creates a device, which is down.
    ///
    /// # Errors
    ///
    /// The driver is missing, or a right is.
    pub fn create(name: &str) -> io::Result<Self> {
        let file = File::options()
            .read(true)
            .write(true)
            .custom_flags(libc::O_NONBLOCK)
            .open(DEVICE)?;
        let mut request = Request {
            name: [0; libc::IFNAMSIZ],
            flags: (libc::IFF_TUN | libc::IFF_NO_PI) as libc::c_short,
            unused: [0; 22],
        };
        // The last byte stays 0.
        let room = request.name.iter_mut().take(libc::IFNAMSIZ - 1);
        for (to, byte) in room.zip(name.bytes()) {
            *to = byte;
        }
        // SAFETY: `Request` has the length and layout of the `ifreq` that TUNSETIFF reads and writes
        // back, and the name in it ends with a zero.
        unsafe { set_interface(file.as_raw_fd(), &mut request) }?;
        Ok(Self { file })
    }

    /// Passes a packet to the kernel.
    ///
    /// # Errors
    ///
    /// The device is down.
    pub fn send(&self, packet: &[u8]) -> io::Result<()> {
        (&self.file).write(packet).map(drop)
    }

    /// Returns the first of the kernel's packets in which `find` finds something, or none until
    /// `deadline`.
    ///
    /// # Errors
    ///
    /// The device does not answer.
    pub fn receive<T>(
        &self,
        deadline: Instant,
        find: impl Fn(&[u8]) -> Option<T>,
    ) -> io::Result<Option<T>> {
        let mut packet = [0; 2048];
        loop {
            match (&self.file).read(&mut packet) {
                Ok(length) => {
                    if let Some(found) = find(&packet[..length]) {
                        return Ok(Some(found));
                    }
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    if !is_ready(&self.file, deadline)? {
                        return Ok(None);
                    }
                }
                Err(error) => return Err(error),
            }
        }
    }
}

/// Waits until a file can be read. Returns false at the deadline.
///
/// # Errors
///
/// The wait fails.
pub fn is_ready(file: impl AsFd, deadline: Instant) -> io::Result<bool> {
    let left = deadline.saturating_duration_since(Instant::now());
    let timeout =
        PollTimeout::try_from(left.max(Duration::from_millis(1))).unwrap_or(PollTimeout::MAX);
    let ready = poll(&mut [PollFd::new(file.as_fd(), PollFlags::POLLIN)], timeout)?;
    Ok(ready > 0)
}
