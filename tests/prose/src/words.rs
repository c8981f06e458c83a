// SPDX-License-Identifier: GPL-2.0

//! The words that the field does not use.

use std::sync::LazyLock;

use regex::Regex;

use crate::text::Piece;

/// The list, as a pattern for whole words.
static WORDS: LazyLock<Regex> = LazyLock::new(|| {
    let words = [
        "tells?",
        "told",
        "telling",
        "says?",
        "said",
        "saying",
        "knows?",
        "knew",
        "brings?",
        "brought",
        "wants?",
        "wanted",
        "nobody",
        "somebody",
        "whom",
        "anew",
        "meanwhile",
        "likewise",
        "of (?:its|their) own",
        "that there (?:is|are)",
        "(?:go|goes|went) on",
    ];
    Regex::new(&format!(r"(?i)\b(?:{})\b", words.join("|"))).expect("a pattern")
});

/// The words of the list in the text, with their lines.
pub fn check<'a>(pieces: &[Piece<'a>]) -> impl Iterator<Item = (usize, &'a str)> {
    let pieces = pieces.to_vec();
    pieces
        .into_iter()
        .flat_map(|(line, text)| WORDS.find_iter(text).map(move |word| (line, word.as_str())))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn found(text: &str) -> Vec<&str> {
        check(&[(1, text)]).map(|(_, word)| word).collect()
    }

    #[test]
    fn words_are_found_whole_and_in_either_case() {
        assert_eq!(found("Told of its own"), ["Told", "of its own"]);
        assert_eq!(found("well-known, untold, told_twice, essays"), [""; 0]);
        assert_eq!(
            found("It goes on. That there is"),
            ["goes on", "That there is"]
        );
    }
}
