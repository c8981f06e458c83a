// SPDX-License-Identifier: GPL-2.0

//! The store of records, with one bucket or two.

use crate::linux::node::Words;
use crate::linux::store::Store;
use crate::model;
use crate::model::Need;
use crate::sync::rcu;
use loom::sync::atomic::AtomicBool;
use loom::sync::atomic::Ordering;
use loom::sync::Mutex;
use loom::thread;
use std::sync::Arc;

/// A key of the bucket: all keys are in bucket 0 of a store with one, and every second one of these is in
/// bucket 1 of a store with two.
fn key(number: usize, bucket: usize) -> usize {
    let in_bucket = |key: &usize| {
        ((*key as u64).wrapping_mul(0x61C8_8646_80B5_83EB) >> 32) & 1 == bucket as u64
    };
    (1..).map(|n| n * 64).filter(in_bucket).nth(number).unwrap()
}

/// Words that no other key has.
fn words_of(key: usize) -> Words {
    let key = key as u64;
    [key, key + 1, key + 2, key + 3, key + 4]
}

/// A store with so many buckets that has the keys: the last one begins the chain.
fn store_of(buckets: usize, keys: &[usize]) -> Arc<Store> {
    let store = Store::new(buckets, 1).expect("memory");
    for &key in keys {
        insert(&store, key);
    }
    Arc::new(store)
}

fn insert(store: &Store, key: usize) {
    assert_eq!(store.insert(key, || words_of(key)), Ok(()));
}

fn remove(store: &Store, key: usize) {
    let removed = store.remove(key);
    assert_eq!(removed, Some(words_of(key)), "a record is lost");
}

/// Finds a key, and checks what it has. Returns whether it is in the store.
fn finds(store: &Store, key: usize) -> bool {
    match store.get(key, &rcu::read_lock()) {
        None => false,
        Some(words) => {
            assert_eq!(words, words_of(key), "the words of another record");
            true
        }
    }
}

fn beside(store: &Arc<Store>, f: impl FnOnce(&Store) + 'static) -> thread::JoinHandle<()> {
    let store = Arc::clone(store);
    thread::spawn(move || f(&store))
}

fn must_find(store: &Store, key: usize) {
    assert!(finds(store, key), "a record that stays is missed");
}

/// The most switches between threads with TOA_LOOM=all.
const SWITCHES: usize = 3;

fn passes(scenario: impl Fn() + Send + Sync + 'static) {
    model::within_switches(SWITCHES, || model::passes(scenario));
}

fn fails(expected: &str, scenario: impl Fn() + Send + Sync + 'static) {
    model::within_switches(SWITCHES, || model::fails(expected, scenario));
}

fn fails_without(need: Need, expected: &str, scenario: impl Fn() + Send + Sync + 'static) {
    model::within_switches(SWITCHES, || model::fails_without(need, expected, scenario));
}

/// A record is inserted before another one while a reader looks for both.
fn insert_beside_a_reader() {
    let [old, new] = [key(0, 0), key(1, 0)];
    let store = store_of(1, &[old]);
    let reader = beside(&store, move |store| {
        finds(store, new);
        must_find(store, old);
    });
    insert(&store, new);
    reader.join().unwrap();
    must_find(&store, new);
}

#[test]
fn reader_finds_complete_records_and_those_behind_them() {
    passes(insert_beside_a_reader);
}

#[test]
fn insert_needs_its_release() {
    fails_without(Need::Release, "", insert_beside_a_reader);
}

#[test]
fn look_up_needs_its_acquire() {
    fails_without(Need::Acquire, "", insert_beside_a_reader);
}

/// A record is removed while a reader looks for it and for the one behind it.
#[test]
fn reader_on_a_removed_record_finds_the_one_behind_it() {
    passes(|| {
        let [old, new] = [key(0, 0), key(1, 0)];
        let store = store_of(1, &[old, new]);
        let reader = beside(&store, move |store| {
            finds(store, new);
            must_find(store, old);
        });
        remove(&store, new);
        reader.join().unwrap();
        assert!(!finds(&store, new));
    });
}

/// A record's memory becomes that of another record, of the same bucket, while a reader looks for the
/// first one.
fn use_again_beside_a_reader() {
    let [first, second] = [key(0, 0), key(1, 0)];
    let store = store_of(1, &[first]);
    let reader = beside(&store, move |store| {
        finds(store, first);
    });
    remove(&store, first);
    insert(&store, second);
    reader.join().unwrap();
    must_find(&store, second);
    assert!(!finds(&store, first));
}

