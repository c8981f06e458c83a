// SPDX-License-Identifier: GPL-2.0

//! Calls for processors that went offline.
//!
//! C header: [`include/linux/cpuhotplug.h`](srctree/include/linux/cpuhotplug.h)

use crate::linux::{
    c,
    percpu::PossibleCpu, //
};
use core::marker::PhantomData;
use core::ptr;
use core::sync::atomic::{
    AtomicPtr,
    Ordering, //
};
use kernel::error::to_result;
use kernel::ffi::{
    c_int,
    c_uint, //
};
use kernel::prelude::*;

/// A value that is called for each processor that went offline.
pub(crate) trait Offline: Sync + 'static {
    /// The place of the registered value.
    fn registered() -> &'static Registered<Self>
    where
        Self: Sized;

    /// The processor runs nothing any more. Process context that may sleep, on another one.
    fn went_offline(&self, cpu: PossibleCpu);
}

/// The value that C's callback finds: C passes the processor's number only.
pub(crate) struct Registered<T>(AtomicPtr<T>);

impl<T> Registered<T> {
    /// No value.
    pub(crate) const fn none() -> Self {
        Self(AtomicPtr::new(ptr::null_mut()))
    }
}

/// The registration of a value. Dropping it ends the calls, and waits for one that runs.
///
/// # Invariants
///
/// `state` is registered with the function of `T`, and [`Offline::registered`] points to a value that
/// stays until this is dropped.
pub(crate) struct Registration<T: Offline> {
    state: c_int,
    _value: PhantomData<T>,
}

impl<T: Offline> Registration<T> {
    /// Registers the value. May sleep.
    ///
    /// # Errors
    ///
    /// `EBUSY` if another value of the type is registered, and those of C's `cpuhp_setup_state`.
    ///
    /// # Safety
    ///
    /// The value must stay where it is until the registration is dropped.
    pub(crate) unsafe fn new(value: &T) -> Result<Self> {
        let place = &T::registered().0;
        place
            .compare_exchange(
                ptr::null_mut(),
                ptr::from_ref(value).cast_mut(),
                Ordering::Release,
                Ordering::Relaxed,
            )
            .map_err(|_| EBUSY)?;
        // SAFETY: The name is static, and the function belongs to the module, which removes it before it goes.
        // There is nothing to call for the processors that are online.
        let state = unsafe {
            c::__cpuhp_setup_state(
                c::TOA_CPUHP_BP_PREPARE_DYN as c_int,
                c"net/toa:offline".as_ptr().cast(),
                false,
                None,
                Some(went_offline::<T>),
                false,
            )
        };
        if let Err(error) = to_result(state.min(0)) {
            place.store(ptr::null_mut(), Ordering::Release);
            return Err(error);
        }
        // INVARIANT: Just registered, and by the function's safety requirements.
        Ok(Self {
            state,
            _value: PhantomData,
        })
    }
}

impl<T: Offline> Drop for Registration<T> {
    fn drop(&mut self) {
        // SAFETY: By the type invariant. The call takes the lock under which the function is called.
        unsafe { c::__cpuhp_remove_state(self.state, false) };
        T::registered().0.store(ptr::null_mut(), Ordering::Release);
    }
}

/// Called when a processor has gone offline.
///
/// # Safety
///
/// As C calls it: while the [`Registration`] exists, or is made.
unsafe extern "C" fn went_offline<T: Offline>(cpu: c_uint) -> c_int {
    // SAFETY: By the invariant of `Registration`, the pointer is null or to a value that stays.
    let value = unsafe { T::registered().0.load(Ordering::Acquire).as_ref() };
    let cpu = u16::try_from(cpu).ok().and_then(PossibleCpu::from_number);
    if let (Some(value), Some(cpu)) = (value, cpu) {
        value.went_offline(cpu);
    }
    0
}
