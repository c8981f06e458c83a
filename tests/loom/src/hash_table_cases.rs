// SPDX-License-Identifier: GPL-2.0

//! The hash table, with one bucket.

use crate::linux::hash_table::HashTable;
use crate::memory;
use crate::model;
use crate::model::Need;
use crate::sync::rcu;
use loom::sync::atomic::AtomicBool;
use loom::sync::atomic::Ordering;
use loom::sync::Mutex;
use loom::thread;
use std::sync::Arc;

type Table = HashTable<u64>;

const OLD: usize = 64;
const NEW: usize = 128;

fn value_of(key: usize) -> u64 {
    key as u64 + 1
}

/// A table that has the keys: the last one begins the chain.
fn table_of(keys: &[usize]) -> Arc<Table> {
    let table = Table::new(1, 1).expect("memory");
    for &key in keys {
        insert(&table, key);
    }
    Arc::new(table)
}

fn insert(table: &Table, key: usize) {
    assert_eq!(table.insert(key, value_of(key)), Ok(None));
}

fn remove(table: &Table, key: usize) {
    assert_eq!(table.remove(key), Some(value_of(key)));
}

/// Finds a key, and reads its value as long as the section lasts. Returns whether it is in the table.
fn finds(table: &Table, key: usize) -> bool {
    let rcu = rcu::read_lock();
    let Some(value) = table.get(key, &rcu) else {
        return false;
    };
    memory::read(value);
    assert_eq!(*value, value_of(key));
    true
}

fn beside(table: &Arc<Table>, f: impl FnOnce(&Table) + 'static) -> thread::JoinHandle<()> {
    let table = Arc::clone(table);
    thread::spawn(move || f(&table))
}

fn look_for_both(table: &Table) {
    finds(table, NEW);
    assert!(finds(table, OLD), "a key that stays is found");
}

/// A key is inserted before another one while a reader looks for both.
fn insert_beside_a_reader() {
    let table = table_of(&[OLD]);
    let reader = beside(&table, look_for_both);
    insert(&table, NEW);
    reader.join().unwrap();
    assert!(finds(&table, NEW));
}

#[test]
fn reader_finds_complete_values_and_those_behind_them() {
    model::passes(insert_beside_a_reader);
}

#[test]
fn insert_needs_its_release() {
    model::fails_without(Need::Release, "Causality violation", insert_beside_a_reader);
}

#[test]
fn look_up_needs_the_dependency() {
    model::fails_without(
        Need::Dependency,
        "Causality violation",
        insert_beside_a_reader,
    );
}

/// A key is removed while a reader looks for it and for the one behind it.
fn remove_beside_a_reader() {
    let table = table_of(&[OLD, NEW]);
    let reader = beside(&table, look_for_both);
    remove(&table, NEW);
    reader.join().unwrap();
    assert!(!finds(&table, NEW));
}

#[test]
fn reader_may_use_what_it_found_until_its_section_ends() {
    model::passes(remove_beside_a_reader);
}

#[test]
fn remove_needs_the_grace_period() {
    model::fails_without(
        Need::GracePeriods,
        "Causality violation",
        remove_beside_a_reader,
    );
}

/// A key gets another value while a reader looks for it. In between it has none.
#[test]
fn reader_may_use_a_value_that_is_replaced() {
    model::passes(|| {
        let table = table_of(&[OLD]);
        let reader = beside(&table, |table| {
            finds(table, OLD);
        });
        let old = table.insert(OLD, value_of(OLD));
        assert_eq!(old, Ok(Some(value_of(OLD))));
        reader.join().unwrap();
        assert!(finds(&table, OLD));
    });
}

/// A reader walks over a bucket while a key of it is removed and another one inserted.
#[test]
fn walk_over_a_bucket_returns_what_stays_once() {
    model::passes(|| {
        let table = table_of(&[OLD, NEW]);
        let reader = beside(&table, |table| {
            let rcu = rcu::read_lock();
            let values: Vec<u64> = table
                .bucket_values(0, &rcu)
                .inspect(|value| memory::read(*value))
                .copied()
                .collect();
            let stays = values.iter().filter(|&&value| value == value_of(OLD));
            assert_eq!(stays.count(), 1, "{values:?}");
        });
        remove(&table, NEW);
        insert(&table, NEW);
        reader.join().unwrap();
    });
}

/// One key is removed while another one is inserted into the same bucket.
fn two_writers() {
    let table = table_of(&[OLD]);
    let writer = beside(&table, |table| insert(table, NEW));
    remove(&table, OLD);
    writer.join().unwrap();
    assert!(finds(&table, NEW) && !finds(&table, OLD));
}

#[test]
fn writers_of_one_bucket_lose_nothing() {
    model::passes(two_writers);
}

#[test]
fn writers_need_the_buckets_lock() {
    model::fails_without(Need::SpinLocks, "assertion failed", two_writers);
}

/// A child is recorded under its socket's lock, and dies. `dies` takes that lock first, or does not.
fn record_and_die(dies: fn(&Mutex<()>, &AtomicBool, &Table)) {
    let table = table_of(&[]);
    let socket = Arc::new((Mutex::new(()), AtomicBool::new(false)));
    let child = Arc::clone(&socket);
    let closer = beside(&table, move |table| dies(&child.0, &child.1, table));
    let locked = socket.0.lock().unwrap();
    insert(&table, NEW);
    socket.1.store(true, Ordering::Relaxed);
    drop(locked);
    closer.join().unwrap();
}

fn forget(child: &AtomicBool, table: &Table) {
    if child.load(Ordering::Relaxed) {
        assert!(table.may_contain(NEW), "the record is missed");
    }
}

#[test]
fn dying_socket_finds_its_record_without_the_buckets_lock() {
    model::passes(|| {
        record_and_die(|lock, child, table| {
            let _locked = lock.lock().unwrap();
            forget(child, table);
        });
    });
}

#[test]
fn dying_socket_needs_its_own_lock() {
    model::fails("the record is missed", || {
        record_and_die(|_, child, table| forget(child, table));
    });
}
