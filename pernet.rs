// SPDX-License-Identifier: GPL-2.0

//! What toa keeps for each network namespace: its counters, and the file that shows them.
//!
//! C headers: [`include/net/net_namespace.h`](srctree/include/net/net_namespace.h),
//! [`include/net/netns/generic.h`](srctree/include/net/netns/generic.h)

use crate::{
    peers::Account,
    shares::Owner,
    stats::Stats,
    toa_bindings as bindings, //
};
use core::ptr;
use kernel::ffi::{
    c_int,
    c_void, //
};
use kernel::prelude::*;
use kernel::seq_file::SeqFile;
use kernel::sync::{
    atomic::Atomic,
    rcu, //
};
use kernel::types::Opaque;

/// Where a namespace's pointers to its modules' data keep ours. The kernel chooses it when the
/// operations are registered, which is before any hook, and so before any reader.
static ID: Atomic<u32> = Atomic::new(0);

/// The name below `/proc/net`.
const STATS_FILE: &CStr = c"toa_stats";

/// A network namespace, by shared reference.
///
/// # Invariants
///
/// The namespace stays while the reference lives, and toa's state in it has been made and not been
/// dropped: [`Pernet`] is registered.
#[repr(transparent)]
pub(crate) struct Net(Opaque<bindings::net>);

impl Net {
    /// # Safety
    ///
    /// The type invariant must be true of `net` during `'a`.
    pub(crate) unsafe fn from_raw<'a>(net: *const c_void) -> &'a Self {
        // INVARIANT: By the function's safety requirements.
        // SAFETY: As above; `Net` is transparent.
        unsafe { &*net.cast() }
    }

    /// The counters. Any context.
    pub(crate) fn stats(&self, rcu: &rcu::Guard) -> &Stats {
        &self.state(rcu).stats
    }

    /// The account of the records that the namespace holds. Any context.
    pub(crate) fn account(&self, rcu: &rcu::Guard) -> &Account {
        &self.state(rcu).account
    }

    /// C's `struct net *`.
    pub(crate) fn as_ptr(&self) -> *mut bindings::net {
        self.0.get()
    }

    fn state(&self, rcu: &rcu::Guard) -> &State {
        // SAFETY: By the type invariant the state is there and stays.
        unsafe { &*state(self.0.get(), rcu) }
    }
}

const _: () = assert!(
    size_of::<bindings::pernet_operations>() == bindings::TOA_SIZEOF_PERNET_OPERATIONS as usize
);

/// The state that every namespace has.
struct State {
    stats: Stats,
    account: Account,
}

/// The kernel allocates the state by `kzalloc`.
const _: () = assert!(align_of::<State>() <= bindings::TOA_KMALLOC_MINALIGN as usize);

/// toa's state, present in all namespaces while this lives.
///
/// # Invariants
///
/// `operations` is registered.
pub(crate) struct Pernet {
    operations: KBox<Opaque<bindings::pernet_operations>>,
}

// SAFETY: Registration and its end may happen in different tasks; shared references do nothing.
unsafe impl Send for Pernet {}

// SAFETY: As above.
unsafe impl Sync for Pernet {}

impl Pernet {
    /// Makes the state in all namespaces, those that are there and those to come. May sleep.
    pub(crate) fn register() -> Result<Self> {
        let operations = KBox::new(
            Opaque::new(bindings::pernet_operations {
                init: Some(init),
                exit: Some(exit),
                id: ID.as_ptr(),
                size: size_of::<State>(),
                ..Default::default()
            }),
            GFP_KERNEL,
        )?;
        // SAFETY: The operations stay where they are until they are unregistered; `init` and `exit`
        // keep to their contract.
        kernel::error::to_result(unsafe { bindings::register_pernet_subsys(operations.get()) })?;
        // INVARIANT: Just registered.
        Ok(Self { operations })
    }
}

impl Drop for Pernet {
    fn drop(&mut self) {
        // SAFETY: By the type invariant. Removing the files waits for their readers.
        unsafe { bindings::unregister_pernet_subsys(self.operations.get()) };
    }
}

