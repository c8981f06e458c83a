// SPDX-License-Identifier: GPL-2.0

//! System calls for which no suitable safe wrapper exists: TUN devices, and calls
//! that return sockets' names as the raw bytes that the kernel wrote, with any length
//! and any pointer.
//!
//! This module holds all `unsafe` code of the program.

pub mod bpf;
pub mod compat;
pub mod handing;
pub mod uring;

use std::fmt;
use std::fs::File;
use std::fs::OpenOptions;
use std::io;
use std::mem;
use std::net::SocketAddr;
use std::os::fd::AsRawFd;
use std::os::fd::FromRawFd;
use std::os::fd::OwnedFd;
use std::os::fd::RawFd;
use std::os::unix::fs::OpenOptionsExt;

use libc::c_int;
use libc::c_long;
use libc::c_void;
use nix::errno::Errno;
use nix::poll::PollFlags;

use crate::wait;

/// The value that fills the room for a name before a call, to detect written bytes.
const CANARY: u8 = 0xa5;

/// The longest name that a kernel writes: `sizeof(struct sockaddr_storage)`.
const ROOM: usize = 128;

/// An address where nothing is mapped (below `vm.mmap_min_addr`).
const NOWHERE: usize = 1;

/// A call that returns a socket's name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Call {
    Accept,
    Accept4,
    GetPeerName,
    GetSockName,
}

impl Call {
    pub const ALL: [Self; 4] = [
        Self::Accept,
        Self::Accept4,
        Self::GetPeerName,
        Self::GetSockName,
    ];

    fn number(self) -> c_long {
        match self {
            Self::Accept => libc::SYS_accept,
            Self::Accept4 => libc::SYS_accept4,
            Self::GetPeerName => libc::SYS_getpeername,
            Self::GetSockName => libc::SYS_getsockname,
        }
    }
}

/// The pointers that a call gets for the name and its length.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Place {
    /// Valid memory, with this length.
    Room(i32),
    /// An unmapped address for the name, with this length.
    Nowhere(i32),
    /// The null pointer for the name, with this length.
    Null(i32),
    /// An unmapped address for the length.
    NoLength,
}

impl Place {
    /// Room for every name.
    pub const AMPLE: Self = Self::Room(ROOM as i32);

    fn length(self) -> i32 {
        match self {
            Self::Room(length) | Self::Nowhere(length) | Self::Null(length) => length,
            Self::NoLength => 0,
        }
    }

    fn or_nowhere(self, room: usize) -> usize {
        match self {
            Self::Nowhere(_) => NOWHERE,
            Self::Null(_) => 0,
            Self::Room(_) | Self::NoLength => room,
        }
    }
}

/// A socket's name as the kernel wrote it.
#[derive(Clone, PartialEq, Eq)]
pub struct Name {
    /// The bytes up to the last one that was changed.
    bytes: Vec<u8>,
    /// The length that the call reported.
    length: i32,
}

impl Name {
    /// Returns the name that the kernel writes for `address` into ample room.
    pub fn of(address: SocketAddr) -> Self {
        Self::cut(address, ROOM)
    }

    /// Returns the name that it writes into `room` bytes: the start, and the full length.
    pub fn cut(address: SocketAddr, room: usize) -> Self {
        let mut bytes = wire_form(address);
        let length = bytes.len() as i32;
        bytes.truncate(room);
        Self { bytes, length }
    }

    /// Reads a name back. One that ends in the canary's value would be too short: ours do not.
    fn read(room: &[u8; ROOM], length: i32) -> Self {
        let written = room.iter().rposition(|&byte| byte != CANARY);
        Self {
            bytes: room[..written.map_or(0, |last| last + 1)].to_vec(),
            length,
        }
    }

    /// Returns a whole value of these bytes.
    pub fn exactly(bytes: &[u8]) -> Self {
        Self {
            bytes: bytes.to_vec(),
            length: bytes.len() as i32,
        }
    }

    /// Returns the same bytes with another reported length.
    pub fn said_to_be(self, length: i32) -> Self {
        Self { length, ..self }
    }

    /// Returns the name that a call leaves if it writes nothing.
    pub fn none() -> Self {
        let bytes = Vec::new();
        Self { bytes, length: 0 }
    }

