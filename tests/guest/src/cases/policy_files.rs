// SPDX-License-Identifier: GPL-2.0

//! The files `net.toa.*`: their values, their writers' permissions, and writes that are refused.

use std::fs;
use std::fs::File;
use std::io::Read;
use std::os::unix::fs::FileExt;
use std::os::unix::fs::PermissionsExt;
use std::process::Command;

use nix::errno::Errno;

use crate::kmsg::KernelLog;
use crate::namespace;
use crate::namespace::policy_path;
use crate::namespace::Namespace;
use crate::net::Net;
use crate::net::Way;
use crate::runner::cases;
use crate::runner::Case;
use crate::sockets::Family;
use crate::sys;
use crate::wait;

pub const CASES: &[Case] = cases![Loaded:
    new_namespace_has_the_default_policy,
    values_are_read_back_in_their_canonical_form,
    wrong_values_are_refused_with_their_error_and_change_nothing,
    garbage_of_64_kib_is_refused_by_each_file_and_changes_nothing,
    value_arrives_in_one_write_at_offset_0,
    rest_of_a_refused_value_is_refused_too,
    log_line_names_file_and_column_and_not_the_bytes,
    log_lines_are_limited,
    long_value_is_read_in_pieces,
    everyone_reads_and_root_without_cap_net_admin_writes_nothing,
    root_of_a_user_namespace_writes_its_policy_and_raises_no_share,
    sets_are_charged_to_their_writers_memory_cgroup,
];

/// The files with their default values. The share depends on the machine's memory.
const DEFAULTS: [(&str, &str); 6] = [
    ("enabled", "1"),
    ("trusted", ""),
    ("kinds", "254/8:client4,254/20:client6"),
    ("pick", "first"),
    ("nat46", "0"),
    ("own_addresses", "0"),
];

/// All files.
const FILES: [&str; 8] = [
    "enabled",
    "trusted",
    "kinds",
    "pick",
    "nat46",
    "own_addresses",
    "inherited",
    "max_records",
];

/// The values of all files.
fn values(namespace: &Namespace) -> Vec<String> {
    FILES.iter().map(|file| namespace.policy(file)).collect()
}

fn new_namespace_has_the_default_policy() {
    let namespace = Namespace::new("new");
    for (file, value) in DEFAULTS {
        assert_eq!(namespace.policy(file), value, "{file}");
    }
    let inherited = "enabled trusted kinds pick nat46 own_addresses";
    assert_eq!(namespace.policy("inherited"), inherited);
    let mut found: Vec<String> = namespace.enter(|| {
        let entries = fs::read_dir("/proc/sys/net/toa").expect("the directory");
        let names = entries.map(|entry| entry.expect("an entry").file_name());
        names
            .map(|name| name.into_string().expect("a name"))
            .collect()
    });
    found.sort();
    let mut files = FILES;
    files.sort();
    assert_eq!(found, files);
    for file in FILES {
        let metadata = namespace.enter(|| fs::metadata(policy_path(file)));
        let mode = metadata.expect("the file").permissions().mode();
        assert_eq!(mode & 0o7777, 0o644, "{file}");
    }
}

fn values_are_read_back_in_their_canonical_form() {
    let namespace = Namespace::new("written");
    let rows = [
        ("enabled", " 0 ", "0"),
        ("trusted", "10.0.1.0/24, 10.0.0.0/24", "10.0.0.0/23"),
        ("trusted", "::/0 0.0.0.0/0,10.0.0.1", "0.0.0.0/0,::/0"),
        ("trusted", "none", "none"),
        ("trusted", "", ""),
        (
            "kinds",
            "253/20 254",
            "253/20:client6,254/8:client4,254/20:client6",
        ),
        (
            "kinds",
            "200:client4-noport,253/8:vip",
            "200/6:client4-noport,253/8:vip",
        ),
        ("kinds", "254/20,254/8", "254/20:client6,254/8:client4"),
        ("pick", "last", "last"),
        ("nat46", "1", "1"),
        ("own_addresses", "1", "1"),
        ("max_records", "7", "7"),
    ];
    for (file, value, expected) in rows {
        for newline in ["\n", ""] {
            // A write of no bytes changes nothing.
            if value.is_empty() && newline.is_empty() {
                continue;
            }
            let written = namespace.write_policy(file, format!("{value}{newline}"));
            assert_eq!(written, Ok(()), "{file}={value:?}");
            assert_eq!(namespace.policy(file), expected, "{file}={value:?}");
        }
        // The value that is read can be written.
        namespace.set_policy(file, expected);
        assert_eq!(namespace.policy(file), expected, "{file}");
    }
    assert_eq!(namespace.policy("inherited"), "");
}

