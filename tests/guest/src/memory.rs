// SPDX-License-Identifier: GPL-2.0

//! The kernel's memory, compared before and after much work.

use std::collections::BTreeMap;
use std::fs;

use crate::bench::slab::Slabs;

/// The kernel's memory.
pub struct Memory {
    slabs: Slabs,
    /// Rows of `/proc/meminfo`, in KiB.
    rows: BTreeMap<&'static str, i64>,
    /// Areas of vmalloc, of all callers.
    areas: i64,
}

impl Memory {
    const ROWS: [&'static str; 2] = ["VmallocUsed", "Percpu"];

    /// Reads the numbers after freeing unused objects of the kernel's caches.
    pub fn read() -> Self {
        let slabs = Slabs::shrunk();
        let text = fs::read_to_string("/proc/meminfo").expect("meminfo");
        let row = |name: &'static str| {
            let line = text
                .lines()
                .find_map(|line| line.strip_prefix(name)?.strip_prefix(':'));
            let number = line.and_then(|line| line.split_whitespace().next());
            let number = number.and_then(|number| number.parse().ok());
            (name, number.unwrap_or_else(|| panic!("{name}: {text}")))
        };
        let areas = fs::read_to_string("/proc/vmallocinfo").expect("vmallocinfo");
        // Areas that are free, and that the kernel unmaps many at a time (`purge_vmap_area_lazy`).
        let is_used = |line: &&str| !line.contains("unpurged vm_area");
        Self {
            slabs,
            rows: Self::ROWS.into_iter().map(row).collect(),
            areas: areas.lines().filter(is_used).count() as i64,
        }
    }

    /// The numbers that have grown by at least `least` objects, KiB or areas.
    pub fn grown(&self, before: &Self, least: i64) -> Vec<(String, i64)> {
        let slabs = self.slabs.since(&before.slabs);
        let slabs = slabs
            .notable(least)
            .filter(|(name, _)| name.starts_with("kmalloc-"))
            .map(|(name, cache)| (name.to_owned(), cache.objects));
        let rows = Self::ROWS
            .into_iter()
            .map(|row| (row.to_owned(), self.rows[row] - before.rows[row]));
        let areas = ("areas of vmalloc".to_owned(), self.areas - before.areas);
        slabs
            .chain(rows)
            .chain([areas])
            .filter(|&(_, growth)| growth >= least)
            .collect()
    }
}
