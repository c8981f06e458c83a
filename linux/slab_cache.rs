// SPDX-License-Identifier: GPL-2.0

//! A slab cache of [`Node`]s, whose memory is type-stable under RCU.
//!
//! C header: [`include/linux/slab.h`](srctree/include/linux/slab.h)

use crate::linux::{
    c,
    node::Node,
    store::{
        NODE_ALIGN,
        NOWHERE, //
    }, //
};
use core::mem::size_of;
use core::ptr::NonNull;
use kernel::ffi::c_uint;
use kernel::prelude::*;

/// SLUB puts its 8 bytes for free objects behind an object of such a cache: 64 for each record.
const _: () = assert!(size_of::<Node>() == 56);

/// The cache's line in `/proc/slabinfo`.
const NAME: &CStr = c"toa_record";

/// The cache. All nodes must be freed before it is dropped.
///
/// # Invariants
///
/// `cache` was returned by C for [`Node`]s, with SLAB_TYPESAFE_BY_RCU, and is not destroyed.
pub(crate) struct SlabCache {
    cache: NonNull<c::kmem_cache>,
}

// SAFETY: C's functions for caches may be called on any CPU.
unsafe impl Send for SlabCache {}

// SAFETY: As above, and at the same time.
unsafe impl Sync for SlabCache {}

impl SlabCache {
    /// Makes the cache. May sleep.
    ///
    /// # Errors
    ///
    /// `ENOMEM`.
    pub(crate) fn new() -> Result<Self> {
        let (name, size) = (NAME.as_ptr().cast(), size_of::<Node>() as c_uint);
        let align = NODE_ALIGN as c_uint;
        let flags = c::TOA_SLAB_RECORDS as c_uint;
        // SAFETY: Process context that may sleep. The name is static, the arguments are C's defaults.
        let cache = unsafe {
            if c::TOA_HAS_KMEM_CACHE_CREATE_ARGS != 0 {
                let mut args = c::kmem_cache_args::aligned(align);
                c::__kmem_cache_create_args(name, size, &raw mut args, flags)
            } else {
                c::kmem_cache_create(name, size, align, flags, None)
            }
        };
        // INVARIANT: Just made.
        Ok(Self {
            cache: NonNull::new(cache).ok_or(ENOMEM)?,
        })
    }

    /// Allocates a node with key 0. May sleep.
    pub(crate) fn allocate(&self) -> Option<NonNull<Node>> {
        self.allocate_with(c::TOA_GFP_MAY_SLEEP as c_uint)
    }

    /// Allocates a node with key 0, in softirq too. It may use the reserves, and wakes kswapd. A failure
    /// is counted, so the kernel need not report it with a stack.
    #[cfg(not(CONFIG_PREEMPT_RT))]
    pub(crate) fn allocate_atomic(&self) -> Option<NonNull<Node>> {
        self.allocate_with(c::TOA_GFP_SOFTIRQ as c_uint)
    }

    /// Does the same on PREEMPT_RT: never. There an allocation takes a lock that sleeps, and a handler may
    /// run with preemption off.
    #[cfg(CONFIG_PREEMPT_RT)]
    pub(crate) fn allocate_atomic(&self) -> Option<NonNull<Node>> {
        None
    }

    fn allocate_with(&self, gfp: c_uint) -> Option<NonNull<Node>> {
        // SAFETY: By the type invariant. The callers' contexts are those of their flags.
        let node = NonNull::new(unsafe {
            if c::TOA_HAS_KMEM_CACHE_ALLOC_NOPROF != 0 {
                c::kmem_cache_alloc_noprof(self.cache.as_ptr(), gfp)
            } else {
                c::kmem_cache_alloc(self.cache.as_ptr(), gfp)
            }
        })?;
        let node = node.cast::<Node>();
        // SAFETY: The memory has the size and alignment of a node. Readers may stand on it: all accesses
        // are atomic. Its bits are atomic integers whatever they are.
        unsafe { node.as_ref() }.init(NOWHERE);
        Some(node)
    }

    /// Frees a node. Process context.
    ///
    /// # Safety
    ///
    /// The node must be of this cache, and the caller's own: nothing finds it by its key any more.
    pub(crate) unsafe fn free(&self, node: NonNull<Node>) {
        // SAFETY: By the function's safety requirements. Readers may still stand on the node: the page
        // outlives their RCU sections.
        unsafe { c::kmem_cache_free(self.cache.as_ptr(), node.as_ptr().cast()) };
    }
}

impl Drop for SlabCache {
    /// Destroys the cache, after a grace period for its pages. May sleep.
    fn drop(&mut self) {
        // SAFETY: By the type invariant. All nodes are freed.
        unsafe { c::kmem_cache_destroy(self.cache.as_ptr()) };
    }
}
