// SPDX-License-Identifier: MIT OR Apache-2.0

//! The commands' output: aligned columns, JSON, and text from the kernel without control characters.

use std::fmt::Write as _;
use std::io;
use std::io::IsTerminal;
use std::io::Write as _;

use nix::libc;
use serde::Serialize;
use unicode_width::UnicodeWidthChar;

use crate::failure::Failure;
use crate::failure::Result;

/// Writes to standard output. A reader that closes the pipe ends the command quietly.
///
/// # Errors
///
/// The output cannot be written for another reason, such as a full disk.
pub fn print(text: &str) -> Result<()> {
    let mut stdout = io::stdout().lock();
    match stdout
        .write_all(text.as_bytes())
        .and_then(|()| stdout.flush())
    {
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => {
            // The status of a program that SIGPIPE ends, as shells report it.
            std::process::exit(128 + libc::SIGPIPE);
        }
        written => {
            written.map_err(|error| Failure::failed(format!("writing to standard output: {error}")))
        }
    }
}

/// Writes a text of one line, which a terminal gets broken between words.
///
/// # Errors
///
/// As [`print`].
pub fn print_wrapped(text: &str) -> Result<()> {
    let lines = wrap(text, width().unwrap_or(usize::MAX));
    print(&format!("{}\n", lines.join("\n")))
}

/// Writes a line to standard error: a remark that is no part of the output.
pub fn remark(text: &str) {
    // Nothing can be done about an error here.
    let _ = writeln!(io::stderr(), "toa: {}", printable(text));
}

/// Writes a value as JSON.
///
/// # Errors
///
/// As [`print`].
pub fn print_json(value: &impl Serialize) -> Result<()> {
    let text = serde_json::to_string_pretty(value)
        .map_err(|error| Failure::failed(format!("JSON: {error}")))?;
    print(&format!("{text}\n"))
}

/// Replaces the characters that terminals do not show as themselves, which names of processes and files may
/// have: control characters, characters that reverse the direction of text, and marks that join others.
/// Characters without a column are among them: terminals disagree about the width of a Hangul filler.
pub fn printable(text: &str) -> String {
    let is_itself = |c: char| {
        let is_shown = c.escape_debug().len() == 1 && columns_of_char(c) > 0;
        matches!(c, '"' | '\'' | '\\') || is_shown
    };
    text.chars()
        .map(|c| if is_itself(c) { c } else { '?' })
        .collect()
}

/// Whether standard output is a terminal that shows bold text.
pub fn has_styles() -> bool {
    let term = std::env::var("TERM").unwrap_or_default();
    let refused = std::env::var_os("NO_COLOR").is_some_and(|value| !value.is_empty());
    io::stdout().is_terminal() && !refused && !term.is_empty() && term != "dumb"
}

/// Returns the terminal's width, if standard output is one.
pub fn width() -> Option<usize> {
    if !io::stdout().is_terminal() {
        return None;
    }
    let (width, _) = crossterm::terminal::size().ok()?;
    Some(usize::from(width)).filter(|width| *width > 0)
}

/// Makes text bold.
pub fn bold(text: &str, styles: bool) -> String {
    if styles {
        format!("\u{1b}[1m{text}\u{1b}[0m")
    } else {
        text.to_owned()
    }
}

/// Returns the columns of a terminal that a text takes. A terminal places one character after the other, so
/// this is the sum of the characters' widths.
pub fn columns_of(text: &str) -> usize {
    text.chars().map(columns_of_char).sum()
}

/// A control character has no width. [`printable`] replaces it by a character with one column.
fn columns_of_char(c: char) -> usize {
    c.width().unwrap_or(1)
}

/// The last character of a text that was cut, as `ps` and `top` of procps have it.
const CUT: char = '+';

/// Cuts a text that takes more than `width` columns. The mark [`CUT`] shows that.
pub fn cut(text: &mut String, width: usize) {
    if columns_of(text) <= width {
        return;
    }
    let Some(mut room) = width.checked_sub(1) else {
        text.clear();
        return;
    };
    let end = text
        .char_indices()
        .find(|(_, c)| match room.checked_sub(columns_of_char(*c)) {
            Some(left) => {
                room = left;
                false
            }
            None => true,
        });
    if let Some((end, _)) = end {
        text.truncate(end);
    }
    text.push(CUT);
}

