// SPDX-License-Identifier: MIT OR Apache-2.0

//! Tests of the asynchronous examples, each as a server on this machine.

use std::io::BufRead;
use std::io::BufReader;
use std::io::Read;
use std::io::Write;
use std::net::SocketAddr;
use std::net::TcpStream;
use std::process::Child;
use std::process::Command;
use std::process::Stdio;

/// An example that runs until this value is dropped.
struct Server {
    process: Child,
    address: SocketAddr,
}

impl Server {
    /// Starts an example, and waits until it listens.
    fn start(example: &str) -> Self {
        let mut process = Command::new(env!("CARGO"))
            .args(["run", "--quiet", "--locked", "--example", example])
            .args(["--", "127.0.0.1:0"])
            .current_dir(env!("CARGO_MANIFEST_DIR"))
            .stdout(Stdio::piped())
            .spawn()
            .expect("cargo starts");
        let output = process.stdout.take().expect("it has an output");
        let mut line = String::new();
        let read = BufReader::new(output).read_line(&mut line);
        let address = line.trim_end().strip_prefix("listening on ");
        let address = address.and_then(|address| address.parse().ok());
        match address {
            Some(address) => Self { process, address },
            None => panic!("{example} printed {line:?} ({read:?})"),
        }
    }

    /// Sends a request from a new connection. Returns the whole answer, and the line
    /// about this connection.
    fn ask(&self, request: &str) -> (String, String) {
        let mut stream = TcpStream::connect(self.address).expect("it connects");
        let client = stream.local_addr().expect("its name");
        stream.write_all(request.as_bytes()).expect("it is sent");
        let mut answer = String::new();
        stream.read_to_string(&mut answer).expect("an answer");
        (answer, format!("{client} by getpeername\n"))
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

#[test]
fn tokio_server_sends_each_client_its_address() {
    let server = Server::start("tokio");
    for _ in 0..2 {
        let (answer, line) = server.ask("");
        assert_eq!(answer, line);
    }
}

#[test]
fn axum_server_answers_each_client_with_its_address() {
    let server = Server::start("axum");
    for _ in 0..2 {
        let (answer, line) = server.ask("GET / HTTP/1.0\r\n\r\n");
        let (head, body) = answer.split_once("\r\n\r\n").expect("a head");
        assert!(head.starts_with("HTTP/1.0 200 OK\r\n"), "{head}");
        assert_eq!(body, line);
    }
}
