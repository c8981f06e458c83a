// SPDX-License-Identifier: GPL-2.0

//! The text of a file: comments and strings of Rust, all of any other file.

use std::path::Path;

use ra_ap_rustc_lexer::tokenize;
use ra_ap_rustc_lexer::LiteralKind;
use ra_ap_rustc_lexer::TokenKind;

/// A piece of text, with the line on which it begins.
pub type Piece<'a> = (usize, &'a str);

/// Splits a file into the lines of its text.
pub fn pieces<'a>(path: &str, content: &'a str) -> Vec<Piece<'a>> {
    if Path::new(path).extension().is_some_and(|e| e == "rs") {
        return rust(content);
    }
    lines(1, content).collect()
}

fn lines(first: usize, text: &str) -> impl Iterator<Item = Piece<'_>> {
    text.lines()
        .enumerate()
        .map(move |(n, line)| (first + n, line))
}

fn rust(content: &str) -> Vec<Piece<'_>> {
    let mut pieces = Vec::new();
    let (mut at, mut line) = (0, 1);
    for token in tokenize(content) {
        let text = &content[at..at + token.len as usize];
        if is_text(token.kind) {
            pieces.extend(lines(line, text));
        }
        at += text.len();
        line += text.matches('\n').count();
    }
    pieces
}

fn is_text(kind: TokenKind) -> bool {
    matches!(
        kind,
        TokenKind::LineComment { .. }
            | TokenKind::BlockComment { .. }
            | TokenKind::Literal {
                kind: LiteralKind::Str { .. }
                    | LiteralKind::CStr { .. }
                    | LiteralKind::RawStr { .. },
                ..
            }
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rust_has_its_comments_and_strings() {
        let content = "// one\nlet two = \"three\n four\"; /* five */ 'a' r#\"six\"#\n";
        let expected = [
            (1, "// one"),
            (2, "\"three"),
            (3, " four\""),
            (3, "/* five */"),
            (3, "r#\"six\"#"),
        ];
        assert_eq!(pieces("a.rs", content), expected);
    }

    #[test]
    fn other_files_are_text() {
        assert_eq!(pieces("a.sh", "one\ntwo\n"), [(1, "one"), (2, "two")]);
    }
}