fn wrong_values_are_refused_with_their_error_and_change_nothing() {
    let namespace = Namespace::new("wrong");
    namespace.set_policy("trusted", "10.0.0.0/8,fd00::/8");
    namespace.set_policy("kinds", "253/20,254");
    let before = values(&namespace);
    let too_many = vec!["10.0.0.1/32"; 1025].join(",");
    let too_many_rules: Vec<String> = (200..233).map(|kind| format!("{kind}/8")).collect();
    let too_many_rules = too_many_rules.join(",");
    let rows = [
        ("enabled", "2", Errno::EINVAL),
        ("enabled", "", Errno::EINVAL),
        ("enabled", "0 1", Errno::EINVAL),
        ("enabled", "01", Errno::EINVAL),
        ("enabled", "yes", Errno::EINVAL),
        ("trusted", "10.0.0.0/2", Errno::EINVAL),
        ("trusted", "10.0.0.0/8,10.0.0.1/31", Errno::EINVAL),
        ("trusted", "10.0.0.0/8\n10.1.0.0/16", Errno::EINVAL),
        ("trusted", "::ffff:10.0.0.0/104", Errno::EINVAL),
        ("trusted", "balancer.example", Errno::EINVAL),
        ("trusted", "none 10.0.0.0/8", Errno::EINVAL),
        ("trusted", &too_many, Errno::E2BIG),
        ("kinds", "", Errno::EINVAL),
        ("kinds", "254/8,254/8", Errno::EINVAL),
        ("kinds", "254,254/20:vip", Errno::EINVAL),
        ("kinds", "19", Errno::EINVAL),
        ("kinds", "29/20", Errno::EINVAL),
        ("kinds", "8/8", Errno::EINVAL),
        ("kinds", "254/9", Errno::EINVAL),
        ("kinds", "254/8:client6", Errno::EINVAL),
        ("kinds", "254:unknown", Errno::EINVAL),
        ("kinds", "256", Errno::EINVAL),
        ("kinds", &too_many_rules, Errno::E2BIG),
        ("pick", "second", Errno::EINVAL),
        ("pick", "1", Errno::EINVAL),
        ("nat46", "-1", Errno::EINVAL),
        ("own_addresses", "true", Errno::EINVAL),
        ("inherited", "max_records", Errno::EINVAL),
        ("inherited", "trusted unknown", Errno::EINVAL),
        ("max_records", "", Errno::EINVAL),
        ("max_records", "-1", Errno::EINVAL),
        ("max_records", "4294967295", Errno::EINVAL),
        ("max_records", "4294967296", Errno::EINVAL),
    ];
    for (file, value, error) in rows {
        let written = namespace.write_policy(file, format!("{value}\n"));
        assert_eq!(written, Err(error), "{file}={value:.60}");
        assert_eq!(values(&namespace), before, "{file}={value:.60}");
    }
    let first = Namespace::first();
    let written = first.write_policy("inherited", "trusted\n");
    assert_eq!(written, Err(Errno::EINVAL));
    first.set_policy("inherited", "");
}

