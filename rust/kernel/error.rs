// SPDX-License-Identifier: GPL-2.0

//! Kernel errors.
//!
//! C header: [`include/uapi/asm-generic/errno-base.h`](srctree/include/uapi/asm-generic/errno-base.h)

use crate::{
    alloc::AllocError,
    bindings,
    ffi::c_int, //
};
use core::num::NonZeroI32;

/// Contains the C-compatible error codes.
pub mod code {
    use crate::bindings;

    macro_rules! declare_err {
        ($($name:ident, $doc:literal;)+) => {$(
            #[doc = $doc]
            pub const $name: super::Error =
                match super::Error::try_from_errno(-(bindings::$name as i32)) {
                    Some(error) => error,
                    None => panic!("evaluated by the compiler"),
                };
        )+};
    }

    declare_err! {
        EPERM, "Operation not permitted.";
        ENOENT, "No such file or directory.";
        E2BIG, "Argument list too long.";
        ENOMEM, "Out of memory.";
        EFAULT, "Bad address.";
        EBUSY, "Device or resource busy.";
        ENODEV, "No such device.";
        EINVAL, "Invalid argument.";
    }
}

/// Generic integer kernel error.
///
/// # Invariants
///
/// The value is a valid `errno` (i.e. `>= -MAX_ERRNO && < 0`).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Error(NonZeroI32);

impl Error {
    /// Creates an [`Error`] from a kernel error code. Any other number becomes `EINVAL`.
    ///
    /// The kernel's crate warns in the log about such a number.
    pub fn from_errno(errno: c_int) -> Error {
        Self::try_from_errno(errno).unwrap_or(code::EINVAL)
    }

    /// Creates an [`Error`] from a kernel error code, or returns `None` for any other number.
    const fn try_from_errno(errno: c_int) -> Option<Error> {
        if errno < -(bindings::MAX_ERRNO as i32) || errno >= 0 {
            return None;
        }
        match NonZeroI32::new(errno) {
            // INVARIANT: The check above ensures the type invariant.
            Some(errno) => Some(Self(errno)),
            None => None,
        }
    }

    /// Returns the kernel error code.
    pub fn to_errno(self) -> c_int {
        self.0.get()
    }
}

impl From<AllocError> for Error {
    fn from(_: AllocError) -> Error {
        code::ENOMEM
    }
}

/// A [`Result`] with an [`Error`] error type.
pub type Result<T = (), E = Error> = core::result::Result<T, E>;

/// Converts an integer as returned by a C kernel function to a [`Result`].
///
/// If the integer is negative, an [`Err`] with an [`Error`] as given by [`Error::from_errno`] is
/// returned. Otherwise the result is `Ok(())`.
pub fn to_result(errno: c_int) -> Result {
    if errno < 0 {
        Err(Error::from_errno(errno))
    } else {
        Ok(())
    }
}

/// Transforms a kernel "error pointer" to a normal pointer: C's `IS_ERR` and `PTR_ERR`.
pub fn from_err_ptr<T>(pointer: *mut T) -> Result<*mut T> {
    let value = pointer.addr() as isize;
    if (-(bindings::MAX_ERRNO as isize)..0).contains(&value) {
        return Err(Error::from_errno(value as c_int));
    }
    Ok(pointer)
}

/// Calls a closure that returns a [`Result`] and converts the result to the value that a C callback
/// returns.
pub fn from_result<T, F>(f: F) -> T
where
    T: From<i16>,
    F: FnOnce() -> Result<T>,
{
    match f() {
        Ok(value) => value,
        // No `errno` is smaller than `-MAX_ERRNO`, which fits.
        Err(error) => T::from(error.to_errno() as i16),
    }
}

const _: () = assert!(bindings::MAX_ERRNO <= -(i16::MIN as i32) as usize);
