// SPDX-License-Identifier: GPL-2.0

//! The table of programs. None runs as a service: each gets the test's configuration
//! in the test's directory.

use std::fs;
use std::io;
use std::io::BufRead;
use std::io::BufReader;
use std::io::Read;
use std::io::Write;
use std::net::IpAddr;
use std::net::Shutdown;
use std::net::TcpStream;
use std::os::unix::net::UnixListener;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::process::Command;
use std::thread;

use nix::poll::PollFlags;
use nix::sys::signal::Signal;

use super::Mapped;
use super::Program;
use super::Says;
use super::Seen;
use crate::apparmor;
use crate::namespace;
use crate::net::SERVER_V4;
use crate::net::SERVER_V6;
use crate::sockets;
use crate::sockets::Family;
use crate::wait;

pub const V4: u16 = 8101;
pub const V6_ONLY: u16 = 8102;
pub const DUAL_STACK: u16 = 8103;

/// The sockets of a program whose listening sockets can be configured.
const EACH: &[(Family, u16)] = &[
    (Family::V4, V4),
    (Family::V6Only, V6_ONLY),
    (Family::DualStack, DUAL_STACK),
];

/// The sockets of a program that makes all its IPv6 sockets dual-stack ones.
const NOT_V6_ONLY: &[(Family, u16)] = &[(Family::V4, V4), (Family::DualStack, DUAL_STACK)];

const DUAL_STACK_ONLY: &[(Family, u16)] = &[(Family::DualStack, DUAL_STACK)];

/// The sockets of a program with one port and no dual-stack sockets.
const NOT_DUAL_STACK: &[(Family, u16)] = &[(Family::V4, V4), (Family::V6Only, V4)];

/// Apache: `%a` and `%{remote}p` of its access log.
pub const APACHE: Program = Program {
    listens: NOT_V6_ONLY,
    mapped: Mapped::AsIpv4,
    command: |root| {
        let configuration = format!(
            "ServerName localhost\n\
             ServerRoot {root}\n\
             PidFile {root}/pid\n\
             Listen 0.0.0.0:{V4}\n\
             Listen [::]:{DUAL_STACK}\n\
             LoadModule mpm_event_module /usr/lib/apache2/modules/mod_mpm_event.so\n\
             LoadModule authz_core_module /usr/lib/apache2/modules/mod_authz_core.so\n\
             User www-data\n\
             Group www-data\n\
             StartServers 1\n\
             DocumentRoot {root}\n\
             ErrorLog {root}/error.log\n\
             LogFormat \"%a %{{remote}}p\" client\n\
             CustomLog {root}/access.log client\n",
            root = root.display()
        );
        let file = configure(root, "apache2.conf", &configuration);
        let mut command = Command::new("apache2");
        command.args(["-D", "FOREGROUND", "-f", &file]);
        command
    },
    ready: "",
    ending: Signal::SIGTERM,
    ask: get,
    says: Says::InLog("access.log", ""),
    client: Seen::parse,
};

/// HAProxy: `%[src]` and `%[src_port]`.
pub const HAPROXY: Program = Program {
    listens: EACH,
    mapped: Mapped::AsItIs,
    command: |root| {
        let configuration = format!(
            "global\n\
             \tnbthread 1\n\
             defaults\n\
             \tmode http\n\
             \ttimeout client 10s\n\
             frontend client\n\
             \tbind 0.0.0.0:{V4}\n\
             \tbind :::{V6_ONLY} v6only\n\
             \tbind :::{DUAL_STACK} v4v6\n\
             \thttp-request return status 200 content-type text/plain lf-string \"%[src] %[src_port]\\n\"\n"
        );
        let file = configure(root, "haproxy.cfg", &configuration);
        let mut command = Command::new("haproxy");
        command.args(["-db", "-f", &file]);
        command
    },
    ready: "",
    ending: Signal::SIGTERM,
    ask: get,
    says: Says::InAnswer,
    client: Seen::parse,
};

/// sshd: `Connection from ADDRESS port PORT on …`, of LogLevel VERBOSE.
pub const SSHD: Program = Program {
    listens: NOT_DUAL_STACK,
    mapped: Mapped::AsItIs,
    command: sshd,
    ready: "",
    ending: Signal::SIGTERM,
    ask: |stream| {
        let mut banner = String::new();
        let mut reader = BufReader::new(stream);
        reader.read_line(&mut banner).expect("the banner arrives");
        assert!(
            banner.starts_with("SSH-2.0-OpenSSH"),
            "the banner is {banner:?}"
        );
        banner
    },
    says: Says::InLog("log", "Connection from "),
    client: |line| {
        let (_, from) = line.split_once("Connection from ")?;
        let (from, _) = from.split_once(" on ")?;
        Seen::parse(&from.replace(" port ", " "))
    },
};

