// SPDX-License-Identifier: MIT OR Apache-2.0

//! Tests of the library as the README's commands install it: header, pkg-config file,
//! shared and static library. The tests need cargo-c, compilers for C and C++,
//! pkg-config and binutils.

use std::collections::BTreeSet;
use std::ffi::OsStr;
use std::fs;
use std::mem::offset_of;
use std::path::Path;
use std::path::PathBuf;
use std::process::Command;
use std::sync::OnceLock;

use toa_peer_c::toa_peer;

const HERE: &str = env!("CARGO_MANIFEST_DIR");

/// The version of the shared library's symbols: its soname.
const VERSION: &str = "libtoa_peer.so.0.1";

/// Returns the installation directory. The README's commands install the library there,
/// once for all tests.
fn prefix() -> &'static Path {
    static PREFIX: OnceLock<PathBuf> = OnceLock::new();
    PREFIX.get_or_init(|| {
        let directory = Path::new(env!("CARGO_TARGET_TMPDIR"));
        let prefix = directory.join("installed");
        let _ = fs::remove_dir_all(&prefix);
        run(Command::new(env!("CARGO"))
            .args(["cinstall", "--locked", "--release", "--prefix"])
            .arg(&prefix)
            .arg("--libdir")
            .arg(prefix.join("lib"))
            .current_dir(HERE)
            .env("CARGO_TARGET_DIR", directory.join("target")));
        run(Command::new(Path::new(HERE).join("one-object.sh"))
            .arg(prefix.join("lib/libtoa_peer.a")));
        prefix
    })
}

/// Runs a program, asserts that it succeeds, and returns its standard output.
#[track_caller]
fn run(command: &mut Command) -> String {
    let output = command
        .output()
        .unwrap_or_else(|error| panic!("{command:?}: {error}"));
    let complaint = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{command:?}: {complaint}");
    String::from_utf8_lossy(&output.stdout).into_owned()
}

fn pkg_config(flags: &[&str]) -> Vec<String> {
    let mut command = Command::new("pkg-config");
    command.args(flags).arg("toa_peer");
    let said = run(command.env("PKG_CONFIG_PATH", prefix().join("lib/pkgconfig")));
    said.split_whitespace().map(str::to_owned).collect()
}

/// Returns pkg-config's flags for a program that has the library inside.
fn static_flags() -> Vec<String> {
    let flags = pkg_config(&["--cflags", "--libs", "--static"]);
    let inside = |flag: String| match flag.as_str() {
        "-ltoa_peer" => "-l:libtoa_peer.a".to_owned(),
        _ => flag,
    };
    flags.into_iter().map(inside).collect()
}

/// Compiles a C file with strict warnings and the flags from pkg-config.
fn compile(source: &Path, name: &str, flags: &[String]) -> PathBuf {
    compile_as(&["cc", "-std=c99"], source, name, flags)
}

fn compile_as(compiler: &[&str], source: &Path, name: &str, flags: &[String]) -> PathBuf {
    let program = Path::new(env!("CARGO_TARGET_TMPDIR")).join(name);
    run(Command::new(compiler[0])
        .args(&compiler[1..])
        .args(["-Wall", "-Wextra", "-Wpedantic", "-Werror"])
        .arg("-o")
        .arg(&program)
        .arg(source)
        .args(flags));
    program
}

/// Returns the expected output of the C program: the layout of the struct in Rust.
fn layout() -> String {
    let size = size_of::<toa_peer>();
    let client = offset_of!(toa_peer, client);
    let balancer = offset_of!(toa_peer, balancer);
    let origin = offset_of!(toa_peer, origin);
    format!("{size} {client} {balancer} {origin}\n")
}

#[test]
fn installed_header_is_that_of_the_tree() {
    let installed = fs::read_to_string(prefix().join("include/toa_peer.h")).expect("a header");
    let ours = Path::new(HERE).join("toa_peer.h");
    let ours = fs::read_to_string(ours).unwrap_or_default();
    assert!(
        installed == ours,
        "copy {0}/include/toa_peer.h to {HERE}/toa_peer.h",
        prefix().display()
    );
}

#[test]
fn shared_library_exports_what_the_header_declares() {
    let declared = declared();
    let symbols = defined("--dynamic", "lib/libtoa_peer.so");
    // The version is an absolute symbol, too.
    let exported: BTreeSet<String> = declared
        .iter()
        .map(|function| format!("{function}@@{VERSION}"))
        .chain([VERSION.to_owned()])
        .collect();
    assert_eq!(symbols, exported);
    assert_eq!(declared.len(), 3);
}

