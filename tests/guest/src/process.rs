// SPDX-License-Identifier: GPL-2.0

//! A program that runs during a test.

use std::io::BufRead;
use std::io::BufReader;
use std::io::Read;
use std::os::fd::AsFd;
use std::process::Child;
use std::process::Command;
use std::process::Stdio;

use nix::poll::PollFlags;
use nix::sys::signal::kill;
use nix::sys::signal::Signal;
use nix::unistd::Pid;

use crate::namespace::Namespace;
use crate::wait;

/// A running program, which is ended and waited for on drop.
#[derive(Debug)]
pub struct Process {
    child: Child,
    ending: Signal,
}

impl Process {
    /// Starts a program; the signal `ending` ends it in order.
    #[track_caller]
    pub fn start(command: &mut Command, ending: Signal) -> Self {
        Self::start_reading(command.stdin(Stdio::null()), ending)
    }

    /// Starts a program that reads from the test, which has set its standard input.
    #[track_caller]
    pub fn start_reading(command: &mut Command, ending: Signal) -> Self {
        let child = command
            .spawn()
            .unwrap_or_else(|error| panic!("{command:?}: {error}"));
        Self { child, ending }
    }

    /// Starts a program in a namespace.
    #[track_caller]
    pub fn start_in(namespace: &Namespace, command: &mut Command, ending: Signal) -> Self {
        namespace.enter(|| Self::start(command, ending))
    }

    pub fn child(&mut self) -> &mut Child {
        &mut self.child
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let pid = Pid::from_raw(self.child.id() as i32);
        let _ = kill(pid, self.ending);
        let ended = wait::try_until(|| match self.child.try_wait() {
            Ok(Some(_)) | Err(_) => Ok(()),
            Ok(None) => Err("the program runs".to_owned()),
        });
        if ended.is_err() {
            let _ = self.child.kill();
            let _ = self.child.wait();
        }
    }
}

/// Reads lines until one contains that text: the program is ready. Later output stays
/// in the reader.
#[track_caller]
pub fn wait_for_line<R: Read + AsFd>(pipe: R, text: &str) -> BufReader<R> {
    let mut reader = BufReader::new(pipe);
    let mut line = String::new();
    while !line.contains(text) {
        line.clear();
        if reader.buffer().is_empty() {
            wait::ready(reader.get_ref(), PollFlags::POLLIN, text);
        }
        let length = reader.read_line(&mut line).expect("a line of text");
        assert_ne!(length, 0, "the program ended before it printed {text:?}");
    }
    reader
}
