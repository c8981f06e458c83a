// SPDX-License-Identifier: GPL-2.0

//! A [`Store`] of records of sockets, by the sockets' addresses.

use crate::{
    endpoint::Tuple,
    linux::{
        atomic::{
            AtomicUsize,
            Ordering::{
                Acquire,
                Release, //
            }, //
        },
        c,
        node::Words,
        rcu,
        sock::Sock,
        store::{
            CarriedOff,
            Store, //
        }, //
    }, //
};
use core::marker::PhantomData;
use kernel::ffi::c_void;
use kernel::prelude::*;

/// The table. `T` is the data of the sockets' namespaces.
///
/// # Invariants
///
/// While `watched` is 1, each record that [`SockTable::insert`] added is removed before its socket is
/// freed: the module's handler of the tracepoint `tcp_destroy_sock` does so, which fires for each TCP
/// socket before. A grace period passes between the store of 0 and the end of that handler.
pub(crate) struct SockTable<T> {
    store: Store,
    watched: AtomicUsize,
    _sockets: PhantomData<fn(&Sock<T>)>,
}

/// A record that a walk found.
pub(crate) struct Entry<'rcu, T> {
    /// The record.
    pub(crate) words: &'rcu Words,
    key: usize,
    watched: bool,
    _sockets: PhantomData<fn(&Sock<T>)>,
}

impl<T> SockTable<T> {
    /// Allocates a table: see [`Store::new`]. May sleep.
    pub(crate) fn new(cap: usize, locks: usize) -> Result<Self> {
        // INVARIANT: There is no record.
        Ok(Self {
            store: Store::new(cap, locks)?,
            watched: AtomicUsize::new(1),
            _sockets: PhantomData,
        })
    }

    /// The number of buckets.
    pub(crate) fn buckets(&self) -> usize {
        self.store.buckets()
    }

    /// Finds the record of a socket in most cases: see [`Store::get_at_once`].
    #[inline(always)]
    pub(crate) fn get_at_once(
        &self,
        sk: &Sock<T>,
        rcu: &rcu::Guard,
    ) -> Result<Option<Words>, CarriedOff> {
        self.store.get_at_once(sk.id(), rcu)
    }

    /// Finds the record of a socket.
    #[inline(always)]
    pub(crate) fn get(&self, sk: &Sock<T>, rcu: &rcu::Guard) -> Option<Words> {
        self.store.get(sk.id(), rcu)
    }

    /// Returns false if the socket has no record: see [`Store::may_contain`].
    #[inline(always)]
    pub(crate) fn may_contain(&self, sk: &Sock<T>) -> bool {
        self.store.may_contain(sk.id())
    }

    /// Adds the record of a socket, which has none.
    ///
    /// # Errors
    ///
    /// `ENOMEM`: nothing has changed then.
    #[inline(always)]
    pub(crate) fn insert(&self, sk: &Sock<T>, words: impl FnOnce() -> Words) -> Result {
        self.store.insert(sk.id(), words)
    }

    /// Removes the record of a socket and returns it. The socket is locked, or dies.
    #[inline(always)]
    pub(crate) fn remove(&self, sk: &Sock<T>) -> Option<Words> {
        self.store.remove(sk.id())
    }

    /// Calls `f` with the records of a bucket: see [`Store::for_each`].
    pub(crate) fn for_each(
        &self,
        bucket: usize,
        rcu: &rcu::Guard,
        mut f: impl FnMut(Entry<'_, T>),
    ) {
        let watched = self.watched.load(Acquire) != 0;
        self.store.for_each(bucket, rcu, |key, words| {
            f(Entry {
                words,
                key,
                watched,
                _sockets: PhantomData,
            });
        });
    }

    /// Forgets the way from records to sockets, which may be freed unseen from the end of this call on. May
    /// sleep.
    pub(crate) fn unwatch(&self) {
        self.watched.store(0, Release);
        // SAFETY: Process context that may sleep.
        unsafe { c::synchronize_rcu() };
    }

    /// Adds a record of no socket, for `make bench`: of an IPv4 connection, whose tag has the addresses.
    #[cfg(toa_fill)]
    pub(crate) fn insert_foreign(&self, key: usize, words: Words) -> Result {
        self.store.insert(key, || words)
    }
}

impl<T> Entry<'_, T> {
    /// The connection that the record's socket has, or that of the next socket at the same address: it must
    /// be compared with the record. `None` if the socket may be freed.
    pub(crate) fn tuple(&self) -> Option<Tuple> {
        if !self.watched {
            return None;
        }
        // SAFETY: The record was in the table at some time of the RCU section that this entry lives in, and
        // `watched` was true in the section. So by the invariant of `SockTable` the socket was not freed
        // before the section began. Its slab has SLAB_TYPESAFE_BY_RCU (`tcp_prot`, `tcpv6_prot`): the memory
        // is that of a TCP socket until the section ends. Only fields in the socket itself are read.
        let sk = unsafe { Sock::<T>::from_raw(self.key as *const c_void) };
        Some(sk.tuple())
    }
}