    /// Returns the bytes that the kernel wrote.
    pub fn bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// Returns the length that the kernel reported.
    pub fn length(&self) -> i32 {
        self.length
    }

    /// Returns the address if the bytes are one whole `sockaddr_in` or `sockaddr_in6`.
    pub fn address(&self) -> Option<SocketAddr> {
        let family = u16::from_ne_bytes(self.bytes.get(..2)?.try_into().ok()?);
        let port = u16::from_be_bytes(self.bytes.get(2..4)?.try_into().ok()?);
        match c_int::from(family) {
            libc::AF_INET => {
                let ip: [u8; 4] = self.bytes.get(4..8)?.try_into().ok()?;
                Some(SocketAddr::new(ip.into(), port))
            }
            libc::AF_INET6 => {
                let ip: [u8; 16] = self.bytes.get(8..24)?.try_into().ok()?;
                Some(SocketAddr::new(ip.into(), port))
            }
            _ => None,
        }
    }
}

impl fmt::Debug for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.address() {
            Some(address) => write!(f, "{address}")?,
            None => write!(f, "no address")?,
        }
        write!(f, " (length {}, bytes {:02x?})", self.length, self.bytes)
    }
}

/// Returns every byte of the address's `struct sockaddr_in` or `struct sockaddr_in6`.
fn wire_form(address: SocketAddr) -> Vec<u8> {
    let mut bytes = Vec::new();
    match address {
        SocketAddr::V4(v4) => {
            bytes.extend((libc::AF_INET as u16).to_ne_bytes());
            bytes.extend(v4.port().to_be_bytes());
            bytes.extend(v4.ip().octets());
            bytes.extend([0; 8]);
        }
        SocketAddr::V6(v6) => {
            bytes.extend((libc::AF_INET6 as u16).to_ne_bytes());
            bytes.extend(v6.port().to_be_bytes());
            // The standard library holds the field's bytes in memory order.
            bytes.extend(v6.flowinfo().to_ne_bytes());
            bytes.extend(v6.ip().octets());
            bytes.extend(v6.scope_id().to_ne_bytes());
        }
    }
    bytes
}

/// The result of a call.
#[derive(Debug)]
pub struct Answer {
    pub name: Name,
    /// The new socket of `accept` and `accept4`.
    pub socket: Option<OwnedFd>,
}

pub fn ask(call: Call, fd: RawFd, place: Place) -> Result<Answer, Errno> {
    let mut room = [CANARY; ROOM];
    let mut length = place.length();
    let name_at = place.or_nowhere(room.as_mut_ptr() as usize);
    let length_at = match place {
        Place::NoLength => NOWHERE,
        _ => &raw mut length as usize,
    };
    // SAFETY: the kernel checks both addresses. They are those of `room` and
    // `length`, which outlive the call, or nothing is mapped there. The kernel
    // writes at most ROOM and 4 bytes. Flags (of accept4) are 0; the calls with
    // three arguments do not read the fourth.
    let result = unsafe { libc::syscall(call.number(), fd, name_at, length_at, 0) };
    let result = Errno::result(result)?;
    let socket = matches!(call, Call::Accept | Call::Accept4).then(|| {
        // SAFETY: the descriptor is new, and no other value owns it.
        unsafe { OwnedFd::from_raw_fd(result as RawFd) }
    });
    Ok(Answer {
        name: Name::read(&room, length),
        socket,
    })
}

/// Returns the name from `getsockopt(SO_PEERNAME)`, with `room` bytes for it.
pub fn so_peername(fd: RawFd, room: i32) -> Result<Name, Errno> {
    get_option(fd, libc::SOL_SOCKET, libc::SO_PEERNAME, Place::Room(room))
}

/// Returns an option by `getsockopt`, if its value is a socket's name or as long.
pub fn get_option(fd: RawFd, level: c_int, option: c_int, place: Place) -> Result<Name, Errno> {
    let mut room = [CANARY; ROOM];
    let mut length = place.length();
    let value_at = place.or_nowhere(room.as_mut_ptr() as usize);
    let length_at = match place {
        Place::NoLength => NOWHERE,
        _ => &raw mut length as usize,
    };
    // SAFETY: as in `ask`.
    let result =
        unsafe { libc::syscall(libc::SYS_getsockopt, fd, level, option, value_at, length_at) };
    Errno::result(result)?;
    Ok(Name::read(&room, length))
}

