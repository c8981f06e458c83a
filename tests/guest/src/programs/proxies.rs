// SPDX-License-Identifier: GPL-2.0

//! Proxies as [`Program`]s, with the configurations of `doc/proxies.md`, and the server behind them,
//! which has IPv4 only and answers with the client that the proxy forwards.

use std::io;
use std::io::Read;
use std::io::Write;
use std::net::IpAddr;
use std::net::Ipv4Addr;
use std::net::Ipv6Addr;
use std::net::Shutdown;
use std::net::SocketAddr;
use std::net::TcpListener;
use std::net::TcpStream;
use std::path::Path;
use std::process::Command;
use std::sync::atomic::AtomicUsize;
use std::sync::atomic::Ordering;
use std::sync::Arc;
use std::thread;
use std::thread::JoinHandle;
use std::time::Duration;

use nix::sys::signal::Signal;
use socket2::SockRef;

use super::table::configure;
use super::table::get;
use super::table::read_to_end;
use super::table::send;
use super::Mapped;
use super::Program;
use super::Says;
use super::Seen;
use crate::namespace::Namespace;
use crate::sockets::Family;

const PAGE: &str = include_str!("../../../../doc/proxies.md");

/// The clients that each configuration of the page denies.
pub const DENIED: [IpAddr; 2] = [
    IpAddr::V4(Ipv4Addr::new(203, 0, 113, 9)),
    IpAddr::V6(Ipv6Addr::new(0x2001, 0xdb8, 7, 0, 0, 0, 0, 9)),
];

/// Returns the page's configuration of a proxy: the number-th indented block of a section.
#[track_caller]
fn configuration(section: &str, number: usize) -> String {
    let (_, text) = PAGE
        .split_once(&format!("\n## {section}\n"))
        .unwrap_or_else(|| panic!("the page has no section {section}"));
    let text = text.split("\n## ").next().unwrap_or_default();
    let mut blocks = vec![String::new()];
    for line in text.lines() {
        let block = blocks.last_mut().expect("there is one");
        match line.strip_prefix("    ") {
            Some(code) => *block += &format!("{code}\n"),
            None if line.is_empty() && !block.is_empty() => *block += "\n",
            None if !block.is_empty() => blocks.push(String::new()),
            None => {}
        }
    }
    let found = blocks.get(number).filter(|block| !block.is_empty());
    found
        .unwrap_or_else(|| panic!("section {section} has no block {number}"))
        .clone()
}

/// HAProxy in HTTP mode: X-Forwarded-For.
pub const HAPROXY: Program = Program {
    listens: &[(Family::DualStack, 80)],
    mapped: Mapped::AsItIs,
    command: |root| haproxy(root, &configuration("haproxy", 0)),
    ready: "",
    ending: Signal::SIGTERM,
    ask: get,
    says: Says::InAnswer,
    client: Seen::parse,
};

/// HAProxy in TCP mode: the source in the PROXY protocol's header.
pub const HAPROXY_TCP: Program = Program {
    listens: &[(Family::DualStack, 5432)],
    command: |root| haproxy(root, &configuration("haproxy", 1)),
    ask: read_to_end,
    ..HAPROXY
};

fn haproxy(root: &Path, configuration: &str) -> Command {
    let defaults = "global\n\
         \tnbthread 2\n\
         defaults\n\
         \ttimeout connect 10s\n\
         \ttimeout client 10s\n\
         \ttimeout server 10s\n";
    let file = configure(root, "haproxy.cfg", &format!("{defaults}{configuration}"));
    let mut command = Command::new("haproxy");
    command.args(["-db", "-f", &file]);
    command
}

/// Apache with mod_proxy_http: X-Forwarded-For.
pub const APACHE: Program = Program {
    mapped: Mapped::AsIpv4,
    command: |root| {
        // Apache loads a module only after those whose functions it calls.
        let modules = [
            "mpm_event",
            "authz_core",
            "authz_host",
            "proxy",
            "proxy_http",
        ];
        let load = |name: &str| {
            format!("LoadModule {name}_module /usr/lib/apache2/modules/mod_{name}.so\n")
        };
        let configuration = format!(
            "{}\
             ServerName localhost\n\
             ServerRoot {root}\n\
             PidFile {root}/pid\n\
             User www-data\n\
             Group www-data\n\
             StartServers 1\n\
             ErrorLog {root}/error.log\n\
             {}",
            modules.map(load).concat(),
            configuration("Apache httpd", 0),
            root = root.display()
        );
        let file = configure(root, "apache2.conf", &configuration);
        let mut command = Command::new("apache2");
        command.args(["-D", "FOREGROUND", "-f", &file]);
        command
    },
    ..HAPROXY
};

/// Caddy's reverse_proxy: X-Forwarded-For.
pub const CADDY: Program = Program {
    mapped: Mapped::AsIpv4,
    command: |root| {
        let configuration = format!("{{\n\tadmin off\n}}\n{}", configuration("Caddy", 0));
        let file = configure(root, "Caddyfile", &configuration);
        let mut command = Command::new("caddy");
        command.args(["run", "--adapter", "caddyfile", "--config", &file]);
        command
    },
    ..HAPROXY
};

/// Makes an HTTP request; returns the answer's status.
pub fn status(stream: &mut TcpStream) -> String {
    send(stream, b"GET / HTTP/1.0\r\nHost: toa\r\n\r\n");
    let answer = read_to_end(stream);
    answer.split(' ').nth(1).unwrap_or_default().to_owned()
}

