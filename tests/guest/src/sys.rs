// SPDX-License-Identifier: GPL-2.0

//! The calls that no safe wrapper offers as the tests need them: sockets' names
//! as the raw bytes that the kernel wrote, with any length and any pointer, and
//! TUN devices.
//!
//! All `unsafe` of this program is here.

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

/// What the room for a name is filled with before a call, to see what was written.
const CANARY: u8 = 0xa5;

/// As much as a kernel ever writes: `sizeof(struct sockaddr_storage)`.
const ROOM: usize = 128;

/// An address where nothing is mapped (below `vm.mmap_min_addr`).
const NOWHERE: usize = 1;

/// A call that answers with a socket's name.
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

/// Where a call is told to put the name, and what it is told of its length.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Place {
    /// Good memory, said to be so long.
    Room(i32),
    /// No memory for the name, said to be so long.
    Nowhere(i32),
    /// The null pointer for the name, said to be so long.
    Null(i32),
    /// No memory for the length.
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
    /// What the kernel writes for `address` into ample room.
    pub fn of(address: SocketAddr) -> Self {
        Self::cut(address, ROOM)
    }

    /// What it writes into `room` bytes: the name's start, and its full length.
    pub fn cut(address: SocketAddr, room: usize) -> Self {
        let mut bytes = wire_form(address);
        let length = bytes.len() as i32;
        bytes.truncate(room);
        Self { bytes, length }
    }

    /// A name that ends in the canary's value would be read too short: ours do not.
    fn read(room: &[u8; ROOM], length: i32) -> Self {
        let written = room.iter().rposition(|&byte| byte != CANARY);
        Self {
            bytes: room[..written.map_or(0, |last| last + 1)].to_vec(),
            length,
        }
    }

    /// A whole value of these bytes.
    pub fn exactly(bytes: &[u8]) -> Self {
        Self {
            bytes: bytes.to_vec(),
            length: bytes.len() as i32,
        }
    }

    /// The same bytes, of which the kernel says another length.
    pub fn said_to_be(self, length: i32) -> Self {
        Self { length, ..self }
    }

    /// What a call leaves that knows no name.
    pub fn none() -> Self {
        let bytes = Vec::new();
        Self { bytes, length: 0 }
    }

    /// The bytes that the kernel wrote.
    pub fn bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// How long the kernel says the name is.
    pub fn length(&self) -> i32 {
        self.length
    }

    /// The address, if the bytes are one whole `sockaddr_in` or `sockaddr_in6`.
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

/// `struct sockaddr_in` or `struct sockaddr_in6`, every byte of it.
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
            // As the standard library has it: what is in memory.
            bytes.extend(v6.flowinfo().to_ne_bytes());
            bytes.extend(v6.ip().octets());
            bytes.extend(v6.scope_id().to_ne_bytes());
        }
    }
    bytes
}

/// What a call has given.
#[derive(Debug)]
pub struct Answer {
    pub name: Name,
    /// Of `accept` and `accept4`.
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
    // `length`, which live until the call is over and of which it writes at
    // most ROOM and 4 bytes, or nothing is mapped there. Flags (of accept4) are
    // 0; the calls with three arguments do not look at the fourth.
    let result = unsafe { libc::syscall(call.number(), fd, name_at, length_at, 0) };
    let result = Errno::result(result)?;
    let socket = matches!(call, Call::Accept | Call::Accept4).then(|| {
        // SAFETY: the descriptor is new, and nobody else knows of it.
        unsafe { OwnedFd::from_raw_fd(result as RawFd) }
    });
    Ok(Answer {
        name: Name::read(&room, length),
        socket,
    })
}

/// The name that `getsockopt(SO_PEERNAME)` gives, with `room` bytes for it.
pub fn so_peername(fd: RawFd, room: i32) -> Result<Name, Errno> {
    get_option(fd, libc::SOL_SOCKET, libc::SO_PEERNAME, Place::Room(room))
}

/// What `getsockopt` gives: for options whose value is a socket's name, or is as long.
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

