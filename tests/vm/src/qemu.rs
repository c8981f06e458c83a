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

/// UEFI firmware with Secure Boot, in place of the BIOS.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Firmware {
    pub code: PathBuf,
    /// Its variables, the keys that it trusts among them: this run's own.
    pub variables: PathBuf,
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
    pub firmware: Option<Firmware>,
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
            firmware: None,
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
        if let Some(firmware) = &self.firmware {
            command.args(firmware_arguments(firmware));
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
    let path = in_option(path);
    [
        "-drive".to_owned(),
        format!("file={path},format=raw,if=virtio,cache=unsafe,snapshot={snapshot}"),
    ]
}

/// Flash that only system management mode can write to: the firmware of Secure
/// Boot insists on it.
fn firmware_arguments(firmware: &Firmware) -> [String; 8] {
    let code = in_option(&firmware.code);
    let variables = in_option(&firmware.variables);
    [
        "-machine".to_owned(),
        "q35,smm=on".to_owned(),
        "-global".to_owned(),
        "driver=cfi.pflash01,property=secure,value=on".to_owned(),
        "-drive".to_owned(),
        format!("file={code},format=raw,if=pflash,unit=0,readonly=on"),
        "-drive".to_owned(),
        format!("file={variables},format=raw,if=pflash,unit=1,cache=unsafe"),
    ]
}

/// A comma in a file name is written twice in a list of QEMU's options.
fn in_option(path: &Path) -> String {
    path.display().to_string().replace(',', ",,")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn words(machine: &Machine) -> Vec<String> {
        let command = machine.command(Path::new("/s"));
        let words = command
            .get_args()
            .map(|word| word.to_string_lossy().into_owned());
        words.collect()
    }

    #[test]
    fn firmware_brings_flash_and_the_chipset_that_protects_it() {
        let mut machine = Machine::default();
        let plain = words(&machine);
        assert!(!plain
            .iter()
            .any(|word| word.contains("pflash") || word.contains("q35")));
        machine.firmware = Some(Firmware {
            code: "/c,d".into(),
            variables: "/v".into(),
        });
        let words = words(&machine);
        let wanted = [
            "q35,smm=on",
            "driver=cfi.pflash01,property=secure,value=on",
            "file=/c,,d,format=raw,if=pflash,unit=0,readonly=on",
            "file=/v,format=raw,if=pflash,unit=1,cache=unsafe",
        ];
        for word in wanted {
            assert!(words.iter().any(|one| one == word), "{word}: {words:?}");
        }
    }
}
