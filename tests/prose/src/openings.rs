// SPDX-License-Identifier: GPL-2.0

//! The first words of doc comments, which name the thing they document.

use std::sync::LazyLock;

use regex::Regex;

use crate::Problem;

static OPENING: LazyLock<Regex> = LazyLock::new(|| {
    Regex::new(r"^\s*//[/!] (Of|By|As|Not|Who|Whom|Whose|Where|What|The same)\b")
        .expect("a pattern")
});

static DOC: LazyLock<Regex> = LazyLock::new(|| Regex::new(r"^\s*//[/!]").expect("a pattern"));

/// The doc comments that begin with a dependent word. A section's first sentence, below a `#`
/// heading, is free.
pub fn check(content: &str) -> Vec<Problem> {
    let mut problems = Vec::new();
    let mut inside = false;
    for (number, line) in content.lines().enumerate() {
        if let Some(opening) = OPENING.captures(line).filter(|_| !inside) {
            let word = &opening[1];
            problems.push((
                number + 1,
                format!("a doc comment begins with `{word}`: name its thing first"),
            ));
        }
        inside = DOC.is_match(line);
    }
    problems
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn first_lines_alone_are_looked_at() {
        let content = "/// What.\n/// Not.\nfn a() {}\n    /// Of.\n//! Whose.\n/// Office.\n";
        let lines: Vec<usize> = check(content).iter().map(|(line, _)| *line).collect();
        assert_eq!(lines, [1, 4]);
    }
}