/// Reads a socket option into `value`, and returns its length. Does nothing else, for counted calls.
pub fn read_option(
    fd: RawFd,
    level: c_int,
    option: c_int,
    value: &mut [u8],
) -> Result<usize, Errno> {
    let mut length = value.len() as libc::socklen_t;
    // SAFETY: the kernel writes at most `length` bytes to `value`, and their number to `length`.
    let result =
        unsafe { libc::getsockopt(fd, level, option, value.as_mut_ptr().cast(), &mut length) };
    Errno::result(result).map(|_| length as usize)
}

/// Sets a socket option whose value is an `int`.
pub fn set_option(fd: RawFd, level: c_int, option: c_int, value: c_int) -> io::Result<()> {
    // SAFETY: the value's address and size are those of `value`.
    let result = unsafe {
        libc::setsockopt(
            fd,
            level,
            option,
            (&raw const value).cast::<c_void>(),
            mem::size_of_val(&value) as libc::socklen_t,
        )
    };
    Errno::result(result)?;
    Ok(())
}

/// Attaches a program that chooses among a group's sockets (`SO_ATTACH_REUSEPORT_CBPF`).
pub fn choose_in_group_by(fd: RawFd, program: &mut [libc::sock_filter]) -> io::Result<()> {
    let program = libc::sock_fprog {
        len: program.len() as libc::c_ushort,
        filter: program.as_mut_ptr(),
    };
    // SAFETY: the kernel copies `program`, of that size, and the instructions to which
    // it points, of the number in it.
    let result = unsafe {
        libc::setsockopt(
            fd,
            libc::SOL_SOCKET,
            libc::SO_ATTACH_REUSEPORT_CBPF,
            (&raw const program).cast::<c_void>(),
            mem::size_of_val(&program) as libc::socklen_t,
        )
    };
    Errno::result(result)?;
    Ok(())
}

/// Disconnects a socket by `connect(AF_UNSPEC)`.
pub fn disconnect(fd: RawFd) -> io::Result<()> {
    let nobody = libc::sockaddr {
        sa_family: libc::AF_UNSPEC as libc::sa_family_t,
        sa_data: [0; 14],
    };
    // SAFETY: the address and its size are those of the local variable.
    let result = unsafe {
        libc::connect(
            fd,
            &raw const nobody,
            mem::size_of_val(&nobody) as libc::socklen_t,
        )
    };
    Errno::result(result)?;
    Ok(())
}

/// `struct ifreq` as TUNSETIFF reads it, with its whole length on 64-bit machines.
#[repr(C)]
struct TunRequest {
    name: [u8; libc::IFNAMSIZ],
    flags: libc::c_short,
    unused: [u8; 22],
}

/// Makes a TUN device in the calling thread's namespace. Each read and write passes one
/// packet without a frame, and neither waits. The device is removed with the file.
pub fn open_tun(name: &str) -> io::Result<File> {
    let mut request = TunRequest {
        name: [0; libc::IFNAMSIZ],
        flags: (libc::IFF_TUN | libc::IFF_NO_PI) as libc::c_short,
        unused: [0; 22],
    };
    request.name[..name.len()].copy_from_slice(name.as_bytes());
    let file = OpenOptions::new()
        .read(true)
        .write(true)
        .custom_flags(libc::O_NONBLOCK)
        .open("/dev/net/tun")?;
    // SAFETY: TUNSETIFF reads and writes an `ifreq`, of which `request` has the
    // length and the layout.
    let result = unsafe { libc::ioctl(file.as_raw_fd(), libc::TUNSETIFF, &raw mut request) };
    Errno::result(result)?;
    Ok(file)
}

/// Sets a socket option whose value is more than an `int`.
pub fn set_option_bytes(fd: RawFd, level: c_int, option: c_int, value: &[u8]) -> io::Result<()> {
    let (at, length) = (value.as_ptr().cast::<c_void>(), value.len());
    // SAFETY: the value's address and size are those of `value`.
    let result = unsafe { libc::setsockopt(fd, level, option, at, length as libc::socklen_t) };
    Errno::result(result)?;
    Ok(())
}

