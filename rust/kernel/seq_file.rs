// SPDX-License-Identifier: GPL-2.0

//! Seq file bindings.
//!
//! C header: [`include/linux/seq_file.h`](srctree/include/linux/seq_file.h)

use crate::{
    bindings,
    fmt,
    types::{
        NotThreadSafe,
        Opaque, //
    }, //
};

/// A utility for generating the contents of a seq file.
#[repr(transparent)]
pub struct SeqFile {
    inner: Opaque<bindings::seq_file>,
    _not_send: NotThreadSafe,
}

impl SeqFile {
    /// Creates a new [`SeqFile`] from a raw pointer.
    ///
    /// # Safety
    ///
    /// The caller must ensure that for the duration of `'a` the following is satisfied:
    /// * The pointer points at a valid `struct seq_file`.
    /// * The `struct seq_file` is not accessed from any other thread.
    pub unsafe fn from_raw<'a>(ptr: *mut bindings::seq_file) -> &'a SeqFile {
        // SAFETY: The caller ensures that the reference is valid for 'a. `SeqFile` is transparent
        // over a `struct seq_file`, and opaque.
        unsafe { &*ptr.cast() }
    }

    /// Used by the [`seq_print`](crate::seq_print) macro.
    #[inline]
    pub fn call_printf(&self, args: fmt::Arguments<'_>) {
        // A full buffer is not reported: the kernel calls again with a larger one.
        let _ = fmt::Write::write_fmt(&mut Writer(self), args);
    }
}

/// Writes each piece of a formatted text as C's `seq_printf` would.
struct Writer<'a>(&'a SeqFile);

impl fmt::Write for Writer<'_> {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        // SAFETY: `from_raw` was given a valid `struct seq_file` that no other thread accesses. The
        // text is readable.
        unsafe {
            bindings::seq_write(self.0.inner.get(), text.as_ptr().cast(), text.len());
        }
        Ok(())
    }
}

/// Write to a [`SeqFile`] with the ordinary Rust formatting syntax.
#[macro_export]
macro_rules! seq_print {
    ($m:expr, $($arg:tt)+) => (
        $m.call_printf($crate::prelude::fmt!($($arg)+))
    );
}
