// SPDX-License-Identifier: GPL-2.0

//! The kernel's allocations, from `/proc/slabinfo`.

use std::collections::BTreeMap;
use std::fs;

/// The prefix of the randomised caches: several for one size, to make attacks harder.
const RANDOM: &str = "kmalloc-rnd-";

/// The number of objects in each cache, and the size of one.
#[derive(Debug, Default)]
pub struct Slabs {
    caches: BTreeMap<String, (i64, i64)>,
}

impl Slabs {
    /// Reads the current state.
    pub fn read() -> Self {
        Self::parse(&fs::read_to_string("/proc/slabinfo").expect("slabinfo is readable"))
    }

    fn parse(text: &str) -> Self {
        let mut slabs = Self::default();
        for line in text.lines().skip(2) {
            let mut words = line.split_whitespace();
            let name = words.next().expect("a cache has a name");
            let mut number = || -> i64 {
                let word = words.next().expect("a column");
                word.parse().expect("a number")
            };
            let (active, _all, size) = (number(), number(), number());
            let cache = slabs.caches.entry(common_name(name)).or_default();
            *cache = (cache.0 + active, size);
        }
        slabs
    }

    /// Returns the difference to `before`.
    pub fn since(&self, before: &Self) -> Self {
        let change = |(name, &(objects, size)): (&String, &(i64, i64))| {
            let earlier = before.caches.get(name).map_or(0, |cache| cache.0);
            (name.clone(), (objects - earlier, size))
        };
        Self {
            caches: self.caches.iter().map(change).collect(),
        }
    }

    pub fn bytes(&self) -> i64 {
        self.caches
            .values()
            .map(|&(objects, size)| objects * size)
            .sum()
    }

    /// Returns the caches that differ by at least `least` objects: name, objects, bytes.
    pub fn notable(&self, least: i64) -> impl Iterator<Item = (&str, i64, i64)> + '_ {
        let caches = self.caches.iter();
        caches
            .filter(move |(_, &(objects, _))| objects.abs() >= least)
            .map(|(name, &(objects, size))| (name.as_str(), objects, objects * size))
    }
}

/// Maps the randomised caches of one size to one name: `kmalloc-rnd-07-96` to
/// `kmalloc-96`.
fn common_name(name: &str) -> String {
    match name
        .strip_prefix(RANDOM)
        .and_then(|rest| rest.split_once('-'))
    {
        Some((_, size)) => format!("kmalloc-{size}"),
        None => name.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const BEFORE: &str = "slabinfo - version: 2.1\n# name\n\
        TCP 10 12 2368 13 8 : tunables\n\
        kmalloc-rnd-01-96 5 42 96 42 1 : tunables\n\
        kmalloc-96 7 42 96 42 1 : tunables\n";

    #[test]
    fn caches_of_one_size_are_one() {
        let slabs = Slabs::parse(BEFORE);
        assert_eq!(slabs.caches["kmalloc-96"], (12, 96));
    }

    #[test]
    fn growth_is_counted_in_objects_and_bytes() {
        let before = Slabs::parse(BEFORE);
        let after = Slabs::parse(&BEFORE.replace("01-96 5", "01-96 105"));
        let growth = after.since(&before);
        assert_eq!(growth.bytes(), 9600);
        let notable: Vec<_> = growth.notable(1).collect();
        assert_eq!(notable, [("kmalloc-96", 100, 9600)]);
    }
}
