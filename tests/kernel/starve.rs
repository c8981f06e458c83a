// SPDX-License-Identifier: GPL-2.0

//! No memory for toa's records: the functions of the kernel that allocate them return null for a
//! request of a record's size and flags.

use crate::linux::{
    c,
    ftrace::{
        Call,
        Hook,
        Hooked, //
    }, //
};
use core::ptr;
use kernel::ffi::c_void;
use kernel::prelude::*;

/// The bytes of a record with its node.
const RECORD: usize = 96;

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
    // The stand-in crate's allocation: the size and the flags.
    KmallocNoprof: "__kmalloc_noprof" if |call| is_record(call.argument0(), call.argument1());
    Kmalloc: "__kmalloc" if |call| is_record(call.argument0(), call.argument1());
    // The kernel crate's: the old object, the new size.
    KreallocNodeAlign: "krealloc_node_align_noprof" if |call| call.argument1() == RECORD;
    Krealloc: "krealloc_noprof" if |call| call.argument1() == RECORD;
    // On PREEMPT_RT: the size.
    KmallocNolock: "_kmalloc_nolock_noprof" if |call| call.argument0() == RECORD;
}

/// Whether a request is for a record: nothing else asks for that size with these flags.
fn is_record(size: usize, flags: usize) -> bool {
    size == RECORD && flags as u32 == c::TOA_GFP_OF_RECORDS as u32
}

/// The allocation that fails.
extern "C" fn no_memory() -> *mut c_void {
    ptr::null_mut()
}
