// SPDX-License-Identifier: MIT OR Apache-2.0

//! Network namespaces: that of a name in `/run/netns`, that of a process, or all.

use std::collections::BTreeMap;
use std::fs;
use std::fs::File;
use std::io;
use std::os::fd::AsRawFd;
use std::os::unix::fs::MetadataExt;
use std::panic::resume_unwind;
use std::path::Path;
use std::path::PathBuf;
use std::thread;

use nix::errno::Errno;
use nix::sched::setns;
use nix::sched::CloneFlags;

use crate::failure::Failure;
use crate::failure::Result;
use crate::failure::Status;
use crate::output::printable;

/// The directories of mounted namespaces: those of `ip netns` and of Docker.
const DIRECTORIES: [&str; 2] = ["/run/netns", "/run/docker/netns"];

/// The file of the calling thread's namespace.
const CURRENT: &str = "/proc/thread-self/ns/net";

/// A network namespace.
#[derive(Clone, Debug)]
pub struct Namespace {
    /// The name that is shown: that of `ip netns`, or `pid PID (COMMAND)`.
    pub name: String,
    /// The number that `lsns -t net` prints.
    pub number: u64,
    path: PathBuf,
}

impl Namespace {
    /// Finds the namespace that `--netns` names.
    ///
    /// # Errors
    ///
    /// There is no such namespace, or it must not be read.
    pub fn find(name: &str) -> Result<Self> {
        let named = Path::new(DIRECTORIES[0]).join(name);
        let is_plain = !name.is_empty() && !name.contains('/') && !name.starts_with('.');
        if is_plain && named.exists() {
            return Self::at(name.to_owned(), named);
        }
        if name.parse::<u32>().is_ok() {
            let path = PathBuf::from(format!("/proc/{name}/ns/net"));
            return match fs::metadata(&path) {
                Err(error) if error.kind() == io::ErrorKind::NotFound => Err(Failure::usage(
                    format!("there is no process {name}: ps -e lists them"),
                )),
                _ => Self::at(of_process(name), path),
            };
        }
        Err(Failure::usage(format!(
            "there is no network namespace {name:?}: ip netns list names them, and a process' number works too"
        )))
    }

    /// Returns the namespace of this process.
    ///
    /// # Errors
    ///
    /// `/proc` is not mounted.
    pub fn current() -> Result<Self> {
        Self::at("current".to_owned(), PathBuf::from(CURRENT))
    }

    /// Returns the namespace of the first process, which is the host's, or else that of this process.
    ///
    /// # Errors
    ///
    /// `/proc` is not mounted.
    pub fn first() -> Result<Self> {
        Self::at("the host".to_owned(), PathBuf::from("/proc/1/ns/net"))
            .or_else(|_| Self::current())
    }

    /// Opens the namespace, which then stays until the file is closed. The result finds it by that file.
    ///
    /// # Errors
    ///
    /// It has ended, or must not be opened.
    pub fn hold(&self) -> Result<(File, Self)> {
        let file = self.open()?;
        let path = PathBuf::from(format!("/proc/self/fd/{}", file.as_raw_fd()));
        let held = Self::at(self.name.clone(), path)?;
        Ok((file, held))
    }

    fn at(name: String, path: PathBuf) -> Result<Self> {
        let metadata =
            fs::metadata(&path).map_err(|error| Failure::io("reading", &path, &error))?;
        Ok(Self {
            name,
            number: metadata.ino(),
            path,
        })
    }

    /// Whether the calling thread is in the namespace.
    pub fn is_current(&self) -> bool {
        Self::current().is_ok_and(|current| current.number == self.number)
    }

    /// Runs `job` in a thread in the namespace. The job's files in `/proc/thread-self` are those of the
    /// namespace.
    ///
    /// # Errors
    ///
    /// The namespace cannot be entered.
    pub fn enter<T: Send>(&self, job: impl FnOnce() -> Result<T> + Send) -> Result<T> {
        if self.is_current() {
            return job();
        }
        let file = self.open()?;
        thread::scope(|scope| {
            let thread = scope.spawn(|| {
                setns(&file, CloneFlags::CLONE_NEWNET).map_err(|error| self.not_entered(error))?;
                job()
            });
            thread.join().unwrap_or_else(|panic| resume_unwind(panic))
        })
    }

