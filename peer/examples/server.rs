// SPDX-License-Identifier: MIT OR Apache-2.0

//! Prints a line about each connection, and sends this line to the client.
//!
//! ```sh
//! cargo run --example server -- :: 8080
//! nc localhost 8080
//! ```

use std::env;
use std::io;
use std::io::Write;
use std::net::TcpListener;
use std::net::TcpStream;
use std::process::ExitCode;

use toa_peer::Peer;

fn main() -> ExitCode {
    let arguments: Vec<String> = env::args().skip(1).collect();
    let [address, port] = &arguments[..] else {
        eprintln!("usage: server ADDRESS PORT");
        return ExitCode::from(2);
    };
    match run(address, port) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("server: {address} port {port}: {error}");
            ExitCode::FAILURE
        }
    }
}

/// Serves the clients of one address; `::` accepts IPv4 as well, unless
/// `net.ipv6.bindv6only` is set.
fn run(address: &str, port: &str) -> io::Result<()> {
    let port = port
        .parse()
        .map_err(|error| io::Error::new(io::ErrorKind::InvalidInput, error))?;
    let listener = TcpListener::bind((address, port))?;
    for stream in listener.incoming() {
        // The client may already have disconnected: serve the next one.
        if let Err(error) = stream.and_then(serve) {
            eprintln!("server: {error}");
        }
    }
    Ok(())
}

fn serve(mut stream: TcpStream) -> io::Result<()> {
    let line = line(toa_peer::peer(&stream)?);
    print!("{line}");
    stream.write_all(line.as_bytes())
}

fn line(peer: Peer) -> String {
    let (client, origin) = (peer.client, peer.origin);
    let mut line = format!("client {} port {} by {origin}", client.ip(), client.port());
    if let Some(balancer) = peer.balancer {
        line += &format!(", balancer {} port {}", balancer.ip(), balancer.port());
    }
    line + "\n"
}