#[test]
fn static_library_defines_what_the_shared_one_exports() {
    let symbols = defined("--extern-only", "lib/libtoa_peer.a");
    let exported: BTreeSet<String> = defined("--dynamic", "lib/libtoa_peer.so")
        .iter()
        .filter_map(|symbol| Some(symbol.split_once("@@")?.0.to_owned()))
        .filter(|function| function != VERSION)
        .collect();
    assert_eq!(symbols, exported);
}

#[test]
fn each_function_has_a_page_in_the_manual() {
    let manual = prefix().join("share/man/man3");
    let read =
        |function: &str| fs::read_to_string(manual.join(format!("{function}.3"))).expect("a page");
    let page = read("toa_peer_get");
    for function in declared() {
        assert!(page.contains(&format!("\n.Nm {function}")), "{page}");
        if function != "toa_peer_get" {
            assert_eq!(read(&function), ".so man3/toa_peer_get.3\n");
        }
    }
}

/// Returns the names of the functions in the header.
fn declared() -> BTreeSet<String> {
    let header = fs::read_to_string(prefix().join("include/toa_peer.h")).expect("a header");
    header
        .lines()
        .filter_map(|line| Some(line.strip_prefix("int ")?.split_once('(')?.0.to_owned()))
        .collect()
}

/// Returns the symbols that a library defines for others.
fn defined(sort: &str, library: &str) -> BTreeSet<String> {
    let symbols = run(Command::new("nm")
        .args([sort, "--defined-only", "--format=just-symbols"])
        .arg(prefix().join(library)));
    let symbols = symbols.lines().map(str::to_owned);
    // nm heads the symbols of an archive's member with its name.
    symbols
        .filter(|line| !line.is_empty() && !line.ends_with(':'))
        .collect()
}

#[test]
fn c_program_uses_the_shared_library() {
    let source = Path::new(HERE).join("tests/loopback.c");
    let program = compile(&source, "shared", &pkg_config(&["--cflags", "--libs"]));
    let needed = run(Command::new("readelf").arg("--dynamic").arg(&program));
    assert!(needed.contains(&format!("[{VERSION}]")), "{needed}");
    let versions = run(Command::new("readelf").arg("--version-info").arg(&program));
    assert!(
        versions.contains(&format!("Name: {VERSION} ")),
        "{versions}"
    );
    let said = run(Command::new(program).env("LD_LIBRARY_PATH", prefix().join("lib")));
    assert_eq!(said, layout());
}

#[test]
fn c_program_uses_the_static_library() {
    let source = Path::new(HERE).join("tests/loopback.c");
    let program = compile(&source, "static", &static_flags());
    let needed = run(Command::new("readelf").arg("--dynamic").arg(&program));
    assert!(!needed.contains("libtoa_peer"), "{needed}");
    assert_eq!(run(&mut Command::new(program)), layout());
}

#[test]
fn example_server_is_compiled_without_a_warning() {
    let source = Path::new(HERE).join("../examples/server.c");
    let program = compile(&source, "server", &pkg_config(&["--cflags", "--libs"]));
    assert_eq!(program.file_name(), Some(OsStr::new("server")));
}

#[test]
fn cpp_program_uses_the_header() {
    let header = Path::new(HERE).join("tests/beside/header.cpp");
    let flags = pkg_config(&["--cflags", "--libs"]);
    let program = compile_as(&["g++", "-std=c++11"], &header, "cpp", &flags);
    let said = run(Command::new(program).env("LD_LIBRARY_PATH", prefix().join("lib")));
    assert_eq!(said, "Bad file descriptor\n");
}

#[test]
fn static_library_is_linked_beside_another_one_in_rust() {
    let beside = Path::new(HERE).join("tests/beside");
    let other = Path::new(env!("CARGO_TARGET_TMPDIR")).join("libother.a");
    // With LTO, the other library has its own copy of the standard library's symbols, as
    // that of another compiler has.
    run(Command::new("rustc")
        .args([
            "--crate-type=staticlib",
            "--edition=2021",
            "-O",
            "-Clto=fat",
        ])
        .arg("-o")
        .arg(&other)
        .arg(beside.join("other.rs")));
    let mut flags = static_flags();
    let other = other.display().to_string();
    for place in [0, flags.len()] {
        flags.insert(place, other.clone());
        let program = compile(&beside.join("both.c"), "both", &flags);
        flags.remove(place);
        let expected = "toa_peer_get: Bad file descriptor\nother_sum: 5\n";
        assert_eq!(run(&mut Command::new(program)), expected);
    }
}