/// sshd with a login: `SSH_CONNECTION`, and `SSH_CLIENT`, which must agree.
pub const SSH_LOGIN: Program = Program {
    command: |root| {
        let key = new_key(&Path::new(SSH_HOME).join("id_ed25519"));
        fs::copy(format!("{key}.pub"), root.join("authorized_keys"))
            .expect("a key that may log in");
        sshd(root)
    },
    ask: log_in,
    says: Says::InAnswer,
    client: |answer| {
        let (client, connection) = answer.split_once('\n')?;
        let words: Vec<&str> = connection.split(' ').collect();
        let [address, port, own_address, own_port] = words[..] else {
            return None;
        };
        let own_address: IpAddr = own_address.parse().ok()?;
        let own = [SERVER_V4.into(), SERVER_V6.into()].contains(&own_address);
        let same = client == format!("{address} {port} {own_port}");
        let seen = Seen::parse(&format!("{address} {port}"));
        seen.filter(|_| own && own_port == V4.to_string() && same)
    },
    ..SSHD
};

/// The directory in which the client's ssh looks for root's keys.
const SSH_HOME: &str = "/root/.ssh";

/// Returns sshd's command. The configuration turns off sshd's penalties for sources
/// that often connect without a login.
fn sshd(root: &Path) -> Command {
    let key = new_key(&root.join("host_key"));
    fs::create_dir_all("/run/sshd").expect("sshd's empty directory");
    let configuration = format!(
        "Port {V4}\n\
         HostKey {key}\n\
         AuthorizedKeysFile {root}/authorized_keys\n\
         StrictModes no\n\
         PidFile none\n\
         LogLevel VERBOSE\n\
         UsePAM no\n\
         PerSourcePenalties no\n",
        root = root.display()
    );
    let file = configure(root, "sshd_config", &configuration);
    let mut command = Command::new("/usr/sbin/sshd");
    command.args(["-D", "-f", &file, "-E"]);
    command.arg(root.join("log"));
    command
}

/// Makes a key pair in place of an older one; returns the private key's path.
fn new_key(path: &Path) -> String {
    fs::create_dir_all(path.parent().expect("a directory")).expect("a directory for keys");
    let _ = fs::remove_file(path);
    let path = path.display().to_string();
    namespace::run(Command::new("ssh-keygen").args(["-q", "-t", "ed25519", "-N", "", "-f", &path]));
    path
}

/// Logs in over an existing connection, which ssh reaches through a UNIX socket.
fn log_in(stream: &mut TcpStream) -> String {
    let path = Path::new(SSH_HOME).join("connection");
    let _ = fs::remove_file(&path);
    let door = UnixListener::bind(&path).expect("a socket for ssh");
    let mut ssh = Command::new("ssh");
    ssh.args(["-F", "none", "-o", "BatchMode=yes", "-o", "LogLevel=ERROR"]);
    ssh.args([
        "-o",
        "StrictHostKeyChecking=no",
        "-o",
        "UserKnownHostsFile=/dev/null",
    ]);
    ssh.arg("-o")
        .arg(format!("ProxyCommand=nc -U {}", path.display()));
    ssh.args([
        "root@server",
        "echo \"$SSH_CLIENT\"; echo \"$SSH_CONNECTION\"",
    ]);
    thread::scope(|scope| {
        scope.spawn(|| {
            wait::ready(&door, PollFlags::POLLIN, "ssh at its door");
            let (inner, _) = door.accept().expect("ssh connects");
            join(stream, &inner);
        });
        namespace::run(&mut ssh).trim_end().to_owned()
    })
}

/// Copies in both directions until both have ended.
fn join(outer: &TcpStream, inner: &UnixStream) {
    thread::scope(|scope| {
        scope.spawn(|| {
            let _ = io::copy(&mut &*outer, &mut &*inner);
            let _ = inner.shutdown(Shutdown::Write);
        });
        let _ = io::copy(&mut &*inner, &mut &*outer);
        let _ = outer.shutdown(Shutdown::Write);
    });
}

/// Redis: `addr=ADDRESS:PORT` of CLIENT LIST.
pub const REDIS: Program = Program {
    listens: NOT_DUAL_STACK,
    mapped: Mapped::AsItIs,
    command: |root| redis(root, "no"),
    ready: "",
    ending: Signal::SIGTERM,
    ask: |stream| {
        send(stream, b"CLIENT LIST\r\nQUIT\r\n");
        read_to_end(stream)
    },
    says: Says::InAnswer,
    client: |answer| {
        let mut clients = answer
            .split_whitespace()
            .filter_map(|word| word.strip_prefix("addr="));
        let only = clients.next().filter(|_| clients.next().is_none());
        Seen::parse(only?)
    },
};

