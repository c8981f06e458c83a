// SPDX-License-Identifier: GPL-2.0

//! The virtual machine: two processors under TCG, disks, two serial lines.

use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::str::FromStr;

/// The console as the first serial line; an Oops ends the machine at once, a
/// warning does not, so that the tests after it still report.
const COMMAND_LINE: &str =
    "console=ttyS0 loglevel=7 panic=-1 oops=panic net.ifnames=0 random.trust_cpu=on";

/// Whether TCG runs each processor in a thread of its own.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Threads {
    #[default]
    Single,
    Multi,
}

impl FromStr for Threads {
    type Err = String;

    fn from_str(word: &str) -> Result<Self, String> {
        match word {
            "single" => Ok(Self::Single),
            "multi" => Ok(Self::Multi),
            _ => Err(format!("threads are 'single' or 'multi', not '{word}'")),
        }
    }
}

/// What QEMU is started with.
pub struct Machine {
    pub qemu: OsString,
    pub kernel: PathBuf,
    pub initrd: PathBuf,
    /// Shared between runs: changes go to a temporary file.
    pub disks: Vec<PathBuf>,
    /// This run's own.
    pub payload: PathBuf,
    pub memory_mb: u32,
    pub append: String,
    pub threads: Threads,
    /// One processor, and a nanosecond of time for each instruction that it
    /// executes; where it has nothing to do, time jumps to the next timer.
    pub icount: bool,
}

impl Default for Machine {
    fn default() -> Self {
        Self {
            qemu: "qemu-system-x86_64".into(),
            kernel: PathBuf::new(),
            initrd: PathBuf::new(),
            disks: Vec::new(),
            payload: PathBuf::new(),
            memory_mb: 2048,
            append: String::new(),
            threads: Threads::default(),
            icount: false,
        }
    }
}

impl Machine {
    /// Whether everything that has no default was named.
    pub fn check(&self) -> Result<(), String> {
        let named = [
            ("--kernel", &self.kernel),
            ("--initrd", &self.initrd),
            ("--payload", &self.payload),
        ];
        match named.iter().find(|(_, path)| path.as_os_str().is_empty()) {
            Some((option, _)) => Err(format!("{option} is missing")),
            None => Ok(()),
        }
    }

    /// QEMU's command: console on its standard output, the second serial line
    /// on the Unix socket at `output`.
    pub fn command(&self, output: &Path) -> Command {
        let accel = match self.threads {
            Threads::Single => "tcg,thread=single",
            Threads::Multi => "tcg,thread=multi",
        };
        let mut command = Command::new(&self.qemu);
        command
            .args(["-nodefaults", "-no-user-config", "-no-reboot"])
            .args(["-display", "none", "-accel", accel])
            .args(["-cpu", "max,la57=off"])
            .args(["-smp", if self.icount { "1" } else { "2" }])
            .args(["-m", &self.memory_mb.to_string()])
            .arg("-kernel")
            .arg(&self.kernel)
            .arg("-initrd")
            .arg(&self.initrd)
            .args(["-append", &format!("{COMMAND_LINE} {}", self.append)])
            .args(["-device", "virtio-rng-pci"])
            .args(["-chardev", "stdio,id=console,signal=off"])
            .args(["-serial", "chardev:console"])
            .arg("-chardev")
            .arg(format!("socket,id=output,path={}", output.display()))
            .args(["-serial", "chardev:output"]);
        if self.icount {
            command.args(["-icount", "shift=0,sleep=off"]);
        }
        for disk in &self.disks {
            command.args(disk_arguments(disk, "on"));
        }
        command
            .args(disk_arguments(&self.payload, "off"))
            .stdin(Stdio::null())
            .stdout(Stdio::piped());
        command
    }
}

/// A virtio disk. `cache=unsafe`: no run outlives the host.
fn disk_arguments(path: &Path, snapshot: &str) -> [String; 2] {
    // A comma in a file name is written twice in a list of QEMU's options.
    let path = path.display().to_string().replace(',', ",,");
    [
        "-drive".to_owned(),
        format!("file={path},format=raw,if=virtio,cache=unsafe,snapshot={snapshot}"),
    ]
}
