// SPDX-License-Identifier: GPL-2.0

//! The text of a sysctl's value: its frame, its items, and the place where it is refused.
//!
//! A value is one line. The writers of the field split a long line into several writes: bash's
//! `echo` and procps at multiples of 1,024 bytes, tee at 8,192. A part of a list could be a valid
//! list, so a value that may be a part is refused.
//!
//! Pure: no kernel imports. The host tests compile this file too.

/// The most bytes of a value without a newline at its end. Writers split a longer line.
pub(crate) const MAX_UNTERMINATED: usize = 1023;

/// The reason for which a value is refused, and its place.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Refusal {
    /// The byte of the value that is wrong, counted from 1.
    pub(crate) column: usize,
    /// The reason, for the log. It has no byte of the value.
    pub(crate) reason: &'static str,
    /// The class of the refusal, which decides the writer's error.
    pub(crate) class: Class,
}

/// The class of a [`Refusal`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Class {
    /// The value is not valid.
    Invalid,
    /// The value is too long, or has too many items.
    TooLong,
    /// The value is a part of a longer one: the writer's next writes may be the other parts.
    Part,
}

impl Refusal {
    /// An invalid value.
    pub(crate) const fn invalid(column: usize, reason: &'static str) -> Self {
        Self {
            column,
            reason,
            class: Class::Invalid,
        }
    }

    /// A value that is too long.
    pub(crate) const fn too_long(column: usize, reason: &'static str) -> Self {
        Self {
            column,
            reason,
            class: Class::TooLong,
        }
    }

    /// A part of a value.
    const fn part(column: usize, reason: &'static str) -> Self {
        Self {
            column,
            reason,
            class: Class::Part,
        }
    }

    /// The refusal's place in a value of which the text is an item at `column`.
    pub(crate) const fn within(mut self, column: usize) -> Self {
        self.column = self.column.saturating_add(column).saturating_sub(1);
        self
    }
}

/// Returns the line in a write of `bytes` at `offset`, without its newline. The line has at most
/// `limit` bytes.
///
/// # Errors
///
/// A write that may be a part of a value, and a line that is too long.
pub(crate) fn line(bytes: &[u8], offset: i64, limit: usize) -> Result<&[u8], Refusal> {
    if offset != 0 {
        return Err(Refusal::part(
            1,
            "a value must arrive in one write at offset 0",
        ));
    }
    let (line, terminated) = match bytes.split_last() {
        Some((b'\n', line)) => (line, true),
        _ => (bytes, false),
    };
    if !terminated && bytes.len() > MAX_UNTERMINATED {
        return Err(Refusal::part(
            bytes.len(),
            "a value of more than 1,023 bytes must end in a newline, in the same write",
        ));
    }
    if line.len() > limit {
        return Err(Refusal::too_long(
            limit.saturating_add(1),
            "the value is too long",
        ));
    }
    Ok(line)
}

/// The items of a line with their columns. Commas and blanks separate them.
pub(crate) struct Items<'a> {
    rest: &'a [u8],
    /// The column of the first byte of `rest`.
    column: usize,
}

impl<'a> Items<'a> {
    /// Splits a line.
    pub(crate) const fn new(line: &'a [u8]) -> Self {
        Self {
            rest: line,
            column: 1,
        }
    }
}

impl<'a> Iterator for Items<'a> {
    type Item = (usize, &'a [u8]);

    fn next(&mut self) -> Option<Self::Item> {
        let start = position(self.rest, |byte| !separates(byte))?;
        let (_, rest) = self.rest.split_at_checked(start)?;
        let end = position(rest, separates);
        let (item, after) = rest.split_at_checked(end.unwrap_or(rest.len()))?;
        let column = self.column.saturating_add(start);
        self.rest = after;
        self.column = column.saturating_add(item.len());
        Some((column, item))
    }
}

/// Finds the first byte for which `is_wanted` is true. The iterators' own `position` can panic.
fn position(text: &[u8], is_wanted: impl Fn(u8) -> bool) -> Option<usize> {
    (0..text.len()).find(|&at| text.get(at).is_some_and(|&byte| is_wanted(byte)))
}

fn separates(byte: u8) -> bool {
    matches!(byte, b',' | b' ' | b'\t')
}

/// Splits a text at the first byte `at`. The second part is `None` without such a byte. The number is
/// the column of the second part.
pub(crate) fn split(text: &[u8], at: u8) -> (&[u8], Option<(usize, &[u8])>) {
    let found = position(text, |byte| byte == at);
    match found.and_then(|found| text.split_at_checked(found)) {
        Some((before, [_, after @ ..])) => (before, Some((before.len().saturating_add(2), after))),
        _ => (text, None),
    }
}

/// Returns the number in a text of decimal digits, without a sign or a leading zero.
pub(crate) fn number(text: &[u8]) -> Option<u32> {
    let (first, rest) = text.split_first()?;
    if *first == b'0' && !rest.is_empty() {
        return None;
    }
    text.iter().try_fold(0_u32, |number, byte| {
        let digit = byte.checked_sub(b'0').filter(|digit| *digit <= 9)?;
        number.checked_mul(10)?.checked_add(digit.into())
    })
}

/// Returns the only item of a line.
pub(crate) fn only(line: &[u8]) -> Option<&[u8]> {
    let mut items = Items::new(line);
    let (_, item) = items.next()?;
    items.next().is_none().then_some(item)
}
