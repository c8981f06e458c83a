// SPDX-License-Identifier: GPL-2.0

//! Data that a module keeps in each network namespace, and its files in `/proc/net`.
//!
//! C headers: [`include/net/net_namespace.h`](srctree/include/net/net_namespace.h),
//! [`include/net/netns/generic.h`](srctree/include/net/netns/generic.h)

use crate::linux::c;
use core::marker::PhantomData;
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

/// Data that a module keeps in each network namespace.
pub(crate) trait PerNet: Sized + Send + Sync + 'static {
    /// The files that show the data: made after it, removed before it.
    type Files: Send + Sync;

    /// The static that holds the type's index. One for each type.
    fn id() -> &'static NetId<Self>;

    /// Makes the data of `net`. Process context; may sleep.
    fn new(net: &Net<()>) -> Result<Self>;

    /// Makes the files of `net`, which may be read at once. Process context; may sleep.
    fn files(net: &Net<Self>) -> Result<Self::Files>;
}

/// The index of `T` in the array of a namespace's pointers (`struct net_generic`). The kernel
/// chooses it at the registration, before it calls anything that reads it.
pub(crate) struct NetId<T> {
    id: Atomic<u32>,
    _data: PhantomData<fn() -> T>,
}

impl<T> NetId<T> {
    /// The index before the registration.
    pub(crate) const fn unset() -> Self {
        Self {
            id: Atomic::new(0),
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

    /// The namespace's directory `/proc/net`.
    fn proc_net(&self) -> *mut c::proc_dir_entry {
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
    /// The module's data in this namespace. Any context.
    #[inline(always)]
    pub(crate) fn data(&self, rcu: &rcu::Guard) -> &T {
        // SAFETY: By the type invariants the namespace has a `T`, which stays.
        unsafe { &(*slot::<T>(self.as_ptr(), rcu)).data }
    }
}

/// The memory that the kernel allocates for `T` in each namespace. The files go first: they show
/// the data.
struct Slot<T: PerNet> {
    files: Option<T::Files>,
    data: T,
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
    /// `ENOMEM`, and those of [`PerNet::new`] and [`PerNet::files`].
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
        // SAFETY: The operations stay where they are until they are unregistered; `init` and `exit`
        // keep to their contract.
        kernel::error::to_result(unsafe { c::register_pernet_subsys(operations.get()) })?;
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
        // SAFETY: The kernel holds the namespace during this call, and the data is written.
        match T::files(unsafe { Net::from_raw(net.cast_const().cast()) }) {
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
    // SAFETY: Made by `init`. The field's readers are none, and its drop waits for the readers of
    // the files, which may still look at `data`.
    drop(unsafe { (*(&raw mut (*slot).files)).take() });
    // SAFETY: By the function's safety requirements nothing else has it. The RCU section of the
    // look-up has ended: what frees per-CPU memory may sleep on PREEMPT_RT.
    unsafe { slot.drop_in_place() };
}

/// A file's content.
pub(crate) trait Show: 'static {
    /// The data that the content is made of.
    type PerNet: PerNet;

    /// The file's name below `/proc/net`.
    const NAME: &'static CStr;

    /// Writes the content for `net`. Process context.
    fn show(net: &Net<Self::PerNet>, seq: &SeqFile);
}

/// A file of one namespace in `/proc/net`, which everyone may read. Dropping it removes the file,
/// and waits for its readers.
///
/// # Invariants
///
/// `directory` is the namespace's `/proc/net`, and has the file.
pub(crate) struct ProcFile<S: Show> {
    directory: *mut c::proc_dir_entry,
    _show: PhantomData<fn() -> S>,
}

// SAFETY: A file may be removed from any task; shared references do nothing.
unsafe impl<S: Show> Send for ProcFile<S> {}

// SAFETY: As above.
unsafe impl<S: Show> Sync for ProcFile<S> {}

impl<S: Show> ProcFile<S> {
    /// Makes the file. May sleep.
    ///
    /// # Errors
    ///
    /// `ENOMEM` if there is no memory, or the namespace has a file of that name.
    pub(crate) fn new(net: &Net<S::PerNet>) -> Result<Self> {
        let directory = net.proc_net();
        // SAFETY: The directory is the namespace's, and `show` is of the type asked for.
        let file = unsafe {
            c::proc_create_net_single(
                S::NAME.as_ptr().cast(),
                0o444,
                directory,
                show::<S>,
                ptr::null_mut(),
            )
        };
        if file.is_null() {
            return Err(ENOMEM);
        }
        // INVARIANT: Just made.
        Ok(Self {
            directory,
            _show: PhantomData,
        })
    }
}

impl<S: Show> Drop for ProcFile<S> {
    fn drop(&mut self) {
        // SAFETY: By the type invariant.
        unsafe { c::remove_proc_entry(S::NAME.as_ptr().cast(), self.directory) };
    }
}

/// Called when a process reads the file.
///
/// # Safety
///
/// `seq` must be a file that [`ProcFile::new`] made, opened, and exclusive to this call.
unsafe extern "C" fn show<S: Show>(seq: *mut c::seq_file, _: *mut c_void) -> c_int {
    // SAFETY: A file of `proc_create_net_single` has its namespace, which it holds, as the private
    // pointer. The file was made after the namespace's data, and its removal, which waits for this
    // call, precedes the data's end.
    let net = unsafe {
        Net::from_raw(
            seq.byte_add(c::TOA_SEQ_PRIVATE)
                .cast::<*const c_void>()
                .read(),
        )
    };
    // SAFETY: By the function's safety requirements.
    S::show(net, unsafe { SeqFile::from_raw(seq.cast()) });
    0
}
