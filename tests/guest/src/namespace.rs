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

use nix::errno::Errno;
use nix::sched::setns;
use nix::sched::CloneFlags;
use nix::sys::signal::Signal;

use crate::process;
use crate::process::Process;

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
        let name = new_name(role);
        run(Command::new("ip").args(["netns", "add", &name]));
        Self::named(name)
    }

    /// The machine's first network namespace, by a name that goes with the value.
    pub fn first() -> Self {
        Self::of_process("first", 1)
    }

    /// A namespace that an unprivileged user makes, in a user namespace that is its owner, as a
    /// container without root does.
    pub fn unprivileged(role: &str) -> Self {
        let mut command = Command::new("setpriv");
        command
            .args(["--reuid=65534", "--regid=65534", "--clear-groups"])
            .args(["unshare", "--user", "--map-root-user", "--net"])
            .args(["sh", "-c", "echo ready; exec sleep 600"])
            .stdout(Stdio::piped());
        // Each program takes the place of the one before, in the same process.
        let mut holder = Process::start(&mut command, Signal::SIGKILL);
        let output = holder.child().stdout.take().expect("it is piped");
        process::wait_for_line(output, "ready");
        Self::of_process(role, holder.child().id())
    }

    /// The namespace of a process, by a name that goes with the value.
    pub fn of_process(role: &str, pid: u32) -> Self {
        let name = new_name(role);
        run(Command::new("ip").args(["netns", "attach", &name, &pid.to_string()]));
        Self::named(name)
    }

    /// The namespace that `ip netns` has that name for.
    fn named(name: String) -> Self {
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

    /// Writes a value of `net.toa.*` by one write.
    pub fn write_policy(&self, file: &str, value: impl AsRef<[u8]> + Send) -> Result<(), Errno> {
        self.enter(|| write_policy_here(file, value))
    }

    /// Writes a value of `net.toa.*`; panics if it is refused.
    #[track_caller]
    pub fn set_policy(&self, file: &str, value: &str) {
        self.write_policy(file, format!("{value}\n"))
            .unwrap_or_else(|error| panic!("net.toa.{file}={value}: {error}"));
    }

    /// Reads a value of `net.toa.*`, without its newline.
    #[track_caller]
    pub fn policy(&self, file: &str) -> String {
        let text = self.enter(|| fs::read_to_string(policy_path(file)));
        let text = text.unwrap_or_else(|error| panic!("net.toa.{file}: {error}"));
        let line = text.strip_suffix('\n').map(str::to_owned);
        line.unwrap_or_else(|| panic!("net.toa.{file} has no newline: {text:?}"))
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

/// The file of a value of `net.toa.*`.
pub fn policy_path(file: &str) -> String {
    format!("/proc/sys/net/toa/{file}")
}

/// Writes a value of `net.toa.*` in the calling thread's namespace, by one write.
pub fn write_policy_here(file: &str, value: impl AsRef<[u8]>) -> Result<(), Errno> {
    let value = value.as_ref();
    let file = File::options().write(true).open(policy_path(file));
    let written = file.and_then(|mut file| file.write(value));
    match written {
        Ok(length) => {
            assert_eq!(length, value.len(), "a write takes all or nothing");
            Ok(())
        }
        Err(error) => Err(Errno::from_raw(error.raw_os_error().unwrap_or(0))),
    }
}

fn new_name(role: &str) -> String {
    let number = COUNT.fetch_add(1, Ordering::Relaxed);
    format!("{role}{number}-{}", std::process::id())
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
