// SPDX-License-Identifier: GPL-2.0

//! A network namespace, which serves as a host.

use std::fs;
use std::fs::File;
use std::io::Write as _;
use std::panic::resume_unwind;
use std::process::Command;
use std::process::Stdio;
use std::sync::atomic::AtomicU32;
use std::sync::atomic::Ordering;
use std::thread;

use nix::sched::setns;
use nix::sched::CloneFlags;

/// The number of the next namespace: no name is used twice.
static COUNT: AtomicU32 = AtomicU32::new(1);

/// A namespace under `/run/netns`, which is removed on drop.
#[derive(Debug)]
pub struct Namespace {
    name: String,
    file: File,
}

impl Namespace {
    /// Makes a namespace with its loopback interface up.
    pub fn new(role: &str) -> Self {
        let number = COUNT.fetch_add(1, Ordering::Relaxed);
        let name = format!("{role}{number}-{}", std::process::id());
        run(Command::new("ip").args(["netns", "add", &name]));
        let file = File::open(format!("/run/netns/{name}")).expect("the new namespace");
        let namespace = Self { name, file };
        namespace.ip("link set lo up");
        namespace
    }

    pub fn name(&self) -> &str {
        &self.name
    }

    /// Runs commands of `ip`, one a line.
    pub fn ip(&self, commands: &str) {
        let mut child = Command::new("ip")
            .args(["-n", &self.name, "-batch", "-"])
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .expect("ip starts");
        let mut input = child.stdin.take().expect("it is piped");
        input.write_all(commands.as_bytes()).expect("ip reads");
        drop(input);
        let output = child.wait_with_output().expect("ip ends");
        let complaint = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "ip {commands}: {complaint}");
    }

    /// Sets a value under `/proc/sys/net` of this namespace.
    pub fn sysctl(&self, path: &str, value: &str) {
        self.enter(|| fs::write(format!("/proc/sys/net/{path}"), value))
            .unwrap_or_else(|error| panic!("sysctl {path}={value}: {error}"));
    }

    /// Runs `job` in a thread in this namespace. The sockets and programs of `job` stay
    /// in the namespace.
    pub fn enter<T: Send>(&self, job: impl FnOnce() -> T + Send) -> T {
        thread::scope(|scope| {
            let thread = scope.spawn(|| {
                setns(&self.file, CloneFlags::CLONE_NEWNET).expect("the namespace is there");
                job()
            });
            thread.join().unwrap_or_else(|panic| resume_unwind(panic))
        })
    }
}

impl Drop for Namespace {
    fn drop(&mut self) {
        let deletion = Command::new("ip")
            .args(["netns", "delete", &self.name])
            .status();
        if !deletion.is_ok_and(|status| status.success()) {
            eprintln!("# namespace {} is left behind", self.name);
        }
    }
}

/// Runs a program to its end; panics if it fails.
#[track_caller]
pub fn run(command: &mut Command) -> String {
    let output = command
        .stdin(Stdio::null())
        .output()
        .unwrap_or_else(|error| panic!("{command:?}: {error}"));
    let complaint = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{command:?}: {complaint}");
    String::from_utf8_lossy(&output.stdout).into_owned()
}
