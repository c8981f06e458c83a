// SPDX-License-Identifier: MIT OR Apache-2.0

//! Answers each request to an axum server with the client of its connection.
//!
//! ```sh
//! cargo run --example axum -- [::]:8080
//! curl http://localhost:8080/
//! ```

use std::env;
use std::io;

use axum::extract::connect_info::Connected;
use axum::extract::ConnectInfo;
use axum::http::StatusCode;
use axum::routing::get;
use axum::serve::IncomingStream;
use axum::Router;
use toa_peer::Peer;
use tokio::net::TcpListener;

/// The peer of a connection, in each of its requests. `None` if the client
/// disconnected before the server asked.
#[derive(Clone)]
struct Client(Option<Peer>);

impl Connected<IncomingStream<'_, TcpListener>> for Client {
    fn connect_info(stream: IncomingStream<'_, TcpListener>) -> Self {
        Self(toa_peer::peer(stream.io()).ok())
    }
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> io::Result<()> {
    let address = env::args().nth(1);
    let listener = TcpListener::bind(address.as_deref().unwrap_or("[::]:8080")).await?;
    println!("listening on {}", listener.local_addr()?);
    let app = Router::new().route("/", get(answer));
    axum::serve(
        listener,
        app.into_make_service_with_connect_info::<Client>(),
    )
    .await
}

async fn answer(ConnectInfo(Client(peer)): ConnectInfo<Client>) -> Result<String, StatusCode> {
    let peer = peer.ok_or(StatusCode::BAD_REQUEST)?;
    Ok(format!("{peer}\n"))
}
