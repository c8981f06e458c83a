// SPDX-License-Identifier: GPL-2.0

//! The declarations of `linux/c.rs` against the prototypes that the kernel's compiler checks in
//! `offsets.c`.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

/// The declarations whose prototypes differ by kernel: `offsets.c` asserts both forms of each.
const BY_KERNEL: [&str; 2] = [
    "void kvfree_call_rcu(struct callback_head *, void *)",
    "struct ctl_table_header * register_net_sysctl_sz(struct net *, const char *, const struct ctl_table *, size_t)",
];

fn read(path: &str) -> String {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
    fs::read_to_string(root.join(path)).unwrap()
}

/// Splits at the commas outside of parentheses.
fn arguments(list: &str) -> Vec<&str> {
    let (mut depth, mut start, mut found) = (0, 0, Vec::new());
    for (at, c) in list.char_indices() {
        match c {
            '(' => depth += 1,
            ')' => depth -= 1,
            ',' if depth == 0 => {
                found.push(list[start..at].trim());
                start = at + 1;
            }
            _ => {}
        }
    }
    found.push(list[start..].trim());
    found.retain(|argument| !argument.is_empty());
    found
}

/// The text up to the parenthesis that closes the first one, and the rest.
fn within_parentheses(text: &str) -> (&str, &str) {
    let begin = text.find('(').unwrap() + 1;
    let mut depth = 1;
    let end = text[begin..].char_indices().find(|&(_, c)| {
        depth += match c {
            '(' => 1,
            ')' => -1,
            _ => 0,
        };
        depth == 0
    });
    let end = begin + end.unwrap().0;
    (&text[begin..end], &text[end + 1..])
}

/// A type of Rust in the words of C.
fn in_c(rust: &str) -> String {
    let rust = rust.trim();
    if let Some(function) = rust.strip_prefix("unsafe extern \"C\" fn") {
        let (list, rest) = within_parentheses(function);
        let arguments: Vec<String> = arguments(list).into_iter().map(in_c).collect();
        return format!("{} (*)({})", result(rest), arguments.join(", "));
    }
    // A pointer to a function that may be null.
    if let Some(rest) = rust.strip_prefix("Option<") {
        return in_c(rest.trim_end_matches('>'));
    }
    if let Some(pointee) = rust.strip_prefix("*mut ") {
        return format!("{} *", in_c(pointee));
    }
    if let Some(pointee) = rust.strip_prefix("*const ") {
        return format!("const {} *", in_c(pointee));
    }
    let scalar = match rust {
        "c_void" => "void",
        "c_char" => "char",
        "c_uchar" => "unsigned char",
        "c_ushort" => "unsigned short",
        "c_short" => "short",
        "c_int" => "int",
        "c_uint" | "u32" => "unsigned int",
        "u8" => "u8",
        "u64" => "u64",
        "c_long" => "long",
        "c_ulong" => "unsigned long",
        "usize" => "size_t",
        "bool" => "bool",
        "raw_spinlock_t" => "raw_spinlock_t",
        tag => return format!("struct {tag}"),
    };
    scalar.to_owned()
}

/// The result's type in C, from the text after the arguments.
fn result(rest: &str) -> String {
    match rest.trim().strip_prefix("->") {
        Some(rust) => in_c(rust.trim_end_matches(';')),
        None => "void".to_owned(),
    }
}

/// The functions of `linux/c.rs`, as C declares them.
fn declared() -> BTreeSet<String> {
    let source = read("linux/c.rs");
    let (_, block) = source.split_once("extern \"C\" {\n").unwrap();
    let block = block.split_whitespace().collect::<Vec<_>>().join(" ");
    let declarations = block.split("pub(crate) fn ").skip(1);
    declarations
        .map(|declaration| {
            let declaration = declaration.split(';').next().unwrap();
            let (list, rest) = within_parentheses(declaration);
            let name = declaration.split('(').next().unwrap();
            let types = arguments(list).into_iter().map(|argument| {
                match argument.split_once(':') {
                    Some((_, rust)) => in_c(rust),
                    // Variable arguments.
                    None => argument.to_owned(),
                }
            });
            let types: Vec<String> = types.collect();
            let types = if types.is_empty() {
                "void".to_owned()
            } else {
                types.join(", ")
            };
            format!("{} {name}({types})", result(rest))
        })
        .collect()
}

/// The called functions whose prototypes `offsets.c` asserts.
fn asserted() -> BTreeSet<String> {
    let source = read("offsets.c");
    let (_, called) = source.split_once("/* Called functions").unwrap();
    let called = called.split_whitespace().collect::<Vec<_>>().join(" ");
    called
        .split("PROTOTYPE(")
        .skip(1)
        .map(|prototype| {
            let prototype = format!("({prototype}");
            let (list, _) = within_parentheses(&prototype);
            let list = list
                .replace(" __percpu", "")
                .replace("gfp_t", "unsigned int")
                .replace("enum cpuhp_state", "int")
                .replace("slab_flags_t", "unsigned int")
                .replace("umode_t", "unsigned short")
                .replace("__be32", "unsigned int")
                .replace("u32", "unsigned int");
            let words = arguments(&list);
            format!("{} {}({})", words[0], words[1], words[2..].join(", "))
        })
        .collect()
}

#[test]
fn each_function_of_rust_has_the_prototype_that_c_asserts() {
    let mut declared = declared();
    for declaration in BY_KERNEL {
        assert!(declared.remove(declaration), "{declaration}");
    }
    assert_eq!(declared, asserted());
}

#[test]
fn types_are_those_of_c() {
    assert_eq!(in_c("*const net_device"), "const struct net_device *");
    assert_eq!(
        in_c("unsafe extern \"C\" fn(*mut seq_file, *mut c_void) -> c_int"),
        "int (*)(struct seq_file *, void *)"
    );
}