/// Redis as it is installed: without a password it serves loopback clients only.
pub const PROTECTED_REDIS: Program = Program {
    command: |root| redis(root, "yes"),
    ..REDIS
};

fn redis(root: &Path, protected_mode: &str) -> Command {
    let configuration = format!(
        "bind * -::*\n\
         port {V4}\n\
         protected-mode {protected_mode}\n\
         daemonize no\n\
         save \"\"\n\
         dir {}\n",
        root.display()
    );
    let file = configure(root, "redis.conf", &configuration);
    let mut command = Command::new("redis-server");
    command.arg(file);
    command
}

/// `get_extra_info("peername")`.
pub const ASYNCIO: Program = Program {
    listens: EACH,
    mapped: Mapped::AsItIs,
    command: |root| {
        let script = include_str!("../../servers/asyncio_server.py");
        let file = configure(root, "server.py", script);
        let mut command = Command::new("python3");
        command
            .arg(file)
            .args(EACH.iter().map(|(_, port)| port.to_string()));
        command
    },
    ready: "",
    ending: Signal::SIGTERM,
    ask: get,
    says: Says::InAnswer,
    client: Seen::parse,
};

/// A confined server: AppArmor's line in the kernel's log about a denied read.
pub const CONFINED: Program = Program {
    listens: EACH,
    mapped: Mapped::AsItIs,
    command: |root| {
        let script = include_str!("../../servers/confined_server.py");
        let file = configure(root, "server.py", script);
        let mut command = apparmor::confined("python3");
        command
            .args([&file, apparmor::SERVING])
            .args(EACH.iter().map(|(_, port)| port.to_string()));
        command
    },
    ready: "",
    ending: Signal::SIGTERM,
    ask: apparmor::denial,
    says: Says::InAnswer,
    client: apparmor::source,
};

/// Go's net/http, whose listeners are MPTCP sockets: `Request.RemoteAddr`, which is
/// accept's address. getpeername must return the same address.
pub const GO: Program = Program {
    listens: EACH,
    mapped: Mapped::AsIpv4,
    command: |_| {
        let mut command = Command::new("/toa/bin/toa-go-server");
        command.args(["tcp4".to_owned(), format!("0.0.0.0:{V4}")]);
        command.args(["tcp6".to_owned(), format!("[::]:{V6_ONLY}")]);
        command.args(["tcp".to_owned(), format!(":{DUAL_STACK}")]);
        command
    },
    ready: "",
    ending: Signal::SIGTERM,
    ask: get,
    says: Says::InAnswer,
    client: |answer| {
        let words: Vec<&str> = answer.split(' ').collect();
        let [accepted, peer, protocol] = words[..] else {
            return None;
        };
        assert_eq!(accepted, peer, "accept, getpeername");
        let expected = match sockets::has_mptcp() {
            true => libc::IPPROTO_MPTCP,
            false => libc::IPPROTO_TCP,
        };
        assert_eq!(protocol, expected.to_string(), "the listener's");
        Seen::parse(accepted)
    },
};

/// Node.js: `socket.remoteAddress` and `socket.remotePort`.
pub const NODE: Program = Program {
    listens: EACH,
    mapped: Mapped::AsItIs,
    command: |root| {
        let script = include_str!("../../servers/node_server.js");
        let file = configure(root, "server.js", script);
        let mut command = Command::new("node");
        command
            .arg(file)
            .args(EACH.iter().map(|(_, port)| port.to_string()));
        command
    },
    ready: "",
    ending: Signal::SIGTERM,
    ask: get,
    says: Says::InAnswer,
    client: Seen::parse,
};

/// Java's com.sun.net.httpserver, as `jwebserver` starts it; its log has no port.
pub const JAVA: Program = Program {
    listens: DUAL_STACK_ONLY,
    mapped: Mapped::AsIpv4,
    command: |root| {
        let mut command = Command::new("java");
        command.args([
            "-Xshare:auto",
            "-XX:TieredStopAtLevel=1",
            "-m",
            "jdk.httpserver",
        ]);
        command.args(["-b", "::", "-p", &DUAL_STACK.to_string(), "-d"]);
        command.arg(root);
        command
    },
    ready: "",
    ending: Signal::SIGTERM,
    ask: get,
    says: Says::InLog(super::OUTPUT, "\"GET "),
    client: |line| Seen::parse(line.split(' ').next()?),
};

