// SPDX-License-Identifier: GPL-2.0

//! Moves packets between the devices until a signal says that it is enough. One
//! thread: there is nothing to lock.

use std::io;
use std::os::fd::AsFd;
use std::time::Instant;

use nix::errno::Errno;
use nix::poll::poll;
use nix::poll::PollFd;
use nix::poll::PollFlags;
use nix::poll::PollTimeout;
use nix::sys::signal::SigSet;
use nix::sys::signal::Signal;
use nix::sys::signalfd::SfdFlags;
use nix::sys::signalfd::SignalFd;
use toa_balancer::balancer::Balancer;

use crate::tun::Tun;

/// Packets of one side before the other has its turn.
const BATCH: usize = 64;

/// The longest IP packet.
const BUFFER: usize = 1 << 16;

/// SIGTERM and SIGINT, held back from now on. Before any thread is started.
pub fn signals() -> nix::Result<SignalFd> {
    let mut mask = SigSet::empty();
    mask.add(Signal::SIGTERM);
    mask.add(Signal::SIGINT);
    mask.thread_block()?;
    SignalFd::with_flags(&mask, SfdFlags::SFD_CLOEXEC)
}

/// Returns after a signal.
pub fn run(
    balancer: &mut Balancer,
    client: &Tun,
    server: &Tun,
    signals: &SignalFd,
) -> io::Result<()> {
    let mut buffer = vec![0; BUFFER];
    loop {
        let mut waiting =
            [client.as_fd(), server.as_fd(), signals.as_fd()].map(|fd| PollFd::new(fd, READABLE));
        match poll(&mut waiting, PollTimeout::NONE) {
            Ok(_) | Err(Errno::EINTR) => {}
            Err(error) => return Err(error.into()),
        }
        let [from_client, from_server, signal] = waiting.map(|fd| fd.any().unwrap_or(true));
        if signal {
            return Ok(());
        }
        if from_client {
            pump(
                balancer,
                Balancer::pass_to_server,
                client,
                server,
                &mut buffer,
            )?;
        }
        if from_server {
            pump(
                balancer,
                Balancer::pass_to_client,
                server,
                client,
                &mut buffer,
            )?;
        }
    }
}

const READABLE: PollFlags = PollFlags::POLLIN;

type Pass = for<'a> fn(&'a mut Balancer, &[u8], Instant) -> Option<&'a [u8]>;

fn pump(
    balancer: &mut Balancer,
    pass: Pass,
    from: &Tun,
    to: &Tun,
    buffer: &mut [u8],
) -> io::Result<()> {
    let now = Instant::now();
    for _ in 0..BATCH {
        let Some(packet) = from.receive(buffer)? else {
            break;
        };
        if let Some(packet) = pass(balancer, packet, now) {
            if to.send(packet).is_err() {
                balancer.statistics.write_failed += 1;
            }
        }
    }
    Ok(())
}
