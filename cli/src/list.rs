// SPDX-License-Identifier: MIT OR Apache-2.0

//! `toa list`: the connections that carry a client.

use std::collections::HashMap;
use std::net::SocketAddr;

use schemars::JsonSchema;
use serde::Serialize;

use crate::arguments::ListArguments;
use crate::connections;
use crate::connections::Connection;
use crate::failure::Failure;
use crate::failure::Result;
use crate::failure::Status;
use crate::filter::Filter;
use crate::output;
use crate::output::Side;
use crate::output::Table;
use crate::sockets;
use crate::sockets::Holders;
use crate::sockets::Process;
use crate::Context;

/// A connection in the output of `toa list --json`.
#[derive(Debug, Serialize, JsonSchema)]
pub struct Row {
    /// The client from the option.
    client: SocketAddr,
    /// The balancer's end, which `ss` shows as the peer.
    balancer: SocketAddr,
    /// The server's end.
    server: SocketAddr,
    /// The process with the lowest number that holds the socket.
    #[serde(skip_serializing_if = "Option::is_none")]
    process: Option<Process>,
    /// The network namespace, with `--all-netns`.
    #[serde(skip_serializing_if = "Option::is_none")]
    netns: Option<Netns>,
}

/// A network namespace.
#[derive(Clone, Debug, Serialize, JsonSchema)]
pub struct Netns {
    /// The name of `ip netns`, or a process.
    name: String,
    /// The number that `lsns -t net` prints.
    number: u64,
}

/// The inodes of a namespace's sockets by their ends.
type Inodes = HashMap<(SocketAddr, SocketAddr), u64>;

/// Runs the command.
///
/// # Errors
///
/// A wrong filter, a missing right, or no module.
pub fn run(context: &Context, arguments: &ListArguments) -> Result<Status> {
    let mut filter = Filter::parse(&arguments.filter).map_err(Failure::usage)?;
    if arguments.ipv4 || arguments.ipv6 {
        filter = filter.of_family(arguments.ipv6);
    }
    let found = context.within_each(&arguments.places, || {
        let mut found = connections::read(&context.host)?;
        found.retain(|connection| filter.admits(connection));
        found.sort_unstable();
        let inodes = if found.is_empty() {
            Inodes::new()
        } else {
            inodes(&sockets::read(&context.host)?)
        };
        Ok((found, inodes))
    })?;
    let any = found
        .iter()
        .any(|(_, (connections, _))| !connections.is_empty());
    let holders = if any {
        sockets::holders(&context.host)
    } else {
        Holders::default()
    };
    let mut rows = Vec::new();
    for (namespace, (connections, inodes)) in found {
        let netns = namespace.map(|namespace| Netns {
            name: namespace.name,
            number: namespace.number,
        });
        let row = |connection: Connection| Row {
            client: connection.client,
            balancer: connection.balancer,
            server: connection.server,
            process: inodes
                .get(&(connection.server, connection.balancer))
                .and_then(|inode| holders.of(*inode))
                .cloned(),
            netns: netns.clone(),
        };
        rows.extend(connections.into_iter().map(row));
    }
    if context.json {
        output::print_json(&rows)?;
    } else {
        let header = !arguments.no_header;
        let with_netns = arguments.places.all_netns;
        output::print(&screen(&rows, header, with_netns, output::width()))?;
    }
    if holders.hidden > 0 && rows.iter().any(|row| row.process.is_none()) {
        output::remark("the processes of other users are not shown: run it with sudo");
    }
    Ok(Status::Success)
}

/// The screen. A terminal of `width` columns gets long texts cut.
fn screen(rows: &[Row], header: bool, with_netns: bool, width: Option<usize>) -> String {
    let mut sides = vec![Side::Left; 4];
    if with_netns {
        sides.push(Side::Left);
    }
    let mut table = Table::new(&sides);
    if header {
        let names = ["client", "balancer", "server", "process"].into_iter();
        table.row(names.chain(with_netns.then_some("netns")));
    }
    for row in rows {
        let process = row.process.as_ref();
        let process = process.map_or("-".to_owned(), |process| {
            format!("{} ({})", process.command, process.pid)
        });
        let ends = [row.client, row.balancer, row.server].map(|end| end.to_string());
        let netns = row.netns.as_ref().map(|netns| netns.name.clone());
        table.row(ends.into_iter().chain([process]).chain(netns));
    }
    let mut screen = String::new();
    table.cut(width).write(&mut screen, None);
    screen
}

fn inodes(sockets: &[sockets::Socket]) -> Inodes {
    // A socket that no process has accepted has none.
    let held = sockets.iter().filter(|socket| socket.inode != 0);
    held.map(|socket| ((socket.local, socket.peer), socket.inode))
        .collect()
}
