// SPDX-License-Identifier: GPL-2.0

//! Bugs of the kinds that the debug kernels report: the tests of their alarms.

use crate::linux::raw_spinlock::{
    LockClass,
    RawSpinLocks, //
};
use core::mem::forget;
use kernel::prelude::*;

/// The size of the planted memory, in 8-byte words.
const WORDS: usize = 12;

type Memory = [u64; WORDS];

/// Objects of the planted kinds. More than one, because a stale register or stack slot may point to
/// one of them.
const OBJECTS: usize = 16;

/// Objects that are allocated after one was freed, so that one of them gets its memory.
const REUSED: usize = 256;

static FIRST: LockClass = LockClass::new(c"toa_test_first");
static SECOND: LockClass = LockClass::new(c"toa_test_second");

/// Plants the bug of that number in the module's documentation.
///
/// # Errors
///
/// `EINVAL`: there is none of that number. `ENOMEM`.
pub(crate) fn plant(number: u32) -> Result {
    match number {
        1 => lock_inversion(),
        2 => use_after_free(),
        3 => leak(),
        4 => {
            wrong_prototype();
            Ok(())
        }
        _ => Err(EINVAL),
    }
}

/// Takes two locks in one order, then in the other.
fn lock_inversion() -> Result {
    let first = RawSpinLocks::new(1, &FIRST)?;
    let second = RawSpinLocks::new(1, &SECOND)?;
    for (outer, inner) in [(&first, &second), (&second, &first)] {
        let _outer = outer.get(0).ok_or(EINVAL)?.lock();
        let _inner = inner.get(0).ok_or(EINVAL)?.lock();
    }
    Ok(())
}

/// Writes to freed memory, and allocates it again.
fn use_after_free() -> Result {
    let stale = core::ptr::from_mut(KBox::leak(KBox::new([0_u64; WORDS], GFP_KERNEL)?));
    // SAFETY: The memory comes from `leak`, and nothing else has its address.
    drop(unsafe { KBox::<Memory>::from_raw(stale) });
    // SAFETY: None, that is the bug. The word is not the one in which the allocator keeps its list.
    unsafe {
        stale
            .cast::<u64>()
            .wrapping_add(WORDS - 1)
            .write_volatile(1)
    };
    let mut reused = KVVec::new();
    for _ in 0..REUSED {
        reused.push(KBox::new([0_u64; WORDS], GFP_KERNEL)?, GFP_KERNEL)?;
    }
    Ok(())
}

/// Loses the address of memory.
fn leak() -> Result {
    for _ in 0..OBJECTS {
        forget(KBox::new([0_u64; WORDS], GFP_KERNEL)?);
    }
    Ok(())
}

/// Calls a function through a pointer of another prototype.
fn wrong_prototype() {
    extern "C" fn returns(number: u64) -> u64 {
        number
    }
    let right: extern "C" fn(u64) -> u64 = returns;
    // SAFETY: None, that is the bug. Both prototypes pass and return by the same registers.
    let wrong: extern "C" fn(*const u8) -> u64 = unsafe { core::mem::transmute(right) };
    core::hint::black_box(core::hint::black_box(wrong)(core::ptr::null()));
}
