// SPDX-License-Identifier: GPL-2.0

//! The program's command line.

use std::path::PathBuf;
use std::process::exit;
use std::time::Duration;

use lexopt::prelude::*;

use crate::qemu::Firmware;
use crate::qemu::Machine;
use crate::skips::Skips;

const HELP: &str = "\
Boots a kernel in QEMU, runs the payload's command in it, and judges the run.

toa-vm [OPTION]…              boot
toa-vm judge CONSOLE OUTPUT   judge the logs of an earlier run

  --kernel FILE     the kernel's image
  --initrd FILE     the initial RAM disk
  --disk FILE       a disk whose changes are dropped; repeat for the next one
  --payload FILE    the last disk, whose changes are kept
  --out DIR         directory of console.log, ktap.log and summary (default: .)
  --memory MB       (default: 2048)
  --timeout S       stop the machine after S seconds (default: 900)
  --idle S          stop it after S seconds without output (default: 120)
  --expect N        fail if there are fewer results than N (default: 1)
  --skips FILE      the skips of each kernel: fail if others are skipped, or one
                    of these is not; needs --release
  --release NAME    the kernel's release, which chooses lines of that FILE
  --plain           the output is not KTAP: judge exit status and console
  --append TEXT     more of the kernel's command line; repeat for more
  --planted TEXT    the run has a planted bug: it passes if and only if the kernel
                    reports an alarm with TEXT, whatever else fails
  --threads KIND    `single` or `multi`: QEMU's TCG threads (default: single)
  --firmware FILE   UEFI firmware with Secure Boot, which checks the kernel
  --variables FILE  the firmware's variables; the run may change the file
  --icount          one processor, whose clock counts its instructions
  --qemu PROGRAM    (default: qemu-system-x86_64)
  --label TEXT      text before the closing line
";

/// The run's mode, and the limits by which it is judged.
pub struct Args {
    pub mode: Mode,
    pub out: PathBuf,
    pub timeout: Duration,
    pub idle: Duration,
    pub expect: usize,
    pub skips: Option<Skips>,
    pub plain: bool,
    pub planted: Option<String>,
    pub label: String,
}

pub enum Mode {
    Boot(Machine),
    Judge { console: PathBuf, output: PathBuf },
}

impl Args {
    pub fn parse() -> Result<Self, lexopt::Error> {
        Self::from_parser(lexopt::Parser::from_env())
    }

    /// Returns arguments for judging logs that are not in files.
    #[cfg(test)]
    pub fn for_tests(out: PathBuf, timeout: Duration, idle: Duration) -> Self {
        Self {
            mode: Mode::Judge {
                console: PathBuf::new(),
                output: PathBuf::new(),
            },
            out,
            timeout,
            idle,
            expect: 1,
            skips: None,
            plain: false,
            planted: None,
            label: String::new(),
        }
    }

    fn from_parser(mut parser: lexopt::Parser) -> Result<Self, lexopt::Error> {
        let mut machine = Machine::default();
        let (mut code, mut variables) = (None, None);
        let (mut list, mut release) = (None, None);
        let mut words = Vec::new();
        let mut args = Self {
            mode: Mode::Boot(Machine::default()),
            out: PathBuf::from("."),
            timeout: Duration::from_secs(900),
            idle: Duration::from_secs(120),
            expect: 1,
            skips: None,
            plain: false,
            planted: None,
            label: String::new(),
        };
        while let Some(arg) = parser.next()? {
            match arg {
                Long("kernel") => machine.kernel = parser.value()?.into(),
                Long("initrd") => machine.initrd = parser.value()?.into(),
                Long("disk") => machine.disks.push(parser.value()?.into()),
                Long("payload") => machine.payload = parser.value()?.into(),
                Long("memory") => machine.memory_mb = parser.value()?.parse()?,
                Long("append") => machine.append.push(parser.value()?.string()?),
                Long("planted") => args.planted = Some(parser.value()?.string()?),
                Long("threads") => machine.threads = parser.value()?.parse()?,
                Long("firmware") => code = Some(parser.value()?.into()),
                Long("variables") => variables = Some(parser.value()?.into()),
                Long("icount") => machine.icount = true,
                Long("qemu") => machine.qemu = parser.value()?,
                Long("out") => args.out = parser.value()?.into(),
                Long("timeout") => args.timeout = Duration::from_secs(parser.value()?.parse()?),
                Long("idle") => args.idle = Duration::from_secs(parser.value()?.parse()?),
                Long("expect") => args.expect = parser.value()?.parse()?,
                Long("skips") => list = Some(PathBuf::from(parser.value()?)),
                Long("release") => release = Some(parser.value()?.string()?),
                Long("plain") => args.plain = true,
                Long("label") => args.label = parser.value()?.string()?,
                Short('h') | Long("help") => {
                    print!("{HELP}");
                    exit(0);
                }
                Value(word) => words.push(word.string()?),
                _ => return Err(arg.unexpected()),
            }
        }
        machine.firmware = firmware(code, variables)?;
        args.skips = skips(list, release)?;
        args.mode = mode(machine, &words)?;
        Ok(args)
    }
}

