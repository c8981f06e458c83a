// SPDX-License-Identifier: GPL-2.0

//! The layout of the module: unsafe code in `linux/`, which imports nothing of the story.

use std::fs;
use std::path::Path;
use std::path::PathBuf;

/// The names at the crate's root that `linux/` may use.
const FOR_LINUX: [&str; 4] = ["endpoint", "linux", "toa_offsets", "LOG_PREFIX"];

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..")
}

/// The Rust files of a folder, without what the build makes there.
fn rust_files(folder: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(folder).unwrap();
    let paths = entries.map(|entry| entry.unwrap().path());
    paths
        .filter(|path| path.extension().is_some_and(|e| e == "rs"))
        .filter(|path| !path.ends_with("toa_offsets.rs"))
        .collect()
}

/// The code of a file, without its comments.
fn code(path: &Path) -> String {
    let content = fs::read_to_string(path).unwrap();
    let code = content.lines().map(|line| line.split("//").next().unwrap());
    code.collect::<Vec<_>>().join("\n")
}

/// The words of code: identifiers, keywords, literals' parts.
fn words(code: &str) -> impl Iterator<Item = &str> {
    code.split(|c: char| !c.is_alphanumeric() && c != '_')
        .filter(|word| !word.is_empty())
}

/// The names after `crate::`, also in a list of `use crate::{…}`.
fn names_at_the_root(code: &str) -> Vec<String> {
    let mut names = Vec::new();
    for after in code.split("crate::").skip(1) {
        let Some(list) = after.strip_prefix('{') else {
            names.extend(words(after).next().map(str::to_owned));
            continue;
        };
        // The names that begin an entry of the outermost list.
        let (mut depth, mut entry) = (0, String::new());
        for c in list.chars() {
            match c {
                '{' => depth += 1,
                '}' if depth == 0 => break,
                '}' => depth -= 1,
                ',' if depth == 0 => {
                    names.extend(words(&entry).next().map(str::to_owned));
                    entry.clear();
                }
                _ if depth == 0 => entry.push(c),
                _ => {}
            }
        }
        names.extend(words(&entry).next().map(str::to_owned));
    }
    names
}

#[test]
fn no_story_file_has_unsafe_code() {
    let story = rust_files(&root());
    assert!(story.iter().any(|path| path.ends_with("capture.rs")));
    for path in story {
        let found = words(&code(&path)).any(|word| word == "unsafe");
        assert!(!found, "{}: move it to linux/", path.display());
    }
}

#[test]
fn linux_imports_nothing_of_the_story_but_endpoints() {
    let files = rust_files(&root().join("linux"));
    assert!(files.iter().any(|path| path.ends_with("ftrace.rs")));
    for path in files {
        for name in names_at_the_root(&code(&path)) {
            let known = FOR_LINUX.contains(&name.as_str());
            assert!(known, "{} uses crate::{name}", path.display());
        }
    }
}

#[test]
fn each_file_of_linux_is_a_module() {
    let list = fs::read_to_string(root().join("linux.rs")).unwrap();
    for path in rust_files(&root().join("linux")) {
        let name = path.file_stem().unwrap().to_str().unwrap();
        assert!(list.contains(&format!("mod {name};")), "{name}");
    }
}

#[test]
fn names_are_found_in_lists_and_paths() {
    let code = "use crate::{a::B, c::{d, e}, f,}; crate::g::h(); use crate::i;";
    assert_eq!(names_at_the_root(code), ["a", "c", "f", "g", "i"]);
}