fn garbage_of_64_kib_is_refused_by_each_file_and_changes_nothing() {
    let net = Net::new();
    let namespace = &net.server;
    namespace.set_policy("trusted", "10.0.1.0/28,fd00:0:0:1::/124");
    let before = values(namespace);
    let mut random = vec![0; 64 << 10];
    let mut source = File::open("/dev/urandom").expect("the device");
    source.read_exact(&mut random).expect("random bytes");
    random
        .iter_mut()
        .filter(|byte| **byte == b'\n')
        .for_each(|byte| *byte = 0);
    let digits: Vec<u8> = random
        .iter()
        .map(|byte| b"0123456789abcdef.:/, "[usize::from(byte % 21)])
        .collect();
    for garbage in [
        random,
        digits,
        vec![0; 64 << 10],
        vec![b','; 64 << 10],
        vec![b'1'; 64 << 10],
    ] {
        for file in FILES {
            let written = namespace.write_policy(file, &garbage);
            assert_eq!(written, Err(Errno::EINVAL), "{file}");
            // The file has refused a part: the rest is refused too.
            let written = namespace.write_policy(file, b"\n");
            assert_eq!(written, Err(Errno::EINVAL), "{file}");
            let mut line = garbage.clone();
            line.push(b'\n');
            let written = namespace.write_policy(file, &line);
            assert_eq!(written, Err(Errno::E2BIG), "{file}");
            let short = [&garbage[..127], b"\n"].concat();
            let all_commas = garbage[..127].iter().all(|byte| *byte == b',');
            if !(all_commas && ["trusted", "inherited"].contains(&file)) {
                assert_eq!(
                    namespace.write_policy(file, &short),
                    Err(Errno::EINVAL),
                    "{file}"
                );
            }
            assert_eq!(values(namespace), before, "{file}");
        }
    }
    let listener = net.listen(Family::DualStack);
    for way in Way::ALL {
        let (client, accepted) = net.pair(&listener, way);
        accepted.assert_shows(client.address);
    }
}

fn value_arrives_in_one_write_at_offset_0() {
    let namespace = Namespace::new("framed");
    namespace.set_policy("trusted", "10.0.0.0/8");
    let write_at = |offset: u64, value: &[u8]| {
        namespace.enter(|| {
            let file = File::options().write(true).open(policy_path("trusted"));
            let written = file.expect("the file").write_at(value, offset);
            written.map_err(|error| {
                error
                    .raw_os_error()
                    .map_or(Errno::UnknownErrno, Errno::from_raw)
            })
        })
    };
    for offset in [1, 10, 1024] {
        assert_eq!(
            write_at(offset, b"10.1.0.0/16\n"),
            Err(Errno::EINVAL),
            "{offset}"
        );
    }
    assert_eq!(namespace.policy("trusted"), "10.0.0.0/8");
    assert_eq!(write_at(0, b"10.2.0.0/16\n"), Ok(12));
    assert_eq!(namespace.policy("trusted"), "10.2.0.0/16");

    // 1,023 bytes are whole without a newline, 1,024 are not.
    let padded = |length: usize| format!("{:<length$}", "10.3.0.0/16");
    assert_eq!(write_at(0, padded(1024).as_bytes()), Err(Errno::EINVAL));
    // The same process ends the value that it has begun.
    assert_eq!(write_at(0, b"\n"), Err(Errno::EINVAL));
    assert_eq!(namespace.policy("trusted"), "10.2.0.0/16");
    assert_eq!(write_at(0, padded(1023).as_bytes()), Ok(1023));
    assert_eq!(namespace.policy("trusted"), "10.3.0.0/16");
    let terminated = padded(1024) + "\n";
    assert_eq!(write_at(0, terminated.as_bytes()), Ok(1025));
}

/// bash's `echo` writes the end of a line after its beginning was refused. An end alone would be
/// another set, and a newline alone would be any host.
fn rest_of_a_refused_value_is_refused_too() {
    let namespace = Namespace::new("rest");
    namespace.set_policy("trusted", "none");
    let beginning = vec![b' '; 2048];
    for rest in ["\n", "10.0.0.0/8\n", ",10.0.0.0/8\n"] {
        assert_eq!(
            namespace.write_policy("trusted", &beginning),
            Err(Errno::EINVAL)
        );
        // More parts without an end.
        assert_eq!(
            namespace.write_policy("trusted", "10.0.0.0/8"),
            Err(Errno::EINVAL)
        );
        // Another file, and another process, are not concerned.
        namespace.set_policy("kinds", "254");
        let mut other = Command::new("sh");
        other.args(["-c", "echo 192.0.2.0/24 > /proc/sys/net/toa/trusted"]);
        namespace.enter(|| namespace::run(&mut other));
        assert_eq!(namespace.policy("trusted"), "192.0.2.0/24");
        assert_eq!(namespace.write_policy("trusted", rest), Err(Errno::EINVAL));
        assert_eq!(namespace.policy("trusted"), "192.0.2.0/24");
        // The line has ended.
        assert_eq!(namespace.write_policy("trusted", "none\n"), Ok(()));
        assert_eq!(namespace.policy("trusted"), "none");
    }
}

