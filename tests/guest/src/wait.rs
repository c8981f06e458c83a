// SPDX-License-Identifier: GPL-2.0

//! Bounded waits, for an event on a descriptor, and for a state without events (a
//! counter in a proc file), which is polled.

use std::os::fd::AsFd;
use std::thread;
use std::time::Duration;
use std::time::Instant;

use nix::errno::Errno;
use nix::poll::poll;
use nix::poll::PollFd;
use nix::poll::PollFlags;
use nix::poll::PollTimeout;

/// The time limit of every wait. Emulated processors are slow, but longer is a hang.
pub const BOUND: Duration = Duration::from_secs(45);

/// The pause between two polls.
const PAUSE: Duration = Duration::from_millis(5);

/// Polls `state` until it returns `Ok`; panics with its last `Err` at the time limit.
#[track_caller]
pub fn until<T>(what: &str, state: impl FnMut() -> Result<T, String>) -> T {
    match try_until(state) {
        Ok(value) => value,
        Err(last) => panic!("not in {BOUND:?}: {what}: {last}"),
    }
}

/// Polls as [`until`] does, but returns the last `Err` instead of a panic.
pub fn try_until<T>(mut state: impl FnMut() -> Result<T, String>) -> Result<T, String> {
    let end = Instant::now() + BOUND;
    loop {
        match state() {
            Ok(value) => return Ok(value),
            Err(last) if Instant::now() > end => return Err(last),
            Err(_) => thread::park_timeout(PAUSE),
        }
    }
}

/// Waits for an event on `fd`.
#[track_caller]
pub fn ready(fd: impl AsFd, events: PollFlags, what: &str) {
    let end = Instant::now() + BOUND;
    loop {
        let left = end.saturating_duration_since(Instant::now());
        let timeout = PollTimeout::try_from(left).unwrap_or(PollTimeout::MAX);
        match poll(&mut [PollFd::new(fd.as_fd(), events)], timeout) {
            Ok(0) => panic!("not in {BOUND:?}: {what}"),
            Ok(_) => return,
            Err(Errno::EINTR) => {}
            Err(error) => panic!("poll for {what}: {error}"),
        }
    }
}
