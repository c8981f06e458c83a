// SPDX-License-Identifier: MIT OR Apache-2.0

//! Prints the peer of each connection to an address:
//!
//! ```sh
//! cargo run --example who -- [::]:8080
//! ```

use std::io;
use std::net::TcpListener;

use toa_peer::peer;

fn main() -> io::Result<()> {
    let address = std::env::args().nth(1);
    let listener = TcpListener::bind(address.as_deref().unwrap_or("[::]:8080"))?;
    for stream in listener.incoming() {
        // The client may already have disconnected: serve the next one.
        match stream.and_then(peer) {
            Ok(peer) => println!("{peer:?}"),
            Err(error) => eprintln!("{error}"),
        }
    }
    Ok(())
}
