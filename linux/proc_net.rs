// SPDX-License-Identifier: GPL-2.0

//! Files of a network namespace in `/proc/net`: a text that is written at once ([`Text`]), and a
//! table of many rows that is read in pieces ([`Table`]).
//!
//! C headers: [`include/linux/proc_fs.h`](srctree/include/linux/proc_fs.h),
//! [`include/linux/seq_file.h`](srctree/include/linux/seq_file.h),
//! [`include/linux/seq_file_net.h`](srctree/include/linux/seq_file_net.h)

use crate::{
    endpoint::Endpoint,
    linux::{
        c,
        pernet::{
            Net,
            PerNet, //
        },
        task, //
    }, //
};
use core::marker::PhantomData;
use core::ptr;
use kernel::ffi::{
    c_int,
    c_longlong,
    c_void, //
};
use kernel::prelude::*;
use kernel::seq_file::SeqFile;

/// A file that is written at once.
pub(crate) trait Text: 'static {
    /// The data that the content is made of.
    type PerNet: PerNet;

    /// The file's name below `/proc/net`.
    const NAME: &'static CStr;

    /// The permissions. The owner is root of the namespace.
    const MODE: u16;

    /// Writes the content for `net`. Process context.
    fn show(net: &Net<Self::PerNet>, seq: &SeqFile);
}

