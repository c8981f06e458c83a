// SPDX-License-Identifier: GPL-2.0

//! The items of the `kernel` crate that toa uses. Some kernels lack a part of it, or have it in another form.
//! `scripts/module.sh` compiles this file against a kernel's own crate. It is never linked or loaded.

use core::borrow::Borrow;
use kernel::{
    cpu::{nr_cpu_ids, CpuId},
    error::{from_result, to_result},
    ffi::{c_char, c_int, c_long, c_longlong, c_short, c_uchar, c_uint, c_ulong, c_ushort, c_void},
    fmt,
    prelude::*,
    print::{call_printk, format_strings},
    seq_file::SeqFile,
    seq_print,
    str::CStr,
    sync::{
        atomic::{Acquire, Atomic, Relaxed, Release},
        rcu,
    },
    task::Task,
    transmute::{AsBytes, FromBytes},
    types::{NotThreadSafe, Opaque},
    uaccess::{UserPtr, UserSlice},
};

module! {
    type: Probe,
    name: "toa_probe",
    authors: ["The toa developers"],
    description: "what toa uses of the kernel crate",
    license: "GPL",
    params: {
        probe: u32 {
            default: 0,
            description: "a parameter",
        },
    },
}

struct Probe(KBox<u32>);

impl kernel::Module for Probe {
    fn init(_module: &'static ThisModule) -> Result<Self> {
        let _guard: rcu::Guard = rcu::read_lock();
        let count = Atomic::<i64>::new(nr_cpu_ids().into());
        count.load(Acquire);
        count.store(CpuId::current().as_u32().into(), Relaxed);
        to_result(from_result(|| Ok(0)))?;
        let mut list = KVec::with_capacity(1, GFP_KERNEL)?;
        list.extend_from_slice(b"toa", GFP_KERNEL)?;
        let words: KVVec<u64> = KVVec::with_capacity(1, GFP_KERNEL_ACCOUNT)?;
        let _: (*mut u64, usize, usize) = words.into_raw_parts();
        let value: u32 = *module_parameters::probe.value().borrow();
        Ok(Self(KBox::new(value, GFP_KERNEL)?))
    }
}

type Unused = (
    c_char,
    c_long,
    c_longlong,
    c_short,
    c_uchar,
    c_uint,
    c_ulong,
    c_ushort,
    NotThreadSafe,
);

fn _unused<T: AsBytes + FromBytes>(seq: &SeqFile, user: *mut c_void, line: fmt::Arguments<'_>) {
    seq_print!(
        seq,
        "{:>10} ",
        UserSlice::new(UserPtr::from_ptr(user), size_of::<Unused>())
            .reader()
            .len()
    );
    let (_, _) = (Task::current_raw(), CStr::as_char_ptr);
    let _ = Error::from_errno(-(kernel::bindings::ENOPROTOOPT as c_int));
    let _ = |count: Atomic<i64>| (count.store(0, Release), Opaque::new(0));
    // SAFETY: The function is never called.
    unsafe { call_printk(&format_strings::INFO, b"toa\0", line) }
}