/// The side to which a column's texts are moved.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Side {
    /// Texts.
    Left,
    /// Numbers.
    Right,
}

/// A table whose columns are aligned. Two blanks separate them.
#[derive(Debug)]
pub struct Table {
    sides: Vec<Side>,
    rows: Vec<Vec<String>>,
    indent: usize,
}

impl Table {
    /// A table with these columns.
    pub fn new(sides: &[Side]) -> Self {
        Self {
            sides: sides.to_vec(),
            rows: Vec::new(),
            indent: 0,
        }
    }

    /// Moves all rows to the right.
    pub fn indented(mut self, indent: usize) -> Self {
        self.indent = indent;
        self
    }

    /// Adds a row.
    pub fn row<T: Into<String>>(&mut self, cells: impl IntoIterator<Item = T>) {
        self.rows.push(cells.into_iter().map(Into::into).collect());
    }

    fn widths(&self) -> Vec<usize> {
        let width = |column: usize| {
            let cells = self.rows.iter().filter_map(|row| row.get(column));
            cells.map(|cell| columns_of(cell)).max().unwrap_or(0)
        };
        (0..self.sides.len()).map(width).collect()
    }

    /// Cuts the widest texts until each row fits in a terminal of `width` columns.
    pub fn cut(mut self, width: Option<usize>) -> Self {
        let Some(width) = width else {
            return self;
        };
        let mut widths = self.widths();
        let between = self.indent + 2 * widths.len().saturating_sub(1);
        let mut excess = (between + widths.iter().sum::<usize>()).saturating_sub(width);
        while excess > 0 {
            let Some(widest) = widths.iter_mut().max().filter(|widest| **widest > 1) else {
                break;
            };
            *widest -= 1;
            excess -= 1;
        }
        for row in &mut self.rows {
            for (cell, width) in row.iter_mut().zip(&widths) {
                cut(cell, *width);
            }
        }
        self
    }

    /// Writes the rows. In a terminal of `width` columns, a text in the last column that is too long
    /// continues below its beginning.
    pub fn write(&self, out: &mut String, width: Option<usize>) {
        let columns = self.sides.len();
        let widths = self.widths();
        let before_last = |columns: usize| {
            let before = widths.iter().take(columns.saturating_sub(1));
            self.indent + before.map(|width| width + 2).sum::<usize>()
        };
        for row in &self.rows {
            let mut line = " ".repeat(self.indent);
            for (column, cell) in row.iter().enumerate() {
                let last = column + 1 == row.len();
                let padding = widths[column].saturating_sub(columns_of(cell));
                if self.sides[column] == Side::Right {
                    let _ = write!(line, "{}{cell}", " ".repeat(padding));
                } else if last {
                    let start = before_last(columns);
                    match width.and_then(|width| width.checked_sub(start)) {
                        Some(room) if last && column + 1 == columns && room >= 20 => {
                            line.push_str(
                                &wrap(cell, room).join(&format!("\n{}", " ".repeat(start))),
                            );
                        }
                        _ => line.push_str(cell),
                    }
                } else {
                    let _ = write!(line, "{cell}{}", " ".repeat(padding));
                }
                if !last {
                    line.push_str("  ");
                }
            }
            out.push_str(line.trim_end());
            out.push('\n');
        }
    }
}