#[test]
fn reader_never_returns_the_words_of_a_later_record() {
    passes(use_again_beside_a_reader);
}

#[test]
fn use_of_memory_again_needs_its_release() {
    fails_without(
        Need::Release,
        "the words of another record",
        use_again_beside_a_reader,
    );
}

#[test]
fn second_look_at_the_key_needs_the_acquires() {
    fails_without(
        Need::Acquire,
        "the words of another record",
        use_again_beside_a_reader,
    );
}

/// A reader stands on a record that moves to the other bucket.
#[test]
fn reader_that_is_carried_off_finds_what_stays() {
    passes(|| {
        let [stays, moves, other] = [key(0, 0), key(1, 0), key(0, 1)];
        let store = store_of(2, &[stays, moves]);
        let reader = beside(&store, move |store| must_find(store, stays));
        remove(&store, moves);
        insert(&store, other);
        reader.join().unwrap();
        must_find(&store, other);
    });
}

/// Walks over bucket 0, which has one record that stays, and checks that it comes once, and no other one
/// twice.
fn walk(store: &Store, stays: usize) -> Vec<usize> {
    let mut found = Vec::new();
    store.for_each(0, &rcu::read_lock(), |key, words| {
        assert_eq!(*words, words_of(key));
        assert!(!found.contains(&key), "{key} comes twice");
        found.push(key);
    });
    assert!(found.contains(&stays), "{found:?}");
    found
}

/// A reader walks over a bucket while a record of it is removed, and its memory used again there. The
/// record stands before the one that stays, or behind it.
fn use_again_beside_a_walk(before: bool) {
    let [stays, goes, comes] = [key(0, 0), key(1, 0), key(2, 0)];
    let chain = if before { [stays, goes] } else { [goes, stays] };
    let store = store_of(1, &chain);
    let reader = beside(&store, move |store| {
        walk(store, stays);
    });
    remove(&store, goes);
    insert(&store, comes);
    reader.join().unwrap();
}

#[test]
fn walk_returns_what_stays_while_memory_before_it_is_used_again() {
    passes(|| use_again_beside_a_walk(true));
}

#[test]
fn walk_returns_once_what_stays_while_memory_behind_it_is_used_again() {
    passes(|| use_again_beside_a_walk(false));
}

/// A reader that holds no socket walks over a bucket while a socket dies, and the next one at its address
/// gets a record in the same memory.
#[test]
fn walk_returns_no_mixture_of_two_records_of_one_key() {
    passes(|| {
        let key = key(0, 0);
        let next = words_of(key).map(|word| word + 1000);
        let store = store_of(1, &[key]);
        let reader = beside(&store, move |store| {
            store.for_each(0, &rcu::read_lock(), |found, words| {
                assert_eq!(found, key);
                assert!([words_of(key), next].contains(words), "{words:?}");
            });
        });
        remove(&store, key);
        assert_eq!(store.insert(key, || next), Ok(()));
        reader.join().unwrap();
    });
}

/// A reader walks over a bucket while it is carried off to the other one, and back.
#[test]
fn walk_returns_no_record_of_another_bucket() {
    passes(|| {
        let [stays, goes, comes] = [key(0, 0), key(1, 0), key(2, 0)];
        let [other, third] = [key(0, 1), key(1, 1)];
        let store = store_of(2, &[other, stays, goes]);
        let reader = beside(&store, move |store| {
            let found = walk(store, stays);
            assert!(
                !found.contains(&other) && !found.contains(&third),
                "{found:?}"
            );
        });
        // The memory of `goes` leads to that of `other`, which leads back.
        remove(&store, goes);
        insert(&store, third);
        remove(&store, other);
        insert(&store, comes);
        reader.join().unwrap();
    });
}

/// Two records that stand one behind the other are removed at the same time.
fn two_removes() {
    let [last, middle, first] = [key(0, 0), key(1, 0), key(2, 0)];
    let store = store_of(1, &[last, middle, first]);
    let writer = beside(&store, move |store| remove(store, middle));
    remove(&store, last);
    writer.join().unwrap();
    must_find(&store, first);
    assert!(!finds(&store, middle) && !finds(&store, last));
}

#[test]
fn neighbours_are_removed_at_the_same_time() {
    passes(two_removes);
}

