// SPDX-License-Identifier: GPL-2.0

//! Data that a module keeps in each network namespace, with the files in `/proc/net` that show it.
//!
//! C headers: [`include/net/net_namespace.h`](srctree/include/net/net_namespace.h),
//! [`include/net/netns/generic.h`](srctree/include/net/netns/generic.h)

use crate::linux::{
    c,
    proc_net::{
        ProcFile,
        Table,
        Text, //
    }, //
};
use core::marker::PhantomData;
use core::ptr;
use kernel::ffi::{
    c_int,
    c_void, //
};
use kernel::prelude::*;
use kernel::sync::{
    atomic::{
        Atomic,
        Relaxed, //
    },
    rcu, //
};
use kernel::types::Opaque;

/// Data that a module keeps in each network namespace. [`net_id!`](net_id) gives the type its index.
pub(crate) trait PerNet: HasNetId + Sized + Send + Sync + 'static {
    /// A file that shows the data: made after it, removed before it.
    type Text: Text<PerNet = Self>;

    /// Another file that shows the data: made after it, removed before it.
    type Table: Table<PerNet = Self>;

    /// Makes the data of `net`. Process context; may sleep.
    fn new(net: &Net<()>) -> Result<Self>;
}

/// A type with an index.
///
/// # Safety
///
/// `id` must return the same static at each call, and that static must be of no other type.
pub(crate) unsafe trait HasNetId: Sized {
    /// The static that holds the type's index.
    fn id() -> &'static NetId<Self>;
}

/// Gives a type the static for its index: `net_id!(Type)`.
macro_rules! net_id {
    ($data:ty) => {
        // SAFETY: The static is this implementation's own.
        unsafe impl $crate::linux::pernet::HasNetId for $data {
            #[inline(always)]
            fn id() -> &'static $crate::linux::pernet::NetId<Self> {
                static ID: $crate::linux::pernet::NetId<$data> =
                    $crate::linux::pernet::NetId::unset();
                &ID
            }
        }
    };
}

pub(crate) use net_id;

/// The index of `T` in the array of a namespace's pointers (`struct net_generic`). The kernel
/// chooses it at the registration, before it calls anything that reads it.
pub(crate) struct NetId<T> {
    id: Atomic<u32>,
    /// The registrations of the type: one at most.
    registrations: Atomic<i32>,
    _data: PhantomData<fn() -> T>,
}

impl<T> NetId<T> {
    /// The index before the registration.
    pub(crate) const fn unset() -> Self {
        Self {
            id: Atomic::new(0),
            registrations: Atomic::new(0),
            _data: PhantomData,
        }
    }

    #[inline(always)]
    fn index(&self) -> usize {
        // SAFETY: The pointer is valid. The kernel writes the index once, before any reader runs.
        unsafe { self.id.as_ptr().read() as usize }
    }
}

/// A `struct net`, by shared reference.
///
/// # Invariants
///
/// - The namespace stays while the reference lives.
/// - If `T` is a [`PerNet`], the namespace has a `T`, which stays while the reference lives.
#[repr(transparent)]
pub(crate) struct Net<T>(Opaque<c::net>, PhantomData<T>);

impl<T> Net<T> {
    /// # Safety
    ///
    /// The type invariants must be true of `net` during `'a`.
    pub(crate) unsafe fn from_raw<'a>(net: *const c_void) -> &'a Self {
        // INVARIANT: By the function's safety requirements.
        // SAFETY: As above; `Net` is transparent.
        unsafe { &*net.cast() }
    }

    /// C's `struct net *`.
    pub(crate) fn as_ptr(&self) -> *mut c::net {
        self.0.get()
    }

    /// Whether this is the first namespace, `init_net`.
    pub(crate) fn is_first(&self) -> bool {
        ptr::eq(self.as_ptr(), &raw const c::init_net)
    }

