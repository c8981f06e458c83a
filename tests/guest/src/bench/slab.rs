// SPDX-License-Identifier: GPL-2.0

//! What the kernel has allocated, from `/proc/slabinfo`.

use std::collections::BTreeMap;
use std::fs;

/// Caches of which there are many for one size, to make attacks harder.
const RANDOM: &str = "kmalloc-rnd-";

/// Objects by cache: how many, and the size of one.
#[derive(Debug, Default)]
pub struct Slabs {
    caches: BTreeMap<String, (i64, i64)>,
}

impl Slabs {
    /// As it is now.
    pub fn read() -> Self {
        Self::parse(&fs::read_to_string("/proc/slabinfo").expect("slabinfo is there"))
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

    /// What came since `before`.
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

    /// Caches of at least so many objects, more or less: name, objects, bytes.
    pub fn notable(&self, least: i64) -> impl Iterator<Item = (&str, i64, i64)> + '_ {
        let caches = self.caches.iter();
        caches
            .filter(move |(_, &(objects, _))| objects.abs() >= least)
            .map(|(name, &(objects, size))| (name.as_str(), objects, objects * size))
    }
}

/// `kmalloc-rnd-07-96` is one of the caches that are `kmalloc-96` together.
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
