// SPDX-License-Identifier: GPL-2.0

//! The kernel's allocations, from `/proc/slabinfo`.

use std::collections::BTreeMap;
use std::fs;

/// The prefix of the randomised caches: several for one size, to make attacks harder.
const RANDOM: &str = "kmalloc-rnd-";

/// The bytes of a page, in which slabinfo counts.
const PAGE: i64 = 4096;

/// A cache's objects in use, and the bytes of its pages; or how both have changed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Cache {
    pub objects: i64,
    pub bytes: i64,
}

/// The caches by their names.
#[derive(Debug, Default)]
pub struct Slabs {
    caches: BTreeMap<String, Cache>,
}

impl Slabs {
    fn read() -> Self {
        Self::parse(&fs::read_to_string("/proc/slabinfo").expect("slabinfo is readable"))
    }

    /// Reads the state after the kernel freed the pages without objects.
    pub fn shrunk() -> Self {
        for cache in fs::read_dir("/sys/kernel/slab").expect("SLUB's directory") {
            let shrink = cache.expect("a cache").path().join("shrink");
            // A cache may be removed at any time.
            let _ = fs::write(shrink, "1");
        }
        Self::read()
    }

    fn parse(text: &str) -> Self {
        let mut slabs = Self::default();
        for line in text.lines().skip(2) {
            // name active all size objects-in-slab pages-in-slab : … : slabdata active-slabs slabs …
            let words: Vec<&str> = line.split_whitespace().collect();
            let number = |at: usize| -> i64 { words[at].parse().expect("a number") };
            let cache = slabs.caches.entry(common_name(words[0])).or_default();
            cache.objects += number(1);
            cache.bytes += number(14) * number(5) * PAGE;
        }
        slabs
    }

    /// Returns the difference to `before`.
    pub fn since(&self, before: &Self) -> Self {
        let change = |(name, now): (&String, &Cache)| {
            let earlier = before.caches.get(name).copied().unwrap_or_default();
            let change = Cache {
                objects: now.objects - earlier.objects,
                bytes: now.bytes - earlier.bytes,
            };
            (name.clone(), change)
        };
        Self {
            caches: self.caches.iter().map(change).collect(),
        }
    }

    /// Returns the bytes of all caches.
    pub fn bytes(&self) -> i64 {
        self.caches.values().map(|cache| cache.bytes).sum()
    }

    /// Returns the caches that differ by at least `least` objects.
    pub fn notable(&self, least: i64) -> impl Iterator<Item = (&str, Cache)> + '_ {
        let caches = self
            .caches
            .iter()
            .map(|(name, &cache)| (name.as_str(), cache));
        caches.filter(move |(_, cache)| cache.objects.abs() >= least)
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
        TCP 10 12 2368 13 8 : tunables 0 0 0 : slabdata 1 1 0\n\
        kmalloc-rnd-01-96 5 42 96 42 1 : tunables 0 0 0 : slabdata 1 1 0\n\
        kmalloc-96 7 84 96 42 1 : tunables 0 0 0 : slabdata 2 2 0\n";

    #[test]
    fn caches_of_one_size_are_one() {
        let slabs = Slabs::parse(BEFORE);
        assert_eq!(
            slabs.caches["kmalloc-96"],
            Cache {
                objects: 12,
                bytes: 3 * 4096
            }
        );
        assert_eq!(slabs.caches["TCP"].bytes, 8 * 4096);
    }

    #[test]
    fn growth_is_counted_in_objects_and_pages() {
        let before = Slabs::parse(BEFORE);
        let after = Slabs::parse(
            &BEFORE
                .replace("kmalloc-96 7", "kmalloc-96 107")
                .replace("slabdata 2 2", "slabdata 5 5"),
        );
        let growth = after.since(&before);
        assert_eq!(growth.bytes(), 3 * 4096);
        let notable: Vec<_> = growth.notable(1).collect();
        let grown = Cache {
            objects: 100,
            bytes: 3 * 4096,
        };
        assert_eq!(notable, [("kmalloc-96", grown)]);
    }
}
