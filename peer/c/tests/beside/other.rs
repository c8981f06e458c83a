// SPDX-License-Identifier: MIT OR Apache-2.0

//! A second static library in Rust, which a C program links beside libtoa_peer.a.

/// Adds numbers, and catches a panic that each call raises.
#[no_mangle]
pub extern "C" fn other_sum(one: i32, two: i32) -> i32 {
    let numbers = vec![one, two];
    match std::panic::catch_unwind(move || numbers[numbers.len()]) {
        Ok(number) => number,
        Err(_panic) => one + two,
    }
}
