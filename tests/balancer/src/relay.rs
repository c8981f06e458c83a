// SPDX-License-Identifier: GPL-2.0

//! Moving packets between the devices until a signal arrives. One thread does it, so
//! there is nothing to lock.

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
use toa_balancer::weather::Rates;
use toa_balancer::weather::Weather;

use crate::tun::Tun;

/// Limit of packets from one side in one turn.
const BATCH: usize = 64;

/// The longest IP packet.
const BUFFER: usize = 1 << 16;

/// Blocks SIGTERM and SIGINT and returns them as a file descriptor. Call it before any
/// thread starts.
pub fn signals() -> nix::Result<SignalFd> {
    let mut mask = SigSet::empty();
    mask.add(Signal::SIGTERM);
    mask.add(Signal::SIGINT);
    mask.thread_block()?;
    SignalFd::with_flags(&mask, SfdFlags::SFD_CLOEXEC)
}

/// Time for which a held packet waits for the next one, in milliseconds.
const HOLD: u16 = 10;

/// Relays packets until a signal arrives.
pub fn run(
    balancer: &mut Balancer,
    client: &Tun,
    server: &Tun,
    signals: &SignalFd,
    rates: Rates,
    seed: u64,
) -> io::Result<()> {
    let mut buffer = vec![0; BUFFER];
    let mut up = Way::new(Balancer::pass_to_server, client, server, rates, seed);
    let mut down = Way::new(Balancer::pass_to_client, server, client, rates, !seed);
    loop {
        let mut waiting =
            [client.as_fd(), server.as_fd(), signals.as_fd()].map(|fd| PollFd::new(fd, READABLE));
        let holding = up.weather.holds() || down.weather.holds();
        let timeout = if holding {
            PollTimeout::from(HOLD)
        } else {
            PollTimeout::NONE
        };
        match poll(&mut waiting, timeout) {
            Ok(0) => {
                up.release(balancer);
                down.release(balancer);
            }
            Ok(_) | Err(Errno::EINTR) => {}
            Err(error) => return Err(error.into()),
        }
        let [from_client, from_server, signal] = waiting.map(|fd| fd.any().unwrap_or(true));
        if signal {
            return Ok(());
        }
        if from_client {
            up.pump(balancer, &mut buffer)?;
        }
        if from_server {
            down.pump(balancer, &mut buffer)?;
        }
    }
}

const READABLE: PollFlags = PollFlags::POLLIN;

type Pass = for<'a> fn(&'a mut Balancer, &[u8], Instant) -> Option<&'a [u8]>;

/// One direction of the relay.
struct Way<'a> {
    pass: Pass,
    from: &'a Tun,
    to: &'a Tun,
    weather: Weather,
}

impl<'a> Way<'a> {
    fn new(pass: Pass, from: &'a Tun, to: &'a Tun, rates: Rates, seed: u64) -> Self {
        Self {
            pass,
            from,
            to,
            weather: Weather::new(rates, seed),
        }
    }

    fn pump(&mut self, balancer: &mut Balancer, buffer: &mut [u8]) -> io::Result<()> {
        let now = Instant::now();
        for _ in 0..BATCH {
            let Some(packet) = self.from.receive(buffer)? else {
                break;
            };
            let mut failed = 0;
            let mut lost = false;
            if let Some(packet) = (self.pass)(balancer, packet, now) {
                let send = |packet: &[u8]| failed += u64::from(self.to.send(packet).is_err());
                lost = self.weather.carry(packet, send);
            }
            balancer.statistics.write_failed += failed;
            balancer.statistics.lost += u64::from(lost);
        }
        Ok(())
    }

    fn release(&mut self, balancer: &mut Balancer) {
        let failed = &mut balancer.statistics.write_failed;
        self.weather
            .release(|packet| *failed += u64::from(self.to.send(packet).is_err()));
    }
}
