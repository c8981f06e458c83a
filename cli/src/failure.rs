// SPDX-License-Identifier: MIT OR Apache-2.0

//! Exit statuses, and failures as one line for the operator: the problem, and the command that fixes it.

use std::fmt;
use std::io;
use std::path::Path;

/// The exit statuses, which `toa --help` lists. `toa check` has those of monitoring plugins instead.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Status {
    /// The command did its work, and found nothing wrong.
    Success = 0,
    /// The command did its work, and found a problem.
    Problem = 1,
    /// The arguments are wrong. Nothing changed.
    Usage = 2,
    /// The module is not loaded.
    NotLoaded = 3,
    /// A right is missing.
    NotPermitted = 4,
    /// A file or a call failed in another way.
    Failed = 5,
}

/// The reason for which a command ends early.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Failure {
    /// The exit status.
    pub status: Status,
    /// One line.
    pub text: String,
}

impl Failure {
    /// Makes a failure.
    pub fn new(status: Status, text: impl Into<String>) -> Self {
        Self {
            status,
            text: text.into(),
        }
    }

    /// Wrong arguments.
    pub fn usage(text: impl Into<String>) -> Self {
        Self::new(Status::Usage, text)
    }

    /// A failed call.
    pub fn failed(text: impl Into<String>) -> Self {
        Self::new(Status::Failed, text)
    }

    /// The module is not loaded.
    pub fn not_loaded() -> Self {
        Self::new(
            Status::NotLoaded,
            "the module toa is not loaded: run modprobe toa, and read the kernel's log if that fails",
        )
    }

    /// A call on a file failed.
    pub fn io(action: &str, path: &Path, error: &io::Error) -> Self {
        let path = path.display();
        match error.kind() {
            io::ErrorKind::PermissionDenied => Self::new(
                Status::NotPermitted,
                format!("{action} {path} needs root of this network namespace: run it with sudo"),
            ),
            _ => Self::failed(format!("{action} {path}: {error}")),
        }
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

/// The result of anything that may end a command.
pub type Result<T, E = Failure> = std::result::Result<T, E>;