/// The number of the namespace, as in `lsns`.
fn number(namespace: &Namespace) -> String {
    let link = namespace.enter(|| fs::read_link("/proc/thread-self/ns/net"));
    let link = link.expect("the link").to_string_lossy().into_owned();
    link.trim_matches(|c: char| !c.is_ascii_digit()).to_owned()
}

fn log_line_names_file_and_column_and_not_the_bytes() {
    let namespace = Namespace::new("logged");
    let number = number(&namespace);
    let rows = [
        (
            "trusted",
            "10.0.0.0/8,192.0.2.77/24",
            12,
            "the address has bits beyond the prefix's length",
        ),
        (
            "kinds",
            "254,19",
            5,
            "kind 19 is TCP-MD5: the kernel drops its segments unless the socket has a key",
        ),
        ("enabled", "7777", 1, "neither 0 nor 1"),
    ];
    for (file, value, column, reason) in rows {
        let expected = format!(
            "TOA: net.toa.{file} of network namespace {number} keeps its value: column {column}: {reason}"
        );
        let mut log = KernelLog::from_now();
        // Lines of other tests may have reached the limit.
        wait::until("the line", || {
            assert_eq!(namespace.write_policy(file, value), Err(Errno::EINVAL));
            let lines = log.new_lines();
            for line in &lines {
                assert!(
                    !line.contains("192.0.2.77") && !line.contains("7777"),
                    "{line}"
                );
            }
            lines
                .contains(&expected)
                .then_some(())
                .ok_or(format!("{lines:?}"))
        });
    }
}

fn log_lines_are_limited() {
    let namespace = Namespace::new("noisy");
    let mut log = KernelLog::from_now();
    let start = std::time::Instant::now();
    for _ in 0..1000 {
        assert_eq!(namespace.write_policy("enabled", "2"), Err(Errno::EINVAL));
    }
    // Ten lines in five seconds, which may begin before the test.
    let most = 10 * (start.elapsed().as_secs() as usize / 5 + 2);
    let lines = log.new_lines();
    let printed = lines
        .iter()
        .filter(|line| line.contains("keeps its value"))
        .count();
    assert!(printed <= most, "{printed} lines, {most} at most");
}

fn long_value_is_read_in_pieces() {
    let namespace = Namespace::new("long");
    let prefix = |at: u32| format!("{}/32", std::net::Ipv4Addr::from_bits(0x6464_6400 + 2 * at));
    let set: Vec<String> = (0..1024).map(prefix).collect();
    let set = set.join(",");
    namespace.set_policy("trusted", &set);
    for piece in [101, 1000, 1 << 20] {
        let text = namespace.enter(|| {
            let mut file = File::open(policy_path("trusted")).expect("the file");
            let (mut text, mut buffer) = (Vec::new(), vec![0; piece]);
            loop {
                match file.read(&mut buffer).expect("a piece") {
                    0 => return text,
                    length => text.extend_from_slice(&buffer[..length]),
                }
            }
        });
        assert_eq!(String::from_utf8(text), Ok(format!("{set}\n")), "{piece}");
    }
}

/// Runs a shell's script in the namespace by `setpriv` with these options, and returns its output.
fn script_by(namespace: &Namespace, options: &[&str], script: &str) -> String {
    let mut command = Command::new("setpriv");
    command.args(options).args(["sh", "-c", script]);
    namespace.enter(|| namespace::run(&mut command))
}

