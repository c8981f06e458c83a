// SPDX-License-Identifier: GPL-2.0

//! The length of sentences in Markdown: paragraphs and list items, not tables, headings or code.

use pulldown_cmark::Event;
use pulldown_cmark::Options;
use pulldown_cmark::Parser;
use pulldown_cmark::Tag;
use pulldown_cmark::TagEnd;

use crate::Problem;

/// The most words of a sentence.
const MOST: usize = 25;

/// The sentences that are too long.
pub fn check(content: &str) -> Vec<Problem> {
    let mut problems = Vec::new();
    let mut passage = Passage::default();
    // Depth of tables, headings and code blocks.
    let mut passed_over = 0_usize;
    for (event, range) in Parser::new_ext(content, Options::ENABLE_TABLES).into_offset_iter() {
        match event {
            Event::Start(Tag::Table(_) | Tag::Heading { .. } | Tag::CodeBlock(_)) => {
                passed_over += 1;
            }
            Event::End(TagEnd::Table | TagEnd::Heading(_) | TagEnd::CodeBlock) => {
                passed_over -= 1;
            }
            Event::Start(Tag::Paragraph | Tag::Item | Tag::List(_))
            | Event::End(TagEnd::Paragraph | TagEnd::Item | TagEnd::List(_)) => {
                passage.end(&mut problems);
                passage.line = 1 + content[..range.start].matches('\n').count();
            }
            Event::Text(text) if passed_over == 0 => passage.text.push_str(&text),
            Event::Code(_) if passed_over == 0 => passage.text.push_str("code"),
            Event::SoftBreak | Event::HardBreak => passage.text.push(' '),
            _ => {}
        }
    }
    passage.end(&mut problems);
    problems
}

/// The text between two breaks, and its first line.
#[derive(Default)]
struct Passage {
    text: String,
    line: usize,
}

impl Passage {
    fn end(&mut self, problems: &mut Vec<Problem>) {
        for sentence in sentences(&self.text) {
            let words = sentence.split_whitespace().count();
            if words > MOST {
                let start: Vec<&str> = sentence.split_whitespace().take(6).collect();
                problems.push((
                    self.line,
                    format!(
                        "a sentence of {words} words, {MOST} at most: {} …",
                        start.join(" ")
                    ),
                ));
            }
        }
        self.text.clear();
    }
}

/// Splits at the marks that end a sentence and are followed by a space. A colon or semicolon ends
/// one too: an idea ends there.
fn sentences(text: &str) -> impl Iterator<Item = &str> {
    text.split_inclusive([' ', '\n'])
        .scan(0, |at, word| {
            *at += word.len();
            Some((*at, word.trim_end()))
        })
        .filter(|(_, word)| word.ends_with(['.', '!', '?', ':', ';']))
        .map(|(end, _)| end)
        .chain([text.len()])
        .scan(0, move |start, end| {
            let sentence = &text[*start..end];
            *start = end;
            Some(sentence)
        })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sentences_end_at_marks_before_a_space() {
        let split: Vec<&str> = sentences("One two 0.1.0 three. Four: five").collect();
        assert_eq!(split, ["One two 0.1.0 three. ", "Four: ", "five"]);
    }

    #[test]
    fn paragraphs_and_items_are_counted_and_code_tables_and_headings_are_not() {
        let long = "word ".repeat(26);
        assert_eq!(check(&long), [(1, check(&long)[0].1.clone())]);
        assert_eq!(check(&format!("Short.\n\n- {long}\n"))[0].0, 3);
        let passed_over = format!("# {long}\n\n    {long}\n\n| a |\n|---|\n| {long} |\n");
        assert_eq!(check(&passed_over), []);
        assert_eq!(check(&"`two words` ".repeat(25)), []);
    }
}
