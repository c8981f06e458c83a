// SPDX-License-Identifier: GPL-2.0

//! The virtual machine: two processors under TCG, disks, two serial lines.

use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::str::FromStr;

/// The kernel's command line, with the console on the first serial line. An Oops ends
/// the machine at once. A warning does not, so the tests after it still report.
const COMMAND_LINE: &str =
    "console=ttyS0 loglevel=7 panic=-1 oops=panic net.ifnames=0 random.trust_cpu=on";

/// The number of threads in which TCG runs the processors.
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
    /// The firmware's variables with its trusted keys: a file of this run alone.
    pub variables: PathBuf,
}

/// The parameters of the virtual machine.
pub struct Machine {
    pub qemu: OsString,
    pub kernel: PathBuf,
    pub initrd: PathBuf,
    /// Disks that runs share: changes are written to a temporary file.
    pub disks: Vec<PathBuf>,
    /// The disk of this run alone.
    pub payload: PathBuf,
    pub memory_mb: u32,
    pub append: Vec<String>,
    pub threads: Threads,
    pub firmware: Option<Firmware>,
    /// One processor, and one nanosecond of time for each executed instruction. While
    /// the processor idles, time jumps to the next timer.
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
            append: Vec::new(),
            threads: Threads::default(),
            firmware: None,
            icount: false,
        }
    }
}

impl Machine {
    /// Checks that every option without a default is given.
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

    /// Returns QEMU's command: the console on standard output, the second serial line
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
            .args([
                "-append",
                &format!("{COMMAND_LINE} {}", self.append.join(" ")),
            ])
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

/// Returns the options for a virtio disk. `cache=unsafe`: no run outlives the host.
fn disk_arguments(path: &Path, snapshot: &str) -> [String; 2] {
    let path = in_option(path);
    [
        "-drive".to_owned(),
        format!("file={path},format=raw,if=virtio,cache=unsafe,snapshot={snapshot}"),
    ]
}

/// Returns the options for flash that only system management mode can write. The
/// firmware of Secure Boot requires it.
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

/// Doubles the commas of a file name, as QEMU's option lists require.
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