    /// Opens the namespace's file. It is gone if the process has ended after the namespace was found.
    fn open(&self) -> Result<File> {
        File::open(&self.path).map_err(|error| match error.kind() {
            io::ErrorKind::NotFound => Failure::usage(format!(
                "the network namespace {} has ended: ip netns list and ps -e have those that are there",
                self.name
            )),
            _ => Failure::io("opening", &self.path, &error),
        })
    }

    fn not_entered(&self, error: Errno) -> Failure {
        let Self { name, path, .. } = self;
        match error {
            // A file stays in the directory if its mount goes.
            Errno::EINVAL => Failure::usage(format!(
                "{} is no network namespace: remove it by ip netns delete {name}",
                path.display()
            )),
            Errno::EPERM => Failure::new(
                Status::NotPermitted,
                format!("entering the network namespace {name}: {error}: run it with sudo"),
            ),
            _ => Failure::failed(format!("entering the network namespace {name}: {error}")),
        }
    }
}

/// The namespaces of this host, in order of their numbers.
#[derive(Debug)]
pub struct All {
    /// Those that were found.
    pub namespaces: Vec<Namespace>,
    /// The number of processes whose namespace must not be read.
    pub hidden: usize,
}

/// Finds all namespaces that have a name or a process.
pub fn all() -> All {
    let mut found = BTreeMap::new();
    let mut hidden = 0;
    if let Ok(current) = Namespace::current() {
        found.insert(current.number, current);
    }
    for directory in DIRECTORIES {
        let entries = fs::read_dir(directory).into_iter().flatten().flatten();
        for entry in entries {
            let name = printable(&entry.file_name().to_string_lossy());
            if let Ok(namespace) = Namespace::at(name, entry.path()) {
                found.entry(namespace.number).or_insert(namespace);
            }
        }
    }
    for entry in fs::read_dir("/proc").into_iter().flatten().flatten() {
        let process = entry.file_name().to_string_lossy().into_owned();
        if process.parse::<u32>().is_err() {
            continue;
        }
        let path = entry.path().join("ns/net");
        match fs::metadata(&path) {
            Ok(metadata) => {
                let number = metadata.ino();
                found.entry(number).or_insert_with(|| Namespace {
                    name: of_process(&process),
                    number,
                    path,
                });
            }
            Err(error) if error.kind() == io::ErrorKind::PermissionDenied => hidden += 1,
            // The process has ended.
            Err(_) => {}
        }
    }
    All {
        namespaces: found.into_values().collect(),
        hidden,
    }
}

fn of_process(pid: &str) -> String {
    let command = fs::read_to_string(format!("/proc/{pid}/comm")).unwrap_or_default();
    match crate::output::printable(command.trim()) {
        command if command.is_empty() => format!("pid {pid}"),
        command => format!("pid {pid} ({command})"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_that_are_no_namespace_are_refused() {
        for name in ["", "..", "a/b", "no-such-namespace", "-1", "4294967296"] {
            let failure = Namespace::find(name).expect_err(name);
            assert_eq!(failure.status, Status::Usage, "{name:?}");
        }
        let failure = Namespace::find("4194305").expect_err("beyond the largest number");
        assert_eq!(
            failure.text,
            "there is no process 4194305: ps -e lists them"
        );
    }

    #[test]
    fn namespaces_that_vanish_are_named() {
        let at = |path: &str| Namespace {
            name: "a".to_owned(),
            number: 0,
            path: PathBuf::from(path),
        };
        let entered = |path: &str| at(path).enter(|| Ok(())).expect_err(path);
        assert_eq!(
            entered("/proc/4194305/ns/net"),
            Failure::usage(
                "the network namespace a has ended: ip netns list and ps -e have those that are there"
            )
        );
        assert_eq!(
            entered("/proc/self/comm"),
            Failure::usage(
                "/proc/self/comm is no network namespace: remove it by ip netns delete a"
            )
        );
        let failure = at("/").not_entered(Errno::EPERM);
        assert_eq!(failure.status, Status::NotPermitted);
        assert!(failure.text.ends_with(": run it with sudo"));
    }

    #[test]
    fn a_process_names_its_namespace() {
        let own = std::process::id().to_string();
        let current = Namespace::current().expect("a namespace");
        assert_eq!(
            Namespace::find(&own).expect("the process").number,
            current.number
        );
        let all = all().namespaces;
        assert!(all.iter().any(|found| found.number == current.number));
    }
}