/// A file that is written in parts, each of which has any number of rows. A part is written whole, and
/// nothing is held between two parts.
pub(crate) trait Table: 'static {
    /// The data that the content is made of.
    type PerNet: PerNet;

    /// The file's name below `/proc/net`.
    const NAME: &'static CStr;

    /// The permissions. The owner is root of the namespace.
    const MODE: u16;

    /// The names of the columns of [`Rows::add`].
    const COLUMNS: [&'static CStr; 3];

    /// Returns the number of parts, the same at each call. Process context.
    fn parts() -> usize;

    /// Writes the rows of a part for `net`. Process context.
    fn show(net: &Net<Self::PerNet>, part: usize, rows: &Rows<'_>);
}

/// A file of one namespace in `/proc/net`. Dropping it removes the file, and waits for its readers.
/// Only [`pernet`](super::pernet) makes files, and drops them before the data that they show.
///
/// # Invariants
///
/// `directory` is the namespace's `/proc/net`, and has a file of that name.
pub(super) struct ProcFile {
    directory: *mut c::proc_dir_entry,
    name: &'static CStr,
}

// SAFETY: A file may be removed from any task; shared references do nothing.
unsafe impl Send for ProcFile {}

// SAFETY: As above.
unsafe impl Sync for ProcFile {}

impl ProcFile {
    /// Makes the file of `S`. May sleep.
    ///
    /// # Errors
    ///
    /// `ENOMEM` if there is no memory, or the namespace has a file of that name.
    ///
    /// # Safety
    ///
    /// The file must be dropped before the data of `net`.
    pub(super) unsafe fn text<S: Text>(net: &Net<S::PerNet>) -> Result<Self> {
        Self::of(net, S::NAME, |directory| {
            // SAFETY: The directory is the namespace's, and `show_text` is of the type asked for.
            unsafe {
                c::proc_create_net_single(
                    S::NAME.as_ptr().cast(),
                    S::MODE,
                    directory,
                    show_text::<S>,
                    ptr::null_mut(),
                )
            }
        })
    }

    /// Makes the file of `S`. May sleep.
    ///
    /// # Errors
    ///
    /// `ENOMEM` if there is no memory, or the namespace has a file of that name.
    ///
    /// # Safety
    ///
    /// The file must be dropped before the data of `net`.
    pub(super) unsafe fn table<S: Table>(net: &Net<S::PerNet>) -> Result<Self> {
        Self::of(net, S::NAME, |directory| {
            // SAFETY: The directory is the namespace's. The operations are a static of the module,
            // whose text outlives the file. Each open file gets a `struct seq_net_private`, zeroed.
            unsafe {
                c::proc_create_net_data(
                    S::NAME.as_ptr().cast(),
                    S::MODE,
                    directory,
                    &TableFile::<S>::OPERATIONS,
                    c::TOA_SIZEOF_SEQ_NET_PRIVATE as u32,
                    ptr::null_mut(),
                )
            }
        })
    }

    fn of<T>(
        net: &Net<T>,
        name: &'static CStr,
        make: impl FnOnce(*mut c::proc_dir_entry) -> *mut c::proc_dir_entry,
    ) -> Result<Self> {
        let directory = net.proc_net();
        if make(directory).is_null() {
            return Err(ENOMEM);
        }
        // INVARIANT: Just made.
        Ok(Self { directory, name })
    }
}

impl Drop for ProcFile {
    fn drop(&mut self) {
        // SAFETY: By the type invariant. The call waits for each call of a file's functions that has
        // begun (`proc_entry_rundown`), and later ones get EIO. It sleeps on a completion, with no
        // lock that a reader takes.
        unsafe { c::remove_proc_entry(self.name.as_ptr().cast(), self.directory) };
    }
}

/// Called when a process reads a file of [`ProcFile::text`].
///
/// # Safety
///
/// `seq` must be such a file, opened, and exclusive to this call.
unsafe extern "C" fn show_text<S: Text>(seq: *mut c::seq_file, _: *mut c_void) -> c_int {
    // SAFETY: A file of `proc_create_net_single` has its namespace, which it holds, as the private
    // pointer. The file was made after the namespace's data, and its removal, which waits for this
    // call, precedes the data's end.
    let net = unsafe { Net::from_raw(private(seq)) };
    // SAFETY: By the function's safety requirements.
    S::show(net, unsafe { SeqFile::from_raw(seq.cast()) });
    0
}

/// Returns the private pointer of an open file.
///
/// # Safety
///
/// `seq` must be an open file.
unsafe fn private(seq: *mut c::seq_file) -> *const c_void {
    // SAFETY: By the function's safety requirements. The pointer is set while the file is opened.
    unsafe {
        seq.byte_add(c::TOA_SEQ_PRIVATE)
            .cast::<*const c_void>()
            .read()
    }
}

/// The functions of a [`Table`]. Position 0 is the line with the columns, and position n is part n - 1.
/// The element that they pass on is the pointer to the position.
///
/// `seq_read` calls them under the mutex of the open file, in a process that may sleep, on PREEMPT_RT
/// as elsewhere. It calls `start` again for each read, so no state is left between two reads. If a part
/// does not fit, it drops what the part has written, and writes the part again later or into a larger
/// buffer.
struct TableFile<S>(PhantomData<S>);

impl<S: Table> TableFile<S> {
    const OPERATIONS: c::seq_operations = c::seq_operations {
        start: start::<S>,
        stop,
        next: next::<S>,
        show: show_row_or_columns::<S>,
    };
}

/// Parts after which a reader yields the processor.
const SHOWN_AT_ONCE: c_longlong = 1024;

/// Returns the element at a position, or null behind the last one.
///
/// # Safety
///
/// `position` must be valid for reads.
unsafe fn element<S: Table>(position: *mut c_longlong) -> *mut c_void {
    // SAFETY: By the function's safety requirements.
    match usize::try_from(unsafe { position.read() }) {
        Ok(number) if number <= S::parts() => position.cast(),
        _ => ptr::null_mut(),
    }
}

/// Begins a read, or begins it again with a larger buffer.
///
/// # Safety
///
/// As `seq_read` calls it: `position` points to the file's position.
unsafe extern "C" fn start<S: Table>(
    _seq: *mut c::seq_file,
    position: *mut c_longlong,
) -> *mut c_void {
    // SAFETY: By the function's safety requirements.
    unsafe { element::<S>(position) }
}

/// Moves on to the next element, and yields the processor now and then: in a namespace without rows,
/// one read walks over all parts.
///
/// # Safety
///
/// As `seq_read` calls it: `position` points to the file's position, at which [`start`] or this function
/// found an element.
unsafe extern "C" fn next<S: Table>(
    _seq: *mut c::seq_file,
    _element: *mut c_void,
    position: *mut c_longlong,
) -> *mut c_void {
    // SAFETY: By the function's safety requirements.
    let number = unsafe { position.read() }.wrapping_add(1);
    if number % SHOWN_AT_ONCE == 0 {
        // Only the file's mutex is held.
        task::yield_processor();
    }
    // SAFETY: By the function's safety requirements.
    unsafe {
        position.write(number);
        element::<S>(position)
    }
}

/// Ends a read: there is nothing to release.
///
/// # Safety
///
/// None.
unsafe extern "C" fn stop(_seq: *mut c::seq_file, _element: *mut c_void) {}

/// Writes an element.
///
/// # Safety
///
/// As `seq_read` calls it: `seq` is an open file of [`ProcFile::table`], exclusive to this call, and
/// `element` is of [`start`] or [`next`].
unsafe extern "C" fn show_row_or_columns<S: Table>(
    seq: *mut c::seq_file,
    element: *mut c_void,
) -> c_int {
    // SAFETY: By the function's safety requirements the element points to the position.
    let number = unsafe { element.cast::<c_longlong>().read() };
    let rows = Rows(seq, PhantomData);
    // The position was checked when the element was made.
    let Some(part) = usize::try_from(number).unwrap_or(0).checked_sub(1) else {
        rows.columns(S::COLUMNS);
        return 0;
    };
    // SAFETY: A file of `proc_create_net_data` has a `struct seq_net_private` as its private pointer,
    // with the namespace, which the open file holds. The file was made after the namespace's data,
    // and its removal, which waits for this call, precedes the data's end.
    let net = unsafe {
        Net::from_raw(
            private(seq)
                .byte_add(c::TOA_SEQ_NET_PRIVATE_NET)
                .cast::<*const c_void>()
                .read(),
        )
    };
    S::show(net, part, &rows);
    0
}

/// The rows of a part, to which more are added.
///
/// # Invariants
///
/// The pointer is to an open `struct seq_file` that only this thread uses during `'a`.
pub(crate) struct Rows<'a>(*mut c::seq_file, PhantomData<&'a ()>);

