// SPDX-License-Identifier: GPL-2.0

//! Traits for transmuting types.

/// Types for which any bit pattern is valid.
///
/// # Safety
///
/// All bit-patterns must be valid for this type. This type must not have interior mutability.
pub unsafe trait FromBytes {}

/// Types that can be viewed as an immutable slice of initialized bytes.
///
/// # Safety
///
/// Values of this type may not contain any uninitialized bytes. This type must not have interior
/// mutability.
pub unsafe trait AsBytes {}

macro_rules! integers {
    ($($type:ty),+ $(,)?) => {$(
        // SAFETY: Each bit pattern is an integer.
        unsafe impl FromBytes for $type {}

        // SAFETY: Integers have no padding.
        unsafe impl AsBytes for $type {}
    )+};
}

integers!(u8, u16, u32, u64, usize, i8, i16, i32, i64, isize);

// SAFETY: If all bit patterns are acceptable for individual values in an array, then all bit
// patterns are also acceptable for arrays of that type.
unsafe impl<T: FromBytes, const N: usize> FromBytes for [T; N] {}

// SAFETY: If individual values in an array have no uninitialized portions, then the array has no
// uninitialized portions either.
unsafe impl<T: AsBytes, const N: usize> AsBytes for [T; N] {}
