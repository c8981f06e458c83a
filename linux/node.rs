// SPDX-License-Identifier: GPL-2.0

//! One record in type-stable memory: a reader may stand on it while it is freed and used again.
//!
//! The cache has SLAB_TYPESAFE_BY_RCU. Memory that is a [`Node`] at some time of an RCU read-side
//! section is a [`Node`] until the section ends, of this record or of another one. So all of it is
//! atomic, and a reader checks the key once more after it copied the words ([`Node::words_of`]):
//!
//! - [`Node::fill`] stores the words before [`Node::set_key`] the key, and [`Node::clear`] stores key 0
//!   before anything of the next record. Each store is a release, each load of a reader an acquire.
//! - A reader that finds its key also reads the words that were stored before that key. If it reads a
//!   word of a later record, it also reads the key 0 before it, or a later key.
//! - The same key comes back only with the next socket at the same address, so not while a reader holds a
//!   reference on the socket. A reader without one copies the words twice (`linux/store.rs`).

use crate::linux::atomic::{
    AtomicU64,
    AtomicUsize,
    Ordering::{
        Acquire,
        Relaxed,
        Release, //
    }, //
};

/// The words of a record.
pub(crate) const WORDS: usize = 5;

/// The content of a record beside its key.
pub(crate) type Words = [u64; WORDS];

/// A record, or one that is idle.
#[repr(C)]
pub(crate) struct Node {
    /// The next node's address, or a marker.
    next: AtomicUsize,
    /// The socket's address. 0 until the node is in its chain, and from a moment after it has left the chain.
    key: AtomicUsize,
    words: [AtomicU64; WORDS],
}

impl Node {
    /// The link to the next node of the chain: an address or a marker.
    #[inline(always)]
    pub(crate) fn next(&self) -> usize {
        self.next.load(Acquire)
    }

    /// The node's key.
    #[inline(always)]
    pub(crate) fn key(&self) -> usize {
        self.key.load(Acquire)
    }

    /// Returns the words of a node whose key was just loaded and found to be `key`, if it has the key
    /// afterwards too.
    #[inline(always)]
    pub(crate) fn words_of(&self, key: usize) -> Option<Words> {
        let words = self.words();
        (self.key.load(Relaxed) == key).then_some(words)
    }

    /// The words: those of one record only while nothing fills the node.
    #[inline(always)]
    pub(crate) fn words(&self) -> Words {
        self.words.each_ref().map(|word| word.load(Acquire))
    }

    /// Gives an idle node the words of a record. The caller has the node to itself.
    #[inline(always)]
    pub(crate) fn fill(&self, words: &Words) {
        for (place, word) in self.words.iter().zip(words) {
            place.store(*word, Release);
        }
    }

    /// Gives the node its key. The caller has filled it, and put it into the key's chain.
    #[inline(always)]
    pub(crate) fn set_key(&self, key: usize) {
        self.key.store(key, Release);
    }

    /// Makes `next` follow the node. The caller holds the bucket's lock, or has the node to itself.
    #[inline(always)]
    pub(crate) fn set_next(&self, next: usize) {
        self.next.store(next, Release);
    }

    /// Takes the key away. The caller has unlinked the node, and holds the bucket's lock.
    #[inline(always)]
    pub(crate) fn clear(&self) {
        self.key.store(0, Release);
    }

    /// Clears new memory. `nowhere` is the end of no chain.
    pub(crate) fn init(&self, nowhere: usize) {
        self.clear();
        self.set_next(nowhere);
    }

    /// The address of the next idle node of the batch, or 0: the first word.
    #[inline(always)]
    pub(crate) fn link(&self) -> usize {
        let [link, ..] = &self.words;
        link.load(Relaxed) as usize
    }

    /// Stores that address. A release, as each store to a word is.
    #[inline(always)]
    pub(crate) fn set_link(&self, link: usize) {
        let [word, ..] = &self.words;
        word.store(link as u64, Release);
    }

    /// The address of the next batch's first node, or 0: the second word.
    pub(crate) fn batch(&self) -> usize {
        let [_, batch, ..] = &self.words;
        batch.load(Relaxed) as usize
    }

    /// Stores that address.
    pub(crate) fn set_batch(&self, batch: usize) {
        let [_, word, ..] = &self.words;
        word.store(batch as u64, Release);
    }
}