impl Rows<'_> {
    /// Adds a row: three columns, with a space between them. Padding is not possible: with a width in
    /// the format, the kernel pads the port as well, beyond its buffer (`ip4_addr_string_sa`).
    pub(crate) fn add(&self, columns: [Endpoint; 3]) {
        let [first, second, third] = columns.map(Sockaddr::from);
        // SAFETY: By the type invariant. The format takes three pointers to a `struct sockaddr_in` or a
        // `struct sockaddr_in6`, and prints `address:port` or `[address]:port`. The call only writes
        // to the file's buffer, so it may be made under RCU.
        unsafe {
            c::seq_printf(
                self.0,
                c"%pISpc %pISpc %pISpc\n".as_ptr().cast(),
                &raw const first,
                &raw const second,
                &raw const third,
            )
        };
    }

    fn columns(&self, names: [&'static CStr; 3]) {
        let [first, second, third] = names.map(|name| name.as_ptr());
        // SAFETY: By the type invariant. The format takes three strings.
        unsafe { c::seq_printf(self.0, c"%s %s %s\n".as_ptr().cast(), first, second, third) };
    }
}

/// An endpoint as C's `%pIS` takes it: the first two bytes are the family.
#[repr(C)]
union Sockaddr {
    v4: c::sockaddr_in,
    v6: c::sockaddr_in6,
}

impl From<Endpoint> for Sockaddr {
    fn from(endpoint: Endpoint) -> Self {
        match endpoint.address_v4() {
            Some(address) => Self {
                v4: c::sockaddr_in {
                    sin_family: c::TOA_AF_INET as u16,
                    sin_port: endpoint.port().to_be(),
                    sin_addr: address.to_bits().to_be(),
                    zero: [0; 8],
                },
            },
            None => Self {
                v6: c::sockaddr_in6 {
                    sin6_family: c::TOA_AF_INET6 as u16,
                    sin6_port: endpoint.port().to_be(),
                    sin6_flowinfo: 0,
                    sin6_addr: c::in6_addr(endpoint.address().octets()),
                    sin6_scope_id: 0,
                },
            },
        }
    }
}
