// SPDX-License-Identifier: MIT OR Apache-2.0

//! The commands' outputs over copies of a server's files in `tests/hosts`, compared with those in
//! `tests/golden`. `UPDATE=1 cargo test` writes them again.

use std::fs;
use std::io::Read;
use std::os::unix::fs::symlink;
use std::path::Path;
use std::path::PathBuf;
use std::process::Command;
use std::process::Output;
use std::process::Stdio;

const DIRECTORY: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests");

fn toa(host: &Path, arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_toa"));
    command.arg("--sysroot").arg(host).args(arguments);
    command
}

/// The inodes of the sockets that the server's processes hold.
const SOCKETS: [(u32, &[u32]); 2] = [(100, &[500, 501, 503]), (200, &[502])];

fn run(command: &mut Command) -> Output {
    command.output().expect("toa starts")
}

/// Compares standard output, standard error and the status with a file.
#[track_caller]
fn check(golden: &str, host: &Path, arguments: &[&str]) {
    let output = run(&mut toa(host, arguments));
    let found = format!(
        "{}--- standard error\n{}--- status {}\n",
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr).replace(&*host.to_string_lossy(), "HOST"),
        output.status.code().expect("no signal"),
    );
    let path = Path::new(DIRECTORY).join("golden").join(golden);
    if std::env::var_os("UPDATE").is_some_and(|value| !value.is_empty()) {
        fs::write(&path, &found).expect("the file");
    }
    let expected = fs::read_to_string(&path).unwrap_or_default();
    assert_eq!(found, expected, "{golden}");
}

#[test]
fn outputs_are_the_golden_ones() {
    let copy = Copy::new("golden");
    for (golden, arguments) in [
        ("status.txt", &["status"][..]),
        ("status.json", &["status", "--json"]),
        ("status.prom", &["status", "--prometheus"]),
        ("list.txt", &["list"]),
        ("list.json", &["list", "--json"]),
        (
            "list-filter.txt",
            &[
                "list",
                "-H6",
                "2001:db8::/32",
                "server",
                "10.0.0.0/8",
                ":8080",
            ],
        ),
        ("list-none.txt", &["list", "client", "192.0.2.0/24"]),
        ("check.txt", &["check"]),
        ("check.json", &["check", "--json"]),
        ("policy-show.txt", &["policy", "show"]),
        ("policy-show.json", &["policy", "show", "--json"]),
        ("policy-diff.txt", &["policy", "diff"]),
        (
            "policy-test-untrusted.txt",
            &["policy", "test", "192.0.2.7", "254/8"],
        ),
        (
            "policy-test-believed.txt",
            &["policy", "test", "10.0.1.1", "254/20"],
        ),
        ("why-recorded.txt", &["why", "10.0.1.1:1027"]),
        (
            "why-client.json",
            &["why", "[2001:db8:7::7]:50416", "--json"],
        ),
        ("why-nat64.txt", &["why", "10.0.1.3:1029"]),
        (
            "why-no-record.txt",
            &["why", "10.0.1.9:1040", "--interval", "0"],
        ),
        ("why-untrusted.txt", &["why", "192.0.2.7:1041"]),
        (
            "why-no-connection.txt",
            &["why", "192.0.2.7:9", "--interval", "0"],
        ),
        ("why-no-listener.txt", &["why", ":80"]),
        ("why-none-arrived.txt", &["why", ":8080", "--interval", "0"]),
    ] {
        check(golden, &copy.0, arguments);
    }
}

/// A copy of the server's files, in which a test changes some. Dropping it removes the copy.
struct Copy(PathBuf);

impl Copy {
    fn new(name: &str) -> Self {
        let path = std::env::temp_dir().join(format!("toa-{name}-{}", std::process::id()));
        let server = Path::new(DIRECTORY).join("hosts/server");
        let copied = Command::new("cp").arg("-a").arg(server).arg(&path).status();
        assert!(copied.expect("cp starts").success());
        for (pid, inodes) in SOCKETS {
            let files = path.join(format!("proc/{pid}/fd"));
            fs::create_dir(&files).expect("a new directory");
            for inode in inodes {
                symlink(format!("socket:[{inode}]"), files.join(inode.to_string()))
                    .expect("a link");
            }
        }
        Self(path)
    }

