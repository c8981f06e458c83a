// SPDX-License-Identifier: GPL-2.0

//! A distribution's nginx with the modules of `nginx/`, and its log.

use std::fs;
use std::fs::File;
use std::io::Read;
use std::io::Write;
use std::net::SocketAddr;
use std::net::TcpStream;
use std::path::PathBuf;
use std::process::Command;

use nix::sys::signal::kill;
use nix::sys::signal::Signal;
use nix::unistd::Pid;

use crate::namespace;
use crate::net::Net;
use crate::process::Process;
use crate::servers::wait_for_listener;
use crate::servers::Directory;
use crate::wait;

/// The distribution of nginx and of the modules that were built for it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Suite {
    /// The nginx of the machine itself.
    Trixie,
    /// The payload's nginx, with its libraries.
    Sid,
}

/// The payload's directory of the modules and of sid's nginx.
const PAYLOAD: &str = "/toa/nginx";

impl Suite {
    fn directory(self) -> &'static str {
        match self {
            Self::Trixie => "trixie",
            Self::Sid => "sid",
        }
    }

    fn module(self, name: &str) -> String {
        format!("{PAYLOAD}/{}/{name}", self.directory())
    }

    /// Returns nginx's own module for TCP, a separate file in Debian.
    fn stream_module(self) -> String {
        match self {
            Self::Trixie => "/usr/lib/nginx/modules/ngx_stream_module.so".to_owned(),
            Self::Sid => self.module("ngx_stream_module.so"),
        }
    }

    fn command(self) -> Command {
        match self {
            Self::Trixie => Command::new("nginx"),
            Self::Sid => {
                let root = self.module("");
                let mut command = Command::new(format!("{root}lib/ld-linux-x86-64.so.2"));
                command.args(["--library-path", &format!("{root}lib")]);
                command.arg(format!("{root}nginx"));
                command
            }
        }
    }
}

/// The test's part of the configuration, in which ROOT is nginx's directory.
#[derive(Clone, Copy, Debug)]
pub struct Setup<'a> {
    pub suite: Suite,
    /// Whether to load the modules of `nginx/`.
    pub modules: bool,
    pub workers: usize,
    /// `error_log`'s level.
    pub level: &'a str,
    /// The directives in the block `http`.
    pub http: &'a str,
    /// The directives in the block `stream`.
    pub stream: &'a str,
    /// The ports on which nginx listens.
    pub ports: &'a [u16],
}

impl Default for Setup<'_> {
    fn default() -> Self {
        Self {
            suite: Suite::Trixie,
            modules: true,
            workers: 1,
            level: "notice",
            http: "",
            stream: "",
            ports: &[],
        }
    }
}

const ACCESS_LOG: &str = "access.log";
const ERROR_LOG: &str = "error.log";

/// The fields of a request's log line, in the order of [`Line`].
const FORMAT: &str = "$remote_addr $remote_port $toa_remote_addr $toa_remote_port \
     $toa_balancer_addr $toa_balancer_port $toa_status $status $server_protocol $connection \
     $request_uri";

/// The fields of a log line without the modules.
const PLAIN_FORMAT: &str =
    "$remote_addr $remote_port - - - - - $status $server_protocol $connection \
     $request_uri";

/// A line of the access log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Line {
    pub remote: String,
    pub remote_port: String,
    pub client: String,
    pub client_port: String,
    pub balancer: String,
    pub balancer_port: String,
    /// Whether there is a client, or the reason why not.
    pub known: String,
    pub status: String,
    pub protocol: String,
    pub connection: String,
    pub uri: String,
}

impl Line {
    #[track_caller]
    fn parse(line: &str) -> Self {
        let fields: Vec<String> = line.split(' ').map(str::to_owned).collect();
        let Ok(
            [remote, remote_port, client, client_port, balancer, balancer_port, known, status, protocol, connection, uri],
        ) = <[String; 11]>::try_from(fields)
        else {
            panic!("a line of the access log is {line:?}");
        };
        Self {
            remote,
            remote_port,
            client,
            client_port,
            balancer,
            balancer_port,
            known,
            status,
            protocol,
            connection,
            uri,
        }
    }
}

/// An nginx that runs on the server's host.
pub struct Nginx {
    // The process ends before its directory is removed.
    _process: Process,
    directory: Directory,
    master: Pid,
    workers: usize,
}

