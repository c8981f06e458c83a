// SPDX-License-Identifier: GPL-2.0

//! The places where a word of the list may stand: lines `FILE: WORD`.

use std::cell::RefCell;
use std::collections::BTreeSet;

/// The list, and the lines of it that were used.
pub struct Allowed {
    lines: BTreeSet<String>,
    used: RefCell<BTreeSet<String>>,
}

impl Allowed {
    /// The list of this crate.
    pub fn read() -> Self {
        Self::parse(include_str!("../allowed.txt"))
    }

    /// A list, in which `#` begins a comment.
    pub fn parse(list: &str) -> Self {
        let lines = list
            .lines()
            .map(|line| line.split('#').next().unwrap_or_default().trim())
            .filter(|line| !line.is_empty());
        Self {
            lines: lines.map(str::to_owned).collect(),
            used: RefCell::default(),
        }
    }

    /// Returns whether the word may stand in the file, in either case.
    pub fn allows(&self, path: &str, word: &str) -> bool {
        let line = format!("{path}: {}", word.to_lowercase());
        let allows = self.lines.contains(&line);
        if allows {
            self.used.borrow_mut().insert(line);
        }
        allows
    }

    /// The lines that allowed nothing.
    pub fn unused(&self) -> impl Iterator<Item = String> {
        let used = self.used.borrow().clone();
        self.lines
            .clone()
            .into_iter()
            .filter(move |line| !used.contains(line))
    }
}
