// SPDX-License-Identifier: GPL-2.0

//! Runs the machine, records both serial lines and prints the output as it arrives.
//! Stops a machine that exceeds its time or prints nothing for too long.

use std::env;
use std::fmt;
use std::fs::{self, File};
use std::io::{self, Read, Write};
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};
use std::process::{self, Child};
use std::sync::mpsc::{self, Receiver, RecvTimeoutError, SyncSender};
use std::thread;
use std::time::{Duration, Instant};

use crate::args::Args;
use crate::judge::MARKER;
use crate::qemu::Machine;

/// Limit of chunks that wait to be read; above it QEMU waits.
const CHUNKS: usize = 64;

const ESCAPE: u8 = 0x1b;

/// Limit of a run's output; a machine that prints more is stopped.
const MOST_BYTES: usize = 64 << 20;

/// The way in which the machine ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Ending {
    /// The machine powered off, or the kernel panicked.
    Exited,
    /// QEMU itself failed.
    Broken(String),
    /// Stopped: the time limit passed.
    TimedOut(Duration),
    /// Stopped: no output for too long.
    Silent(Duration),
    /// Stopped: too much output.
    Flood,
}

impl fmt::Display for Ending {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Exited => write!(f, "the machine ended by itself"),
            Self::Broken(status) => write!(f, "QEMU failed: {status}"),
            Self::TimedOut(limit) => write!(f, "not done after {} s: stopped", limit.as_secs()),
            Self::Silent(limit) => {
                write!(f, "no output for {} s: a hang, stopped", limit.as_secs())
            }
            Self::Flood => write!(f, "over {} MiB of output: stopped", MOST_BYTES >> 20),
        }
    }
}

#[derive(Clone, Copy)]
enum Line {
    Console,
    Output,
}

/// Bytes of a serial line; an empty chunk marks its end.
type Chunk = (Line, Vec<u8>);

/// A temporary directory, removed on drop. The path of the socket in it must be short.
struct Scratch(PathBuf);

impl Scratch {
    fn new() -> io::Result<Self> {
        let path = env::temp_dir().join(format!("toa-vm-{}", process::id()));
        fs::create_dir_all(&path)?;
        Ok(Self(path))
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        // Files that stay behind are in a directory for temporary files.
        let _ = fs::remove_dir_all(&self.0);
    }
}

/// Boots and waits for the end. Returns the ending, the console and the output.
pub fn run(machine: &Machine, args: &Args) -> io::Result<(Ending, String, String)> {
    let scratch = Scratch::new()?;
    run_in(&scratch.0, machine, args)
}

/// Runs as [`run`] does, with the output's socket in `scratch`.
fn run_in(scratch: &Path, machine: &Machine, args: &Args) -> io::Result<(Ending, String, String)> {
    let socket = scratch.join("output");
    let listener = UnixListener::bind(&socket)?;
    let mut child = machine.command(&socket).spawn().map_err(|error| {
        io::Error::new(
            error.kind(),
            format!("{}: {error}", machine.qemu.to_string_lossy()),
        )
    })?;
    let (sender, chunks) = mpsc::sync_channel(CHUNKS);
    let console = child.stdout.take().expect("stdout is piped");
    let console_sender = sender.clone();
    thread::spawn(move || pass_on(console, Line::Console, &console_sender));
    thread::spawn(move || {
        if let Ok((stream, _)) = listener.accept() {
            pass_on(stream, Line::Output, &sender);
        }
    });
    let mut logs = Logs::create(args)?;
    let ending = wait(&mut child, &chunks, &mut logs, args)?;
    Ok((ending, lossy(&logs.console), lossy(&logs.output)))
}

fn lossy(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).replace('\r', "")
}

/// Sends all chunks until the end, or until the receiver is dropped.
fn pass_on(mut from: impl Read, line: Line, sender: &SyncSender<Chunk>) {
    let mut buffer = [0; 4096];
    loop {
        let length = from.read(&mut buffer).unwrap_or(0);
        if sender.send((line, buffer[..length].to_vec())).is_err() || length == 0 {
            return;
        }
    }
}

/// Waits until QEMU closes its console or a limit is reached.
fn wait(
    child: &mut Child,
    chunks: &Receiver<Chunk>,
    logs: &mut Logs,
    args: &Args,
) -> io::Result<Ending> {
    if let Some(ending) = follow(chunks, logs, args)? {
        child.kill()?;
        child.wait()?;
        return Ok(ending);
    }
    let status = child.wait()?;
    // The output's reader ends too, since its socket is closed now. If QEMU never
    // connected, nothing was sent and the listener keeps waiting.
    while let Ok((line, bytes)) = chunks.recv_timeout(Duration::from_secs(1)) {
        if bytes.is_empty() {
            break;
        }
        logs.add(line, &bytes)?;
    }
    Ok(if status.success() {
        Ending::Exited
    } else {
        Ending::Broken(status.to_string())
    })
}

