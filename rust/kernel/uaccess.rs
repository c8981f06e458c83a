// SPDX-License-Identifier: GPL-2.0

//! Slices to user space memory regions.
//!
//! C header: [`include/linux/uaccess.h`](srctree/include/linux/uaccess.h)

use crate::{
    bindings,
    error::{
        code::EFAULT,
        Result, //
    },
    ffi::c_void,
    transmute::AsBytes, //
};

/// A pointer into userspace.
///
/// This is the Rust equivalent to C pointers tagged with `__user`.
#[repr(transparent)]
#[derive(Copy, Clone)]
pub struct UserPtr(*mut c_void);

impl UserPtr {
    /// Create a `UserPtr` from a pointer representing the userspace address.
    #[inline]
    pub fn from_ptr(addr: *mut c_void) -> Self {
        Self(addr)
    }
}

/// A pointer to an area in userspace memory.
///
/// All methods are safe: attempting to write to bad addresses, out of the bound of the slice or
/// unmapped, returns `EFAULT`.
pub struct UserSlice {
    ptr: UserPtr,
    length: usize,
}

impl UserSlice {
    /// Constructs a user slice from a raw pointer and a length in bytes.
    ///
    /// No bounds or permissions are checked here: the methods that access the memory do.
    pub fn new(ptr: UserPtr, length: usize) -> Self {
        UserSlice { ptr, length }
    }

    /// Constructs a [`UserSliceWriter`].
    pub fn writer(self) -> UserSliceWriter {
        UserSliceWriter {
            ptr: self.ptr,
            length: self.length,
        }
    }
}

/// A writer for [`UserSlice`].
///
/// Used to incrementally write into the user slice.
pub struct UserSliceWriter {
    ptr: UserPtr,
    length: usize,
}

impl UserSliceWriter {
    /// Writes the provided Rust value to this userspace pointer.
    ///
    /// # Errors
    ///
    /// `EFAULT`, if the write happens on a bad address or goes out of bounds of this
    /// [`UserSliceWriter`]. Part of the value may be written then.
    pub fn write<T: AsBytes>(&mut self, value: &T) -> Result {
        let len = size_of::<T>();
        let left = self.length.checked_sub(len).ok_or(EFAULT)?;
        // SAFETY: The reference points to `len` bytes that are initialised: `T` is `AsBytes`.
        // `_copy_to_user` checks the address in user space itself, and handles faults.
        let res = unsafe { bindings::_copy_to_user(self.ptr.0, (&raw const *value).cast(), len) };
        if res != 0 {
            return Err(EFAULT);
        }
        self.ptr = UserPtr(self.ptr.0.wrapping_byte_add(len));
        self.length = left;
        Ok(())
    }
}