#[test]
fn removes_need_the_buckets_lock() {
    fails_without(Need::SpinLocks, "", two_removes);
}

/// A record is removed while the memory of the one before it is used again.
#[test]
fn remove_behind_a_record_whose_memory_is_used_again() {
    passes(|| {
        let [last, before, new] = [key(0, 0), key(1, 0), key(2, 0)];
        let store = store_of(1, &[last, before]);
        let writer = beside(&store, move |store| {
            remove(store, before);
            insert(store, new);
        });
        remove(&store, last);
        writer.join().unwrap();
        must_find(&store, new);
        assert!(!finds(&store, before) && !finds(&store, last));
    });
}

/// One record is removed while another one is inserted into the same bucket.
fn insert_and_remove() {
    let [old, new] = [key(0, 0), key(1, 0)];
    let store = store_of(1, &[old]);
    let writer = beside(&store, move |store| insert(store, new));
    remove(&store, old);
    writer.join().unwrap();
    assert!(finds(&store, new) && !finds(&store, old));
}

#[test]
fn writers_of_one_bucket_lose_nothing() {
    passes(insert_and_remove);
}

/// Two records are inserted at the same time, before one that is removed.
fn two_inserts_and_a_remove() {
    let [old, first, second] = [key(0, 0), key(1, 0), key(2, 0)];
    let store = store_of(1, &[old]);
    let writers = [first, second].map(|new| beside(&store, move |store| insert(store, new)));
    remove(&store, old);
    for writer in writers {
        writer.join().unwrap();
    }
    must_find(&store, first);
    must_find(&store, second);
    assert!(!finds(&store, old));
}

#[test]
fn inserts_need_no_lock() {
    passes(two_inserts_and_a_remove);
}

/// A record is removed behind one whose memory another CPU uses again, for a record of the same bucket that
/// is in no chain yet.
#[test]
fn remove_behind_a_record_that_is_inserted_again_elsewhere() {
    passes(|| {
        let [last, before, new] = [key(0, 0), key(1, 0), key(2, 0)];
        let store = store_of(1, &[last, before]);
        remove(&store, before);
        insert(&store, before);
        let writer = beside(&store, move |store| {
            remove(store, before);
            insert(store, new);
            remove(store, new);
        });
        remove(&store, last);
        writer.join().unwrap();
        for key in [last, before, new] {
            assert!(!finds(&store, key));
        }
    });
}

/// The filter keeps the class of each record while others of its bucket come and go.
#[test]
fn no_record_is_filtered_out() {
    passes(|| {
        let [stays, goes, comes] = [key(0, 0), key(1, 0), key(2, 0)];
        let store = store_of(1, &[stays, goes]);
        let reader = beside(&store, move |store| assert!(store.may_contain(stays)));
        let writer = beside(&store, move |store| insert(store, comes));
        remove(&store, goes);
        for thread in [reader, writer] {
            thread.join().unwrap();
        }
        assert!(store.may_contain(stays) && store.may_contain(comes));
        remove(&store, stays);
        remove(&store, comes);
        for key in [stays, goes, comes] {
            assert!(!store.may_contain(key), "an empty bucket has classes");
        }
    });
}

/// A child is recorded under its socket's lock, and dies. `dies` takes that lock first, or does not.
fn record_and_die(dies: fn(&Mutex<()>, &AtomicBool, &Store)) {
    let store = store_of(1, &[]);
    let socket = Arc::new((Mutex::new(()), AtomicBool::new(false)));
    let child = Arc::clone(&socket);
    let closer = beside(&store, move |store| dies(&child.0, &child.1, store));
    let locked = socket.0.lock().unwrap();
    insert(&store, key(0, 0));
    socket.1.store(true, Ordering::Relaxed);
    drop(locked);
    closer.join().unwrap();
}

fn forget(child: &AtomicBool, store: &Store) {
    if child.load(Ordering::Relaxed) {
        assert!(store.may_contain(key(0, 0)), "the record is missed");
    }
}

#[test]
fn dying_socket_finds_its_record_without_the_buckets_lock() {
    passes(|| {
        record_and_die(|lock, child, store| {
            let _locked = lock.lock().unwrap();
            forget(child, store);
        });
    });
}

#[test]
fn dying_socket_needs_its_own_lock() {
    fails("the record is missed", || {
        record_and_die(|_, child, store| forget(child, store));
    });
}
