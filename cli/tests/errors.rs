// SPDX-License-Identifier: MIT OR Apache-2.0

//! Failures of the command: one line on standard error that ends with what to type, and the documented
//! status. `screens.rs` has those of a copy of files, and guest tests those of a kernel.

use std::fs;
use std::os::unix::fs::symlink;
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;
use std::process::Command;

const TOA: &str = env!("CARGO_BIN_EXE_toa");

/// Runs a command, which must print only one line, to standard error. Returns its status and the line.
#[track_caller]
fn failure(command: &mut Command) -> (i32, String) {
    let output = command.output().expect("it starts");
    let text = String::from_utf8(output.stderr).expect("text");
    assert_eq!(output.stdout, b"", "{text}");
    assert_eq!(text.lines().count(), 1, "{text}");
    let Some(line) = text.trim_end().strip_prefix("toa: ") else {
        panic!("the command did not print this: {text}");
    };
    (output.status.code().expect("no signal"), line.to_owned())
}

fn toa(arguments: &[&str]) -> Command {
    let mut command = Command::new(TOA);
    command.args(arguments);
    command
}

#[test]
fn filters_prefixes_and_ports_name_what_to_write() {
    for (arguments, line) in [
        (
            &["list", "clients", "10.0.0.1"][..],
            "there is no filter \"clients\": write PREFIX, client PREFIX, balancer PREFIX, server PREFIX, :PORT or port PORT",
        ),
        (
            &["list", "10.0.0.0/33"],
            "\"10.0.0.0/33\" is no IPv4 or IPv6 prefix: write one such as 10.0.1.0/28",
        ),
        (
            &["list", "10.0.0.1/8"],
            "10.0.0.1/8 has address bits beyond the prefix's length: write 10.0.0.0/8",
        ),
        (
            &["list", ":65536"],
            "\"65536\" is no port: write a number from 0 to 65535",
        ),
        (
            &["policy", "set", "trusted=10.0.0.0/33"],
            "trusted: \"10.0.0.0/33\" is no IPv4 or IPv6 prefix: write one such as 10.0.1.0/28",
        ),
        (
            &["reload", "--sysroot", "/"],
            "a copy of files has no module to replace: leave out --sysroot",
        ),
    ] {
        assert_eq!(failure(&mut toa(arguments)), (2, line.to_owned()));
    }
}

#[test]
fn a_process_that_has_ended_has_no_namespace() {
    let mut process = Command::new("true").spawn().expect("it starts");
    let number = process.id().to_string();
    assert!(process.wait().expect("its end").success());
    for command in [
        &["list"][..],
        &["status"],
        &["policy", "show"],
        &["policy", "set", "pick=last"],
        &["why", ":80"],
        &["top", "-n1"],
    ] {
        let line = format!("there is no process {number}: ps -e lists them");
        let arguments = [command, &["--netns", &number]].concat();
        assert_eq!(failure(&mut toa(&arguments)), (2, line), "{command:?}");
    }
}

/// A copy of a server's list, which only root may read, and a copy of the program. Dropping it removes
/// both.
struct Copy(PathBuf);

impl Copy {
    fn new(name: &str) -> Self {
        let path = std::env::temp_dir().join(format!("toa-{name}-{}", std::process::id()));
        fs::create_dir_all(path.join("proc/net")).expect("the directory");
        for directory in [".", "proc", "proc/net"] {
            fs::set_permissions(path.join(directory), fs::Permissions::from_mode(0o755))
                .expect("its mode");
        }
        // By another process: a test that forked while this one holds the copy open for writing
        // would keep it so, and it could not be run (ETXTBSY).
        let mut copier = Command::new("cp");
        copier.arg(TOA).arg(path.join("toa"));
        assert!(copier.status().expect("cp starts").success());
        let list = path.join("proc/net/toa");
        fs::write(&list, "local balancer client\n").expect("the list");
        fs::set_permissions(&list, fs::Permissions::from_mode(0o000)).expect("its mode");
        // The module is there.
        fs::create_dir_all(path.join("sys/module")).expect("the directory");
        symlink("/dev/null", path.join("sys/module/toa")).expect("the link");
        Self(path)
    }
}

impl Drop for Copy {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

#[test]
fn a_list_that_must_not_be_read_names_sudo() {
    let copy = Copy::new("unreadable");
    let program = copy.0.join("toa");
    let mut command = if nix::unistd::geteuid().is_root() {
        let mut command = Command::new("setpriv");
        command
            .args(["--reuid=65534", "--regid=65534", "--clear-groups"])
            .arg(program);
        command
    } else {
        Command::new(program)
    };
    let line = format!(
        "reading {}/proc/net/toa needs root of this network namespace: run it with sudo",
        copy.0.display()
    );
    let found = failure(command.arg("--sysroot").arg(&copy.0).arg("list"));
    assert_eq!(found, (4, line));
}

#[test]
fn a_module_that_is_not_loaded_names_modprobe() {
    let copy = Copy::new("not-loaded");
    fs::remove_file(copy.0.join("proc/net/toa")).expect("the list");
    fs::remove_file(copy.0.join("sys/module/toa")).expect("the link");
    let line =
        "the module toa is not loaded: run modprobe toa, and read the kernel's log if that fails";
    for command in [
        &["list"][..],
        &["policy", "show"],
        &["policy", "test", "10.0.1.1", "254/8"],
    ] {
        let found = failure(toa(command).arg("--sysroot").arg(&copy.0));
        assert_eq!(found, (3, line.to_owned()), "{command:?}");
    }
}
