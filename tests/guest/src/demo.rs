// SPDX-License-Identifier: GPL-2.0

//! Demonstration of the module: the access logs of real servers, for the same
//! requests without the module and with it.

use std::panic::catch_unwind;

use crate::kmsg::KernelLog;
use crate::module;
use crate::net::Net;
use crate::net::Way;
use crate::site;
use crate::site::Site;
use crate::site::Visit;

/// A request's lines in the access log, without the module and with it.
struct Shown {
    visit: Visit,
    without: String,
    with: String,
}

impl Shown {
    /// Whether only the line with the module has the client's address.
    fn is_right(&self) -> bool {
        let client = self.visit.client.unwrap_or_default();
        site::client_in(&self.with) == client && site::client_in(&self.without) != client
    }
}

/// Runs the demonstration. True if every server logged its client with the module.
pub fn run() -> bool {
    // The panic's message is on the standard error output.
    catch_unwind(show).unwrap_or(false)
}

fn show() -> bool {
    let net = Net::for_site();
    let sites = [Site::nginx(&net), Site::python(&net)];
    let visits = [&site::NGINX_VISITS[..], &site::PYTHON_VISITS];
    let visit_all = || -> Vec<(Visit, String)> {
        sites
            .iter()
            .zip(visits)
            .flat_map(|(site, visits)| visits.iter().map(move |&visit| (site, visit)))
            .filter(|(_, visit)| visit.client.is_some())
            .map(|(site, visit)| (visit, site.receive(visit)))
            .collect()
    };
    println!("Clients 203.0.113.7 and 2001:db8:7::7 ask real servers behind a FullNAT balancer.");
    let without = visit_all();
    let mut log = KernelLog::from_now();
    println!("\n$ insmod toa.ko\n$ dmesg | grep TOA");
    module::load();
    let lines = log.new_lines();
    let ours: Vec<&String> = lines.iter().filter(|line| line.contains("TOA:")).collect();
    ours.iter().for_each(|line| println!("{line}"));
    let with = visit_all();
    module::unload();
    let shown: Vec<Shown> = without
        .into_iter()
        .zip(with)
        .map(|((visit, without), (_, with))| Shown {
            visit,
            without,
            with,
        })
        .collect();
    print_all(&shown);
    let loaded = ours.iter().any(|line| line.contains("TOA: toa loaded"));
    loaded && shown.iter().all(Shown::is_right)
}

fn print_all(shown: &[Shown]) {
    println!("\nThe servers' access logs, for the same requests:");
    for one in shown {
        println!("\n{}, {}", way_in_words(one.visit.way), one.visit.server);
        println!("  without  {}", one.without);
        println!("  with     {}", one.with);
        if !one.is_right() {
            println!("  WRONG: the client's address is missing");
        }
    }
    let right = shown.iter().filter(|one| one.is_right()).count();
    println!(
        "\n{right} of {} requests are logged with the client's address.",
        shown.len()
    );
}

fn way_in_words(way: Way) -> &'static str {
    match way {
        Way::V4 => "IPv4",
        Way::V6 => "IPv6",
        Way::Nat64 => "NAT64 (IPv6 client, IPv4 to the server)",
    }
}
