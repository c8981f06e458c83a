// SPDX-License-Identifier: GPL-2.0

//! Files in `/proc/sys/net` for each network namespace.
//!
//! The kernel has the value in its own memory when it calls a handler, and waits for all handlers of a
//! table when the table is unregistered.
//!
//! C headers: [`include/linux/sysctl.h`](srctree/include/linux/sysctl.h),
//! [`include/net/net_namespace.h`](srctree/include/net/net_namespace.h)

use crate::linux::{
    c,
    pernet::{
        Net,
        PerNet, //
    }, //
};
use core::marker::PhantomData;
use core::slice;
use kernel::ffi::{
    c_int,
    c_void, //
};
use kernel::fmt;
use kernel::prelude::*;

/// The files of a module in the directory of each network namespace.
pub(crate) trait Sysctls: PerNet {
    /// The directory below `/proc/sys`.
    const DIRECTORY: &'static CStr;

    /// The files. Each one's index is the `file` of the functions below.
    const FILES: &'static [&'static CStr];

    /// Writes the value of a file, without a newline. Process context.
    fn read(net: &Net<Self>, file: usize, f: &mut dyn fmt::Write) -> fmt::Result;

    /// Takes `bytes`, which a process wrote at `offset`. The process has the mode's permission: its
    /// user is root of the namespace's owner, or it has CAP_NET_ADMIN there. Process context.
    fn write(net: &Net<Self>, file: usize, offset: i64, bytes: &[u8]) -> Result;
}

/// The mode of each file. C's `net_ctl_permissions` extends the first digit to CAP_NET_ADMIN.
const MODE: u16 = 0o644;

/// The registered files of one namespace. Dropping it unregisters them, and waits for processes in
/// their handlers.
///
/// # Invariants
///
/// `header` is that of the registration of `table`, whose entries have the namespace as data.
pub(crate) struct Table<T> {
    header: *mut c::ctl_table_header,
    _table: KVec<c::ctl_table>,
    _sysctls: PhantomData<T>,
}

// SAFETY: A table may be unregistered from any task; shared references do nothing.
unsafe impl<T> Send for Table<T> {}

// SAFETY: As above.
unsafe impl<T> Sync for Table<T> {}

impl<T: Sysctls> Table<T> {
    /// Registers the files. May sleep.
    ///
    /// # Safety
    ///
    /// The table must be dropped before the namespace and its `T` end.
    ///
    /// # Errors
    ///
    /// `ENOMEM`, also if the namespace has one of the files.
    pub(crate) unsafe fn register(net: &Net<T>) -> Result<Self> {
        let mut table = KVec::with_capacity(T::FILES.len().saturating_add(1), GFP_KERNEL)?;
        for (file, name) in (0..T::FILES.len()).zip(T::FILES) {
            let entry = c::ctl_table::new(
                name.as_ptr().cast(),
                MODE,
                handle::<T>,
                net.as_ptr().cast(),
                core::ptr::without_provenance_mut(file),
            );
            table.push(entry, GFP_KERNEL)?;
        }
        // The end of the table, for kernels that are not given its size.
        table.push(c::ctl_table::END, GFP_KERNEL)?;
        let (path, first) = (T::DIRECTORY.as_ptr().cast(), table.as_mut_ptr());
        // SAFETY: The table stays where it is until it is unregistered. The handler has the prototype
        // that `offsets.c` asserts, and its data is the namespace, which lives longer.
        let header = unsafe {
            if c::TOA_HAS_REGISTER_NET_SYSCTL_SZ != 0 {
                c::register_net_sysctl_sz(net.as_ptr(), path, first, T::FILES.len())
            } else {
                c::register_net_sysctl(net.as_ptr(), path, first)
            }
        };
        if header.is_null() {
            return Err(ENOMEM);
        }
        // INVARIANT: Just registered.
        Ok(Self {
            header,
            _table: table,
            _sysctls: PhantomData,
        })
    }
}

impl<T> Drop for Table<T> {
    fn drop(&mut self) {
        // SAFETY: By the type invariant.
        unsafe { c::unregister_net_sysctl_table(self.header) };
    }
}

/// A window of a text: the bytes from an offset on that fit the place.
struct Window<'a> {
    skip: usize,
    place: &'a mut [u8],
    filled: usize,
}

impl fmt::Write for Window<'_> {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        let skipped = self.skip.min(text.len());
        self.skip = self.skip.saturating_sub(skipped);
        let room = self.place.get_mut(self.filled..).unwrap_or_default();
        let bytes = text.as_bytes().get(skipped..).unwrap_or_default();
        for (to, byte) in room.iter_mut().zip(bytes) {
            *to = *byte;
        }
        self.filled = self.filled.saturating_add(room.len().min(bytes.len()));
        Ok(())
    }
}

/// Called when a process reads or writes a file.
///
/// # Safety
///
/// `table` must be an entry of a [`Table`] that is registered, `buffer` must have `*length` bytes,
/// and all pointers must be exclusive to this call. Process context.
unsafe extern "C" fn handle<T: Sysctls>(
    table: *const c::ctl_table,
    write: c_int,
    buffer: *mut c_void,
    length: *mut usize,
    position: *mut i64,
) -> c_int {
    kernel::error::from_result(|| {
        // SAFETY: By the function's safety requirements. The table's data is the namespace, and the
        // table is unregistered, which waits for this call, before the namespace's `T` ends.
        let (net, file, bytes) = unsafe {
            (
                Net::<T>::from_raw((*table).data()),
                (*table).extra1().addr(),
                slice::from_raw_parts_mut(buffer.cast::<u8>(), *length),
            )
        };
        // SAFETY: By the function's safety requirements.
        let offset = unsafe { *position };
        let done = if write != 0 {
            T::write(net, file, offset, bytes)?;
            bytes.len()
        } else {
            let mut window = Window {
                skip: usize::try_from(offset).map_err(|_| EINVAL)?,
                place: bytes,
                filled: 0,
            };
            let written = T::read(net, file, &mut window)
                .and_then(|()| fmt::Write::write_str(&mut window, "\n"));
            written.map_err(|_| EINVAL)?;
            window.filled
        };
        // SAFETY: By the function's safety requirements.
        unsafe {
            *length = done;
            *position = offset.saturating_add_unsigned(done as u64);
        }
        Ok(0)
    })
}