    /// Whether the initial user namespace owns this one: root of the host made it. The owner never
    /// changes.
    pub(crate) fn is_of_host(&self) -> bool {
        // SAFETY: By the type invariant; the pointer is set when the namespace is made.
        let user_ns = unsafe {
            self.as_ptr()
                .byte_add(c::TOA_NET_USER_NS)
                .cast::<*const c::user_namespace>()
                .read()
        };
        ptr::eq(user_ns, &raw const c::init_user_ns)
    }

    /// The number by which `lsns` and `/proc/PID/ns/net` name the namespace. No other namespace has it
    /// while this one lives.
    pub(crate) fn number(&self) -> u32 {
        // SAFETY: By the type invariant; the number is set when the namespace is made.
        unsafe { self.as_ptr().byte_add(c::TOA_NET_INUM).cast::<u32>().read() }
    }

    /// The namespace's directory `/proc/net`. Files in it belong to root of the namespace, as the
    /// directory does, if root is mapped when the namespace is made (`proc_net_ns_init`).
    pub(super) fn proc_net(&self) -> *mut c::proc_dir_entry {
        // SAFETY: By the type invariant; the pointer is set when the namespace is made.
        unsafe {
            self.as_ptr()
                .byte_add(c::TOA_NET_PROC_NET)
                .cast::<*mut c::proc_dir_entry>()
                .read()
        }
    }
}

impl<T: PerNet> Net<T> {
    /// The module's data in this namespace, which stays as long as the namespace. Any context. RCU
    /// protects the way to the data only.
    #[inline(always)]
    pub(crate) fn data(&self, rcu: &rcu::Guard) -> &T {
        // SAFETY: By the type invariants the namespace has a `T`, which stays.
        unsafe { &(*slot::<T>(self.as_ptr(), rcu)).data }
    }
}

/// The memory that the kernel allocates for `T` in each namespace. The files go first: they show
/// the data.
struct Slot<T: PerNet> {
    files: Option<Files>,
    data: T,
}

/// The files that show a namespace's data.
struct Files {
    _text: ProcFile,
    _table: ProcFile,
}

impl Files {
    /// Makes the files. May sleep.
    ///
    /// # Safety
    ///
    /// The files must be dropped before the data of `net`.
    unsafe fn new<T: PerNet>(net: &Net<T>) -> Result<Self> {
        // SAFETY: By the function's safety requirements.
        unsafe {
            Ok(Self {
                _text: ProcFile::text::<T::Text>(net)?,
                _table: ProcFile::table::<T::Table>(net)?,
            })
        }
    }
}

/// `T` in all namespaces while this lives.
///
/// # Invariants
///
/// `operations` is registered.
pub(crate) struct Registration<T: PerNet> {
    operations: KBox<Opaque<c::pernet_operations>>,
    _data: PhantomData<T>,
}

// SAFETY: Registration and its end may happen in different tasks; shared references do nothing.
unsafe impl<T: PerNet> Send for Registration<T> {}

// SAFETY: As above.
unsafe impl<T: PerNet> Sync for Registration<T> {}

impl<T: PerNet> Registration<T> {
    /// Makes `T` in all namespaces, present and future. May sleep.
    ///
    /// # Errors
    ///
    /// `EBUSY` if `T` is registered already, `ENOMEM`, and those of [`PerNet::new`].
    pub(crate) fn register() -> Result<Self> {
        // The kernel allocates each slot by `kzalloc`.
        const { assert!(align_of::<Slot<T>>() <= c::TOA_KMALLOC_MINALIGN) };
        let operations = KBox::new(
            Opaque::new(c::pernet_operations::new(
                init::<T>,
                exit::<T>,
                T::id().id.as_ptr(),
                size_of::<Slot<T>>(),
            )),
            GFP_KERNEL,
        )?;
        // The kernel overwrites the index even if it then fails.
        if T::id().registrations.fetch_add(1, Relaxed) != 0 {
            T::id().registrations.fetch_sub(1, Relaxed);
            return Err(EBUSY);
        }
        // SAFETY: The operations stay where they are until they are unregistered; `init` and `exit`
        // keep to their contract.
        kernel::error::to_result(unsafe { c::register_pernet_subsys(operations.get()) })
            .inspect_err(|_| {
                T::id().registrations.fetch_sub(1, Relaxed);
            })?;
        // INVARIANT: Just registered.
        Ok(Self {
            operations,
            _data: PhantomData,
        })
    }
}

