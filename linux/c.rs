// SPDX-License-Identifier: GPL-2.0

//! C's declarations as toa uses them: types, functions, variables, and the constants of the kernel.
//!
//! Types keep their C tags, because kCFI hashes the names in a callback's prototype. `offsets.c`
//! asserts each declaration with the kernel's own compiler, and a host test compares the two lists.

use core::mem::MaybeUninit;
use kernel::ffi::{
    c_char,
    c_int,
    c_long,
    c_longlong,
    c_uchar,
    c_uint,
    c_ulong,
    c_ushort,
    c_void, //
};

#[cfg(CONFIG_DEBUG_SPINLOCK)]
use kernel::ffi::c_short;

#[rustfmt::skip]
pub(crate) use crate::toa_offsets::*;

/// Declares C structures that Rust code only points to.
macro_rules! opaque {
    ($($name:ident),+ $(,)?) => {$(
        #[allow(non_camel_case_types)]
        #[repr(C)]
        pub(crate) struct $name {
            _opaque: [u8; 0],
        }
    )+};
}

#[cfg(CONFIG_LOCKDEP)]
opaque!(lockdep_map);

opaque!(
    cpumask,
    ctl_table_header,
    ftrace_regs,
    kmem_cache,
    module,
    net,
    net_device,
    proc_dir_entry,
    seq_file,
    sk_buff,
    sock,
    sockaddr,
    socket,
    srcu_struct,
    tracepoint,
    user_namespace,
    workqueue_struct,
);

