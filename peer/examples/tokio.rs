// SPDX-License-Identifier: MIT OR Apache-2.0

//! Sends each client of a tokio server a line about its connection.
//!
//! ```sh
//! cargo run --example tokio -- [::]:8080
//! nc localhost 8080
//! ```

use std::env;
use std::io;

use tokio::io::AsyncWriteExt;
use tokio::net::TcpListener;
use tokio::net::TcpStream;

#[tokio::main(flavor = "current_thread")]
async fn main() -> io::Result<()> {
    let address = env::args().nth(1);
    let listener = TcpListener::bind(address.as_deref().unwrap_or("[::]:8080")).await?;
    println!("listening on {}", listener.local_addr()?);
    loop {
        let (stream, _) = listener.accept().await?;
        tokio::spawn(async {
            // The client may already have disconnected: the others are still served.
            if let Err(error) = serve(stream).await {
                eprintln!("{error}");
            }
        });
    }
}

async fn serve(mut stream: TcpStream) -> io::Result<()> {
    // The system calls do not block.
    let peer = toa_peer::peer(&stream)?;
    stream.write_all(format!("{peer}\n").as_bytes()).await
}
