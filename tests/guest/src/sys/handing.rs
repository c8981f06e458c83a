// SPDX-License-Identifier: GPL-2.0

//! Descriptors in other processes: in a child of fork, and in the receiver of a UNIX
//! socket's message.

use std::io::Read;
use std::mem;
use std::os::fd::AsRawFd;
use std::os::fd::FromRawFd;
use std::os::fd::OwnedFd;
use std::os::fd::RawFd;
use std::os::unix::net::UnixStream;
use std::ptr;

use libc::c_int;
use libc::c_void;
use nix::errno::Errno;

use super::Name;
use super::CANARY;
use super::ROOM;

/// The child's report of its call.
#[repr(C)]
struct Report {
    error: c_int,
    length: i32,
    name: [u8; ROOM],
}

/// Returns getpeername's answer in a child of fork, which has a copy of the descriptor.
pub fn peer_in_child(fd: RawFd) -> Result<Name, Errno> {
    let (mut reader, writer) = UnixStream::pair().expect("two sockets");
    let mut report = Report {
        error: 0,
        length: ROOM as i32,
        name: [CANARY; ROOM],
    };
    // SAFETY: the child makes only system calls, with addresses in its copy of
    // `report`, and ends before it returns from here.
    let child = unsafe { libc::fork() };
    if child == 0 {
        // SAFETY: as above.
        unsafe {
            let (name, length) = (&raw mut report.name, &raw mut report.length);
            if libc::syscall(libc::SYS_getpeername, fd, name, length) != 0 {
                report.error = *libc::__errno_location();
            }
            let report = (&raw const report).cast::<c_void>();
            libc::write(writer.as_raw_fd(), report, size_of::<Report>());
            libc::_exit(0);
        }
    }
    Errno::result(child)?;
    drop(writer);
    let mut bytes = [0; size_of::<Report>()];
    reader.read_exact(&mut bytes).expect("the child reports");
    // SAFETY: a `Report` holds numbers only, and the child has written one.
    let report: Report = unsafe { mem::transmute(bytes) };
    // SAFETY: the child is ours, and no other code waits for it.
    Errno::result(unsafe { libc::waitpid(child, ptr::null_mut(), 0) })?;
    match report.error {
        0 => Ok(Name::read(&report.name, report.length)),
        error => Err(Errno::from_raw(error)),
    }
}

/// A control message with one descriptor, aligned as the kernel requires.
#[repr(C)]
struct Rights {
    header: libc::cmsghdr,
    descriptor: c_int,
    _padding: c_int,
}

/// Runs `job` with a message of one byte that carries `rights`.
fn with_message<T>(rights: &mut Rights, job: impl FnOnce(&mut libc::msghdr) -> T) -> T {
    let mut byte = [0_u8];
    let mut part = libc::iovec {
        iov_base: byte.as_mut_ptr().cast(),
        iov_len: byte.len(),
    };
    // SAFETY: a `msghdr` of zeroes is valid.
    let mut message: libc::msghdr = unsafe { mem::zeroed() };
    message.msg_iov = &raw mut part;
    message.msg_iovlen = 1;
    message.msg_control = ptr::from_mut(rights).cast();
    message.msg_controllen = size_of::<Rights>();
    job(&mut message)
}

fn rights(descriptor: c_int) -> Rights {
    Rights {
        header: libc::cmsghdr {
            cmsg_len: size_of::<libc::cmsghdr>() + size_of::<c_int>(),
            cmsg_level: libc::SOL_SOCKET,
            cmsg_type: libc::SCM_RIGHTS,
        },
        descriptor,
        _padding: 0,
    }
}

/// Sends a copy of a descriptor (SCM_RIGHTS).
pub fn send(socket: &UnixStream, fd: RawFd) -> Result<(), Errno> {
    with_message(&mut rights(fd), |message| {
        // SAFETY: the addresses and sizes in the message are those of data that outlives the call.
        let sent = unsafe { libc::sendmsg(socket.as_raw_fd(), message, 0) };
        Errno::result(sent).map(drop)
    })
}

/// Receives a descriptor (SCM_RIGHTS).
pub fn receive(socket: &UnixStream) -> Result<OwnedFd, Errno> {
    let mut rights = rights(-1);
    with_message(&mut rights, |message| {
        let flags = libc::MSG_CMSG_CLOEXEC;
        // SAFETY: the addresses and sizes in the message are those of data that outlives the call.
        let received = unsafe { libc::recvmsg(socket.as_raw_fd(), message, flags) };
        Errno::result(received).map(drop)
    })?;
    assert!(rights.descriptor >= 0, "a descriptor arrived");
    // SAFETY: the descriptor is new, and no other value owns it.
    Ok(unsafe { OwnedFd::from_raw_fd(rights.descriptor) })
}