impl Nginx {
    /// Starts nginx; returns when it listens.
    #[track_caller]
    pub fn start(net: &Net, setup: Setup<'_>) -> Self {
        let (directory, file) = configured(net, setup);
        let errors = File::create(directory.0.join("stderr")).expect("a file for its output");
        let mut command = setup.suite.command();
        command.arg("-e").arg(directory.0.join(ERROR_LOG));
        command.arg("-c").arg(&file).stderr(errors);
        let mut process = Process::start_in(&net.server, &mut command, Signal::SIGQUIT);
        let master = Pid::from_raw(process.child().id() as i32);
        for port in setup.ports {
            wait_for_listener(&net.server, *port);
        }
        Self {
            _process: process,
            directory,
            master,
            workers: setup.workers,
        }
    }

    /// Returns what `nginx -t` prints about a configuration that it refuses.
    #[track_caller]
    pub fn refusal(net: &Net, setup: Setup<'_>) -> String {
        let (directory, file) = configured(net, setup);
        let mut command = setup.suite.command();
        command.args(["-t", "-q", "-e", "stderr", "-c"]).arg(&file);
        let output = command.output().expect("nginx starts");
        assert_eq!(output.status.code(), Some(1), "{output:?}");
        let printed = String::from_utf8(output.stderr).expect("text");
        printed.replace(&directory.0.display().to_string(), "ROOT")
    }

    pub fn path(&self, file: &str) -> PathBuf {
        self.directory.0.join(file)
    }

    /// Makes nginx reload its configuration; returns when only new workers run.
    #[track_caller]
    pub fn reload(&self) {
        let old = self.workers();
        kill(self.master, Signal::SIGHUP).expect("nginx runs");
        wait::until("new workers", || {
            let now = self.children();
            let renewed = now.len() == old.len() && !now.iter().any(|worker| old.contains(worker));
            renewed
                .then_some(())
                .ok_or_else(|| format!("{old:?} became {now:?}"))
        });
    }

    /// Returns the process ids of nginx's workers, when all have started.
    #[track_caller]
    pub fn workers(&self) -> Vec<String> {
        wait::until("nginx's workers", || {
            let workers = self.children();
            match workers.len() == self.workers {
                true => Ok(workers),
                false => Err(format!("{workers:?}")),
            }
        })
    }

    #[track_caller]
    fn children(&self) -> Vec<String> {
        let master = self.master;
        let children = fs::read_to_string(format!("/proc/{master}/task/{master}/children"));
        let children = children.expect("nginx runs");
        children.split_whitespace().map(str::to_owned).collect()
    }

    /// Waits for `count` lines of the access log, and returns them.
    #[track_caller]
    pub fn lines(&self, count: usize) -> Vec<Line> {
        let lines = self.raw_lines(ACCESS_LOG, count);
        lines.iter().map(|line| Line::parse(line)).collect()
    }

    #[track_caller]
    pub fn raw_lines(&self, file: &str, count: usize) -> Vec<String> {
        wait::until("lines in nginx's log", || {
            let lines = complete_lines(&self.read(file));
            match lines.len() >= count {
                true => Ok(lines),
                false => Err(format!(
                    "{} of {count}: {lines:?}, and errors: {}",
                    lines.len(),
                    self.read(ERROR_LOG)
                )),
            }
        })
    }

    /// Returns the lines of the error log that contain that text.
    pub fn errors(&self, text: &str) -> Vec<String> {
        let mut lines = complete_lines(&self.read(ERROR_LOG));
        lines.retain(|line| line.contains(text));
        lines
    }

    /// Checks that no process crashed, and that nothing worse than an error was logged.
    #[track_caller]
    pub fn assert_healthy(&self) {
        for text in ["exited on signal", "[alert]", "[crit]", "[emerg]"] {
            assert_eq!(self.errors(text), [""; 0], "nginx's errors");
        }
    }

    fn read(&self, file: &str) -> String {
        fs::read_to_string(self.path(file)).unwrap_or_default()
    }
}

/// Makes a directory with nginx's configuration, which is the returned file.
#[track_caller]
fn configured(net: &Net, setup: Setup<'_>) -> (Directory, PathBuf) {
    let directory = Directory::new(&net.server, "nginx-module");
    let file = directory.0.join("nginx.conf");
    let text = configuration(&directory.0.display().to_string(), setup);
    fs::write(&file, text).expect("nginx's configuration");
    (directory, file)
}

fn complete_lines(text: &str) -> Vec<String> {
    text.split_inclusive('\n')
        .filter_map(|line| line.strip_suffix('\n'))
        .map(str::to_owned)
        .collect()
}

