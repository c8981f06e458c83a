// SPDX-License-Identifier: GPL-2.0

//! Hooks at the entry of kernel functions, by ftrace.
//!
//! A handler runs in the context of the hooked call, with preemption on or off (off as soon as
//! another tracer shares the function), so it must not sleep. It may send the call elsewhere.
//!
//! Neither a handler nor a function that it redirects to may take a sleeping lock or a `spinlock_t`.
//! On PREEMPT_RT a `spinlock_t` sleeps, and RCU-tasks takes a task that is blocked on one for a task
//! that has left: the module's code could then go while the task is still in it.
//!
//! C header: [`include/linux/ftrace.h`](srctree/include/linux/ftrace.h)

use crate::linux::{
    c,
    log::log, //
};
use core::marker::PhantomData;
use kernel::error::to_result;
use kernel::ffi::{
    c_int,
    c_long,
    c_ulong,
    c_void, //
};
use kernel::prelude::*;
use kernel::types::Opaque;

/// A kernel function that toa hooks.
///
/// # Safety
///
/// [`Hooked::enter`] must not sleep, and must take neither a sleeping lock nor a `spinlock_t`: the
/// removal of a hook relies on it.
pub(crate) unsafe trait Hooked {
    /// Its name, as in `/sys/kernel/tracing/available_filter_functions`.
    const FUNCTION: &'static str;

    /// Whether [`Hooked::enter`] redirects calls. The kernel allows one such user of a function at
    /// a time, and a live patch is one.
    const REDIRECTS: bool;

    /// Called at each entry of the function.
    fn enter(call: &mut Call);
}

/// A call of a hooked function, before its first instruction.
#[repr(transparent)]
pub(crate) struct Call(Opaque<c::ftrace_regs>);

impl Call {
    /// The first argument of the function, as it is in its register.
    pub(crate) fn argument0(&self) -> usize {
        self.register(c::TOA_FTRACE_ARG0)
    }

    /// The second argument.
    pub(crate) fn argument1(&self) -> usize {
        self.register(c::TOA_FTRACE_ARG1)
    }

    /// The third argument. Of a C `int` only the low half counts.
    pub(crate) fn argument2(&self) -> usize {
        self.register(c::TOA_FTRACE_ARG2)
    }

    /// Sends the call to another function, as if the caller had called that.
    ///
    /// # Safety
    ///
    /// [`Hooked::REDIRECTS`] must be true, and `function` must have the prototype of the hooked
    /// function and must not sleep: then it is not on any stack when [`Hook`] has been dropped.
    pub(crate) unsafe fn redirect(&mut self, function: *const c_void) {
        // SAFETY: The field exists (asserted in offsets.c), and the registers are exclusive to
        // this call. Setting it is what C's `ftrace_regs_set_instruction_pointer` does.
        unsafe {
            self.0
                .get()
                .byte_add(c::TOA_FTRACE_IP)
                .cast::<usize>()
                .write(function as usize)
        };
    }

    fn register(&self, offset: usize) -> usize {
        // SAFETY: The field exists (asserted in offsets.c). Arguments are saved for all ops under
        // CONFIG_DYNAMIC_FTRACE_WITH_ARGS, and for those with the flag of `Hook::flags` elsewhere.
        unsafe { self.0.get().byte_add(offset).cast::<usize>().read() }
    }
}

/// A hook that is in place. Dropping it removes it, and waits until no task runs its handler or a
/// function that it was redirected to.
///
/// # Invariants
///
/// `ops` is registered with ftrace.
pub(crate) struct Hook<H: Hooked> {
    ops: KBox<Opaque<c::ftrace_ops>>,
    _hooked: PhantomData<fn() -> H>,
}

// SAFETY: ftrace takes and drops its ops from any task; shared references do nothing.
unsafe impl<H: Hooked> Send for Hook<H> {}

// SAFETY: As above.
unsafe impl<H: Hooked> Sync for Hook<H> {}

