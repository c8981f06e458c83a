// SPDX-License-Identifier: GPL-2.0

//! A planted bug, which the sanitizer must report: the byte behind a list is read.

#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|list: &[u8]| {
    let list = list.to_vec().into_boxed_slice();
    // SAFETY: None, on purpose: the index is one past the end.
    std::hint::black_box(unsafe { *list.as_ptr().add(list.len()) });
});
