// SPDX-License-Identifier: GPL-2.0

//! The program: makes the devices, runs the balancer between them and prints its
//! counters. `--help` describes the services.

mod args;
mod namespace;
mod relay;
mod tun;

use std::fmt::Display;
use std::io::Write;
use std::net::IpAddr;
use std::process::ExitCode;
use std::time::Duration;

use clap::Parser;
use ipnet::IpNet;
use toa_balancer::balancer::Balancer;
use toa_balancer::balancer::Config;
use toa_balancer::weather::Rates;

use crate::args::Args;
use crate::namespace::Namespace;
use crate::tun::Tun;

/// Length of the devices' queues in packets, enough for many connections at once.
const QUEUE: u32 = 10_000;

fn main() -> ExitCode {
    match run(Args::parse()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("toa-balancer: {error}");
            ExitCode::FAILURE
        }
    }
}

fn run(args: Args) -> Result<(), String> {
    let signals = relay::signals().map_err(|error| format!("signals: {error}"))?;
    let vips: Vec<IpNet> = args
        .service
        .iter()
        .map(|service| host(service.virtual_server.ip()))
        .collect();
    let seed = args.seed.unwrap_or_else(|| fastrand::u64(..));
    let rates = Rates {
        lost: args.drop,
        doubled: args.duplicate,
        held: args.reorder,
    };
    let mut balancer = Balancer::new(Config {
        services: args.service,
        local: args.lip.clone(),
        mtu: args.mtu.into(),
        grace: Duration::from_secs(args.grace),
        seed,
    })
    .map_err(|error| error.to_string())?;
    let client_ns = Namespace::open(&args.client_ns)?;
    let server_ns = Namespace::open(&args.server_ns)?;
    let client = set_up(&client_ns, &args.client_dev, args.mtu, &vips)?;
    let server = set_up(&server_ns, &args.server_dev, args.mtu, &args.lip)?;
    say("ready")?;
    relay::run(&mut balancer, &client, &server, &signals, rates, seed)
        .map_err(|error| format!("packets: {error}"))?;
    say(&balancer.statistics)
}

/// Creates a device, sets it up and adds the routes to it.
fn set_up(namespace: &Namespace, name: &str, mtu: u16, to: &[IpNet]) -> Result<Tun, String> {
    let tun = Tun::create(namespace, name)?;
    let mut commands = format!("link set {name} mtu {mtu} txqueuelen {QUEUE} up\n");
    for prefix in to {
        let prefix = prefix.trunc();
        commands += &format!("route replace {prefix} dev {name}\n");
    }
    namespace.ip(&commands)?;
    Ok(tun)
}

fn host(address: IpAddr) -> IpNet {
    IpNet::from(address)
}

fn say(what: impl Display) -> Result<(), String> {
    let mut out = std::io::stdout().lock();
    writeln!(out, "{what}")
        .and_then(|()| out.flush())
        .map_err(|error| format!("stdout: {error}"))
}
