// SPDX-License-Identifier: GPL-2.0

//! Bounded waits: for something to read or write, and for a state that nothing
//! announces (a counter in a proc file), which is looked at again and again.

use std::os::fd::AsFd;
use std::thread;
use std::time::Duration;
use std::time::Instant;

use nix::errno::Errno;
use nix::poll::poll;
use nix::poll::PollFd;
use nix::poll::PollFlags;
use nix::poll::PollTimeout;

/// How long anything may take: emulated processors are slow, but this is a hang.
pub const BOUND: Duration = Duration::from_secs(45);

/// Between two looks.
const PAUSE: Duration = Duration::from_millis(5);

/// Looks until `state` has an answer; panics with the last `Err` of it otherwise.
#[track_caller]
pub fn until<T>(what: &str, state: impl FnMut() -> Result<T, String>) -> T {
    match try_until(state) {
        Ok(value) => value,
        Err(last) => panic!("not in {BOUND:?}: {what}: {last}"),
    }
}

/// The same for those who must not panic.
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