/// Caddy: `{http.request.remote.host}` and `{http.request.remote.port}`.
/// Caddy's listeners are dual-stack ones, even for 0.0.0.0, as Go's are.
pub const CADDY: Program = Program {
    listens: DUAL_STACK_ONLY,
    mapped: Mapped::AsIpv4,
    command: |root| {
        let configuration = format!(
            "{{\n\
             \tadmin off\n\
             }}\n\
             http://:{DUAL_STACK} {{\n\
             \trespond \"{{http.request.remote.host}} {{http.request.remote.port}}\"\n\
             }}\n"
        );
        let file = configure(root, "Caddyfile", &configuration);
        let mut command = Command::new("caddy");
        command.args(["run", "--adapter", "caddyfile", "--config", &file]);
        command
    },
    ready: "",
    ending: Signal::SIGTERM,
    ask: get,
    says: Says::InAnswer,
    client: Seen::parse,
};

/// PostgreSQL: `pg_stat_activity` of the connection that runs the query.
pub const POSTGRESQL: Program = Program {
    listens: NOT_DUAL_STACK,
    mapped: Mapped::AsItIs,
    command: |root| postgresql(root, "host all all all trust\n"),
    ready: "database system is ready to accept connections",
    ending: Signal::SIGINT,
    ask: ask_postgresql,
    says: Says::InAnswer,
    client: Seen::parse,
};

/// PostgreSQL that trusts clients on its host, and no others.
pub const LOCAL_POSTGRESQL: Program = Program {
    command: |root| {
        let trust = "host all all samehost trust\n\
                     host all all 127.0.0.1/32 trust\n";
        postgresql(root, trust)
    },
    ..POSTGRESQL
};

fn postgresql(root: &Path, trust: &str) -> Command {
    let trust = configure(root, "pg_hba.conf", trust);
    let configuration = format!(
        "data_directory = '/var/lib/postgresql/17/main'\n\
         hba_file = '{trust}'\n\
         listen_addresses = '*'\n\
         port = {V4}\n\
         unix_socket_directories = ''\n\
         fsync = off\n"
    );
    configure(root, "postgresql.conf", &configuration);
    let mut command = Command::new("setpriv");
    command.args(["--reuid=postgres", "--regid=postgres", "--clear-groups"]);
    command.args(["/usr/lib/postgresql/17/bin/postgres", "-D"]);
    command.arg(root);
    command
}

/// Writes a file; gives its path.
pub fn configure(root: &Path, file: &str, text: &str) -> String {
    let path = root.join(file);
    fs::write(&path, text).expect("a file of configuration");
    path.display().to_string()
}

pub fn send(stream: &mut TcpStream, request: &[u8]) {
    stream.write_all(request).expect("the request goes out");
}

pub fn read_to_end(stream: &mut TcpStream) -> String {
    let mut answer = String::new();
    stream
        .read_to_string(&mut answer)
        .expect("the answer arrives");
    answer
}

/// Makes an HTTP request; returns the answer's body without the line's end.
pub fn get(stream: &mut TcpStream) -> String {
    send(stream, b"GET /index.html HTTP/1.0\r\nHost: toa\r\n\r\n");
    let answer = read_to_end(stream);
    let (head, body) = answer.split_once("\r\n\r\n").unwrap_or_default();
    let status = head.lines().next().unwrap_or_default();
    assert!(status.contains(" 200 "), "the server answers {answer:?}");
    body.trim_end().to_owned()
}

/// Queries "ADDRESS PORT" by PostgreSQL's protocol 3.0: start-up, simple query,
/// termination.
fn ask_postgresql(stream: &mut TcpStream) -> String {
    const QUERY: &[u8] = b"select host(client_addr) || ' ' || client_port \
        from pg_stat_activity where pid = pg_backend_pid()\0";
    let start = b"\0\x03\0\0user\0postgres\0database\0postgres\0\0";
    send(stream, &with_length(start));
    until_ready(stream);
    send(stream, &[b"Q", &with_length(QUERY)[..]].concat());
    let row = until_ready(stream).expect("the query gives a row");
    send(stream, &[b"X", &with_length(b"")[..]].concat());
    // Two bytes count the columns, four are the length of the only column.
    String::from_utf8_lossy(&row[6..]).into_owned()
}

/// The length counts itself.
pub fn with_length(content: &[u8]) -> Vec<u8> {
    let length = content.len() as u32 + 4;
    [&length.to_be_bytes(), content].concat()
}

/// Reads messages until ReadyForQuery; returns the last DataRow.
fn until_ready(stream: &mut TcpStream) -> Option<Vec<u8>> {
    let mut row = None;
    loop {
        let mut head = [0; 5];
        stream.read_exact(&mut head).expect("a message's head");
        let [kind, length @ ..] = head;
        let mut content = vec![0; u32::from_be_bytes(length) as usize - 4];
        stream.read_exact(&mut content).expect("a message");
        match kind {
            b'Z' => return row,
            b'D' => row = Some(content),
            b'E' => panic!("PostgreSQL answers {}", String::from_utf8_lossy(&content)),
            _ => {}
        }
    }
}