fn configuration(root: &str, setup: Setup<'_>) -> String {
    let load = |name: &str| format!("load_module {name};\n");
    let mut modules = String::new();
    if !setup.stream.is_empty() {
        modules += &load(&setup.suite.stream_module());
    }
    if setup.modules {
        modules += &load(&setup.suite.module("ngx_http_toa_module.so"));
        if !setup.stream.is_empty() {
            modules += &load(&setup.suite.module("ngx_stream_toa_module.so"));
        }
    }
    let stream = match setup.stream {
        "" => String::new(),
        stream => format!("stream {{\n{stream}\n}}\n"),
    };
    let format = if setup.modules { FORMAT } else { PLAIN_FORMAT };
    format!(
        "{modules}\
         daemon off;\n\
         user root;\n\
         worker_processes {workers};\n\
         pid ROOT/pid;\n\
         error_log ROOT/{ERROR_LOG} {level};\n\
         events {{ worker_connections 256; }}\n\
         http {{\n\
           log_format toa '{format}';\n\
           access_log ROOT/{ACCESS_LOG} toa;\n\
           client_body_temp_path ROOT/body;\n\
           proxy_temp_path ROOT/proxy;\n\
           fastcgi_temp_path ROOT/fastcgi;\n\
           uwsgi_temp_path ROOT/uwsgi;\n\
           scgi_temp_path ROOT/scgi;\n\
           {http}\n\
         }}\n\
         {stream}",
        workers = setup.workers,
        level = setup.level,
        http = setup.http,
    )
    .replace("ROOT", root)
}

/// Makes a key and its certificate, and adds them to a configuration with TLS.
#[track_caller]
pub fn with_tls(http: &str) -> String {
    let (key, certificate) = ("/tmp/toa-nginx-key", "/tmp/toa-nginx-certificate");
    if !fs::exists(certificate).unwrap_or(false) {
        let mut openssl = Command::new("openssl");
        openssl.args([
            "req", "-x509", "-newkey", "ec", "-nodes", "-subj", "/CN=toa",
        ]);
        openssl.args(["-pkeyopt", "ec_paramgen_curve:P-256", "-days", "3650"]);
        namespace::run(openssl.args(["-keyout", key, "-out", certificate]));
    }
    format!("ssl_certificate {certificate};\nssl_certificate_key {key};\n{http}")
}

/// An HTTP/1 response.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Answer {
    pub status: u16,
    pub body: String,
}

/// Makes a request over a persistent connection, and reads the whole answer.
#[track_caller]
pub fn ask(stream: &mut TcpStream, host: &str, path: &str) -> Answer {
    write!(stream, "GET {path} HTTP/1.1\r\nHost: {host}\r\n\r\n").expect("the request is sent");
    read_answer(stream)
}

#[track_caller]
pub fn read_answer(stream: &mut TcpStream) -> Answer {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        let mut byte = [0];
        stream.read_exact(&mut byte).unwrap_or_else(|error| {
            panic!(
                "the answer is {:?}: {error}",
                String::from_utf8_lossy(&head)
            )
        });
        head.extend(byte);
    }
    let head = String::from_utf8(head).expect("a header of text");
    let field = |name: &str| {
        head.lines()
            .find_map(|line| line.strip_prefix(name))
            .and_then(|value| value.trim().parse::<usize>().ok())
    };
    let status = head
        .split(' ')
        .nth(1)
        .and_then(|status| status.parse().ok());
    let length = field("Content-Length:").unwrap_or_else(|| panic!("no length: {head}"));
    let mut body = vec![0; length];
    stream.read_exact(&mut body).expect("the answer's body");
    Answer {
        status: status.unwrap_or_else(|| panic!("no status: {head}")),
        body: String::from_utf8(body).expect("a body of text"),
    }
}

/// curl's result for one URL.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fetched {
    /// curl's end of the connection.
    pub local: SocketAddr,
    pub status: u16,
    pub version: String,
}

const WRITE_OUT: &str = "%{local_ip} %{local_port} %{http_code} %{http_version}\\n";

/// Fetches the URLs with curl, over one connection if possible.
#[track_caller]
pub fn curl(arguments: &[&str], urls: &[String]) -> Vec<Fetched> {
    let mut curl = Command::new("curl");
    curl.args(["--silent", "--show-error", "--insecure", "--max-time", "60"]);
    curl.args(["--write-out", WRITE_OUT]).args(arguments);
    for url in urls {
        curl.args(["--output", "/dev/null", url]);
    }
    let told = namespace::run(&mut curl);
    told.lines()
        .map(|line| {
            let fields: Vec<&str> = line.split(' ').collect();
            let [ip, port, status, version] = fields[..] else {
                panic!("curl prints {line:?}");
            };
            let local = format!("{ip}:{port}").parse();
            let local = local.or_else(|_| format!("[{ip}]:{port}").parse());
            Fetched {
                local: local.unwrap_or_else(|error| panic!("curl prints {line:?}: {error}")),
                status: status.parse().expect("a status"),
                version: version.to_owned(),
            }
        })
        .collect()
}