/// Records the chunks until the console closes. Returns the reason if the machine has
/// to be stopped.
fn follow(chunks: &Receiver<Chunk>, logs: &mut Logs, args: &Args) -> io::Result<Option<Ending>> {
    let deadline = Instant::now() + args.timeout;
    loop {
        let left = deadline.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return Ok(Some(Ending::TimedOut(args.timeout)));
        }
        match chunks.recv_timeout(left.min(args.idle)) {
            Ok((Line::Console, bytes)) if bytes.is_empty() => return Ok(None),
            Ok((line, bytes)) => logs.add(line, &bytes)?,
            Err(RecvTimeoutError::Disconnected) => return Ok(None),
            Err(RecvTimeoutError::Timeout) if left > args.idle => {
                return Ok(Some(Ending::Silent(args.idle)));
            }
            Err(RecvTimeoutError::Timeout) => {}
        }
        if logs.bytes() > MOST_BYTES {
            return Ok(Some(Ending::Flood));
        }
    }
}

/// The logs of both lines, in memory for the judge and in files for people.
struct Logs {
    console: Vec<u8>,
    output: Vec<u8>,
    console_file: File,
    output_file: File,
    /// Number of bytes of `output` that are printed already.
    shown: usize,
}

impl Logs {
    fn create(args: &Args) -> io::Result<Self> {
        Ok(Self {
            console: Vec::new(),
            output: Vec::new(),
            console_file: File::create(args.out.join("console.log"))?,
            output_file: File::create(args.out.join("ktap.log"))?,
            shown: 0,
        })
    }

    fn bytes(&self) -> usize {
        self.console.len() + self.output.len()
    }

    fn add(&mut self, line: Line, bytes: &[u8]) -> io::Result<()> {
        match line {
            Line::Console => {
                self.console.extend_from_slice(bytes);
                self.console_file.write_all(bytes)
            }
            Line::Output => {
                self.output.extend_from_slice(bytes);
                self.output_file.write_all(bytes)?;
                self.show()
            }
        }
    }

    /// Prints the new whole lines, without the guest's closing line.
    fn show(&mut self) -> io::Result<()> {
        let mut stdout = io::stdout().lock();
        while let Some(length) = self.output[self.shown..].iter().position(|&b| b == b'\n') {
            let end = self.shown + length + 1;
            let line = &self.output[self.shown..end];
            if !line.starts_with(MARKER.as_bytes()) {
                stdout.write_all(&without_escapes(line))?;
            }
            self.shown = end;
        }
        stdout.flush()
    }
}

/// Removes the control sequences from a line: firmware clears the screen of every
/// serial line. An ECMA-48 control sequence is ESC `[` and the bytes up to a letter.
fn without_escapes(line: &[u8]) -> Vec<u8> {
    let mut text = Vec::with_capacity(line.len());
    let mut rest = line;
    while let Some((&byte, after)) = rest.split_first() {
        rest = after;
        match after.strip_prefix(b"[") {
            Some(sequence) if byte == ESCAPE => {
                let end = sequence.iter().position(u8::is_ascii_alphabetic);
                rest = end.map_or(&[], |end| &sequence[end + 1..]);
            }
            _ => text.push(byte),
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    /// Returns the ending of a machine whose QEMU is the given shell script.
    fn ending_of(name: &str, script: &str, timeout: u64, idle: u64) -> (Ending, String) {
        let dir = env::temp_dir().join(format!("toa-vm-test-{name}-{}", process::id()));
        fs::create_dir_all(&dir).expect("a directory for temporary files");
        let qemu = dir.join("qemu");
        fs::write(&qemu, format!("#!/bin/sh\n{script}\n")).expect("script is written");
        fs::set_permissions(&qemu, fs::Permissions::from_mode(0o755)).expect("mode is set");
        let machine = Machine {
            qemu: qemu.into(),
            ..Machine::default()
        };
        let args = Args::for_tests(
            dir.clone(),
            Duration::from_millis(timeout),
            Duration::from_millis(idle),
        );
        let (ending, console, _) = run_in(&dir, &machine, &args).expect("the script runs");
        fs::remove_dir_all(&dir).expect("the directory is removed");
        (ending, console)
    }

    #[test]
    fn what_firmware_does_to_a_terminal_is_not_shown() {
        let line = b"\x1b[2J\x1b[01;01H\x1b[=3h\x1b[2J\x1b[01;01HKTAP version 1\n";
        assert_eq!(without_escapes(line), b"KTAP version 1\n");
        assert_eq!(without_escapes(b"a[1] \x1b b\n"), b"a[1] \x1b b\n");
        assert_eq!(without_escapes(b"cut \x1b[1"), b"cut ");
    }

    #[test]
    fn a_silent_machine_is_stopped() {
        let (ending, console) = ending_of("silent", "echo hello; exec sleep 60", 30_000, 300);
        assert_eq!(ending, Ending::Silent(Duration::from_millis(300)));
        assert_eq!(console, "hello\n");
    }

    #[test]
    fn a_machine_that_only_talks_is_stopped_at_the_limit() {
        let script = "while :; do echo x; sleep 0.02; done";
        let (ending, _) = ending_of("talks", script, 400, 30_000);
        assert_eq!(ending, Ending::TimedOut(Duration::from_millis(400)));
    }

    #[test]
    fn a_machine_that_floods_is_stopped() {
        let (ending, _) = ending_of("floods", "exec yes", 60_000, 30_000);
        assert_eq!(ending, Ending::Flood);
    }

    #[test]
    fn a_qemu_that_fails_is_told_from_a_guest_that_ends() {
        let (ending, _) = ending_of("fails", "exit 3", 30_000, 30_000);
        assert!(matches!(ending, Ending::Broken(_)));
        let (ending, _) = ending_of("ends", "exit 0", 30_000, 30_000);
        assert_eq!(ending, Ending::Exited);
    }
}