/// Breaks a text between words, into lines of at most `width` columns where words allow.
pub fn wrap(text: &str, width: usize) -> Vec<String> {
    let mut lines = vec![String::new()];
    for word in text.split(' ') {
        let line = lines.last_mut().expect("there is one");
        let length = columns_of(line) + columns_of(word);
        if line.is_empty() {
            line.push_str(word);
        } else if length < width {
            line.push(' ');
            line.push_str(word);
        } else {
            lines.push(word.to_owned());
        }
    }
    lines
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_are_aligned_and_the_last_one_is_wrapped() {
        let mut table = Table::new(&[Side::Left, Side::Right, Side::Left]).indented(2);
        table.row(["a", "1", "short"]);
        table.row(["longer", "1000", "words that do not fit the line"]);
        let mut piped = String::new();
        table.write(&mut piped, None);
        assert_eq!(
            piped,
            "  a          1  short\n  longer  1000  words that do not fit the line\n"
        );
        let mut narrow = String::new();
        table.write(&mut narrow, Some(38));
        assert_eq!(
            narrow,
            "  a          1  short\n  longer  1000  words that do not fit\n                the line\n"
        );
        // Below some width, lines are left to the terminal.
        let mut tiny = String::new();
        table.write(&mut tiny, Some(10));
        assert_eq!(tiny, piped);
    }

    #[test]
    fn control_characters_are_not_printed() {
        assert_eq!(printable("a\u{1b}[2J\nb\u{9b}é"), "a?[2J?b?é");
        // A reversed direction, a mark above the letter, and two separators.
        assert_eq!(printable("a\u{202e}e\u{301}\u{a0}\u{2028}"), "a?e???");
        assert_eq!(printable("it's \"C:\\\""), "it's \"C:\\\"");
    }

    #[test]
    fn characters_without_a_column_are_not_printed() {
        // Two letters that join the one before, two fillers, and a mark that hides itself.
        for joined in ['\u{1161}', '\u{11a8}', '\u{3164}', '\u{ffa0}', '\u{feff}'] {
            assert_eq!(printable(&format!("a{joined}b")), "a?b", "{joined:?}");
        }
        assert_eq!(printable("データベース"), "データベース");
    }

    #[test]
    fn wide_characters_take_two_columns_and_marks_none() {
        for (text, columns) in [
            ("", 0),
            ("nginx", 5),
            ("é", 1),
            ("e\u{301}", 1),
            ("データ", 6),
            ("ﾃﾞｰﾀ", 4),
            ("🦀", 2),
        ] {
            assert_eq!(columns_of(text), columns, "{text}");
        }
    }

    #[test]
    fn cuts_leave_room_for_wide_characters() {
        for (text, width, expected) in [
            ("データ", 6, "データ"),
            ("データ", 5, "デー+"),
            // The half of a character is no text.
            ("データ", 4, "デ+"),
            ("データ", 2, "+"),
            ("データ", 1, "+"),
            ("データ", 0, ""),
            // A mark stays with its letter, and takes no room.
            ("e\u{301}e\u{301}e\u{301}", 3, "e\u{301}e\u{301}e\u{301}"),
            ("e\u{301}e\u{301}e\u{301}", 2, "e\u{301}+"),
        ] {
            let mut found = text.to_owned();
            cut(&mut found, width);
            assert_eq!(found, expected, "{text} in {width}");
        }
    }

    #[test]
    fn lines_are_broken_by_columns() {
        assert_eq!(wrap("データ ベース", 12), ["データ", "ベース"]);
        assert_eq!(wrap("データ ベース", 13), ["データ ベース"]);
        assert_eq!(wrap("e\u{301} e\u{301}", 3), ["e\u{301} e\u{301}"]);
    }

    #[test]
    fn columns_of_wide_characters_are_aligned() {
        let mut table = Table::new(&[Side::Left, Side::Right, Side::Left]);
        table.row(["データ", "データ", "1"]);
        table.row(["e\u{301}", "e\u{301}", "2"]);
        let mut text = String::new();
        table.write(&mut text, None);
        let expected = "データ  データ  1\ne\u{301}            e\u{301}  2\n";
        assert_eq!(text, expected);
        let mut text = String::new();
        table.cut(Some(14)).write(&mut text, None);
        assert_eq!(text, "デー+  デ+  1\ne\u{301}        e\u{301}  2\n");
    }

    #[test]
    fn widest_texts_are_cut_and_marked() {
        let table = || {
            let mut table = Table::new(&[Side::Left, Side::Right, Side::Left]);
            table.row(["1234567890", "1", "abcdefghij"]);
            table.row(["12345", "20", "é"]);
            table
        };
        for (width, expected) in [
            (None, "1234567890   1  abcdefghij\n12345       20  é\n"),
            (Some(26), "1234567890   1  abcdefghij\n12345       20  é\n"),
            (Some(19), "1234567+   1  abcd+\n12345     20  é\n"),
        ] {
            let mut text = String::new();
            table().cut(width).write(&mut text, None);
            let widest = text.lines().map(columns_of).max();
            assert!(widest <= width.or(Some(26)), "{text}");
            if width != Some(19) {
                assert_eq!(text, expected);
            } else {
                assert_eq!(text.matches('+').count(), 2, "{text}");
            }
        }
        // The smallest terminals have one character of each text.
        let mut text = String::new();
        table().cut(Some(0)).write(&mut text, None);
        assert_eq!(text, "+  1  +\n+  +  é\n");
    }
}
