// SPDX-License-Identifier: GPL-2.0

//! Loads and unloads the module under test.

use std::ffi::CStr;
use std::ffi::CString;
use std::fs;
use std::fs::File;

use nix::errno::Errno;
use nix::kmod::delete_module;
use nix::kmod::finit_module;
use nix::kmod::DeleteModuleFlags;
use nix::kmod::ModuleInitFlags;

pub const PATH: &str = "/toa/toa.ko";

pub fn is_loaded() -> bool {
    fs::exists("/sys/module/toa/initstate").unwrap_or(false)
}

/// Loads the module: `insmod toa.ko PARAMETERS`.
pub fn insert(parameters: &str) -> Result<(), Errno> {
    insert_file(PATH, parameters)
}

/// Loads the module from another file.
pub fn insert_file(path: &str, parameters: &str) -> Result<(), Errno> {
    let parameters = CString::new(parameters).expect("parameters have no NUL");
    insert_open(&open(path), &parameters)
}

/// Opens a module's file.
#[track_caller]
pub fn open(path: &str) -> File {
    File::open(path).unwrap_or_else(|error| panic!("{path}: {error}"))
}

/// Loads the module from an open file, by one system call.
pub fn insert_open(file: &File, parameters: &CStr) -> Result<(), Errno> {
    finit_module(file, parameters, ModuleInitFlags::empty())
}

/// The `kernel` crate in the file's `modinfo`: `kernel` or `stand-in`.
pub fn kernel_crate() -> String {
    let file = std::fs::read(PATH).unwrap_or_else(|error| panic!("{PATH}: {error}"));
    let field = file
        .split(|byte| *byte == 0)
        .find_map(|text| text.strip_prefix(b"crate="))
        .expect("modinfo names the crate");
    String::from_utf8_lossy(field).into_owned()
}

/// Unloads the module: `rmmod toa`.
pub fn remove() -> Result<(), Errno> {
    delete_module(c"toa", DeleteModuleFlags::O_NONBLOCK)
}

/// Loads the module; panics if that fails.
#[track_caller]
pub fn load() {
    load_with("");
}

#[track_caller]
pub fn load_with(parameters: &str) {
    insert(parameters).unwrap_or_else(|error| panic!("insmod toa.ko {parameters}: {error}"));
}

/// Unloads the module; panics if that fails.
#[track_caller]
pub fn unload() {
    remove().unwrap_or_else(|error| panic!("rmmod toa: {error}"));
}