/// Declares C structures that Rust code makes: bytes of the kernel's size, all zero but for the
/// fields that a constructor writes.
macro_rules! made {
    ($($(#[$attribute:meta])* $name:ident: $size:ident;)+) => {$(
        $(#[$attribute])*
        #[allow(non_camel_case_types)]
        #[repr(C, align(8))]
        pub(crate) struct $name([MaybeUninit<u8>; $size]);

        impl $name {
            /// The structure with all bytes zero.
            const fn zeroed() -> Self {
                Self([MaybeUninit::new(0); $size])
            }

            /// Writes the field at `OFFSET`, which must have the type `V` in C.
            #[allow(dead_code)]
            const fn set<V: Copy, const OFFSET: usize>(&mut self, value: V) {
                const { assert!(OFFSET + size_of::<V>() <= $size) };
                // SAFETY: The field lies within the structure (asserted above); no alignment is
                // needed, and the bytes are of any kind.
                unsafe {
                    self.0
                        .as_mut_ptr()
                        .byte_add(OFFSET)
                        .cast::<V>()
                        .write_unaligned(value)
                };
            }
        }
    )+};
}

made! {
    /// `include/linux/ftrace.h`
    ftrace_ops: TOA_SIZEOF_FTRACE_OPS;
    /// `include/net/net_namespace.h`
    pernet_operations: TOA_SIZEOF_PERNET_OPERATIONS;
    /// `include/linux/netfilter.h`
    nf_sockopt_ops: TOA_SIZEOF_NF_SOCKOPT_OPS;
    /// `include/linux/sysctl.h`
    ctl_table: TOA_SIZEOF_CTL_TABLE;
    /// `include/linux/semaphore.h`
    semaphore: TOA_SIZEOF_SEMAPHORE;
    /// `include/linux/ratelimit_types.h`
    ratelimit_state: TOA_SIZEOF_RATELIMIT_STATE;
    /// `include/linux/slab.h`
    kmem_cache_args: TOA_SIZEOF_KMEM_CACHE_ARGS;
    /// `include/linux/workqueue_types.h`
    work_struct: TOA_SIZEOF_WORK_STRUCT;
}

/// C's `ftrace_func_t`.
pub(crate) type FtraceFunc =
    unsafe extern "C" fn(c_ulong, c_ulong, *mut ftrace_ops, *mut ftrace_regs);

impl ftrace_ops {
    /// The operations of a handler.
    pub(crate) fn new(func: FtraceFunc, flags: usize) -> Self {
        let mut ops = Self::zeroed();
        ops.set::<_, TOA_FTRACE_OPS_FUNC>(func);
        ops.set::<c_ulong, TOA_FTRACE_OPS_FLAGS>(flags);
        ops
    }
}

impl pernet_operations {
    /// The operations of data of `size` bytes, whose index the kernel writes to `id`.
    pub(crate) fn new(
        init: unsafe extern "C" fn(*mut net) -> c_int,
        exit: unsafe extern "C" fn(*mut net),
        id: *mut c_uint,
        size: usize,
    ) -> Self {
        let mut operations = Self::zeroed();
        operations.set::<_, TOA_PERNET_INIT>(init);
        operations.set::<_, TOA_PERNET_EXIT>(exit);
        operations.set::<_, TOA_PERNET_ID>(id);
        operations.set::<_, TOA_PERNET_SIZE>(size);
        operations
    }
}

/// The answering function of getsockopt's options. Its arguments are the socket, the option, the
/// caller's buffer, and the kernel's copy of the buffer's length, which the answer's replaces.
pub(crate) type Get = unsafe extern "C" fn(
    *mut sock,
    c_int,
    *mut c_void, // __user
    *mut c_int,
) -> c_int;

impl nf_sockopt_ops {
    /// The options from `optmin` to below `optmax` of the protocol family `pf`.
    pub(crate) fn new(
        pf: usize,
        optmin: c_int,
        optmax: c_int,
        get: Get,
        owner: *mut module,
    ) -> Self {
        let mut operations = Self::zeroed();
        operations.set::<_, TOA_NF_SOCKOPT_PF>(pf as u8);
        operations.set::<_, TOA_NF_SOCKOPT_GET_OPTMIN>(optmin);
        operations.set::<_, TOA_NF_SOCKOPT_GET_OPTMAX>(optmax);
        operations.set::<_, TOA_NF_SOCKOPT_GET>(get);
        operations.set::<_, TOA_NF_SOCKOPT_OWNER>(owner);
        operations
    }
}

/// C's `proc_handler`. Its arguments are the entry, whether the process writes, the kernel's copy of
/// the value, its length, and the file's position.
pub(crate) type ProcHandler =
    unsafe extern "C" fn(*const ctl_table, c_int, *mut c_void, *mut usize, *mut i64) -> c_int;

impl ctl_table {
    /// The end of a table.
    pub(crate) const END: Self = Self::zeroed();

    /// The entry of a file.
    pub(crate) fn new(
        name: *const c_char,
        mode: c_ushort,
        handler: ProcHandler,
        data: *mut c_void,
        extra1: *mut c_void,
    ) -> Self {
        let mut entry = Self::zeroed();
        entry.set::<_, TOA_CTL_TABLE_PROCNAME>(name);
        entry.set::<_, TOA_CTL_TABLE_MODE>(mode);
        entry.set::<_, TOA_CTL_TABLE_HANDLER>(handler);
        entry.set::<_, TOA_CTL_TABLE_DATA>(data);
        entry.set::<_, TOA_CTL_TABLE_EXTRA1>(extra1);
        entry
    }

    /// The data of [`ctl_table::new`].
    pub(crate) fn data(&self) -> *const c_void {
        // SAFETY: `new` wrote a pointer there, or it is null.
        unsafe {
            self.0
                .as_ptr()
                .byte_add(TOA_CTL_TABLE_DATA)
                .cast::<*const c_void>()
                .read()
        }
    }

    /// The other data of [`ctl_table::new`].
    pub(crate) fn extra1(&self) -> *const c_void {
        // SAFETY: As in `data`.
        unsafe {
            self.0
                .as_ptr()
                .byte_add(TOA_CTL_TABLE_EXTRA1)
                .cast::<*const c_void>()
                .read()
        }
    }
}

impl semaphore {
    /// Initialises a semaphore that one task may hold: C's `DEFINE_SEMAPHORE(name, 1)`.
    ///
    /// # Safety
    ///
    /// The place must be in a static, valid for writes, and exclusive to this call.
    pub(crate) unsafe fn unlocked(place: *mut Self) {
        let mut unlocked = Self::zeroed();
        unlocked.set::<_, TOA_SEMAPHORE_LOCK>(raw_spinlock_t::UNLOCKED);
        unlocked.set::<c_uint, TOA_SEMAPHORE_COUNT>(1);
        if TOA_SEMAPHORE_HAS_WAIT_LIST != 0 {
            // An empty `struct list_head` points to itself, twice.
            let head: *mut c_void = place.wrapping_byte_add(TOA_SEMAPHORE_WAIT_LIST).cast();
            unlocked.set::<_, TOA_SEMAPHORE_WAIT_LIST>([head; 2]);
        }
        // SAFETY: By the function's safety requirements.
        unsafe { place.write(unlocked) };
    }
}

impl ratelimit_state {
    /// C's `RATELIMIT_STATE_INIT`, for a static.
    pub(crate) const fn new(interval: c_int, burst: c_int) -> Self {
        let mut state = Self::zeroed();
        state.set::<_, TOA_RATELIMIT_LOCK>(raw_spinlock_t::UNLOCKED);
        state.set::<_, TOA_RATELIMIT_INTERVAL>(interval);
        state.set::<_, TOA_RATELIMIT_BURST>(burst);
        state
    }
}

impl kmem_cache_args {
    /// The defaults, but for the alignment of objects.
    pub(crate) fn aligned(align: c_uint) -> Self {
        let mut args = Self::zeroed();
        args.set::<_, TOA_KMEM_CACHE_ARGS_ALIGN>(align);
        args
    }
}

/// C's `work_func_t`.
pub(crate) type WorkFunc = unsafe extern "C" fn(*mut work_struct);

impl work_struct {
    /// Initialises a work item: C's `INIT_WORK`.
    ///
    /// # Safety
    ///
    /// The place must be valid for writes, exclusive to this call, and that of the item until it is
    /// cancelled.
    pub(crate) unsafe fn init(place: *mut Self, func: WorkFunc) {
        let mut item = Self::zeroed();
        // C's `WORK_STRUCT_NO_POOL`.
        let data = TOA_WORK_OFFQ_POOL_NONE << TOA_WORK_OFFQ_POOL_SHIFT;
        item.set::<c_ulong, TOA_WORK_DATA>(data as c_ulong);
        // An empty `struct list_head` points to itself, twice.
        let head: *mut c_void = place.wrapping_byte_add(TOA_WORK_ENTRY).cast();
        item.set::<_, TOA_WORK_ENTRY>([head; 2]);
        item.set::<_, TOA_WORK_FUNC>(func);
        // SAFETY: By the function's safety requirements.
        unsafe { place.write(item) };
        #[cfg(CONFIG_DEBUG_OBJECTS_WORK)]
        // SAFETY: The item is new, and not on a stack.
        unsafe {
            __init_work(place, 0)
        };
        #[cfg(CONFIG_LOCKDEP)]
        {
            static KEY: WorkKey = WorkKey(core::cell::UnsafeCell::new(lock_class_key::UNUSED));
            // SAFETY: The map is part of the item. Name and key are static; lockdep forgets both when the
            // module goes. No subclass; wait types and lock type are those of `INIT_WORK`: 0.
            unsafe {
                lockdep_init_map_type(
                    place.byte_add(TOA_WORK_LOCKDEP_MAP).cast(),
                    c"toa_worker".as_ptr().cast(),
                    KEY.0.get(),
                    0,
                    0,
                    0,
                    0,
                )
            };
        }
    }
}

/// The class of all work items, for lockdep.
#[cfg(CONFIG_LOCKDEP)]
struct WorkKey(core::cell::UnsafeCell<lock_class_key>);

// SAFETY: Only lockdep accesses the key, under its own lock.
#[cfg(CONFIG_LOCKDEP)]
unsafe impl Sync for WorkKey {}

/// `include/linux/types.h`: the head by which memory is freed after a grace period.
#[allow(non_camel_case_types)]
#[repr(C)]
pub(crate) struct callback_head {
    next: *mut callback_head,
    func: *mut c_void,
}

const _: () = assert!(size_of::<callback_head>() == TOA_SIZEOF_CALLBACK_HEAD);

/// `include/linux/spinlock_types_raw.h`, for kernels whose unlocked lock is all zeroes.
#[cfg(not(CONFIG_DEBUG_SPINLOCK))]
#[allow(non_camel_case_types)]
#[derive(Clone, Copy)]
#[repr(C)]
pub(crate) struct raw_spinlock_t([u32; TOA_SIZEOF_RAW_SPINLOCK / size_of::<u32>()]);

#[cfg(CONFIG_DEBUG_SPINLOCK)]
made! {
    /// `include/linux/spinlock_types_raw.h`, for kernels that check spinlocks.
    #[derive(Clone, Copy)]
    raw_spinlock_t: TOA_SIZEOF_RAW_SPINLOCK;
}

const _: () = assert!(size_of::<raw_spinlock_t>() == TOA_SIZEOF_RAW_SPINLOCK);

impl raw_spinlock_t {
    /// C's `__RAW_SPIN_LOCK_UNLOCKED`. For lockdep each lock in a static is a class; each
    /// other lock needs [`__raw_spin_lock_init`] where it lies.
    #[cfg(not(CONFIG_DEBUG_SPINLOCK))]
    pub(crate) const UNLOCKED: Self = Self([0; TOA_SIZEOF_RAW_SPINLOCK / size_of::<u32>()]);

    /// C's `__RAW_SPIN_LOCK_UNLOCKED`. For lockdep each lock in a static is a class; each
    /// other lock needs [`__raw_spin_lock_init`] where it lies.
    #[cfg(CONFIG_DEBUG_SPINLOCK)]
    pub(crate) const UNLOCKED: Self = {
        let mut lock = Self::zeroed();
        lock.set::<c_uint, TOA_RAW_SPINLOCK_MAGIC>(TOA_SPINLOCK_MAGIC as c_uint);
        lock.set::<c_uint, TOA_RAW_SPINLOCK_OWNER_CPU>(c_uint::MAX);
        lock.set::<usize, TOA_RAW_SPINLOCK_OWNER>(usize::MAX);
        #[cfg(CONFIG_DEBUG_LOCK_ALLOC)]
        {
            lock.set::<*const c_char, TOA_RAW_SPINLOCK_NAME>(c"toa".as_ptr().cast());
            lock.set::<u8, TOA_RAW_SPINLOCK_WAIT_TYPE>(TOA_LD_WAIT_SPIN as u8);
        }
        lock
    };
}

/// `include/linux/lockdep_types.h`: the key of a class of locks, whose address is its identity.
#[cfg(CONFIG_DEBUG_SPINLOCK)]
#[allow(non_camel_case_types)]
#[repr(C, align(8))]
pub(crate) struct lock_class_key([MaybeUninit<u8>; TOA_SIZEOF_LOCK_CLASS_KEY]);

#[cfg(CONFIG_DEBUG_SPINLOCK)]
impl lock_class_key {
    /// A key that no lock has yet.
    pub(crate) const UNUSED: Self = Self([MaybeUninit::new(0); TOA_SIZEOF_LOCK_CLASS_KEY]);
}

/// `include/linux/seq_file.h`: the functions that write a file element by element.
#[allow(non_camel_case_types)]
#[repr(C)]
pub(crate) struct seq_operations {
    pub(crate) start: unsafe extern "C" fn(*mut seq_file, *mut c_longlong) -> *mut c_void,
    pub(crate) stop: unsafe extern "C" fn(*mut seq_file, *mut c_void),
    pub(crate) next:
        unsafe extern "C" fn(*mut seq_file, *mut c_void, *mut c_longlong) -> *mut c_void,
    pub(crate) show: unsafe extern "C" fn(*mut seq_file, *mut c_void) -> c_int,
}

const _: () = assert!(
    size_of::<seq_operations>() == TOA_SIZEOF_SEQ_OPERATIONS
        && core::mem::offset_of!(seq_operations, start) == TOA_SEQ_START
        && core::mem::offset_of!(seq_operations, stop) == TOA_SEQ_STOP
        && core::mem::offset_of!(seq_operations, next) == TOA_SEQ_NEXT
        && core::mem::offset_of!(seq_operations, show) == TOA_SEQ_SHOW
);

/// `include/uapi/linux/in6.h`: the address as its bytes on the wire.
#[allow(non_camel_case_types)]
#[repr(C, align(4))]
#[derive(Clone, Copy)]
pub(crate) struct in6_addr(pub(crate) [u8; 16]);

/// `include/uapi/linux/in.h`: all but the family in network order.
#[allow(non_camel_case_types)]
#[repr(C)]
#[derive(Clone, Copy)]
pub(crate) struct sockaddr_in {
    pub(crate) sin_family: c_ushort,
    pub(crate) sin_port: u16,
    pub(crate) sin_addr: u32,
    pub(crate) zero: [u8; 8],
}

const _: () = assert!(
    size_of::<sockaddr_in>() == TOA_SIZEOF_SOCKADDR_IN
        && core::mem::offset_of!(sockaddr_in, sin_port) == TOA_SIN_PORT
        && core::mem::offset_of!(sockaddr_in, sin_addr) == TOA_SIN_ADDR
);

/// `include/uapi/linux/in6.h`: all but family and scope in network order.
#[allow(non_camel_case_types)]
#[repr(C)]
#[derive(Clone, Copy)]
pub(crate) struct sockaddr_in6 {
    pub(crate) sin6_family: c_ushort,
    pub(crate) sin6_port: u16,
    pub(crate) sin6_flowinfo: u32,
    pub(crate) sin6_addr: in6_addr,
    pub(crate) sin6_scope_id: u32,
}

const _: () = assert!(
    size_of::<sockaddr_in6>() == TOA_SIZEOF_SOCKADDR_IN6
        && core::mem::offset_of!(sockaddr_in6, sin6_port) == TOA_SIN6_PORT
        && core::mem::offset_of!(sockaddr_in6, sin6_flowinfo) == TOA_SIN6_FLOWINFO
        && core::mem::offset_of!(sockaddr_in6, sin6_addr) == TOA_SIN6_ADDR
        && core::mem::offset_of!(sockaddr_in6, sin6_scope_id) == TOA_SIN6_SCOPE_ID
);

extern "C" {
    pub(crate) fn register_ftrace_function(ops: *mut ftrace_ops) -> c_int;
    pub(crate) fn unregister_ftrace_function(ops: *mut ftrace_ops) -> c_int;
    pub(crate) fn ftrace_set_filter(
        ops: *mut ftrace_ops,
        buf: *mut c_uchar,
        len: c_int,
        reset: c_int,
    ) -> c_int;
    pub(crate) fn ftrace_free_filter(ops: *mut ftrace_ops);
    pub(crate) fn tracepoint_probe_register(
        tp: *mut tracepoint,
        probe: *mut c_void,
        data: *mut c_void,
    ) -> c_int;
    pub(crate) fn tracepoint_probe_unregister(
        tp: *mut tracepoint,
        probe: *mut c_void,
        data: *mut c_void,
    ) -> c_int;
    pub(crate) fn for_each_kernel_tracepoint(
        fct: unsafe extern "C" fn(*mut tracepoint, *mut c_void),
        data: *mut c_void,
    );
    pub(crate) fn synchronize_srcu(ssp: *mut srcu_struct);
    pub(crate) fn synchronize_rcu();
    pub(crate) fn __rcu_read_lock();
    pub(crate) fn __rcu_read_unlock();
    pub(crate) fn register_pernet_subsys(ops: *mut pernet_operations) -> c_int;
    pub(crate) fn unregister_pernet_subsys(ops: *mut pernet_operations);
    pub(crate) fn nf_register_sockopt(reg: *mut nf_sockopt_ops) -> c_int;
    pub(crate) fn nf_unregister_sockopt(reg: *mut nf_sockopt_ops);
    pub(crate) fn module_refcount(module: *mut module) -> c_int;
    pub(crate) fn proc_create_net_single(
        name: *const c_char,
        mode: c_ushort,
        parent: *mut proc_dir_entry,
        show: unsafe extern "C" fn(*mut seq_file, *mut c_void) -> c_int,
        data: *mut c_void,
    ) -> *mut proc_dir_entry;
    pub(crate) fn proc_create_net_data(
        name: *const c_char,
        mode: c_ushort,
        parent: *mut proc_dir_entry,
        ops: *const seq_operations,
        state_size: c_uint,
        data: *mut c_void,
    ) -> *mut proc_dir_entry;
    pub(crate) fn remove_proc_entry(name: *const c_char, parent: *mut proc_dir_entry);
    pub(crate) fn seq_printf(m: *mut seq_file, fmt: *const c_char, ...);
    pub(crate) fn net_ratelimit() -> c_int;
    #[cfg(CONFIG_DEBUG_SPINLOCK)]
    pub(crate) fn __raw_spin_lock_init(
        lock: *mut raw_spinlock_t,
        name: *const c_char,
        key: *mut lock_class_key,
        inner: c_short,
    );
    pub(crate) fn _raw_spin_lock_irqsave(lock: *mut raw_spinlock_t) -> c_ulong;
    pub(crate) fn _raw_spin_unlock_irqrestore(lock: *mut raw_spinlock_t, flags: c_ulong);
    #[cfg_attr(not(toa_time_locks), allow(dead_code))]
    pub(crate) fn ktime_get_mono_fast_ns() -> u64;
    pub(crate) fn __alloc_percpu(size: usize, align: usize) -> *mut c_void;
    pub(crate) fn pcpu_alloc_noprof(
        size: usize,
        align: usize,
        reserved: bool,
        gfp: c_uint,
    ) -> *mut c_void;
    pub(crate) fn free_percpu(pdata: *mut c_void);
    pub(crate) fn kmem_cache_create(
        name: *const c_char,
        size: c_uint,
        align: c_uint,
        flags: c_uint,
        ctor: Option<unsafe extern "C" fn(*mut c_void)>,
    ) -> *mut kmem_cache;
    pub(crate) fn __kmem_cache_create_args(
        name: *const c_char,
        object_size: c_uint,
        args: *mut kmem_cache_args,
        flags: c_uint,
    ) -> *mut kmem_cache;
    pub(crate) fn kmem_cache_destroy(s: *mut kmem_cache);
    pub(crate) fn kmem_cache_alloc(s: *mut kmem_cache, flags: c_uint) -> *mut c_void;
    pub(crate) fn kmem_cache_alloc_noprof(s: *mut kmem_cache, flags: c_uint) -> *mut c_void;
    pub(crate) fn kmem_cache_free(s: *mut kmem_cache, objp: *mut c_void);
    #[cfg(CONFIG_DEBUG_OBJECTS_WORK)]
    pub(crate) fn __init_work(work: *mut work_struct, onstack: c_int);
    #[cfg(CONFIG_LOCKDEP)]
    pub(crate) fn lockdep_init_map_type(
        lock: *mut lockdep_map,
        name: *const c_char,
        key: *mut lock_class_key,
        subclass: c_int,
        inner: u8,
        outer: u8,
        lock_type: u8,
    );
    pub(crate) fn queue_work_on(
        cpu: c_int,
        wq: *mut workqueue_struct,
        work: *mut work_struct,
    ) -> bool;
    pub(crate) fn cancel_work_sync(work: *mut work_struct) -> bool;
    pub(crate) fn __cpuhp_setup_state(
        state: c_int,
        name: *const c_char,
        invoke: bool,
        startup: Option<unsafe extern "C" fn(c_uint) -> c_int>,
        teardown: Option<unsafe extern "C" fn(c_uint) -> c_int>,
        multi_instance: bool,
    ) -> c_int;
    pub(crate) fn __cpuhp_remove_state(state: c_int, invoke: bool);
    pub(crate) fn get_random_u64() -> u64;
    pub(crate) fn schedule();
    pub(crate) fn schedule_timeout_idle(timeout: c_long) -> c_long;
    pub(crate) fn inet_addr_type_dev_table(
        net: *mut net,
        dev: *const net_device,
        addr: u32,
    ) -> c_uint;
    #[cfg(CONFIG_IPV6)]
    pub(crate) fn ipv6_chk_addr_and_flags(
        net: *mut net,
        addr: *const in6_addr,
        dev: *const net_device,
        skip_dev_check: bool,
        strict: c_int,
        banned_flags: c_uint,
    ) -> c_int;
    #[cfg(CONFIG_IPV6)]
    pub(crate) fn ipv6_mod_enabled() -> bool;
    pub(crate) fn dev_get_by_index_rcu(net: *mut net, ifindex: c_int) -> *mut net_device;
    pub(crate) fn kvfree_call_rcu(head: *mut callback_head, object: *mut c_void);
    pub(crate) fn register_net_sysctl(
        net: *mut net,
        path: *const c_char,
        table: *mut ctl_table,
    ) -> *mut ctl_table_header;
    pub(crate) fn register_net_sysctl_sz(
        net: *mut net,
        path: *const c_char,
        table: *const ctl_table,
        table_size: usize,
    ) -> *mut ctl_table_header;
    pub(crate) fn unregister_net_sysctl_table(header: *mut ctl_table_header);
    pub(crate) fn down(sem: *mut semaphore);
    pub(crate) fn up(sem: *mut semaphore);
    pub(crate) fn ns_capable(ns: *mut user_namespace, cap: c_int) -> bool;
    pub(crate) fn ___ratelimit(rs: *mut ratelimit_state, func: *const c_char) -> c_int;

    pub(crate) static mut tracepoint_srcu: srcu_struct;
    pub(crate) static mut rcu_tasks_trace_srcu_struct: srcu_struct;
    pub(crate) static mut system_unbound_wq: *mut workqueue_struct;
    pub(crate) static mut system_dfl_wq: *mut workqueue_struct;
    #[cfg(target_arch = "x86_64")]
    pub(crate) static this_cpu_off: c_ulong;
    pub(crate) static __per_cpu_offset: [c_ulong; TOA_NR_CPUS];
    pub(crate) static __cpu_possible_mask: cpumask;
    pub(crate) static mut _totalram_pages: i64;
    pub(crate) static init_net: net;
    pub(crate) static mut init_user_ns: user_namespace;
    #[cfg(CONFIG_IPV6)]
    pub(crate) static disable_ipv6_mod: c_int;
}
