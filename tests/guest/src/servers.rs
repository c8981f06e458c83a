// SPDX-License-Identifier: GPL-2.0

//! Real servers, nginx and `python3 -m http.server`, unmodified, and their access
//! logs.

use std::fs;
use std::fs::File;
use std::io::Read;
use std::io::Write;
use std::net::TcpStream;
use std::path::Path;
use std::path::PathBuf;
use std::process::Command;
use std::process::Stdio;

use nix::sys::signal::Signal;

use crate::namespace::Namespace;
use crate::proc_tcp;
use crate::proc_tcp::LISTEN;
use crate::process::Process;
use crate::wait;

/// A server's directory, removed on drop.
#[derive(Debug)]
pub struct Directory(pub PathBuf);

impl Directory {
    pub fn new(namespace: &Namespace, name: &str) -> Self {
        let path = std::env::temp_dir().join(format!("{name}-{}", namespace.name()));
        fs::create_dir_all(&path).expect("a directory for a server");
        fs::write(path.join("index.html"), PAGE).expect("a page to serve");
        Self(path)
    }
}

impl Drop for Directory {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

const PAGE: &str = "served\n";

/// A server and its access log.
#[derive(Debug)]
pub struct Server {
    _process: Process,
    _directory: Directory,
    log: PathBuf,
}

impl Server {
    /// Starts nginx with one port for each family of listening socket.
    pub fn nginx(namespace: &Namespace, v4: u16, v6_only: u16, dual_stack: u16) -> Self {
        let directory = Directory::new(namespace, "nginx");
        let root = directory.0.display();
        let configuration = format!(
            "daemon off;\n\
             user root;\n\
             worker_processes 1;\n\
             pid {root}/pid;\n\
             error_log {root}/error.log;\n\
             events {{ worker_connections 256; }}\n\
             http {{\n\
               log_format peer '$remote_addr - - [$time_local] \"$request\" $status';\n\
               access_log {root}/access.log peer;\n\
               client_body_temp_path {root}/body;\n\
               proxy_temp_path {root}/proxy;\n\
               fastcgi_temp_path {root}/fastcgi;\n\
               uwsgi_temp_path {root}/uwsgi;\n\
               scgi_temp_path {root}/scgi;\n\
               server {{\n\
                 listen 0.0.0.0:{v4};\n\
                 listen [::]:{v6_only} ipv6only=on;\n\
                 listen [::]:{dual_stack} ipv6only=off;\n\
                 root {root};\n\
               }}\n\
             }}\n"
        );
        let file = directory.0.join("nginx.conf");
        fs::write(&file, configuration).expect("nginx's configuration");
        let mut command = Command::new("nginx");
        command.arg("-e").arg(directory.0.join("error.log"));
        command.arg("-c").arg(&file);
        let process = Process::start_in(namespace, &mut command, Signal::SIGQUIT);
        for port in [v4, v6_only, dual_stack] {
            wait_for_listener(namespace, port);
        }
        let log = directory.0.join("access.log");
        Self {
            _process: process,
            _directory: directory,
            log,
        }
    }

    /// Starts `python3 -m http.server PORT`, with `--bind ADDRESS` if given.
    pub fn python(namespace: &Namespace, port: u16, bind: Option<&str>) -> Self {
        let directory = Directory::new(namespace, &format!("python-{port}"));
        let log = directory.0.join("log");
        let errors = File::create(&log).expect("python's log");
        let mut command = Command::new("python3");
        command
            .args(["-u", "-m", "http.server", &port.to_string()])
            .args(bind.iter().flat_map(|address| ["--bind", *address]))
            .current_dir(&directory.0)
            .stdout(Stdio::null())
            .stderr(errors);
        let process = Process::start_in(namespace, &mut command, Signal::SIGTERM);
        wait_for_listener(namespace, port);
        Self {
            _process: process,
            _directory: directory,
            log,
        }
    }

    /// Waits for `count` lines with a request in the access log, and returns them.
    #[track_caller]
    pub fn log_lines(&self, count: usize) -> Vec<String> {
        wait::until("the access log", || {
            let lines = requests_in(&self.log);
            if lines.len() < count {
                return Err(format!("{} of {count} lines: {lines:?}", lines.len()));
            }
            Ok(lines)
        })
    }
}

fn requests_in(log: &Path) -> Vec<String> {
    fs::read_to_string(log)
        .unwrap_or_default()
        .split_inclusive('\n')
        .filter(|line| line.ends_with('\n') && line.contains("\"GET "))
        .map(|line| line.trim_end().to_owned())
        .collect()
}

/// Waits until a TCP socket of the namespace listens on that port.
#[track_caller]
pub fn wait_for_listener(namespace: &Namespace, port: u16) {
    wait::until(&format!("a listener on port {port}"), || {
        let rows = proc_tcp::rows(namespace);
        let listens = |row: &proc_tcp::Row| row.state == LISTEN && row.local.port() == port;
        let found = rows.iter().any(listens);
        found.then_some(()).ok_or_else(|| format!("{rows:?}"))
    });
}

/// Requests the page over a connection that ends with it.
#[track_caller]
pub fn get_page(mut stream: TcpStream) {
    let request = b"GET / HTTP/1.0\r\n\r\n";
    stream.write_all(request).expect("the request is sent");
    let mut answer = String::new();
    stream
        .read_to_string(&mut answer)
        .expect("the answer arrives");
    let status = answer.lines().next().unwrap_or_default();
    assert!(status.contains(" 200 "), "the server answers {status:?}");
    assert!(answer.ends_with(PAGE), "the server answers {answer:?}");
}
