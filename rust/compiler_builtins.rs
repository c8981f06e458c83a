// SPDX-License-Identifier: GPL-2.0

//! An empty `compiler_builtins`, which the compiler links into each crate without `std`. The kernel
//! exports the memory functions that compiled code calls.

#![feature(compiler_builtins)]
#![compiler_builtins]
#![no_std]
