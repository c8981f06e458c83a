// SPDX-License-Identifier: GPL-2.0

//! Boots a kernel in QEMU, prints the output of its tests, and judges the run.
//!
//! The virtual machine's first serial line is the kernel's console. The second one
//! carries the output of the payload's command: KTAP, unless `--plain` is given. The
//! tests' own results do not suffice. [`console`] searches for lines that a healthy
//! kernel never prints. [`ktap`] compares the results with the tests' plan. [`watch`]
//! stops a machine that makes no progress.

mod args;
mod console;
mod judge;
mod ktap;
mod qemu;
mod skips;
mod watch;

use std::fs;
use std::io;
use std::path::Path;
use std::process::ExitCode;

use args::{Args, Mode};
use judge::Verdict;
use watch::Ending;

/// Number of console lines that are printed for a machine that was stopped.
const CONSOLE_TAIL_LINES: usize = 40;

fn main() -> ExitCode {
    let args = match Args::parse() {
        Ok(args) => args,
        Err(error) => {
            eprintln!("toa-vm: {error}: see --help");
            return ExitCode::from(2);
        }
    };
    match run(&args) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("toa-vm: {error}");
            ExitCode::FAILURE
        }
    }
}

/// Runs or judges; returns whether the run is good.
fn run(args: &Args) -> io::Result<bool> {
    let (ending, console, output) = match &args.mode {
        Mode::Boot(machine) => {
            fs::create_dir_all(&args.out)?;
            watch::run(machine, args)?
        }
        Mode::Judge { console, output } => (Ending::Exited, read(console)?, read(output)?),
    };
    if ending != Ending::Exited {
        show_tail(&console);
    }
    let verdict = judge::judge(&ending, &console, &output, args);
    report(&verdict, args)?;
    Ok(verdict.is_good())
}

fn read(path: &Path) -> io::Result<String> {
    let bytes = fs::read(path)
        .map_err(|error| io::Error::new(error.kind(), format!("{}: {error}", path.display())))?;
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}

fn show_tail(console: &str) {
    let lines: Vec<&str> = console.lines().collect();
    eprintln!("--- the console's last lines");
    for line in &lines[lines.len().saturating_sub(CONSOLE_TAIL_LINES)..] {
        eprintln!("{line}");
    }
    eprintln!("---");
}

fn report(verdict: &Verdict, args: &Args) -> io::Result<()> {
    for problem in &verdict.problems {
        println!("# problem: {problem}");
    }
    if let Mode::Boot(_) = args.mode {
        let (passed, failed, skipped) = verdict.counts();
        fs::write(
            args.out.join("summary"),
            format!("{passed} {failed} {skipped}\n"),
        )?;
    }
    if args.plain {
        println!("{}{}", args.label, verdict.sentence());
    } else {
        println!("{}{verdict}", args.label);
    }
    Ok(())
}