fn firmware(
    code: Option<PathBuf>,
    variables: Option<PathBuf>,
) -> Result<Option<Firmware>, lexopt::Error> {
    match (code, variables) {
        (None, None) => Ok(None),
        (Some(code), Some(variables)) => Ok(Some(Firmware { code, variables })),
        _ => Err("--firmware and --variables need each other".into()),
    }
}

fn skips(list: Option<PathBuf>, release: Option<String>) -> Result<Option<Skips>, lexopt::Error> {
    match (list, release) {
        (None, None) => Ok(None),
        (Some(list), Some(release)) => Skips::read(&list, &release)
            .map(Some)
            .map_err(|error| error.to_string().into()),
        _ => Err("--skips and --release come together".into()),
    }
}

fn mode(machine: Machine, words: &[String]) -> Result<Mode, lexopt::Error> {
    match words {
        [] => {
            machine.check()?;
            Ok(Mode::Boot(machine))
        }
        [verb, console, output] if verb == "judge" => Ok(Mode::Judge {
            console: console.into(),
            output: output.into(),
        }),
        _ => Err(format!("unknown command '{}'", words.join(" ")).into()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(words: &[&str]) -> Result<Args, lexopt::Error> {
        Args::from_parser(lexopt::Parser::from_args(words))
    }

    #[test]
    fn a_boot_needs_a_kernel_an_initrd_and_a_payload() {
        assert!(parse(&[]).is_err());
        assert!(parse(&["--kernel", "k", "--initrd", "i"]).is_err());
        assert!(parse(&["--kernel", "k", "--initrd", "i", "--payload", "p"]).is_ok());
    }

    #[test]
    fn firmware_comes_with_its_variables() {
        let boot = ["--kernel", "k", "--initrd", "i", "--payload", "p"];
        let with = |more: &[&str]| parse(&[&boot[..], more].concat());
        assert!(with(&["--firmware", "f"]).is_err());
        assert!(with(&["--variables", "v"]).is_err());
        let args = with(&["--firmware", "f", "--variables", "v"]).expect("valid");
        let Mode::Boot(machine) = args.mode else {
            panic!("not a boot");
        };
        let firmware = machine.firmware.expect("the firmware is set");
        assert_eq!(firmware.code, PathBuf::from("f"));
        assert_eq!(firmware.variables, PathBuf::from("v"));
    }

    #[test]
    fn list_of_skips_needs_a_release_and_a_readable_file() {
        let judge = |more: &[&str]| parse(&[&["judge", "c", "o"], more].concat());
        let list = concat!(env!("CARGO_MANIFEST_DIR"), "/../skips.txt");
        assert!(judge(&["--skips", list]).is_err());
        assert!(judge(&["--release", "6.1.0"]).is_err());
        assert!(judge(&["--skips", "/no/such/file", "--release", "6.1.0"]).is_err());
        let args = judge(&["--skips", list, "--release", "6.1.0"]).expect("valid");
        assert!(args.skips.is_some());
    }

    #[test]
    fn unknown_words_and_thread_kinds_are_refused() {
        assert!(parse(&["judge", "console"]).is_err());
        assert!(parse(&["--threads", "many"]).is_err());
        assert!(parse(&["--surprise"]).is_err());
    }

    #[test]
    fn judge_takes_two_logs_and_a_least_count() {
        let args = parse(&["judge", "c", "o", "--expect", "25"]).expect("valid");
        assert!(matches!(args.mode, Mode::Judge { .. }));
        assert_eq!(args.expect, 25);
    }
}