    fn write(self, file: &str, content: &[u8]) -> Self {
        fs::write(self.0.join(file), content).expect("the file");
        self
    }

    fn remove(self, file: &str) -> Self {
        let path = self.0.join(file);
        if path.is_dir() {
            fs::remove_dir_all(path).expect("the directory");
        } else {
            fs::remove_file(path).expect("the file");
        }
        self
    }
}

impl Drop for Copy {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

#[test]
fn module_that_is_not_loaded_is_named_by_each_command() {
    let copy = Copy::new("unloaded")
        .remove("sys/module/toa")
        .remove("proc/sys/net/toa")
        .remove("proc/net/toa")
        .remove("proc/net/toa_stats");
    for (golden, arguments) in [
        ("unloaded-status.txt", &["status"][..]),
        ("unloaded-status.prom", &["status", "--prometheus"]),
        ("unloaded-list.txt", &["list"]),
        ("unloaded-why.txt", &["why", ":8080"]),
        ("unloaded-check.txt", &["check"]),
        ("unloaded-policy.txt", &["policy", "show"]),
    ] {
        check(golden, &copy.0, arguments);
    }
}

#[test]
fn older_module_has_no_policy_and_no_list() {
    let copy = Copy::new("older")
        .remove("proc/sys/net/toa")
        .remove("proc/net/toa");
    for (golden, arguments) in [
        ("older-status.txt", &["status"][..]),
        ("older-list.txt", &["list"]),
        ("older-check.txt", &["check"]),
        (
            "older-why.txt",
            &["why", "10.0.1.9:1040", "--interval", "0"],
        ),
    ] {
        check(golden, &copy.0, arguments);
    }
}

#[test]
fn any_trusted_host_and_a_disabled_policy_are_remarked() {
    let copy = Copy::new("open").write("proc/sys/net/toa/trusted", b"\n");
    let text = run(&mut toa(&copy.0, &["status"])).stdout;
    let text = String::from_utf8_lossy(&text);
    assert!(text.contains("\n  trusted        any host\n"), "{text}");
    assert!(
        text.ends_with("run toa policy set trusted=PREFIX\n"),
        "{text}"
    );
    let copy = copy.write("proc/sys/net/toa/enabled", b"0\n");
    check("disabled-check.txt", &copy.0, &["check"]);
    check("disabled-why.txt", &copy.0, &["why", "10.0.1.9:1040"]);
    check(
        "disabled-policy-test.txt",
        &copy.0,
        &["policy", "test", "10.0.1.1", "254/8"],
    );
}

#[test]
fn garbage_in_each_file_is_one_line_of_error() {
    const LONG: &[u8] = &[b'x'; 100_000];
    let files = [
        "proc/net/toa_stats",
        "proc/net/toa",
        "proc/net/tcp",
        "proc/sys/net/toa/trusted",
        "proc/sys/net/toa/kinds",
        "proc/sys/net/toa/enabled",
        "proc/sys/net/toa/max_records",
    ];
    let copy = Copy::new("garbage");
    for file in files {
        let path = copy.0.join(file);
        let good = fs::read(&path).expect("the file");
        for garbage in [
            &b""[..],
            b"\0",
            b"\xff\xfe\n\n",
            b"CPU0\n\x1b]0;title\x07: 1\n",
            b"local balancer client\n1.2.3.4:5 6\n",
            b"h\n 0: 0100007F:1F90 z\n",
            LONG,
        ] {
            fs::write(&path, garbage).expect("the file");
            for arguments in [
                &["status"][..],
                &["list"],
                &["check"],
                &["why", "10.0.1.1:1027", "--interval", "0"],
                &["policy", "show"],
                &["policy", "test", "10.0.1.1", "254/8"],
            ] {
                let output = run(&mut toa(&copy.0, arguments));
                let errors = String::from_utf8_lossy(&output.stderr);
                let status = output.status.code().expect("no signal");
                let what = format!("{file} {arguments:?}: {status} {errors}");
                assert!(status <= 5, "{what}");
                assert!(
                    errors.lines().all(|line| line.starts_with("toa: ")),
                    "{what}"
                );
                assert!(errors.lines().count() <= 1, "{what}");
                let all = [output.stdout, output.stderr].concat();
                assert!(!all.contains(&0x1b) && !all.contains(&7), "{what}");
            }
        }
        fs::write(&path, good).expect("the file");
    }
}

/// Whether a terminal shows the text as it is: neither control characters nor others that change the
/// characters beside them.
fn is_printable(text: &str) -> bool {
    let changes = |c: char| {
        c.is_control() && c != '\n'
            || matches!(c, '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
    };
    !text.contains(changes)
}

#[test]
fn names_and_values_of_files_are_printable() {
    const HOSTILE: &str = "\u{1b}]0;title\u{7}\u{9b}31m\u{202e}\u{7f}x\r";
    let copy = Copy::new("hostile");
    for file in [
        "proc/100/comm",
        "proc/sys/kernel/osrelease",
        "sys/module/toa/version",
        "sys/module/toa/srcversion",
    ] {
        fs::write(copy.0.join(file), HOSTILE).expect("the file");
    }
    let conf = format!("net.toa.pick = {HOSTILE}\nnet.toa.trusted = {HOSTILE}\n");
    fs::write(copy.0.join(format!("etc/sysctl.d/z{HOSTILE}.conf")), conf).expect("the file");
    for arguments in [
        &["status"][..],
        &["status", "--prometheus"],
        &["list"],
        &["check"],
        &["why", "10.0.1.1:1027"],
        &["policy", "diff"],
        &["policy", "show"],
    ] {
        for json in [&[][..], &["--json"]] {
            if json.is_empty() || !arguments.contains(&"--prometheus") {
                let output = run(&mut toa(&copy.0, &[arguments, json].concat()));
                for bytes in [output.stdout, output.stderr] {
                    let text = String::from_utf8(bytes).expect("text");
                    assert!(is_printable(&text), "{arguments:?} {json:?}: {text:?}");
                }
            }
        }
    }
    // An argument comes back in the message about it.
    let output = run(&mut toa(&copy.0, &["list", "client", HOSTILE]));
    let errors = String::from_utf8(output.stderr).expect("text");
    assert!(is_printable(&errors), "{errors:?}");
}

#[test]
fn wrong_arguments_have_status_2_and_one_line() {
    let copy = Copy::new("arguments");
    for arguments in [
        &["list", "clients", "10.0.0.1"][..],
        &["list", "10.0.0.0/33"],
        &["list", "10.0.0.1/8"],
        &["list", "--netns", "1"],
        &["why", "localhost:80"],
        &["policy", "test", "10.0.0.1", "254"],
        &["policy", "set", "enabled=0"],
    ] {
        let output = run(&mut toa(&copy.0, arguments));
        let errors = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(2), "{arguments:?}: {errors}");
        assert_eq!(errors.lines().count(), 1, "{arguments:?}: {errors}");
        assert_eq!(output.stdout, b"", "{arguments:?}");
    }
    // Those of clap have its lines.
    for arguments in [&["lists"][..], &["status", "--interval", "-1"], &["why"]] {
        let output = run(&mut toa(&copy.0, arguments));
        assert_eq!(output.status.code(), Some(2), "{arguments:?}");
    }
}

#[test]
fn reader_that_closes_the_pipe_ends_the_command_quietly() {
    let rows = "10.0.0.1:8080 10.0.1.1:1027 203.0.113.7:50412\n".repeat(100_000);
    let text = format!("local balancer client\n{rows}");
    let copy = Copy::new("pipe").write("proc/net/toa", text.as_bytes());
    let mut child = toa(&copy.0, &["list"])
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("toa starts");
    let mut stdout = child.stdout.take().expect("it is piped");
    stdout.read_exact(&mut [0; 10]).expect("some bytes");
    drop(stdout);
    let output = child.wait_with_output().expect("toa ends");
    assert_eq!(String::from_utf8_lossy(&output.stderr), "");
    // As after SIGPIPE.
    assert_eq!(output.status.code(), Some(141));
}
