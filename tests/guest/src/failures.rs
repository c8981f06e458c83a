// SPDX-License-Identifier: GPL-2.0

//! Allocations that fail on demand (the kernel's `Documentation/fault-injection`).

use std::fs;
use std::fs::File;
use std::fs::OpenOptions;
use std::ops::Range;
use std::os::unix::fs::FileExt;

use crate::runner;

/// The settings of failing allocations of slab objects.
const FAILSLAB: &str = "/sys/kernel/debug/failslab";

/// Returns whether the kernel can fail allocations.
pub fn supported() -> bool {
    fs::exists(FAILSLAB).expect("debugfs")
}

/// The settings of failing allocations of pages.
const FAIL_PAGES: &str = "/sys/kernel/debug/fail_page_alloc";

/// Writes a setting.
#[track_caller]
fn set(directory: &str, name: &str, value: &str) {
    fs::write(format!("{directory}/{name}"), value)
        .unwrap_or_else(|error| panic!("{directory}/{name}: {value}: {error}"));
}

/// The settings by which the kernel spares most allocations, with the value by which all of them can
/// fail, and the kernel's own value.
const SPARED: [(&str, &str, &str, &str); 4] = [
    (FAILSLAB, "ignore-gfp-wait", "N", "Y"),
    (FAIL_PAGES, "ignore-gfp-wait", "N", "Y"),
    (FAIL_PAGES, "ignore-gfp-highmem", "N", "Y"),
    (FAIL_PAGES, "min-order", "0", "1"),
];

/// The level from which on messages appear on the console, whose traces fail the run: warnings do not
/// appear. The runner sees all of them.
const PRINTK: &str = "/proc/sys/kernel/printk";

/// Allocations that may sleep can fail as well, and pages of any size and zone, until this is
/// dropped. The kernel's reports of failed allocations do not fail the case.
pub struct Failures {
    nth: File,
}

impl Failures {
    pub fn prepare() -> Self {
        for (directory, name, value, _) in SPARED {
            set(directory, name, value);
        }
        for directory in [FAILSLAB, FAIL_PAGES] {
            set(directory, "verbose", "0");
        }
        fs::write(PRINTK, "4").expect("the console's level");
        runner::allocations_fail();
        let nth = OpenOptions::new()
            .read(true)
            .write(true)
            .open("/proc/thread-self/fail-nth")
            .expect("fail-nth");
        Self { nth }
    }

    /// Runs `work` in this thread, whose `number`-th allocation from here on fails, of an object or
    /// of pages. Returns whether there were that many.
    pub fn nth<T>(&mut self, number: u32, work: impl FnOnce() -> T) -> (T, bool) {
        self.write(number);
        let result = work();
        let mut text = [0; 16];
        let length = self.nth.read_at(&mut text, 0).expect("fail-nth");
        self.write(0);
        let left = String::from_utf8_lossy(&text[..length]);
        (result, left.trim() == "0")
    }

    /// Runs `work` while one of `each` allocations of the kernel fails by chance, if code between two
    /// addresses is on its stack. Returns the number of failures. By chance, because a worker whose batch
    /// ends at each failure would keep step with a count.
    pub fn in_code<T>(
        &mut self,
        code: Range<u64>,
        each: u32,
        work: impl FnOnce() -> T,
    ) -> (T, u64) {
        const MANY: u64 = 1_000_000;
        set(FAILSLAB, "task-filter", "N");
        set(FAILSLAB, "stacktrace-depth", "32");
        set(FAILSLAB, "require-start", &format!("{:#x}", code.start));
        set(FAILSLAB, "require-end", &format!("{:#x}", code.end));
        set(FAILSLAB, "interval", "1");
        set(FAILSLAB, "probability", &(100 / each).to_string());
        set(FAILSLAB, "times", &MANY.to_string());
        let result = work();
        let text = fs::read_to_string(format!("{FAILSLAB}/times")).expect("the rest");
        set(FAILSLAB, "probability", "0");
        set(FAILSLAB, "require-start", "0");
        set(FAILSLAB, "require-end", "0");
        let left: u64 = text.trim().parse().expect("a number");
        (result, MANY - left)
    }

    /// The file cannot seek.
    fn write(&mut self, number: u32) {
        self.nth
            .write_all_at(number.to_string().as_bytes(), 0)
            .expect("fail-nth takes a number");
    }
}

impl Drop for Failures {
    fn drop(&mut self) {
        set(FAILSLAB, "probability", "0");
        for (directory, name, _, value) in SPARED {
            set(directory, name, value);
        }
        fs::write(PRINTK, "7").expect("the console's level");
    }
}
