// SPDX-License-Identifier: GPL-2.0

//! The programs that operators write values with. Each takes a whole set or leaves the old one,
//! however it splits a line.

use std::fs;
use std::net::Ipv4Addr;
use std::process::Command;

use crate::ktap::note;
use crate::namespace::Namespace;
use crate::runner::cases;
use crate::runner::Case;

pub const CASES: &[Case] = cases![Loaded:
    each_writer_sets_the_whole_list_or_leaves_the_old_one,
];

/// The files that writers read, in a directory that is in memory.
const LIST: &str = "/tmp/toa-list";
const CONF: &str = "/tmp/toa-list.conf";

/// A program, and the numbers of prefixes that it sets.
struct Writer {
    name: &'static str,
    command: fn(list: &str) -> Vec<String>,
    sets: &'static [usize],
}

fn shell(program: &[&str], script: String) -> Vec<String> {
    let words = program.iter().copied().chain(["-c"]);
    words.map(str::to_owned).chain([script]).collect()
}

const FILE: &str = "/proc/sys/net/toa/trusted";

/// Prefixes in the tests: 64 of them take more than 1,023 bytes.
const COUNTS: [usize; 3] = [1, 64, 1024];

const WRITERS: &[Writer] = &[
    // bash splits at 1,024 bytes, and writes the end of the line after an error.
    Writer {
        name: "bash, echo",
        command: |list| shell(&["bash"], format!("echo {list} >{FILE}")),
        sets: &[1],
    },
    Writer {
        name: "bash, printf",
        command: |list| shell(&["bash"], format!("printf '%s\\n' {list} >{FILE}")),
        sets: &[1],
    },
    Writer {
        name: "dash, echo",
        command: |list| shell(&["dash"], format!("echo {list} >{FILE}")),
        sets: &[1, 64, 1024],
    },
    Writer {
        name: "busybox, echo",
        command: |list| shell(&["busybox", "sh"], format!("echo {list} >{FILE}")),
        sets: &[1, 64, 1024],
    },
    Writer {
        name: "busybox, sysctl",
        command: |list| {
            let words = ["busybox", "sysctl", "-w"].map(str::to_owned);
            [&words[..], &[format!("net.toa.trusted={list}")]].concat()
        },
        sets: &[1],
    },
    Writer {
        name: "tee",
        command: |_| shell(&["sh"], format!("tee {FILE} <{LIST} >/dev/null")),
        sets: &[1, 64],
    },
    Writer {
        name: "cat",
        command: |_| shell(&["sh"], format!("cat {LIST} >{FILE}")),
        sets: &[1, 64, 1024],
    },
    Writer {
        name: "sysctl -w",
        command: |list| {
            let words = ["sysctl", "-w"].map(str::to_owned);
            [&words[..], &[format!("net.toa.trusted={list}")]].concat()
        },
        sets: &[1, 64, 1024],
    },
    Writer {
        name: "sysctl -p",
        command: |_| ["sysctl", "-p", CONF].map(str::to_owned).to_vec(),
        sets: &[1, 64, 1024],
    },
    Writer {
        name: "systemd-sysctl",
        command: |_| {
            ["/usr/lib/systemd/systemd-sysctl", CONF]
                .map(str::to_owned)
                .to_vec()
        },
        sets: &[1, 64, 1024],
    },
];

/// A list that is read back as it is written.
fn list(count: usize) -> String {
    let prefix = |at: usize| format!("{}/32", Ipv4Addr::from_bits(0x6464_6400 + 2 * at as u32));
    (0..count).map(prefix).collect::<Vec<_>>().join(",")
}

fn each_writer_sets_the_whole_list_or_leaves_the_old_one() {
    let namespace = Namespace::new("writers");
    let mut found = Vec::new();
    let mut expected = Vec::new();
    for writer in WRITERS {
        for count in COUNTS {
            let list = list(count);
            fs::write(LIST, format!("{list}\n")).expect("the file");
            fs::write(CONF, format!("net.toa.trusted = {list}\n")).expect("the file");
            namespace.set_policy("trusted", "none");
            let words = (writer.command)(&list);
            let output = namespace.enter(|| Command::new(&words[0]).args(&words[1..]).output());
            let output = output.unwrap_or_else(|error| panic!("{}: {error}", writer.name));
            let set = namespace.policy("trusted");
            let whole = set == list;
            let errors = String::from_utf8_lossy(&output.stderr);
            let errors: String = errors.chars().take(200).collect();
            note(&format!(
                "{}: {count}: {}, {errors:?}",
                writer.name, output.status
            ));
            assert!(whole || set == "none", "{}: {count}: {set}", writer.name);
            // systemd-sysctl and procps report an error, and every shell does.
            assert_eq!(
                output.status.success(),
                whole,
                "{}: {count}: {errors}",
                writer.name
            );
            found.push((writer.name, count, whole));
            expected.push((writer.name, count, writer.sets.contains(&count)));
        }
    }
    for file in [LIST, CONF] {
        fs::remove_file(file).expect("the file");
    }
    assert_eq!(found, expected);
}
