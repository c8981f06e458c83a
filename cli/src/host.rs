// SPDX-License-Identifier: MIT OR Apache-2.0

//! The files that the commands read: those of this host, or a copy below `--sysroot`.

use std::fs;
use std::fs::File;
use std::io;
use std::io::Read;
use std::path::Path;
use std::path::PathBuf;

use crate::failure::Failure;
use crate::failure::Result;
use crate::output::printable;

/// The most bytes of a file: a million connections take a tenth.
const MAX_BYTES: u64 = 1 << 30;

/// The place of the files.
#[derive(Clone, Debug, Default)]
pub struct Host {
    sysroot: Option<PathBuf>,
}

impl Host {
    /// This host, or a copy of another host's files.
    pub fn new(sysroot: Option<PathBuf>) -> Self {
        Self { sysroot }
    }

    /// Whether the files are a copy.
    pub fn is_copy(&self) -> bool {
        self.sysroot.is_some()
    }

    /// Returns the path of an absolute path's file.
    pub fn path(&self, path: &str) -> PathBuf {
        match &self.sysroot {
            None => PathBuf::from(path),
            Some(root) => root.join(path.trim_start_matches('/')),
        }
    }

    /// Returns the path of a file in `/proc/net`, of the calling thread's network namespace.
    pub fn net(&self, name: &str) -> PathBuf {
        match &self.sysroot {
            None => Path::new("/proc/thread-self/net").join(name),
            Some(root) => root.join("proc/net").join(name),
        }
    }

    /// Reads a file.
    ///
    /// # Errors
    ///
    /// A missing right, and anything but a missing file.
    pub fn read_path(&self, path: &Path) -> Result<Option<String>> {
        match read(path) {
            Ok(bytes) => Ok(Some(String::from_utf8_lossy(&bytes).into_owned())),
            Err(error) if is_missing(&error) => Ok(None),
            Err(error) => Err(Failure::io("reading", path, &error)),
        }
    }

    /// Reads a file by its absolute path.
    ///
    /// # Errors
    ///
    /// As [`Host::read_path`].
    pub fn read(&self, path: &str) -> Result<Option<String>> {
        self.read_path(&self.path(path))
    }

    /// Reads a file whose content is a word, if that is possible.
    pub fn word(&self, path: &str) -> Option<String> {
        let text = self.read(path).ok().flatten()?;
        Some(printable(text.trim())).filter(|word| !word.is_empty())
    }

    /// Whether a file exists.
    pub fn exists(&self, path: &str) -> bool {
        self.path(path).exists()
    }

    /// Returns the names in a directory in their order, or none without it.
    pub fn names(&self, path: &str) -> Vec<String> {
        let entries = fs::read_dir(self.path(path)).into_iter().flatten();
        let names = entries.filter_map(|entry| entry.ok()?.file_name().into_string().ok());
        let mut names: Vec<String> = names.collect();
        names.sort();
        names
    }
}

fn read(path: &Path) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    File::open(path)?.take(MAX_BYTES).read_to_end(&mut bytes)?;
    Ok(bytes)
}

/// Whether a file does not exist. A file of `/proc` whose module ends answers EIO, or with EINVAL.
fn is_missing(error: &io::Error) -> bool {
    error.kind() == io::ErrorKind::NotFound || error.raw_os_error() == Some(nix::libc::EIO)
}