impl<H: Hooked> Hook<H> {
    /// Hooks a function that every kernel has. May sleep.
    ///
    /// # Errors
    ///
    /// Each is in the log, with its remedy. `ENOENT`: the kernel has no such function. `EBUSY`:
    /// another module or a live patch redirects it, or ftrace is switched off.
    pub(crate) fn register() -> Result<Self> {
        Self::register_if_present()?.ok_or_else(|| {
            log!(
                ERR,
                "cannot hook {}: this kernel does not let ftrace see it; toa needs another \
                 version for this kernel (ENOENT)\n",
                H::FUNCTION
            );
            ENOENT
        })
    }

    /// Hooks a function that some kernels lack: [`Hook::register`], with `None` for no such function.
    pub(crate) fn register_if_present() -> Result<Option<Self>> {
        // Memory of kmalloc makes ftrace treat the ops as dynamic: it waits at unregistration for
        // all tasks that may be in the handler (`ftrace_shutdown`).
        let ops = KBox::new(
            Opaque::new(c::ftrace_ops::new(enter::<H>, Self::flags())),
            GFP_KERNEL,
        )?;
        // SAFETY: `ops` is not registered yet, and ours alone.
        let filtered = unsafe { set_filter(ops.get(), H::FUNCTION) };
        let registered = filtered.and_then(|()| {
            // SAFETY: The ops stay where they are, and keep their filter, until unregistered.
            to_result(unsafe { c::register_ftrace_function(ops.get()) })
        });
        if let Err(error) = registered {
            // A filter could be set, so ftrace was well: it broke while it set the hook, and does
            // not take back what it had done by then (`ftrace_startup`).
            if filtered.is_ok() && error == ENODEV {
                park_forever(H::FUNCTION, error.to_errno());
            }
            // SAFETY: `ops` is not registered, and nothing else uses its filter.
            unsafe { free_filter(ops.get()) };
            // EINVAL of a filter: it matches nothing.
            if filtered == Err(EINVAL) {
                return Ok(None);
            }
            return Err(Self::explain(error));
        }
        // INVARIANT: Just registered.
        Ok(Some(Self {
            ops,
            _hooked: PhantomData,
        }))
    }

    /// PERMANENT, so that `kernel.ftrace_enabled=0` cannot silently switch toa off.
    fn flags() -> usize {
        let redirects = if H::REDIRECTS {
            c::TOA_FTRACE_IPMODIFY
        } else {
            0
        };
        c::TOA_FTRACE_PERMANENT | c::TOA_FTRACE_REGISTERS | redirects
    }

    fn explain(error: Error) -> Error {
        let function = H::FUNCTION;
        if error == EBUSY {
            log!(
                ERR,
                "cannot hook {function}: another module or a live patch redirects it (see \
                 /sys/kernel/livepatch and lsmod), or ftrace is switched off (then: sysctl \
                 kernel.ftrace_enabled=1) (EBUSY)\n"
            );
        } else if error == ENOMEM {
            log!(
                ERR,
                "cannot hook {function}: no memory is left: free some, and load toa again (ENOMEM)\n"
            );
        } else {
            log!(
                ERR,
                "cannot hook {function}: ftrace refused it (error {}); look for an ftrace bug \
                 report in the kernel log\n",
                error.to_errno()
            );
        }
        error
    }
}

impl<H: Hooked> Drop for Hook<H> {
    fn drop(&mut self) {
        // SAFETY: By the type invariant. For dynamic ops this ends in `synchronize_rcu_tasks`
        // (`ftrace_shutdown`), which waits until each task that was runnable or preempted has
        // slept voluntarily or left the kernel: neither the handler nor what it redirects to
        // sleeps, so by then the task has left both. Softirqs over the idle task, which is no such
        // task, are waited for by the `synchronize_rcu` that it begins and ends with. On PREEMPT_RT
        // softirqs are tasks, and a task that blocks on a `spinlock_t` has slept for RCU-tasks'
        // purposes: neither takes one (see the head of this file).
        let error = unsafe { c::unregister_ftrace_function(self.ops.get()) };
        if error != 0 {
            park_forever(H::FUNCTION, error);
        }
        // SAFETY: Not registered any more, and ours alone.
        unsafe { free_filter(self.ops.get()) };
    }
}