/// C's `net_generic(net, ID)`.
///
/// # Safety
///
/// `net` must be a namespace in which the kernel has made our memory and not freed it.
unsafe fn state(net: *mut bindings::net, _rcu: &rcu::Guard) -> *mut State {
    // SAFETY: `net->gen` is a `struct net_generic *`, replaced under RCU when the array grows, and
    // then freed after a grace period; it begins with the array of pointers (asserted in
    // toa_bindings.h). `ID` is below its length, and constant since the kernel chose it.
    unsafe {
        let generic: *const *mut State = net
            .byte_add(bindings::TOA_NET_GEN as usize)
            .cast::<*const *mut State>()
            .read_volatile();
        generic.add(ID.as_ptr().read() as usize).read()
    }
}

/// The owner of a namespace, which never changes.
///
/// # Safety
///
/// `net` must be a live namespace.
unsafe fn owner(net: *mut bindings::net) -> Owner {
    if ptr::eq(net, &raw const bindings::init_net) {
        return Owner::First;
    }
    // SAFETY: By the function's safety requirements; the pointer is set when the namespace is made.
    let user_ns = unsafe {
        net.byte_add(bindings::TOA_NET_USER_NS as usize)
            .cast::<*const bindings::user_namespace>()
            .read()
    };
    if ptr::eq(user_ns, &raw const bindings::init_user_ns) {
        Owner::Host
    } else {
        Owner::Foreign
    }
}

/// Called for each namespace at registration, and for each new one, in process context.
///
/// # Safety
///
/// `net` must be a namespace for which the kernel has allocated the memory that [`Pernet`] asks
/// for, uninitialised to us.
unsafe extern "C" fn init(net: *mut bindings::net) -> c_int {
    kernel::error::from_result(|| {
        let stats = Stats::new()?;
        // SAFETY: By the function's safety requirements.
        let account = Account::new(unsafe { owner(net) });
        // SAFETY: By the function's safety requirements the memory is there, of `State`'s size.
        let state = unsafe { state(net, &rcu::read_lock()) };
        // SAFETY: As above, and of kmalloc's alignment, which is enough for a `State` (asserted at
        // the type). The namespace has no socket yet, or toa no hook, so nothing reads it.
        unsafe { state.write(State { stats, account }) };
        // SAFETY: `proc_net` is the namespace's directory, `show` is of the type asked for.
        let file = unsafe {
            bindings::proc_create_net_single(
                STATS_FILE.as_ptr().cast(),
                0o444,
                net.byte_add(bindings::TOA_NET_PROC_NET as usize)
                    .cast::<*mut bindings::proc_dir_entry>()
                    .read(),
                Some(show),
                ptr::null_mut(),
            )
        };
        if file.is_null() {
            // SAFETY: Written above; `exit` is not called for a namespace whose `init` failed.
            unsafe { state.drop_in_place() };
            return Err(ENOMEM);
        }
        Ok(0)
    })
}

/// Called for each namespace that ends, and for all at the end of the registration.
///
/// # Safety
///
/// [`init`] must have succeeded for `net`, and no packet, no socket of the namespace's own and no
/// hook may reach the state any more.
unsafe extern "C" fn exit(net: *mut bindings::net) {
    // SAFETY: Made by `init`. Waits until nobody reads the file.
    unsafe {
        bindings::remove_proc_entry(
            STATS_FILE.as_ptr().cast(),
            net.byte_add(bindings::TOA_NET_PROC_NET as usize)
                .cast::<*mut bindings::proc_dir_entry>()
                .read(),
        )
    };
    // SAFETY: Made by `init`.
    let state = unsafe { state(net, &rcu::read_lock()) };
    // SAFETY: By the function's safety requirements nobody else has it. The RCU section of the
    // look-up has ended: what frees per-CPU memory may sleep on PREEMPT_RT.
    unsafe { state.drop_in_place() };
}

/// Called when somebody reads `/proc/net/toa_stats`.
///
/// # Safety
///
/// `seq` must be the file that [`init`] made, opened, and exclusive to this call.
unsafe extern "C" fn show(seq: *mut bindings::seq_file, _: *mut c_void) -> c_int {
    // SAFETY: A file of `proc_create_net_single` has its namespace, which it holds, as the private
    // pointer. The file is removed before the state is dropped.
    let net = unsafe {
        Net::from_raw(
            seq.byte_add(bindings::TOA_SEQ_PRIVATE as usize)
                .cast::<*const c_void>()
                .read(),
        )
    };
    // SAFETY: By the function's safety requirements.
    let seq = unsafe { SeqFile::from_raw(seq.cast()) };
    let stats = net.stats(&rcu::read_lock());
    stats.show(seq);
    0
}
