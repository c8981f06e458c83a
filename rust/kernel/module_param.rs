// SPDX-License-Identifier: GPL-2.0

//! Support for module parameters.
//!
//! C header: [`include/linux/moduleparam.h`](srctree/include/linux/moduleparam.h)

use crate::{
    bindings,
    ffi::{
        c_char,
        c_void, //
    }, //
};
use core::{
    cell::UnsafeCell,
    mem::offset_of, //
};

/// Types that can be used for module parameters.
///
/// # Safety
///
/// `OPS` must be the kernel's operations for a variable of the C type that corresponds to `Self`.
pub unsafe trait ModuleParam: Sized + Copy {
    /// The operations that parse a parameter.
    const OPS: *const bindings::kernel_param_ops;
}

// SAFETY: `unsigned int` is `u32`.
unsafe impl ModuleParam for u32 {
    const OPS: *const bindings::kernel_param_ops = &raw const bindings::param_ops_uint;
}

// SAFETY: `int` is `i32`.
unsafe impl ModuleParam for i32 {
    const OPS: *const bindings::kernel_param_ops = &raw const bindings::param_ops_int;
}

/// The name of a parameter's type in `modinfo`.
#[doc(hidden)]
#[macro_export]
macro_rules! parmtype {
    (u32) => {
        "uint"
    };
    (i32) => {
        "int"
    };
}

/// A wrapper for kernel parameters.
///
/// # Invariants
///
/// Only the kernel writes the value, before it calls the module's init.
pub struct ModuleParamAccess<T>(UnsafeCell<T>);

// SAFETY: By the type invariant the value is constant while the module's code runs.
unsafe impl<T: Sync> Sync for ModuleParamAccess<T> {}

impl<T: ModuleParam> ModuleParamAccess<T> {
    #[doc(hidden)]
    pub const fn new(default: T) -> Self {
        // INVARIANT: The permissions of `KernelParam` give no file in sysfs, so the kernel writes
        // the value only when it parses the arguments of the load.
        Self(UnsafeCell::new(default))
    }

    /// Get a copy of the parameter value.
    ///
    /// Returns the value supplied at module load time, or the default value if the parameter has
    /// not been set.
    #[inline]
    pub fn value(&self) -> T {
        // SAFETY: By the type invariant the value is constant now.
        unsafe { self.0.get().read() }
    }
}

/// C's `struct kernel_param`, in the section `__param`.
#[doc(hidden)]
#[repr(C)]
pub struct KernelParam {
    name: *const c_char,
    module: *mut bindings::module,
    ops: *const bindings::kernel_param_ops,
    perm: u16,
    level: i8,
    flags: u8,
    arg: *mut c_void,
}

const _: () = assert!(
    size_of::<KernelParam>() == bindings::TOA_SIZEOF_KERNEL_PARAM
        && offset_of!(KernelParam, module) == bindings::TOA_KERNEL_PARAM_MOD
        && offset_of!(KernelParam, ops) == bindings::TOA_KERNEL_PARAM_OPS
        && offset_of!(KernelParam, perm) == bindings::TOA_KERNEL_PARAM_PERM
        && offset_of!(KernelParam, level) == bindings::TOA_KERNEL_PARAM_LEVEL
        && offset_of!(KernelParam, flags) == bindings::TOA_KERNEL_PARAM_FLAGS
        && offset_of!(KernelParam, arg) == bindings::TOA_KERNEL_PARAM_ARG
);

// SAFETY: Only C code accesses the structure, and serialises that itself.
unsafe impl Sync for KernelParam {}

impl KernelParam {
    /// The parameter `name`, a string that ends in NUL. No file in sysfs shows it.
    #[doc(hidden)]
    pub const fn new<T: ModuleParam>(
        name: &'static str,
        access: &'static ModuleParamAccess<T>,
    ) -> Self {
        Self {
            name: name.as_ptr(),
            module: &raw mut bindings::__this_module,
            ops: T::OPS,
            perm: 0,
            level: -1,
            flags: 0,
            arg: access.0.get().cast(),
        }
    }
}
