// SPDX-License-Identifier: MIT OR Apache-2.0

//! Gives the symbols of the shared library a version: its soname.
//!
//! rustc passes a version script without a name, which linkers accept beside no other one.
//! So no script can name the version. GNU ld has an option that needs no script; LLD, the
//! default of newer compilers, does not have it.

use std::env;

fn main() {
    println!("cargo::rerun-if-changed=build.rs");
    // cargo-c sets this feature. Other builds make no shared library.
    let by_cargo_c = env::var_os("CARGO_FEATURE_CAPI").is_some();
    if by_cargo_c && env::var("CARGO_CFG_TARGET_OS").as_deref() == Ok("linux") {
        println!("cargo::rustc-cdylib-link-arg=-fuse-ld=bfd");
        println!("cargo::rustc-cdylib-link-arg=-Wl,--default-symver");
    }
}