/// `SO_ATTACH_REUSEPORT_CBPF`: lets a program choose among the sockets of a group.
pub fn choose_in_group_by(fd: RawFd, program: &mut [libc::sock_filter]) -> io::Result<()> {
    let program = libc::sock_fprog {
        len: program.len() as libc::c_ushort,
        filter: program.as_mut_ptr(),
    };
    // SAFETY: the kernel copies `program`, of that size, and the instructions it points
    // to, as many as it says.
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

/// `connect(AF_UNSPEC)`: makes a connected socket an unconnected one.
pub fn disconnect(fd: RawFd) -> io::Result<()> {
    let nobody = libc::sockaddr {
        sa_family: libc::AF_UNSPEC as libc::sa_family_t,
        sa_data: [0; 14],
    };
    // SAFETY: the address and its size are those of `nobody`.
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

/// A new TUN device in the calling thread's namespace: packets without any frame,
/// one with each read and write, neither of which waits. It goes with the file.
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

/// `recvfrom` of at most `buffer`'s length, and what it says of the sender.
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

/// The same by `recvmsg`.
pub fn receive_message(fd: RawFd, buffer: &mut [u8]) -> Result<(usize, Name), Errno> {
    let mut room = [CANARY; ROOM];
    let mut part = libc::iovec {
        iov_base: buffer.as_mut_ptr().cast(),
        iov_len: buffer.len(),
    };
    // SAFETY: a `msghdr` of zeroes is a good one.
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

/// Memory that nobody has touched yet: who does first sleeps, in whatever he is
/// doing and with whatever locks he holds, until it is released.
#[derive(Debug)]
pub struct SleepyPage {
    page: usize,
    /// Tells who has touched it (`userfaultfd(2)`).
    faults: OwnedFd,
}

/// Does `work` in a thread of nobody's, who may do nothing.
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

/// x86-64's.
const PAGE: usize = 4096;

impl SleepyPage {
    pub fn new() -> io::Result<Self> {
        // SAFETY: new anonymous memory, wherever the kernel likes.
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
            // SAFETY: the descriptor is new, and nobody else knows of it.
            faults: unsafe { OwnedFd::from_raw_fd(fd as RawFd) },
        };
        // `struct uffdio_api`, then `struct uffdio_register`.
        sleepy.control(UFFDIO_API, [UFFD_API, 0, 0, 0])?;
        let range = [sleepy.page as u64, PAGE as u64];
        let mode = UFFDIO_REGISTER_MODE_MISSING;
        sleepy.control(UFFDIO_REGISTER, [range[0], range[1], mode, 0])?;
        Ok(sleepy)
    }

    /// `recv` into the page: sleeps if there is data, with the socket locked.
    pub fn receive(&self, fd: RawFd) -> Result<usize, Errno> {
        // SAFETY: the page is this process' own memory, which Rust knows nothing of.
        let result = unsafe { libc::recv(fd, self.page as *mut c_void, PAGE, 0) };
        Errno::result(result).map(|length| length as usize)
    }

    /// `getsockopt` into the page: sleeps if there is an answer.
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

    /// `read` into the page: sleeps if there is something to read.
    pub fn read(&self, fd: RawFd) -> Result<usize, Errno> {
        // SAFETY: as in `receive`.
        let result = unsafe { libc::read(fd, self.page as *mut c_void, PAGE) };
        Errno::result(result).map(|length| length as usize)
    }

    /// Waits until somebody sleeps.
    #[track_caller]
    pub fn wait_until_touched(&self) {
        wait::ready(&self.faults, PollFlags::POLLIN, "somebody touches the page");
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

    /// Gives the page memory, and wakes the sleeper. Once.
    #[track_caller]
    pub fn release(&self) {
        // `struct uffdio_zeropage`
        let range = [self.page as u64, PAGE as u64];
        self.control(UFFDIO_ZEROPAGE, [range[0], range[1], 0, 0])
            .expect("the page has no memory yet");
    }

    fn control(&self, request: libc::c_ulong, mut argument: [u64; 4]) -> io::Result<()> {
        // SAFETY: the arguments of these requests are three or four 64-bit numbers,
        // which the kernel reads and writes. The only address among them is that of
        // our page.
        let result =
            unsafe { libc::ioctl(self.faults.as_raw_fd(), request, argument.as_mut_ptr()) };
        Errno::result(result)?;
        Ok(())
    }
}

impl Drop for SleepyPage {
    fn drop(&mut self) {
        // SAFETY: nobody has a reference to this memory: calls that use it borrow self.
        // A sleeper in it wakes when its memory goes.
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
