// SPDX-License-Identifier: GPL-2.0

//! Checks the prose of the tree: words that the field does not use, the openings of doc comments,
//! and the length of sentences in Markdown.
//!
//! ```text
//! toa-prose FILE...
//! ```
//!
//! Prints `FILE:LINE: problem` for each problem, and exits with 1 if there is one. `allowed.txt`
//! beside `Cargo.toml` names the few places where a word may stand.

mod allowed;
mod markdown;
mod openings;
mod text;
mod words;

use std::env;
use std::fs;
use std::path::Path;
use std::process::ExitCode;

use crate::allowed::Allowed;

/// A line of a file, counted from 1, and the problem there.
type Problem = (usize, String);

fn main() -> ExitCode {
    let allowed = Allowed::read();
    let mut found = 0;
    for path in env::args().skip(1) {
        let Ok(content) = fs::read_to_string(&path) else {
            eprintln!("toa-prose: {path} is no text file that can be read");
            return ExitCode::from(2);
        };
        for (line, problem) in problems(&path, &content, &allowed) {
            println!("{path}:{line}: {problem}");
            found += 1;
        }
    }
    for line in allowed.unused() {
        println!("tests/prose/allowed.txt: remove the unused line `{line}`");
        found += 1;
    }
    if found == 0 {
        return ExitCode::SUCCESS;
    }
    eprintln!("toa-prose: {found} problems; the rules are in CONTRIBUTING.md");
    ExitCode::FAILURE
}

/// All problems of a file, in the order of its lines.
fn problems(path: &str, content: &str, allowed: &Allowed) -> Vec<Problem> {
    let pieces = text::pieces(path, content);
    let mut problems: Vec<Problem> = words::check(&pieces)
        .filter(|(_, word)| !allowed.allows(path, word))
        .map(|(line, word)| (line, format!("`{word}` is not the field's word")))
        .collect();
    if is(path, "rs") {
        problems.extend(openings::check(content));
    }
    if is(path, "md") {
        problems.extend(markdown::check(content));
    }
    problems.sort();
    problems
}

fn is(path: &str, extension: &str) -> bool {
    Path::new(path).extension().is_some_and(|e| e == extension)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn found(path: &str, content: &str) -> Vec<Problem> {
        problems(path, content, &Allowed::parse(""))
    }

    #[test]
    fn each_kind_of_problem_is_found_at_its_line() {
        let rust = "/// Of course.\nfn told() {}\n// It tells.\nconst A: &str = \"nobody\";\n";
        let lines: Vec<usize> = found("a.rs", rust).iter().map(|(line, _)| *line).collect();
        assert_eq!(lines, [1, 3, 4]);
        let shell = "# A script.\necho \"somebody knows\"\n";
        assert_eq!(found("a.sh", shell).len(), 2);
        let long = "word ".repeat(26);
        assert_eq!(found("a.md", &format!("{long}.\n")).len(), 1);
    }

    #[test]
    fn good_prose_has_no_problem() {
        let rust = "/// Returns the client.\nfn client() {}\n";
        assert_eq!(found("a.rs", rust), []);
        assert_eq!(found("a.md", "The module loads.\n"), []);
    }

    #[test]
    fn allowed_places_are_passed_over() {
        let allowed = Allowed::parse("a.md: said\n");
        assert_eq!(problems("a.md", "It is said.\n", &allowed), []);
        assert_eq!(problems("b.md", "It is said.\n", &allowed).len(), 1);
        assert_eq!(allowed.unused().count(), 0);
        assert_eq!(Allowed::parse("a.md: said\n").unused().count(), 1);
    }
}