fn everyone_reads_and_root_without_cap_net_admin_writes_nothing() {
    let namespace = Namespace::new("guarded");
    namespace.set_policy("trusted", "10.0.0.0/8");
    let before = values(&namespace);
    let (read, written) = namespace.enter(|| {
        sys::as_nobody(|| {
            let read = FILES.map(|file| fs::read_to_string(policy_path(file)).expect(file));
            let written = FILES.map(|file| namespace::write_policy_here(file, "1\n"));
            (read, written)
        })
    });
    let read: Vec<&str> = read
        .iter()
        .map(|text| text.trim_end_matches('\n'))
        .collect();
    assert_eq!(read, before);
    assert_eq!(written, [Err(Errno::EACCES); 8]);

    // Root of a container that shares the host's user namespace.
    let script = "cd /proc/sys/net/toa && for file in *; do \
                  cat $file >/dev/null && ! echo 0 >$file 2>/dev/null && echo refused; done";
    let container = ["--bounding-set=-net_admin", "--inh-caps=-net_admin"];
    assert_eq!(
        script_by(&namespace, &container, script),
        "refused\n".repeat(8)
    );
    assert_eq!(values(&namespace), before);
}

fn root_of_a_user_namespace_writes_its_policy_and_raises_no_share() {
    // An unprivileged user makes both namespaces, and is root there.
    let script = "\
        cd /proc/sys/net/toa || exit
        echo 10.0.0.0/8 >trusted && cat trusted
        echo 253/20 >kinds && cat kinds
        echo 2 >max_records && cat max_records
        echo 3 >max_records || cat max_records
        echo 1 >max_records && cat max_records
        unshare --net cat $PWD/max_records $PWD/trusted $PWD/inherited
        cat inherited";
    let mut command = Command::new("setpriv");
    command
        .args(["--reuid=65534", "--regid=65534", "--clear-groups"])
        .args(["unshare", "--user", "--map-root-user", "--net"])
        .args(["sh", "-c", script]);
    let all = "enabled trusted kinds pick nat46 own_addresses";
    let expected = format!(
        "10.0.0.0/8\n253/20:client6\n2\n2\n1\n1\n10.0.0.0/8\n{all}\nenabled pick nat46 own_addresses\n"
    );
    assert_eq!(namespace::run(&mut command), expected);
}

/// The bytes of kernel memory that a cgroup is charged for.
fn charged(group: &str) -> i64 {
    let text = fs::read_to_string(format!("{group}/memory.stat")).expect("the statistics");
    let line = text.lines().find(|line| line.starts_with("kernel "));
    let number = line.and_then(|line| line.split_whitespace().nth(1));
    number
        .and_then(|number| number.parse().ok())
        .expect("a number")
}

fn sets_are_charged_to_their_writers_memory_cgroup() {
    const GROUP: &str = "/sys/fs/cgroup/toa-writer";
    fs::write("/sys/fs/cgroup/cgroup.subtree_control", "+memory").expect("the controller");
    fs::create_dir(GROUP).expect("the group");
    let prefix = |at: u32| format!("{}/32", std::net::Ipv4Addr::from_bits(0x6464_6400 + 2 * at));
    let set: Vec<String> = (0..1024).map(prefix).collect();
    fs::write("/tmp/toa-set", set.join(",") + "\n").expect("the file");
    let script =
        format!("echo $$ >{GROUP}/cgroup.procs && cat /tmp/toa-set >/proc/sys/net/toa/trusted");
    let write = |namespace: &Namespace| {
        let mut command = Command::new("sh");
        command.args(["-c", &script]);
        namespace.enter(|| namespace::run(&mut command));
    };
    let namespaces: Vec<_> = (0..8).map(|_| Namespace::new("charged")).collect();
    write(&namespaces[0]);
    let first = charged(GROUP);
    namespaces[1..].iter().for_each(write);
    let more = charged(GROUP) - first;
    // 32 KiB each, in whole pages.
    assert!(more >= 7 * 32 * 1024, "{more} bytes");
    drop(namespaces);
    fs::remove_file("/tmp/toa-set").expect("the file");
    wait::until("the group is empty", || {
        fs::remove_dir(GROUP).map_err(|error| error.to_string())
    });
}
