// SPDX-License-Identifier: GPL-2.0

//! Printing facilities.
//!
//! A kernel without Rust has no `%pA` in its format strings, so the text is formatted here, into a
//! buffer on the stack.
//!
//! C header: [`include/linux/printk.h`](srctree/include/linux/printk.h)

use crate::{
    bindings,
    fmt, //
};

/// Format strings.
pub mod format_strings {
    /// The length of the fixed format strings.
    pub const LENGTH: usize = 10;

    /// Generates the format string of a level, C's `KERN_*`: the prefix and the text follow.
    const fn generate(level: u8) -> [u8; LENGTH] {
        [
            b'\x01', level, b'%', b's', b':', b' ', b'%', b's', b'\0', b'\0',
        ]
    }

    /// The level of an unusable system.
    pub static EMERG: [u8; LENGTH] = generate(b'0');
    /// The level of errors.
    pub static ERR: [u8; LENGTH] = generate(b'3');
    /// The level of warnings.
    pub static WARNING: [u8; LENGTH] = generate(b'4');
    /// The level of normal but significant conditions.
    pub static NOTICE: [u8; LENGTH] = generate(b'5');
    /// The level of information.
    pub static INFO: [u8; LENGTH] = generate(b'6');
}

/// The most bytes of a line, with the NUL.
const CAPACITY: usize = 512;

/// A C string that is cut where it is longer than [`CAPACITY`].
///
/// # Invariants
///
/// The bytes from `len` on are zero, and the last byte is one of them.
struct Line {
    bytes: [u8; CAPACITY],
    len: usize,
}

impl fmt::Write for Line {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        let room = self.bytes.get_mut(self.len..CAPACITY - 1);
        let fits = room
            .unwrap_or_default()
            .iter_mut()
            .zip(text.bytes())
            .map(|(place, byte)| *place = byte)
            .count();
        // INVARIANT: As many bytes were written, and none of them is the last of the array.
        self.len = self.len.wrapping_add(fits);
        Ok(())
    }
}

/// Prints a message via the kernel's `_printk`. Any context.
///
/// # Safety
///
/// The format string must be one of the ones in [`format_strings`], and the module name must be
/// null-terminated.
pub unsafe fn call_printk(
    format_string: &[u8; format_strings::LENGTH],
    module_name: &[u8],
    args: fmt::Arguments<'_>,
) {
    // INVARIANT: All bytes are zero.
    let mut line = Line {
        bytes: [0; CAPACITY],
        len: 0,
    };
    let _ = fmt::Write::write_fmt(&mut line, args);
    // SAFETY: The format string takes two C strings: the module name, by the function's safety
    // requirements, and the line, by its type invariant.
    unsafe {
        bindings::printk(
            format_string.as_ptr(),
            module_name.as_ptr(),
            line.bytes.as_ptr(),
        )
    };
}
