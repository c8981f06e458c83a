// SPDX-License-Identifier: GPL-2.0

//! Idle nodes: the last one that was given is taken first, so memory is used again as soon as it can be.
//!
//! Names, signatures and contracts are those of the module's `linux/idle.rs`, which passes nodes from one
//! owner to the next by the swaps of `linux/slots.rs`. Here one swap stands for them: `slots_cases.rs`
//! has the scenarios of slots.

use crate::linux::atomic::AtomicUsize;
use crate::linux::atomic::Ordering;
use crate::linux::node::Node;
use crate::linux::store::NODE_ALIGN;
use crate::linux::store::NOWHERE;
use crate::memory;
use crate::prelude::Result;
use core::alloc::Layout;
use core::cell::RefCell;
use core::ptr::NonNull;

pub(crate) struct IdleNode(NonNull<Node>);

impl IdleNode {
    pub(crate) unsafe fn from_raw(node: NonNull<Node>) -> Self {
        Self(node)
    }

    pub(crate) fn into_raw(self) -> NonNull<Node> {
        self.0
    }
}

pub(crate) struct Idle {
    /// Orders what an owner did before what the next one does.
    passed: AtomicUsize,
    nodes: RefCell<Vec<NonNull<Node>>>,
}

// SAFETY: loom runs its threads in one thread of the host, and switches none of them while the cell is
// borrowed.
unsafe impl Sync for Idle {}

// SAFETY: As above.
unsafe impl Send for Idle {}

impl Idle {
    pub(crate) fn new(_cap: usize) -> Result<Self> {
        Ok(Self {
            passed: AtomicUsize::new(0),
            nodes: RefCell::default(),
        })
    }

    pub(crate) fn take(&self) -> Option<IdleNode> {
        self.passed.swap(0, Ordering::AcqRel);
        self.nodes.borrow_mut().pop().map(IdleNode)
    }

    pub(crate) fn give(&self, node: IdleNode) {
        self.passed.swap(0, Ordering::AcqRel);
        self.nodes.borrow_mut().push(node.0);
    }

    pub(crate) fn allocate(&self) -> Option<IdleNode> {
        let layout = Layout::new::<Node>()
            .align_to(NODE_ALIGN)
            .expect("a layout");
        let memory = memory::allocate(layout);
        // SAFETY: The memory is new, and has the node's layout. Zeroes are atomics that are 0, and have no
        // twin yet.
        unsafe { memory.write_bytes(0, layout.size()) };
        let node = memory.cast::<Node>();
        // SAFETY: As above.
        unsafe { node.as_ref() }.init(NOWHERE);
        Some(IdleNode(node))
    }

    pub(crate) fn free(&self, node: IdleNode) {
        memory::free(node.0.as_ptr().cast());
    }
}

impl Drop for Idle {
    fn drop(&mut self) {
        for node in self.nodes.take() {
            self.free(IdleNode(node));
        }
    }
}
