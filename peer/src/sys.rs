// SPDX-License-Identifier: MIT OR Apache-2.0

//! `getsockopt` with any option, for which no crate offers a safe wrapper.
//!
//! All `unsafe` code of this crate is in this file.

use std::io;
use std::os::fd::AsRawFd;
use std::os::fd::BorrowedFd;

use libc::c_int;
use libc::socklen_t;

/// Reads an option into `room`. Returns the bytes that the kernel wrote, which are the
/// beginning of `room`.
pub(crate) fn getsockopt<'room>(
    socket: BorrowedFd<'_>,
    level: c_int,
    option: c_int,
    room: &'room mut [u8],
) -> io::Result<&'room [u8]> {
    let mut length = socklen_t::try_from(room.len()).unwrap_or(socklen_t::MAX);
    // SAFETY: The kernel writes at most `length` bytes to `room`, which has at least as
    // many, and all bytes are valid there. `length` is a local variable.
    let status = unsafe {
        libc::getsockopt(
            socket.as_raw_fd(),
            level,
            option,
            room.as_mut_ptr().cast(),
            &mut length,
        )
    };
    if status != 0 {
        return Err(io::Error::last_os_error());
    }
    let written = usize::try_from(length).unwrap_or(usize::MAX);
    Ok(&room[..written.min(room.len())])
}
