// SPDX-License-Identifier: GPL-2.0

//! Requests for the peer of a socket, as servers in the kernel make them.
//!
//! C headers: [`include/linux/net.h`](srctree/include/linux/net.h),
//! [`include/linux/kthread.h`](srctree/include/linux/kthread.h)

use crate::{
    linux::log::log,
    toa_bindings as bindings, //
};
use core::ptr::NonNull;
use kernel::error::from_err_ptr;
use kernel::ffi::{
    c_int,
    c_void, //
};
use kernel::prelude::*;
use kernel::sync::{
    aref::ARef,
    Completion, //
};
use kernel::task::Task;

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
struct Socket(NonNull<bindings::socket>);

// SAFETY: A reference to a file may be used and dropped in any task.
unsafe impl Sync for Socket {}

impl Socket {
    fn of(fd: c_int) -> Result<Self> {
        let mut error = 0;
        // SAFETY: `sockfd_lookup` only writes the error.
        let socket = unsafe { bindings::sockfd_lookup(fd, &raw mut error) };
        // INVARIANT: `sockfd_lookup` took a reference to the file.
        NonNull::new(socket)
            .map(Self)
            .ok_or_else(|| Error::from_errno(error))
    }

    fn log_peer(&self, who: &str) {
        let mut name = [0_u64; bindings::TOA_SIZEOF_SOCKADDR_STORAGE as usize / size_of::<u64>()];
        // SAFETY: By the type invariant the pointer is to a socket, and `name` holds every address.
        let length =
            unsafe { bindings::kernel_getpeername(self.0.as_ptr(), (&raw mut name).cast()) };
        let bytes = name.map(u64::to_ne_bytes);
        let written = usize::try_from(length).unwrap_or(0);
        let written = bytes.as_flattened().get(..written).unwrap_or_default();
        log!(INFO, "{who} {length} {written:02x?}\n");
    }
}

impl Drop for Socket {
    fn drop(&mut self) {
        // SAFETY: The field exists (asserted in toa_bindings.h). A socket that was looked up by its
        // descriptor has a file, and the reference to drop is ours.
        unsafe {
            let file = self.0.as_ptr().byte_add(bindings::TOA_SOCKET_FILE as usize);
            bindings::fput(*file.cast::<*mut bindings::file>());
        }
    }
}

/// The socket that the kernel thread asks, and the completion of its question.
struct Question<'a> {
    socket: &'a Socket,
    asked: Pin<&'a Completion>,
}

fn in_kernel_thread(socket: &Socket) -> Result {
    pin_init::stack_pin_init!(let asked = Completion::new());
    let question = Question {
        socket,
        asked: asked.as_ref(),
    };
    // SAFETY: `thread` takes a `Question`, and `question` lives until the thread has ended,
    // below. The name holds no format directive.
    let task = unsafe {
        from_err_ptr(bindings::kthread_create_on_node(
            Some(thread),
            (&raw const question).cast_mut().cast(),
            bindings::TOA_NUMA_NO_NODE,
            c"toa_test".as_char_ptr(),
        ))?
    };
    // SAFETY: A new thread does not end before it is woken.
    let task = ARef::from(unsafe { &*task.cast::<Task>() });
    // SAFETY: The thread is woken once, and `task` keeps its structure after the end. The wait
    // comes first because a thread that is stopped before it ran would never make its request.
    // A stopped thread is in none of our functions.
    unsafe {
        bindings::wake_up_process(task.as_ptr().cast());
        question.asked.wait_for_completion();
        bindings::kthread_stop(task.as_ptr().cast());
    }
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
    question.asked.complete_all();
    0
}