/// Reads until the end of the connection, which may be a reset.
pub fn text(stream: &mut TcpStream) -> String {
    let mut text = Vec::new();
    match stream.read_to_end(&mut text) {
        Err(error) if error.kind() != io::ErrorKind::ConnectionReset => panic!("{error}"),
        _ => String::from_utf8_lossy(&text).into_owned(),
    }
}

/// The servers of the page behind the proxies. They listen on 127.0.0.1 only.
pub struct Backend {
    listeners: [TcpListener; 2],
    threads: Vec<JoinHandle<()>>,
    requests: Arc<AtomicUsize>,
}

/// The time limit of a proxy's bytes.
const BOUND: Duration = Duration::from_secs(60);

/// A server's answer to a connection, in which a proxy forwards the client.
type Serve = fn(&mut TcpStream) -> io::Result<()>;

impl Backend {
    /// Starts the servers: HTTP on port 8080, and the PROXY protocol's version 2 on port 5433.
    pub fn start(namespace: &Namespace) -> Self {
        let listeners = namespace.enter(|| {
            [8080, 5433].map(|port| {
                TcpListener::bind((Ipv4Addr::LOCALHOST, port)).expect("the port is free")
            })
        });
        let requests = Arc::new(AtomicUsize::new(0));
        let serves: [Serve; 2] = [serve_http, serve_proxy_protocol];
        let threads = listeners.iter().zip(serves).map(|(listener, serve)| {
            let listener = listener.try_clone().expect("the same socket");
            let requests = Arc::clone(&requests);
            thread::spawn(move || {
                while let Ok((mut stream, _)) = listener.accept() {
                    requests.fetch_add(1, Ordering::Relaxed);
                    let _ = stream.set_read_timeout(Some(BOUND));
                    // The client gets no answer, and the test fails.
                    let _ = serve(&mut stream);
                }
            })
        });
        let threads = threads.collect();
        Self {
            listeners,
            threads,
            requests,
        }
    }

    /// Returns the number of connections so far.
    pub fn requests(&self) -> usize {
        self.requests.load(Ordering::Relaxed)
    }
}

impl Drop for Backend {
    fn drop(&mut self) {
        for listener in &self.listeners {
            // A listening socket that is shut down accepts nothing more.
            let _ = SockRef::from(listener).shutdown(Shutdown::Both);
        }
        for thread in self.threads.drain(..) {
            let _ = thread.join();
        }
    }
}

/// Answers with X-Forwarded-For.
fn serve_http(stream: &mut TcpStream) -> io::Result<()> {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        let mut byte = [0];
        stream.read_exact(&mut byte)?;
        head.extend(byte);
    }
    let head = String::from_utf8_lossy(&head);
    let fields = head.lines().filter_map(|line| line.split_once(": "));
    let forwarded: Vec<&str> = fields
        .filter(|(name, _)| name.eq_ignore_ascii_case("X-Forwarded-For"))
        .map(|(_, value)| value)
        .collect();
    let body = forwarded.join(", ");
    write!(
        stream,
        "HTTP/1.1 200 OK\r\nContent-Length: {}\r\nConnection: close\r\n\r\n{body}",
        body.len()
    )
}

/// The start of a header of the PROXY protocol: its signature, version 2 and the command PROXY.
const PROXY_V2: [u8; 13] = *b"\r\n\r\n\0\r\nQUIT\n\x21";

/// Answers with the source in the PROXY protocol's header.
fn serve_proxy_protocol(stream: &mut TcpStream) -> io::Result<()> {
    let mut head = [0; 16];
    stream.read_exact(&mut head)?;
    let mut addresses = vec![0; usize::from(u16::from_be_bytes([head[14], head[15]]))];
    stream.read_exact(&mut addresses)?;
    let source = match (head.starts_with(&PROXY_V2), head[13]) {
        (true, 0x11) => source::<4>(&addresses).map(|(ip, port)| (IpAddr::from(ip), port)),
        (true, 0x21) => source::<16>(&addresses).map(|(ip, port)| (IpAddr::from(ip), port)),
        _ => None,
    };
    match source {
        Some((ip, port)) => write!(stream, "{}", SocketAddr::new(ip, port))?,
        None => write!(stream, "{head:?} {addresses:?}")?,
    }
    stream.shutdown(Shutdown::Both)
}

/// Returns the source of a header's two addresses and two ports, if addresses have N bytes.
fn source<const N: usize>(addresses: &[u8]) -> Option<([u8; N], u16)> {
    let (ip, rest) = addresses.split_first_chunk::<N>()?;
    let (_, rest) = rest.split_first_chunk::<N>()?;
    let (port, _) = rest.split_first_chunk::<2>()?;
    Some((*ip, u16::from_be_bytes(*port)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_page_has_each_configuration_with_the_denied_clients() {
        let blocks = [
            ("haproxy", 0),
            ("haproxy", 1),
            ("Apache httpd", 0),
            ("Caddy", 0),
        ];
        for (section, number) in blocks {
            let text = configuration(section, number);
            for denied in DENIED {
                assert!(text.contains(&denied.to_string()), "{section}: {text}");
            }
        }
    }

    #[test]
    fn a_source_has_its_address_and_port() {
        let header = [10, 0, 0, 1, 10, 0, 0, 2, 0x12, 0x34, 0, 80];
        assert_eq!(source::<4>(&header), Some(([10, 0, 0, 1], 0x1234)));
        assert_eq!(source::<16>(&header), None);
    }
}