/// Receives into `buffer` by `recvfrom`; returns the length and the sender's name.
pub fn receive_from(fd: RawFd, buffer: &mut [u8]) -> Result<(usize, Name), Errno> {
    let mut room = [CANARY; ROOM];
    let mut length = ROOM as i32;
    // SAFETY: the addresses and sizes are those of `buffer`, `room` and `length`.
    let result = unsafe {
        libc::syscall(
            libc::SYS_recvfrom,
            fd,
            buffer.as_mut_ptr(),
            buffer.len(),
            0,
            room.as_mut_ptr(),
            &raw mut length,
        )
    };
    let received = Errno::result(result)? as usize;
    Ok((received, Name::read(&room, length)))
}

/// Receives into `buffer` by `recvmsg`; returns the length and the sender's name.
pub fn receive_message(fd: RawFd, buffer: &mut [u8]) -> Result<(usize, Name), Errno> {
    let mut room = [CANARY; ROOM];
    let mut part = libc::iovec {
        iov_base: buffer.as_mut_ptr().cast(),
        iov_len: buffer.len(),
    };
    // SAFETY: a `msghdr` of zeroes is valid.
    let mut message: libc::msghdr = unsafe { mem::zeroed() };
    message.msg_name = room.as_mut_ptr().cast();
    message.msg_namelen = ROOM as libc::socklen_t;
    message.msg_iov = &raw mut part;
    message.msg_iovlen = 1;
    // SAFETY: the addresses and sizes in it are those of `room` and `buffer`.
    let result = unsafe { libc::recvmsg(fd, &raw mut message, 0) };
    let received = Errno::result(result)? as usize;
    Ok((received, Name::read(&room, message.msg_namelen as i32)))
}

/// Memory that is not mapped yet. The first call that touches it sleeps until the page
/// is released, with all locks that the call holds.
#[derive(Debug)]
pub struct SleepyPage {
    page: usize,
    /// The descriptor that reports page faults (`userfaultfd(2)`).
    faults: OwnedFd,
}

/// Runs `work` in a thread without any privilege.
pub fn as_nobody<T: Send>(work: impl FnOnce() -> T + Send) -> T {
    const NOBODY: libc::uid_t = 65534;
    let task = || {
        // SAFETY: no pointers. The system call, unlike the C library's function,
        // changes this thread alone.
        let result = unsafe { libc::syscall(libc::SYS_setresuid, NOBODY, NOBODY, NOBODY) };
        assert_eq!(Errno::result(result), Ok(0));
        work()
    };
    std::thread::scope(|scope| scope.spawn(task).join().expect("it does not panic"))
}

/// `linux/userfaultfd.h`
const UFFD_API: u64 = 0xaa;
const UFFDIO_REGISTER_MODE_MISSING: u64 = 1;
const UFFDIO_API: libc::c_ulong = 0xc018_aa3f;
const UFFDIO_REGISTER: libc::c_ulong = 0xc020_aa00;
const UFFDIO_ZEROPAGE: libc::c_ulong = 0xc020_aa04;

/// `sizeof(struct uffd_msg)`
const UFFD_MESSAGE: usize = 32;

/// The page size of x86-64.
const PAGE: usize = 4096;

impl SleepyPage {
    pub fn new() -> io::Result<Self> {
        // SAFETY: new anonymous memory, at an address that the kernel chooses.
        let page = unsafe {
            libc::mmap(
                std::ptr::null_mut(),
                PAGE,
                libc::PROT_READ | libc::PROT_WRITE,
                libc::MAP_PRIVATE | libc::MAP_ANONYMOUS,
                -1,
                0,
            )
        };
        if page == libc::MAP_FAILED {
            return Err(io::Error::last_os_error());
        }
        // SAFETY: no pointers.
        let fd = unsafe { libc::syscall(libc::SYS_userfaultfd, libc::O_CLOEXEC) };
        let fd = Errno::result(fd)?;
        let sleepy = Self {
            page: page as usize,
            // SAFETY: the descriptor is new, and no other value owns it.
            faults: unsafe { OwnedFd::from_raw_fd(fd as RawFd) },
        };
        // `struct uffdio_api`, then `struct uffdio_register`.
        sleepy.control(UFFDIO_API, [UFFD_API, 0, 0, 0])?;
        let range = [sleepy.page as u64, PAGE as u64];
        let mode = UFFDIO_REGISTER_MODE_MISSING;
        sleepy.control(UFFDIO_REGISTER, [range[0], range[1], mode, 0])?;
        Ok(sleepy)
    }

