// SPDX-License-Identifier: GPL-2.0

//! C's primitive types, as the kernel maps them.
//!
//! `char` is unsigned (`-funsigned-char`), and `long` has the size of a pointer.

macro_rules! alias {
    ($($name:ident = $type:ty;)*) => {$(
        #[allow(non_camel_case_types, missing_docs)]
        pub type $name = $type;

        // Same size as in `core`.
        const _: () = assert!(size_of::<$name>() == size_of::<core::ffi::$name>());
    )*}
}

alias! {
    c_char = u8;
    c_schar = i8;
    c_uchar = u8;
    c_short = i16;
    c_ushort = u16;
    c_int = i32;
    c_uint = u32;
    c_long = isize;
    c_ulong = usize;
    c_longlong = i64;
    c_ulonglong = u64;
}

pub use core::ffi::c_void;
