// SPDX-License-Identifier: GPL-2.0

//! An existing network namespace.

use std::fs::File;
use std::io;
use std::io::Write;
use std::panic::resume_unwind;
use std::path::Path;
use std::path::PathBuf;
use std::process::Command;
use std::process::Stdio;
use std::thread;

use nix::sched::setns;
use nix::sched::CloneFlags;

/// The directory in which `ip netns` keeps the namespaces.
const NAMED: &str = "/run/netns";

#[derive(Debug)]
pub struct Namespace {
    file: File,
}

impl Namespace {
    /// Opens a namespace by its path, or by its name if `which` has no slash.
    pub fn open(which: &Path) -> Result<Self, String> {
        let path = match which.components().count() {
            1 => PathBuf::from(NAMED).join(which),
            _ => which.to_owned(),
        };
        match File::open(&path) {
            Ok(file) => Ok(Self { file }),
            Err(error) => Err(format!("namespace {}: {error}", path.display())),
        }
    }

    /// Runs `job` in a new thread in this namespace.
    pub fn enter<T: Send>(&self, job: impl FnOnce() -> io::Result<T> + Send) -> io::Result<T> {
        thread::scope(|scope| {
            let thread = scope.spawn(|| {
                setns(&self.file, CloneFlags::CLONE_NEWNET)?;
                job()
            });
            thread.join().unwrap_or_else(|panic| resume_unwind(panic))
        })
    }

    /// Runs commands of iproute2's `ip`, one a line.
    pub fn ip(&self, commands: &str) -> Result<(), String> {
        let output = self
            .enter(|| {
                let mut child = Command::new("ip")
                    .args(["-batch", "-"])
                    .stdin(Stdio::piped())
                    .stdout(Stdio::null())
                    .stderr(Stdio::piped())
                    .spawn()?;
                if let Some(mut input) = child.stdin.take() {
                    input.write_all(commands.as_bytes())?;
                }
                child.wait_with_output()
            })
            .map_err(|error| format!("ip: {error}"))?;
        if output.status.success() {
            return Ok(());
        }
        let complaint = String::from_utf8_lossy(&output.stderr);
        Err(format!("ip: {}", complaint.trim().replace('\n', "; ")))
    }
}