    /// Calls `recv` into the page: sleeps if there is data, with the socket locked.
    pub fn receive(&self, fd: RawFd) -> Result<usize, Errno> {
        // SAFETY: the page is this process' own memory, to which Rust has no reference.
        let result = unsafe { libc::recv(fd, self.page as *mut c_void, PAGE, 0) };
        Errno::result(result).map(|length| length as usize)
    }

    /// Calls `getsockopt` into the page: sleeps if there is an answer.
    pub fn get_option(&self, fd: RawFd, level: c_int, option: c_int) -> Result<i32, Errno> {
        let mut length = PAGE as i32;
        // SAFETY: as in `receive`, and the length is that of the page.
        let result = unsafe {
            libc::syscall(
                libc::SYS_getsockopt,
                fd,
                level,
                option,
                self.page,
                &raw mut length,
            )
        };
        Errno::result(result).map(|_| length)
    }

    /// Calls `read` into the page: sleeps if there is data to read.
    pub fn read(&self, fd: RawFd) -> Result<usize, Errno> {
        // SAFETY: as in `receive`.
        let result = unsafe { libc::read(fd, self.page as *mut c_void, PAGE) };
        Errno::result(result).map(|length| length as usize)
    }

    /// Waits until a call sleeps.
    #[track_caller]
    pub fn wait_until_touched(&self) {
        wait::ready(&self.faults, PollFlags::POLLIN, "a call touches the page");
        let mut message = [0_u8; UFFD_MESSAGE];
        // SAFETY: the length is that of `message`.
        let result = unsafe {
            libc::read(
                self.faults.as_raw_fd(),
                message.as_mut_ptr().cast(),
                message.len(),
            )
        };
        assert_eq!(Errno::result(result), Ok(UFFD_MESSAGE as isize));
    }

    /// Maps memory for the page, and wakes the sleeping call. Works once.
    #[track_caller]
    pub fn release(&self) {
        // `struct uffdio_zeropage`
        let range = [self.page as u64, PAGE as u64];
        self.control(UFFDIO_ZEROPAGE, [range[0], range[1], 0, 0])
            .expect("the page has no memory yet");
    }

    fn control(&self, request: libc::c_ulong, mut argument: [u64; 4]) -> io::Result<()> {
        // SAFETY: the arguments of these requests are three or four 64-bit numbers,
        // which the kernel reads and writes. The only address among them is our
        // page's.
        let result =
            unsafe { libc::ioctl(self.faults.as_raw_fd(), request, argument.as_mut_ptr()) };
        Errno::result(result)?;
        Ok(())
    }
}

impl Drop for SleepyPage {
    fn drop(&mut self) {
        // SAFETY: no reference to this memory exists: calls that use it borrow self.
        // A call that sleeps in it wakes when the memory is unmapped.
        unsafe { libc::munmap(self.page as *mut c_void, PAGE) };
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_have_the_kernels_layout() {
        let v4: SocketAddr = "203.0.113.7:258".parse().expect("an address");
        assert_eq!(
            wire_form(v4),
            [2, 0, 1, 2, 203, 0, 113, 7, 0, 0, 0, 0, 0, 0, 0, 0]
        );
        let v6: SocketAddr = "[2001:db8:7::7]:258".parse().expect("an address");
        assert_eq!(wire_form(v6).len(), 28);
        assert_eq!(Name::of(v6).address(), Some(v6));
    }

    #[test]
    fn a_cut_name_keeps_its_full_length() {
        let v4: SocketAddr = "203.0.113.7:80".parse().expect("an address");
        let name = Name::cut(v4, 3);
        assert_eq!((name.bytes.len(), name.length()), (3, 16));
    }

    #[test]
    fn errors_are_those_of_the_kernel() {
        let answer = ask(Call::GetPeerName, -1, Place::AMPLE);
        assert_eq!(answer.err(), Some(Errno::EBADF));
    }
}
