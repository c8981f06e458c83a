// SPDX-License-Identifier: GPL-2.0

//! System calls as 32-bit programs make them: `int $0x80`, with addresses below
//! 4 GiB. The kernel treats them as a 32-bit program's, from this one too.

use std::arch::asm;
use std::os::fd::FromRawFd;
use std::os::fd::OwnedFd;
use std::os::fd::RawFd;
use std::ptr;

use libc::c_int;
use libc::c_void;
use nix::errno::Errno;

use super::Answer;
use super::Call;
use super::Name;
use super::CANARY;
use super::ROOM;

/// `arch/x86/entry/syscalls/syscall_32.tbl`
const SOCKETCALL: u32 = 102;

/// The way in which a C library makes the call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Convention {
    /// `socketcall`, with the arguments in memory.
    Socketcall,
    /// A separate system call.
    Direct,
}

/// The contents of one page below 4 GiB.
#[repr(C)]
struct Page {
    name: [u8; ROOM],
    length: i32,
    arguments: [u32; 5],
}

struct LowPage(*mut Page);

impl LowPage {
    fn new() -> Result<Self, Errno> {
        // SAFETY: the kernel chooses an unused address.
        let page = unsafe {
            libc::mmap(
                ptr::null_mut(),
                size_of::<Page>(),
                libc::PROT_READ | libc::PROT_WRITE,
                libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_32BIT,
                -1,
                0,
            )
        };
        if page == libc::MAP_FAILED {
            return Err(Errno::last());
        }
        Ok(Self(page.cast()))
    }

    fn address(&self, offset: usize) -> u32 {
        u32::try_from(self.0 as usize + offset).expect("MAP_32BIT")
    }
}

impl Drop for LowPage {
    fn drop(&mut self) {
        // SAFETY: the page was mapped with this size, and no borrow of it is left.
        unsafe { libc::munmap(self.0.cast::<c_void>(), size_of::<Page>()) };
    }
}

/// Calls as [`super::ask`] does, with valid memory of the given length.
pub fn ask(convention: Convention, call: Call, fd: RawFd, room: i32) -> Result<Answer, Errno> {
    let numbers = (subcall(call), direct(call));
    let (result, name) = call_with(convention, numbers, room, |name_at, length_at| {
        [fd as u32, name_at, length_at, 0, 0]
    })?;
    let socket = matches!(call, Call::Accept | Call::Accept4).then(|| {
        // SAFETY: the descriptor is new, and no other value owns it.
        unsafe { OwnedFd::from_raw_fd(result) }
    });
    Ok(Answer { name, socket })
}

/// Calls as [`super::get_option`] does, with valid memory of the given length.
pub fn get_option(
    convention: Convention,
    fd: RawFd,
    level: c_int,
    option: c_int,
    room: i32,
) -> Result<Name, Errno> {
    let arguments =
        |value_at, length_at| [fd as u32, level as u32, option as u32, value_at, length_at];
    call_with(convention, GETSOCKOPT, room, arguments).map(|(_, value)| value)
}

/// Makes a call, by `socketcall` or directly. Its arguments include the addresses of
/// the room and of its length.
fn call_with(
    convention: Convention,
    (subcall, direct): (u32, u32),
    room: i32,
    arguments: impl Fn(u32, u32) -> [u32; 5],
) -> Result<(c_int, Name), Errno> {
    let page = LowPage::new()?;
    let name_at = page.address(0);
    let length_at = page.address(std::mem::offset_of!(Page, length));
    let arguments = arguments(name_at, length_at);
    // SAFETY: the page is mapped, and only ours.
    unsafe {
        page.0.write_volatile(Page {
            name: [CANARY; ROOM],
            length: room,
            arguments,
        });
    }
    let (number, registers) = match convention {
        Convention::Socketcall => {
            let arguments = page.address(std::mem::offset_of!(Page, arguments));
            (SOCKETCALL, [subcall, arguments, 0, 0, 0])
        }
        Convention::Direct => (direct, arguments),
    };
    // SAFETY: the kernel writes to the page's name and length, at most ROOM bytes.
    let result = unsafe { interrupt(number, registers) };
    if result < 0 {
        return Err(Errno::from_raw(-result));
    }
    // SAFETY: the page is mapped; the kernel has left a valid `Page` in it.
    let told = unsafe { page.0.read_volatile() };
    Ok((result, Name::read(&told.name, told.length)))
}

/// The numbers of `getsockopt`, as [`subcall`] and [`direct`] return them.
const GETSOCKOPT: (u32, u32) = (15, 365);

/// `include/uapi/linux/net.h`
fn subcall(call: Call) -> u32 {
    match call {
        Call::Accept => 5,
        Call::GetSockName => 6,
        Call::GetPeerName => 7,
        Call::Accept4 => 18,
    }
}

/// `arch/x86/entry/syscalls/syscall_32.tbl`, which has no accept without flags:
/// accept4 without flags replaces it.
fn direct(call: Call) -> u32 {
    match call {
        Call::Accept | Call::Accept4 => 364,
        Call::GetSockName => 367,
        Call::GetPeerName => 368,
    }
}

/// Makes the system call.
///
/// # Safety
///
/// The arguments must meet the system call's own safety requirements.
unsafe fn interrupt(number: u32, arguments: [u32; 5]) -> c_int {
    let result: u64;
    // SAFETY: the caller meets the requirements. The compiler reserves `rbx`, so the
    // code saves and restores it.
    unsafe {
        asm!(
            "xchg rbx, {first}",
            "int 0x80",
            "xchg rbx, {first}",
            first = inout(reg) u64::from(arguments[0]) => _,
            inout("rax") u64::from(number) => result,
            in("rcx") u64::from(arguments[1]),
            in("rdx") u64::from(arguments[2]),
            in("rsi") u64::from(arguments[3]),
            in("rdi") u64::from(arguments[4]),
            out("r8") _,
            out("r9") _,
            out("r10") _,
            out("r11") _,
        );
    }
    result as c_int
}