/// Makes `function` the one function of `ops`. May sleep.
///
/// # Errors
///
/// `EINVAL`: no such function is in ftrace's list. `ENOMEM`.
///
/// # Safety
///
/// `ops` must not be registered, and nothing else may use its filter.
unsafe fn set_filter(ops: *mut c::ftrace_ops, function: &str) -> Result {
    // ftrace splits the name in place, as a C string, and ignores the length that it gets.
    let mut name = KVec::with_capacity(function.len() + 1, GFP_KERNEL)?;
    name.extend_from_slice(function.as_bytes(), GFP_KERNEL)?;
    name.push(0, GFP_KERNEL)?;
    // SAFETY: By the function's safety requirements; no name is read.
    to_result(unsafe { c::ftrace_set_filter(ops, core::ptr::null_mut(), 0, 1) })?;
    // SAFETY: By the function's safety requirements.
    let every_function = unsafe { filter_of(ops) };
    // SAFETY: By the function's safety requirements; `name` is a string that ends in NUL and may be
    // written to.
    to_result(unsafe { c::ftrace_set_filter(ops, name.as_mut_ptr(), function.len() as c_int, 1) })?;
    // ftrace returns success if it had no memory for the function's entry (`match_records` in
    // `kernel/trace/ftrace.c`). The filter is then empty, a constant of ftrace (`EMPTY_HASH`), and
    // stands for every function of the kernel.
    // SAFETY: By the function's safety requirements.
    if unsafe { filter_of(ops) } == every_function {
        return Err(ENOMEM);
    }
    Ok(())
}

/// The address of the filter of `ops`.
///
/// # Safety
///
/// `ops` must not be registered, and nothing else may use its filter.
unsafe fn filter_of(ops: *mut c::ftrace_ops) -> *const c_void {
    // SAFETY: The field exists (asserted in offsets.c), and by the function's safety requirements
    // nothing writes it now.
    unsafe {
        ops.byte_add(c::TOA_FTRACE_OPS_FILTER)
            .cast::<*const c_void>()
            .read()
    }
}

/// Frees the filter of `ops`.
///
/// # Safety
///
/// `ops` must not be registered, and nothing else may use its filter.
unsafe fn free_filter(ops: *mut c::ftrace_ops) {
    if c::TOA_HAS_FTRACE_FREE_FILTER != 0 {
        // SAFETY: By the function's safety requirements.
        unsafe { c::ftrace_free_filter(ops) };
    } else {
        // Without that export: ftrace frees a filter that it replaces (`ftrace_hash_move`), and the
        // filter without a name is a constant of ftrace (`EMPTY_HASH`). It fails only without memory
        // for an empty filter, as in a task that the kernel kills to free some. The old one is then lost.
        // SAFETY: By the function's safety requirements; no name is read.
        unsafe { c::ftrace_set_filter(ops, core::ptr::null_mut(), 0, 1) };
    }
}

/// ftrace only fails to set or to take away a hook after it has found itself broken and has shut
/// down for good. The hook may then stay, so our code must stay as well, and a module cannot refuse
/// to go.
fn park_forever(function: &str, error: c_int) {
    log!(
        EMERG,
        "cannot set or remove the hook on {function} (error {error}): ftrace has shut down after a \
         bug, see the kernel log; the module stays until the next boot\n"
    );
    loop {
        // SAFETY: Module init or exit: process context that may sleep. Idle, so that the wait is
        // neither load nor a hung task.
        unsafe { c::schedule_timeout_idle(c_long::MAX) };
    }
}

/// ftrace calls this at the entry of `H::FUNCTION`.
///
/// # Safety
///
/// `registers` must be those of the hooked call, exclusive to this handler while it runs.
unsafe extern "C" fn enter<H: Hooked>(
    _ip: c_ulong,
    _parent_ip: c_ulong,
    _ops: *mut c::ftrace_ops,
    registers: *mut c::ftrace_regs,
) {
    // SAFETY: By the function's safety requirements; `Call` is transparent.
    H::enter(unsafe { &mut *registers.cast() });
}