impl<T: PerNet> Drop for Registration<T> {
    fn drop(&mut self) {
        // SAFETY: By the type invariant. The removal of each file waits for its readers.
        unsafe { c::unregister_pernet_subsys(self.operations.get()) };
        T::id().registrations.fetch_sub(1, Relaxed);
    }
}

/// C's `net_generic(net, id)`.
///
/// # Safety
///
/// `net` must be a namespace in which the kernel has allocated our memory and not freed it.
#[inline(always)]
unsafe fn slot<T: PerNet>(net: *mut c::net, _rcu: &rcu::Guard) -> *mut Slot<T> {
    // SAFETY: `net->gen` is a `struct net_generic *`, replaced under RCU when the array grows, and
    // then freed after a grace period; it begins with the array of pointers (asserted in
    // offsets.c). The index is below its length, and constant since the kernel chose it.
    unsafe {
        let generic: *const *mut Slot<T> = net
            .byte_add(c::TOA_NET_GEN)
            .cast::<*const *mut Slot<T>>()
            .read_volatile();
        generic.add(T::id().index()).read()
    }
}

/// Makes the data and the files of a namespace: of each at the registration, and of each new one.
/// Process context.
///
/// # Safety
///
/// `net` must be a namespace in which the kernel has allocated our memory, not yet initialised.
unsafe extern "C" fn init<T: PerNet>(net: *mut c::net) -> c_int {
    kernel::error::from_result(|| {
        // SAFETY: The kernel holds the namespace during this call.
        let data = T::new(unsafe { Net::from_raw(net.cast_const().cast()) })?;
        // SAFETY: By the function's safety requirements.
        let slot = unsafe { slot::<T>(net, &rcu::read_lock()) };
        // SAFETY: As above; the size is that of a slot, and kmalloc's alignment is enough for one
        // (asserted in `register`). Nothing reads the slot yet: the namespace is new, or the
        // callbacks are not in place.
        unsafe { slot.write(Slot { files: None, data }) };
        // SAFETY: The kernel holds the namespace during this call, and the data is written. `exit` drops
        // the files before the data.
        match unsafe { Files::new::<T>(Net::from_raw(net.cast_const().cast())) } {
            Ok(files) => {
                // SAFETY: Written above. Readers of the files see `data` only, not this field.
                unsafe { (&raw mut (*slot).files).write(Some(files)) };
                Ok(0)
            }
            Err(error) => {
                // SAFETY: Written above. No file is left, and the kernel does not call `exit` for
                // a namespace whose `init` has failed.
                unsafe { slot.drop_in_place() };
                Err(error)
            }
        }
    })
}

/// Removes the files and the data of a namespace: of each that ends, and of all at the end of the
/// registration.
///
/// # Safety
///
/// [`init`] must have succeeded for `net`, and no packet, no socket of the namespace's own and no
/// hook may reach the data any more.
unsafe extern "C" fn exit<T: PerNet>(net: *mut c::net) {
    // SAFETY: Made by `init`.
    let slot = unsafe { slot::<T>(net, &rcu::read_lock()) };
    // SAFETY: Made by `init`. Nothing else reads the field, and its drop waits for the readers of the
    // files, which may still look at `data`.
    drop(unsafe { (&raw mut (*slot).files).replace(None) });
    // SAFETY: By the function's safety requirements nothing else has it. The RCU section of the
    // look-up has ended: what frees per-CPU memory may sleep on PREEMPT_RT.
    unsafe { slot.drop_in_place() };
}
