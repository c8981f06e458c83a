// SPDX-License-Identifier: GPL-2.0

//! Requests for the peer of a socket, as servers in the kernel make them.
//!
//! C header: [`include/linux/net.h`](srctree/include/linux/net.h)

use crate::{
    kthread::{
        self,
        Thread, //
    },
    linux::c,
    linux::log::log, //
};
use core::ptr::NonNull;
use kernel::ffi::{
    c_int,
    c_void, //
};
use kernel::prelude::*;
use kernel::sync::atomic::{
    Acquire,
    Atomic,
    Release, //
};

/// `struct file`.
#[allow(non_camel_case_types)]
#[repr(C)]
struct file {
    _opaque: [u8; 0],
}

// Asserted in tests/kernel/offsets.c.
extern "C" {
    fn sockfd_lookup(fd: c_int, err: *mut c_int) -> *mut c::socket;
    fn fput(file: *mut file);
    fn kernel_getpeername(sock: *mut c::socket, addr: *mut c::sockaddr) -> c_int;
}

/// Requests the peer in this process, then in a kernel thread. Each logs a line:
///
/// `TOA_TEST: process 16 [02, 00, …]` with the length and the bytes of the name, or
/// `TOA_TEST: kernel thread -107 []` with the error.
///
/// # Errors
///
/// Returns `EBADF` or `ENOTSOCK` if the descriptor is not a socket, and `ENOMEM`.
pub(crate) fn ask(fd: c_int) -> Result {
    let socket = Socket::of(fd)?;
    socket.log_peer("process");
    in_kernel_thread(&socket)
}

/// A socket of the current process.
///
/// # Invariants
///
/// The pointer is to a `struct socket`, and the value owns a reference to its file.
struct Socket(NonNull<c::socket>);

// SAFETY: A reference to a file may be used and dropped in any task.
unsafe impl Sync for Socket {}

impl Socket {
    fn of(fd: c_int) -> Result<Self> {
        let mut error = 0;
        // SAFETY: `sockfd_lookup` only writes the error.
        let socket = unsafe { sockfd_lookup(fd, &raw mut error) };
        // INVARIANT: `sockfd_lookup` took a reference to the file.
        NonNull::new(socket)
            .map(Self)
            .ok_or_else(|| Error::from_errno(error))
    }

    fn log_peer(&self, who: &str) {
        let mut name = [0_u64; c::TOA_SIZEOF_SOCKADDR_STORAGE / size_of::<u64>()];
        // SAFETY: By the type invariant the pointer is to a socket, and `name` holds every address.
        let length = unsafe { kernel_getpeername(self.0.as_ptr(), (&raw mut name).cast()) };
        let bytes = name.map(u64::to_ne_bytes);
        let written = usize::try_from(length).unwrap_or(0);
        let written = bytes.as_flattened().get(..written).unwrap_or_default();
        log!(INFO, "{who} {length} {written:02x?}\n");
    }
}

impl Drop for Socket {
    fn drop(&mut self) {
        // SAFETY: The field exists (asserted in offsets.c). A socket that was looked up by its
        // descriptor has a file, and the reference to drop is ours.
        unsafe {
            let file = self.0.as_ptr().byte_add(c::TOA_SOCKET_FILE);
            fput(*file.cast::<*mut file>());
        }
    }
}

/// The socket that the kernel thread asks, and 1 when it has asked.
struct Question<'a> {
    socket: &'a Socket,
    asked: Atomic<u32>,
}

fn in_kernel_thread(socket: &Socket) -> Result {
    let question = Question {
        socket,
        asked: Atomic::new(0),
    };
    // SAFETY: `thread` takes a `Question`, and `question` lives until the thread has ended, below.
    let thread = unsafe { Thread::start(thread, (&raw const question).cast_mut().cast())? };
    // A thread that is stopped before it ran would never ask.
    while question.asked.load(Acquire) == 0 {
        // SAFETY: Process context that may sleep.
        unsafe { c::schedule_timeout_idle(1) };
    }
    drop(thread);
    Ok(())
}

/// The kernel thread's function.
///
/// # Safety
///
/// `question` must point to a [`Question`] that lives until the thread has ended.
unsafe extern "C" fn thread(question: *mut c_void) -> c_int {
    // SAFETY: By the function's safety requirements.
    let question = unsafe { &*question.cast::<Question<'_>>() };
    question.socket.log_peer("kernel thread");
    question.asked.store(1, Release);
    while !kthread::should_stop() {
        // SAFETY: This is a kernel thread, which may sleep.
        unsafe { c::schedule_timeout_idle(1) };
    }
    0
}
