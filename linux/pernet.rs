// SPDX-License-Identifier: GPL-2.0

//! Data that a module keeps in each network namespace, with the files in `/proc/net` that show it.
//!
//! C headers: [`include/net/net_namespace.h`](srctree/include/net/net_namespace.h),
//! [`include/net/netns/generic.h`](srctree/include/net/netns/generic.h)

use crate::linux::{
    c,
    family::{
        Family,
        Guard,
        Member, //
    },
    proc_net::{
        ProcFile,
        Table,
        Text, //
    },
    rcu,
    sysctl::{
        self,
        Sysctls, //
    },
    task, //
};
use core::hint::assert_unchecked;
use core::marker::PhantomData;
use core::ptr;
use core::sync::atomic::{
    AtomicPtr,
    AtomicUsize,
    Ordering, //
};
use kernel::ffi::{
    c_int,
    c_void, //
};
use kernel::prelude::*;
use kernel::sync::atomic::{
    Acquire,
    Atomic,
    Relaxed,
    Release, //
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

    /// Takes over from the data of the namespace in which this one was made. Called once, before
    /// anything else reads `self`.
    fn adopt(&self, parent: &Self, guard: &Guard<'_, Self>);

    /// Prepares for the end of the parent. Then the parent's parent is that of `self`, if there is
    /// one.
    fn lose(&self, parent: &Self, guard: &Guard<'_, Self>);
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

/// The namespaces whose data hooks find without RCU: 1 KiB.
const NEAR: usize = 64;

/// A place of a namespace with its data.
///
/// # Invariants
///
/// If `net` is a namespace with data that anything can look for, it was stored after `data`, which is the
/// namespace's. Both are taken away after the last one that can look for the data, before the data goes, and
/// are not stored again.
struct Near<T> {
    net: AtomicUsize,
    /// Null if the place is free.
    data: AtomicPtr<T>,
}

impl<T> Near<T> {
    const fn none() -> Self {
        Self {
            net: AtomicUsize::new(0),
            data: AtomicPtr::new(ptr::null_mut()),
        }
    }

    /// Takes the place, if it is free, for a namespace that nothing uses yet.
    fn take(&self, net: *const c::net, data: &T) {
        let data = ptr::from_ref(data).cast_mut();
        let free =
            self.data
                .compare_exchange(ptr::null_mut(), data, Ordering::Acquire, Ordering::Relaxed);
        if free.is_ok() {
            // INVARIANT: Later than the data, by the release.
            self.net.store(net.addr(), Ordering::Release);
        }
    }

    /// Frees the place if it is that of a namespace, which ends.
    fn free(&self, net: *const c::net) {
        if self.net.load(Ordering::Relaxed) == net.addr() {
            self.net.store(0, Ordering::Relaxed);
            // Release: who takes the place next stores its namespace later than the 0.
            self.data.store(ptr::null_mut(), Ordering::Release);
        }
    }
}

/// The index of `T` in the array of a namespace's pointers (`struct net_generic`). The kernel
/// chooses it at the registration, before it calls anything that reads it.
pub(crate) struct NetId<T> {
    id: Atomic<u32>,
    /// The registrations of the type: one at most.
    registrations: Atomic<i32>,
    /// 1 from the end of the registration on.
    registered: Atomic<u32>,
    /// The data of the first namespace, whose counters most hooks increment. Null if it has none.
    first: AtomicPtr<T>,
    /// The data of some others.
    near: [Near<T>; NEAR],
    /// The data of all namespaces.
    family: Family<T>,
}

impl<T> NetId<T> {
    /// The index before the registration.
    pub(crate) const fn unset() -> Self {
        Self {
            id: Atomic::new(0),
            registrations: Atomic::new(0),
            registered: Atomic::new(0),
            first: AtomicPtr::new(ptr::null_mut()),
            near: [const { Near::none() }; NEAR],
            family: Family::new(),
        }
    }

    /// Locks the data of all namespaces against changes of their family. Process context; sleeps.
    pub(crate) fn lock(&self) -> Guard<'_, T> {
        self.family.lock()
    }

    /// The only place that a namespace can have.
    #[inline(always)]
    fn near(&self, net: *const c::net) -> &Near<T> {
        // Fibonacci hashing, as `hash_64` of `include/linux/hash.h`.
        let hash = (net.addr() as u64).wrapping_mul(0x61C8_8646_80B5_83EB);
        &self.near[(hash >> (u64::BITS - NEAR.ilog2())) as usize % NEAR]
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

    /// Whether the current task has CAP_NET_ADMIN in the namespace's owner.
    pub(crate) fn current_may_administer(&self) -> bool {
        // SAFETY: By the type invariant; the pointer is set when the namespace is made.
        unsafe {
            let user_ns = self
                .as_ptr()
                .byte_add(c::TOA_NET_USER_NS)
                .cast::<*mut c::user_namespace>()
                .read();
            c::ns_capable(user_ns, c::TOA_CAP_NET_ADMIN as c_int)
        }
    }

    /// The number by which `lsns` and `/proc/PID/ns/net` name the namespace. No other namespace has it
    /// while this one lives.
    pub(crate) fn number(&self) -> u32 {
        // SAFETY: By the type invariant; the number is set when the namespace is made, before or after
        // the module's data.
        unsafe {
            self.as_ptr()
                .byte_add(c::TOA_NET_INUM)
                .cast::<u32>()
                .read_volatile()
        }
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
    /// The module's data in this namespace, which stays as long as the namespace. Any context.
    #[inline(always)]
    pub(crate) fn data(&self) -> &T {
        match self.data_if_first() {
            Some(data) => data,
            None => self.data_of_another(),
        }
    }

    /// The module's data in this namespace, in fewer instructions for another one than the first.
    #[inline(always)]
    pub(crate) fn data_of_another(&self) -> &T {
        let near = T::id().near(self.as_ptr());
        if near.net.load(Ordering::Acquire) == self.as_ptr().addr() {
            // SAFETY: By the invariants of this type and of `Near`: the namespace has its data while this
            // reference lives, so its place is not taken away, and the pointer is to that data.
            return unsafe { &*near.data.load(Ordering::Relaxed) };
        }
        self.data_by_rcu()
    }

    /// The module's data in this namespace if it is the first one. Any context.
    #[inline(always)]
    pub(crate) fn data_if_first(&self) -> Option<&T> {
        if !self.is_first() {
            return None;
        }
        let data = T::id().first.load(Ordering::Relaxed);
        // SAFETY: By the type invariants the namespace has a `T`, which stays. Its address was stored before
        // anything could reach it.
        unsafe {
            assert_unchecked(!data.is_null());
            Some(&*data)
        }
    }

    /// Returns the data of any namespace. RCU protects the way to the data only.
    #[inline(never)]
    fn data_by_rcu(&self) -> &T {
        // SAFETY: By the type invariants the namespace has a `T`, which stays.
        unsafe { (*slot::<T>(self.as_ptr(), &rcu::read_lock())).member.data() }
    }
}

/// The memory that the kernel allocates for `T` in each namespace. The files go first: they show
/// the data.
struct Slot<T: PerNet> {
    files: Option<Files<T>>,
    member: Member<T>,
}

/// The files that show and change a namespace's data.
struct Files<T> {
    _sysctls: sysctl::Table<T>,
    _text: ProcFile,
    _table: ProcFile,
}

impl<T: Sysctls> Files<T> {
    /// Makes the files. May sleep.
    ///
    /// # Safety
    ///
    /// The files must be dropped before the data of `net`.
    unsafe fn new(net: &Net<T>) -> Result<Self> {
        // SAFETY: By the function's safety requirements.
        unsafe {
            Ok(Self {
                _text: ProcFile::text::<T::Text>(net)?,
                _table: ProcFile::table::<T::Table>(net)?,
                _sysctls: sysctl::Table::register(net)?,
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

impl<T: Sysctls> Registration<T> {
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
        // SAFETY: There is no other registration, so no namespace has the data yet.
        unsafe { T::id().family.prepare() };
        // SAFETY: The operations stay where they are until they are unregistered; `init` and `exit`
        // keep to their contract.
        kernel::error::to_result(unsafe { c::register_pernet_subsys(operations.get()) })
            .inspect_err(|_| {
                T::id().registrations.fetch_sub(1, Relaxed);
            })?;
        // Release: a task that sees it also sees the data of the namespace that it is in.
        T::id().registered.store(1, Release);
        // INVARIANT: Just registered.
        Ok(Self {
            operations,
            _data: PhantomData,
        })
    }
}

impl<T: PerNet> Drop for Registration<T> {
    fn drop(&mut self) {
        T::id().registered.store(0, Relaxed);
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
unsafe extern "C" fn init<T: Sysctls>(net: *mut c::net) -> c_int {
    kernel::error::from_result(|| {
        // SAFETY: The kernel holds the namespace during this call.
        let data = T::new(unsafe { Net::from_raw(net.cast_const().cast()) })?;
        // SAFETY: By the function's safety requirements.
        let slot = unsafe { slot::<T>(net, &rcu::read_lock()) };
        // SAFETY: By the function's safety requirements the memory is ours, and large and aligned
        // enough (asserted in `register`). Nothing reads the slot yet: the namespace is new, or the
        // callbacks are not in place.
        unsafe {
            slot.write(Slot {
                files: None,
                member: Member::new(data),
            })
        };
        // SAFETY: Just written.
        let data = unsafe { (*slot).member.data() };
        if ptr::eq(net, &raw const c::init_net) {
            let first = ptr::from_ref(data).cast_mut();
            T::id().first.store(first, Ordering::Relaxed);
        } else {
            T::id().near(net).take(net, data);
        }
        // SAFETY: Just written.
        unsafe { join::<T>(net, slot) };
        // SAFETY: The kernel holds the namespace during this call, and the data is written. `remove`
        // drops the files before the data.
        match unsafe { Files::new(Net::from_raw(net.cast_const().cast())) } {
            Ok(files) => {
                // SAFETY: Written above. Readers of the files see `member` only, not this field.
                unsafe { (&raw mut (*slot).files).write(Some(files)) };
                Ok(0)
            }
            Err(error) => {
                // SAFETY: Written above. No file is left, and the kernel does not call `exit` for
                // a namespace whose `init` has failed.
                unsafe { remove(net, slot) };
                Err(error)
            }
        }
    })
}

/// Adds a namespace's data to its family. The parent is the namespace that made the new one. At the
/// registration that is not recorded any more, and the first namespace is the parent of all others.
///
/// # Safety
///
/// `slot` must be that of `net`, and written.
unsafe fn join<T: PerNet>(net: *mut c::net, slot: *mut Slot<T>) {
    let guard = T::id().lock();
    let first = (&raw const c::init_net).cast_mut();
    let parent = if ptr::eq(net, first) {
        ptr::null_mut()
    } else if T::id().registered.load(Acquire) != 0 {
        task::current_net()
    } else {
        first
    };
    let parent: *const Member<T> = if parent.is_null() {
        ptr::null()
    } else {
        // SAFETY: The first namespace never ends, and is the first to be initialised. The current
        // task's namespace lives as long as the task is in it. All namespaces have been initialised
        // once the registration has ended.
        unsafe { &raw const (*self::slot::<T>(parent, &rcu::read_lock())).member }
    };
    // SAFETY: `parent` is null or a member, as argued above. The new member is removed by `remove`.
    unsafe {
        if let Some(parent) = parent.as_ref() {
            (*slot).member.data().adopt(parent.data(), &guard);
        }
        guard.add(&raw const (*slot).member, parent);
    }
}

/// Removes the files and the data of a namespace: of each that ends, and of all at the end of the
/// registration.
///
/// # Safety
///
/// [`init`] must have succeeded for `net`, and no packet, no socket of the namespace's own and no
/// hook may reach the data any more.
unsafe extern "C" fn exit<T: Sysctls>(net: *mut c::net) {
    // SAFETY: By the function's safety requirements. The RCU section ends with the look-up.
    let slot = unsafe { slot::<T>(net, &rcu::read_lock()) };
    // SAFETY: Made by `init`, and nothing else reaches it.
    unsafe { remove(net, slot) };
}

/// Removes the files, and then the data. Process context; sleeps.
///
/// # Safety
///
/// [`init`] must have written the slot, and nothing but the files and the family may reach it.
unsafe fn remove<T: Sysctls>(net: *const c::net, slot: *mut Slot<T>) {
    // SAFETY: By the function's safety requirements. Nothing else reads the field, and its drop waits
    // for the readers and writers of the files, which may still look at `member`.
    drop(unsafe { (&raw mut (*slot).files).replace(None) });
    // Files were the last to find the data: hooks need a socket, or are gone.
    T::id().near(net).free(net);
    let guard = T::id().lock();
    // SAFETY: `init` has added the member.
    unsafe {
        guard.remove(&raw const (*slot).member, |child, parent| {
            child.lose(parent, &guard)
        });
    }
    drop(guard);
    // SAFETY: Nothing reaches it any more.
    unsafe { slot.drop_in_place() };
}
