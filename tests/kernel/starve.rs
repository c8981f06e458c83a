// SPDX-License-Identifier: GPL-2.0

//! No memory for toa's records: the kernel's function that allocates from a cache returns null for a
//! cache of objects of a record's size, with the flags of toa's requests.

use crate::linux::{
    c,
    ftrace::{
        Call,
        Hook,
        Hooked, //
    },
    node::Node, //
};
use core::mem::size_of;
use core::ptr;
use kernel::ffi::{
    c_uint,
    c_void, //
};
use kernel::prelude::*;

extern "C" {
    /// The bytes of a cache's objects.
    fn kmem_cache_size(s: *mut c::kmem_cache) -> c_uint;
}

/// Declares the functions that may allocate a record, with a condition on their arguments.
macro_rules! starved {
    ($($type:ident: $function:literal if |$call:ident| $condition:expr;)+) => {
        $(
            struct $type;

            // SAFETY: It does not sleep.
            unsafe impl Hooked for $type {
                const FUNCTION: &'static str = $function;
                const REDIRECTS: bool = true;

                fn enter($call: &mut Call) {
                    if $condition {
                        // SAFETY: The function only returns, and callers of an allocation take null.
                        unsafe { $call.redirect(no_memory as *const c_void) };
                    }
                }
            }
        )+

        /// The hooks on those of the functions that this kernel has.
        #[allow(non_snake_case)]
        pub(crate) struct Starve {
            $($type: Option<Hook<$type>>,)+
        }

        impl Starve {
            /// Sets the hooks. May sleep.
            pub(crate) fn begin() -> Result<Self> {
                let starve = Self { $($type: Hook::register_if_present()?,)+ };
                match [$(starve.$type.is_some()),+].contains(&true) {
                    true => Ok(starve),
                    false => Err(ENOENT),
                }
            }
        }
    };
}

starved! {
    CacheAllocNoprof: "kmem_cache_alloc_noprof" if |call| is_record(call.argument0(), call.argument1());
    CacheAlloc: "kmem_cache_alloc" if |call| is_record(call.argument0(), call.argument1());
}

/// Whether a request is for a record: nothing else asks for objects of that size with these flags.
fn is_record(cache: usize, flags: usize) -> bool {
    let flags_of_records = [c::TOA_GFP_SOFTIRQ, c::TOA_GFP_MAY_SLEEP];
    // SAFETY: The function is called with a live cache.
    let size = unsafe { kmem_cache_size(cache as *mut c::kmem_cache) };
    size as usize == size_of::<Node>() && flags_of_records.contains(&flags)
}

/// The allocation that fails.
extern "C" fn no_memory() -> *mut c_void {
    ptr::null_mut()
}
