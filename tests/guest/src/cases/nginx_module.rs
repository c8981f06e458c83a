// SPDX-License-Identifier: GPL-2.0

//! nginx, unmodified, with the modules of `nginx/`: an IPv4 listener shows its IPv6 clients. Also
//! the ways to show these clients without our modules.

use std::fs;
use std::io::BufRead;
use std::io::BufReader;
use std::io::Write;
use std::net::IpAddr;
use std::net::Ipv6Addr;
use std::net::SocketAddr;
use std::net::TcpListener;
use std::net::TcpStream;
use std::process::Command;
use std::sync::atomic::AtomicBool;
use std::sync::atomic::Ordering;
use std::thread;

use nix::sys::signal::kill;
use nix::sys::signal::Signal;
use nix::unistd::Pid;

use crate::balancer::Plan;
use crate::ktap::note;
use crate::module;
use crate::net;
use crate::net::Net;
use crate::net::Way;
use crate::net::CLIENT_V6;
use crate::nginx::ask;
use crate::nginx::curl;
use crate::nginx::with_tls;
use crate::nginx::Fetched;
use crate::nginx::Line;
use crate::nginx::Nginx;
use crate::nginx::Setup;
use crate::nginx::Suite;
use crate::proc_tcp;
use crate::proc_tcp::ESTABLISHED;
use crate::proc_tcp::SYN_RECV;
use crate::process::Process;
use crate::runner::cases;
use crate::runner::Case;
use crate::servers::wait_for_listener;
use crate::servers::Directory;
use crate::sockets;
use crate::sockets::Client;
use crate::wait;

pub const CASES: &[Case] = cases![Loaded:
    nginx_module_tells_each_kind_of_client,
    nginx_module_of_sid_tells_each_kind_of_client,
    nginx_module_gives_the_client_to_maps_and_proxied_servers,
    nginx_real_ip_makes_the_client_nginx_s_own,
    nginx_real_ip_lets_access_rules_and_limits_judge_the_client,
    nginx_real_ip_ends_with_each_request_of_a_kept_connection,
    nginx_real_ip_comes_before_all_that_evaluates_variables,
    nginx_real_ip_is_refused_where_it_would_act_too_late,
    nginx_real_ip_stays_in_redirects_and_subrequests,
    nginx_module_tells_the_client_of_http2_and_tls,
    nginx_module_tells_the_client_while_nginx_is_reloaded,
    nginx_module_tells_nobody_of_unix_and_quic_listeners,
    nginx_module_tells_the_client_of_a_request_that_broke_off,
    nginx_module_survives_malformed_requests,
    nginx_stream_module_tells_each_kind_of_client,
    nginx_stream_real_ip_lets_access_rules_and_limits_judge_the_client,
    nginx_stream_real_ip_sends_the_client_in_the_proxy_protocol,
    nginx_stream_real_ip_comes_before_nginx_s_realip,
    nginx_status_names_the_reason_why_no_client_is_known,
    nginx_without_our_module_shows_the_client_of_a_dual_stack_listener,
    haproxy_of_a_dual_stack_listener_forwards_the_client,
];

pub const UNLOADED: &[Case] = cases![Unloaded:
    nginx_module_without_toa_says_so_once_and_tells_nobody,
];

const HTTP: u16 = 80;
const DUAL_STACK: u16 = 81;
const TLS: u16 = 443;
const STREAM: u16 = 8090;

/// The ports that clients reach through the balancer. Other ports are for this host's own clients.
const PORTS: [u16; 4] = [HTTP, DUAL_STACK, TLS, STREAM];
const QUIC: u16 = 8443;
const BEHIND: u16 = 8180;
const BEHIND_PROXY_PROTOCOL: u16 = 8181;

/// The value of a variable without a client.
const NOBODY: &str = "-";

fn net() -> Net {
    Net::with_ports(&Plan::dpvs(), &PORTS)
}

/// Sends a request over a new connection, which the server ends.
#[track_caller]
fn visit(net: &Net, way: Way, port: u16, path: &str) -> SocketAddr {
    let mut client = net.connect_to_port(way, port);
    write!(client.stream, "GET {path} HTTP/1.0\r\n\r\n").expect("the request goes out");
    sockets::read_all(&mut client.stream);
    client.address
}

/// Checks that the variables show the client and a balancer.
#[track_caller]
fn assert_told(line: &Line, client: SocketAddr) {
    assert_eq!(line.client, client.ip().to_string(), "{line:?}");
    assert_eq!(line.client_port, client.port().to_string(), "{line:?}");
    assert!(is_balancer(&line.balancer), "{line:?}");
    let port = line.balancer_port.parse::<u16>();
    assert!(port.is_ok_and(|port| port != 0), "{line:?}");
    assert_eq!(line.known, "client", "{line:?}");
}

/// Checks that the variables show no client, for this reason.
#[track_caller]
fn assert_told_nobody(line: &Line, reason: &str) {
    let told = [
        &line.client,
        &line.client_port,
        &line.balancer,
        &line.balancer_port,
    ];
    assert_eq!(told, [NOBODY; 4], "{line:?}");
    assert_eq!(line.known, reason, "{line:?}");
}

fn is_balancer(text: &str) -> bool {
    text.parse::<IpAddr>().is_ok_and(net::is_local_address)
}

/// Checks that nginx's own variables show the client in place of the balancer.
#[track_caller]
fn assert_own(line: &Line, client: SocketAddr) {
    assert_eq!(line.remote, client.ip().to_string(), "{line:?}");
    assert_eq!(line.remote_port, client.port().to_string(), "{line:?}");
}

/// A virtual server's address for curl.
fn url(scheme: &str, way: Way, port: u16, path: &str) -> String {
    let host = SocketAddr::new(way.virtual_server(), port);
    format!("{scheme}://{host}{path}")
}

/// Runs curl on the client's host.
#[track_caller]
fn fetch(net: &Net, arguments: &[&str], way: Way, urls: &[String]) -> Vec<Fetched> {
    let source = way.client().to_string();
    let arguments = [&["--interface", &source], arguments].concat();
    net.client.enter(|| curl(&arguments, urls))
}

#[track_caller]
fn tells_each_kind_of_client(suite: Suite) {
    let net = net();
    let nginx = Nginx::start(
        &net,
        Setup {
            suite,
            http: "server { listen 80; listen [::]:80; return 204; }\n\
                   server { listen [::]:81 ipv6only=off; return 204; }",
            ports: &[HTTP, DUAL_STACK],
            ..Setup::default()
        },
    );
    let mut visits = 0;
    for port in [HTTP, DUAL_STACK] {
        for way in Way::ALL {
            let client = visit(&net, way, port, "/");
            visits += 1;
            let line = nginx.lines(visits).remove(visits - 1);
            assert_eq!(line.status, "204");
            assert_told(&line, client);
            let text = client.ip().to_string();
            match (port, way) {
                // An AF_INET socket's name has no room for an IPv6 client.
                (HTTP, Way::Nat64) => {
                    let nginx_s = (&line.remote, &line.remote_port);
                    assert_eq!(nginx_s, (&line.balancer, &line.balancer_port), "{line:?}");
                }
                (HTTP, _) | (_, Way::V6 | Way::Nat64) => assert_eq!(line.remote, text, "{line:?}"),
                (_, Way::V4) => assert_eq!(line.remote, format!("::ffff:{text}"), "{line:?}"),
            }
            note(&format!("{way:?} to port {port}: {line:?}"));
        }
    }
    nginx.assert_healthy();
    assert_eq!(nginx.errors("toa: "), [""; 0], "a notice");
}

fn nginx_module_tells_each_kind_of_client() {
    tells_each_kind_of_client(Suite::Trixie);
}

fn nginx_module_of_sid_tells_each_kind_of_client() {
    tells_each_kind_of_client(Suite::Sid);
}

fn nginx_module_gives_the_client_to_maps_and_proxied_servers() {
    let net = net();
    let nginx = Nginx::start(
        &net,
        Setup {
            http: "map $toa_remote_addr $known { default no; 2001:db8:7::7 yes; }\n\
                   limit_req_zone $toa_remote_addr zone=clients:1m rate=1r/m;\n\
                   server {\n\
                     listen 80;\n\
                     location /mapped { return 200 $known; }\n\
                     location /limited { limit_req zone=clients; }\n\
                     location / {\n\
                       proxy_pass http://127.0.0.1:8180;\n\
                       proxy_set_header X-Real-IP $toa_remote_addr;\n\
                       proxy_set_header X-Real-Port $toa_remote_port;\n\
                       proxy_set_header X-Balancer $toa_balancer_addr;\n\
                     }\n\
                   }\n\
                   server {\n\
                     listen 127.0.0.1:8180;\n\
                     return 200 \"$http_x_real_ip $http_x_real_port $http_x_balancer\";\n\
                   }",
            ports: &[HTTP, BEHIND],
            ..Setup::default()
        },
    );
    let mut client = net.connect_to_port(Way::Nat64, HTTP);
    assert_eq!(ask(&mut client.stream, "toa", "/mapped").body, "yes");
    let answer = ask(&mut client.stream, "toa", "/").body;
    let [address, port, balancer] = answer.split(' ').collect::<Vec<_>>()[..] else {
        panic!("{answer:?}");
    };
    assert_eq!(address, client.address.ip().to_string());
    assert_eq!(port, client.address.port().to_string());
    assert!(is_balancer(balancer), "{balancer}");
    let limited = |way| {
        let mut client: Client = net.connect_to_port(way, HTTP);
        ask(&mut client.stream, "toa", "/limited/index.html").status
    };
    // The file does not exist. The IPv4 client is a different client.
    assert_eq!(limited(Way::Nat64), 404);
    assert_eq!(limited(Way::Nat64), 503);
    assert_eq!(limited(Way::V4), 404);
    drop(client);
    nginx.assert_healthy();
}

fn nginx_real_ip_makes_the_client_nginx_s_own() {
    for suite in [Suite::Trixie, Suite::Sid] {
        let net = net();
        let nginx = Nginx::start(
            &net,
            Setup {
                suite,
                http: "toa_real_ip on;\n\
                       server { listen 80; listen [::]:80; return 204; }\n\
                       server { listen [::]:81 ipv6only=off; return 204; }",
                ports: &[HTTP, DUAL_STACK],
                ..Setup::default()
            },
        );
        for (index, way) in Way::ALL.into_iter().enumerate() {
            let client = visit(&net, way, HTTP, "/");
            let line = nginx.lines(index + 1).remove(index);
            assert_own(&line, client);
            assert_told(&line, client);
        }
        // A client that nginx sees without the module stays as nginx writes it.
        visit(&net, Way::V4, DUAL_STACK, "/");
        let line = nginx.lines(4).remove(3);
        assert_eq!(line.remote, "::ffff:203.0.113.7");
        nginx.assert_healthy();
    }
}

fn nginx_real_ip_lets_access_rules_and_limits_judge_the_client() {
    let net = net();
    let nginx = Nginx::start(
        &net,
        Setup {
            http: "limit_req_zone $binary_remote_addr zone=requests:1m rate=1r/m;\n\
                   server {\n\
                     listen 80;\n\
                     toa_real_ip on;\n\
                     location /denied { deny 2001:db8:7::7; allow all; try_files /index.html =404; }\n\
                     location /allowed { allow 2001:db8:7::7; deny all; try_files /index.html =404; }\n\
                     location /limited { limit_req zone=requests; try_files /index.html =404; }\n\
                     root ROOT;\n\
                   }\n\
                   server {\n\
                     listen 81;\n\
                     location /denied { deny 2001:db8:7::7; allow all; try_files /index.html =404; }\n\
                     location /allowed { allow 2001:db8:7::7; deny all; try_files /index.html =404; }\n\
                     root ROOT;\n\
                   }",
            ports: &[HTTP, DUAL_STACK],
            ..Setup::default()
        },
    );
    let status = |source: IpAddr, port, path| {
        let mut client = net.connect_from(source, Way::Nat64, port);
        ask(&mut client.stream, "toa", path).status
    };
    let client = CLIENT_V6.into();
    let other = "2001:db8:7::8".parse().expect("an address");
    assert_eq!(status(client, HTTP, "/denied"), 403);
    assert_eq!(status(client, HTTP, "/allowed"), 200);
    assert_eq!(status(other, HTTP, "/denied"), 200);
    assert_eq!(status(other, HTTP, "/allowed"), 403);
    // Without the directive the rules judge the balancer.
    assert_eq!(status(client, DUAL_STACK, "/denied"), 200);
    assert_eq!(status(client, DUAL_STACK, "/allowed"), 403);
    assert_eq!(status(client, HTTP, "/limited"), 200);
    assert_eq!(status(client, HTTP, "/limited"), 503);
    assert_eq!(status(other, HTTP, "/limited"), 200);
    assert_eq!(status(other, HTTP, "/limited"), 503);
    // Errors are logged with the client, too.
    let forbidden = nginx.errors("access forbidden by rule, client: 2001:db8:7::7, ");
    assert_eq!(forbidden.len(), 1, "{forbidden:?}");
    let limited = nginx.errors("limiting requests");
    assert!(
        limited[0].contains("client: 2001:db8:7::7, "),
        "{limited:?}"
    );
    nginx.assert_healthy();
}

fn nginx_real_ip_ends_with_each_request_of_a_kept_connection() {
    let net = net();
    let nginx = Nginx::start(
        &net,
        Setup {
            http: "server { listen 80; server_name on; toa_real_ip on; return 200 on; }\n\
                   server { listen 80; server_name off; return 200 off; }",
            ports: &[HTTP],
            ..Setup::default()
        },
    );
    let mut client = net.connect_to_port(Way::Nat64, HTTP);
    let hosts = ["on", "off", "on", "on", "off", "off"];
    for host in hosts {
        assert_eq!(ask(&mut client.stream, host, "/").body, host);
    }
    let lines = nginx.lines(hosts.len());
    for (line, host) in lines.iter().zip(hosts) {
        assert_eq!(line.connection, lines[0].connection);
        assert_told(line, client.address);
        match host {
            "on" => assert_own(line, client.address),
            _ => assert_eq!(line.remote, line.balancer, "{line:?}"),
        }
    }
    drop(client);
    nginx.assert_healthy();
}

fn nginx_real_ip_comes_before_all_that_evaluates_variables() {
    for suite in [Suite::Trixie, Suite::Sid] {
        let net = net();
        let nginx = Nginx::start(
            &net,
            Setup {
                suite,
                http: "map $remote_addr $judged { default other; 2001:db8:7::7 client; }\n\
                       server {\n\
                         listen 80;\n\
                         toa_real_ip on;\n\
                         set $server $judged;\n\
                         if ($remote_addr = 2001:db8:7::7) { set $if client; }\n\
                         location / {\n\
                           set $location $remote_addr;\n\
                           return 200 \"$server $if $location $judged $remote_port\";\n\
                         }\n\
                       }\n\
                       server { listen 81; set $if -; return 200 \"$judged $if\"; }",
                ports: &[HTTP, DUAL_STACK],
                ..Setup::default()
            },
        );
        let mut client = net.connect_to_port(Way::Nat64, HTTP);
        let port = client.address.port();
        let body = ask(&mut client.stream, "toa", "/").body;
        assert_eq!(body, format!("client client {CLIENT_V6} client {port}"));
        let mut client = net.connect_to_port(Way::Nat64, DUAL_STACK);
        assert_eq!(ask(&mut client.stream, "toa", "/").body, "other -");
        nginx.assert_healthy();
    }
}

fn nginx_real_ip_is_refused_where_it_would_act_too_late() {
    let net = net();
    let refusal = |suite, http: &str| {
        let setup = Setup {
            suite,
            http,
            ..Setup::default()
        };
        Nginx::refusal(&net, setup)
    };
    for suite in [Suite::Trixie, Suite::Sid] {
        for http in [
            "server { listen 80; location / { toa_real_ip on; return 204; } }",
            "server { listen 80; location / { if ($args) { toa_real_ip on; } return 204; } }",
            "server { listen 80; if ($args) { toa_real_ip on; } return 204; }",
        ] {
            let printed = refusal(suite, http);
            let sentence = "\"toa_real_ip\" directive belongs into the block \"server\" or \"http\": \
                            in \"location\" and \"if\" it would act after \"set\", \"return\" and \"map\" \
                            have used the balancer's address in ROOT/nginx.conf:";
            assert!(printed.contains(sentence), "{printed}");
        }
    }
    let printed = refusal(Suite::Trixie, "server { listen 80; toa_real_ip maybe; }");
    let sentence =
        "invalid value \"maybe\" in \"toa_real_ip\" directive, it must be \"on\" or \"off\"";
    assert!(printed.contains(sentence), "{printed}");
}

fn nginx_real_ip_stays_in_redirects_and_subrequests() {
    let net = net();
    let nginx = Nginx::start(
        &net,
        Setup {
            http: "toa_real_ip on;\n\
                   server {\n\
                     listen 80;\n\
                     root ROOT;\n\
                     location / { try_files /index.html =404; }\n\
                     location /away { try_files /none /there; }\n\
                     location /denied { error_page 403 =200 /there; deny all; }\n\
                     location /page { ssi on; ssi_types *; try_files /page =404; }\n\
                     location /part { proxy_pass http://127.0.0.1:8180; \
                       proxy_set_header X-Real-IP $remote_addr; }\n\
                   }\n\
                   server {\n\
                     listen 81;\n\
                     toa_real_ip off;\n\
                     root ROOT;\n\
                     location / { try_files /index.html =404; }\n\
                   }\n\
                   server { listen 127.0.0.1:8180; access_log off; return 200 $http_x_real_ip; }",
            ports: &[HTTP, DUAL_STACK, BEHIND],
            ..Setup::default()
        },
    );
    let part = "[<!--# include virtual=\"/part\" -->]";
    fs::write(nginx.path("page"), part).expect("a page with a part");
    let visits = [
        (HTTP, "/", true),
        (HTTP, "/away", true),
        (HTTP, "/denied", true),
        (DUAL_STACK, "/", false),
        (HTTP, "/", true),
    ];
    let mut kept = [HTTP, DUAL_STACK].map(|port| (port, net.connect_to_port(Way::Nat64, port)));
    for (index, (port, path, own)) in visits.into_iter().enumerate() {
        let client = kept.iter_mut().find(|(of, _)| *of == port);
        let (_, client) = client.expect("a connection to the port");
        assert_eq!(ask(&mut client.stream, "toa", path).status, 200, "{path}");
        let line = nginx.lines(index + 1).remove(index);
        assert_told(&line, client.address);
        match own {
            true => assert_own(&line, client.address),
            false => assert_eq!(line.remote, line.balancer, "{line:?}"),
        }
    }
    // nginx fetches a part of a page for the same client.
    let mut client = net.connect_to_port(Way::Nat64, HTTP);
    let address = client.address.ip();
    write!(client.stream, "GET /page HTTP/1.0\r\n\r\n").expect("the request goes out");
    let page = sockets::read_all(&mut client.stream);
    let page = String::from_utf8_lossy(&page).into_owned();
    assert!(page.ends_with(&format!("[{address}]")), "{page}");
    drop((client, kept));
    nginx.assert_healthy();
}

fn nginx_module_tells_the_client_of_http2_and_tls() {
    let net = net();
    let servers = with_tls(
        "server {\n\
           listen 443 ssl; listen 80; http2 on;\n\
           toa_real_ip on;\n\
           location / { try_files /index.html =404; }\n\
           root ROOT;\n\
         }",
    );
    let nginx = Nginx::start(
        &net,
        Setup {
            http: &servers,
            ports: &[HTTP, TLS],
            ..Setup::default()
        },
    );
    let runs = [
        ("http", HTTP, "--http2-prior-knowledge", "2", "HTTP/2.0"),
        ("https", TLS, "--http2", "2", "HTTP/2.0"),
        ("https", TLS, "--http1.1", "1.1", "HTTP/1.1"),
    ];
    let paths = ["/a", "/b", "/c"];
    let mut seen = 0;
    for (scheme, port, argument, version, protocol) in runs {
        let urls = paths.map(|path| url(scheme, Way::Nat64, port, path));
        let fetched = fetch(&net, &[argument], Way::Nat64, &urls);
        assert_eq!(fetched.len(), paths.len());
        let lines = nginx.lines(seen + paths.len()).split_off(seen);
        seen += paths.len();
        for ((line, fetched), path) in lines.iter().zip(&fetched).zip(paths) {
            assert_eq!((fetched.status, fetched.version.as_str()), (200, version));
            assert_eq!(
                (line.protocol.as_str(), line.uri.as_str()),
                (protocol, path)
            );
            assert_told(line, fetched.local);
            assert_own(line, fetched.local);
        }
        // All requests use one connection.
        assert!(fetched.iter().all(|one| one.local == fetched[0].local));
    }
    // Requests side by side show the client, too.
    let urls = [(); 8].map(|()| url("https", Way::Nat64, TLS, "/a"));
    let fetched = fetch(&net, &["--http2", "--parallel"], Way::Nat64, &urls);
    let lines = nginx.lines(seen + urls.len()).split_off(seen);
    for line in lines {
        let client = fetched
            .iter()
            .find(|one| one.local.port().to_string() == line.client_port);
        assert_own(&line, client.expect("one of curl's ports").local);
    }
    nginx.assert_healthy();
}

fn nginx_module_tells_the_client_while_nginx_is_reloaded() {
    const CLIENTS: usize = 3;
    const RELOADS: usize = 3;
    let net = net();
    let nginx = Nginx::start(
        &net,
        Setup {
            workers: 2,
            http: "server { listen 80; toa_real_ip on; return 204; }",
            ports: &[HTTP],
            ..Setup::default()
        },
    );
    let over = AtomicBool::new(false);
    let visited = thread::scope(|scope| {
        let clients = [(); CLIENTS].map(|()| {
            scope.spawn(|| {
                let mut visited = Vec::new();
                while !over.load(Ordering::Relaxed) {
                    visited.push(visit(&net, Way::Nat64, HTTP, "/"));
                }
                visited
            })
        });
        let end = End(&over);
        for _ in 0..RELOADS {
            let before = nginx.lines(0).len();
            nginx.reload();
            nginx.lines(before + 2 * CLIENTS);
        }
        drop(end);
        clients.map(|client| client.join().expect("a client"))
    });
    let visited: Vec<SocketAddr> = visited.into_iter().flatten().collect();
    let lines = nginx.lines(visited.len());
    for client in &visited {
        let port = client.port().to_string();
        let of_client: Vec<&Line> = lines
            .iter()
            .filter(|line| line.client_port == port)
            .collect();
        assert!(!of_client.is_empty(), "{client} is not in the log");
        for line in of_client {
            assert_eq!(line.remote, CLIENT_V6.to_string(), "{line:?}");
        }
    }
    for line in &lines {
        assert_eq!(line.client, CLIENT_V6.to_string(), "{line:?}");
    }
    note(&format!("{} requests, {RELOADS} reloads", visited.len()));
    nginx.assert_healthy();
}

/// Sets a flag when the value is dropped, even by a panic.
struct End<'a>(&'a AtomicBool);

impl Drop for End<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

fn nginx_module_tells_nobody_of_unix_and_quic_listeners() {
    let net = net();
    let servers = with_tls(
        "toa_real_ip on;\n\
         server { listen unix:ROOT/socket; return 204; }\n\
         server { listen 8443 quic; listen 443 ssl; return 204; }",
    );
    let nginx = Nginx::start(
        &net,
        Setup {
            http: &servers,
            stream: "log_format toa '$remote_addr $toa_remote_addr $toa_remote_port \
                     $toa_balancer_addr';\n\
                     access_log ROOT/stream.log toa;\n\
                     server { listen unix:ROOT/stream; return \"$toa_remote_addr\\n\"; }",
            ports: &[TLS],
            ..Setup::default()
        },
    );
    let socket = nginx.path("socket").display().to_string();
    let paths = ["http://toa/".to_owned(), "http://toa/".to_owned()];
    let mut by_unix = Command::new("curl");
    by_unix.args(["--silent", "--show-error", "--unix-socket", &socket]);
    crate::namespace::run(by_unix.args(&paths));
    let url = format!("https://127.0.0.1:{QUIC}/");
    let by_quic = net
        .server
        .enter(|| curl(&["--http3-only"], &[url.clone(), url]));
    assert!(by_quic.iter().all(|one| one.version == "3"), "{by_quic:?}");
    let lines = nginx.lines(4);
    for line in &lines {
        assert_eq!(line.status, "204");
        assert_told_nobody(line, "not_tcp");
    }
    let remotes = lines.iter().map(|line| line.remote.as_str());
    let expected = ["unix:", "unix:", "127.0.0.1", "127.0.0.1"];
    assert_eq!(remotes.collect::<Vec<_>>(), expected);
    assert_eq!(lines[3].protocol, "HTTP/3.0");

    let stream = std::os::unix::net::UnixStream::connect(nginx.path("stream"));
    let told = std::io::read_to_string(stream.expect("it listens")).expect("an answer");
    assert_eq!(told, "-\n");
    assert_eq!(nginx.raw_lines("stream.log", 1), ["unix: - - -"]);
    nginx.assert_healthy();
}

fn nginx_module_tells_the_client_of_a_request_that_broke_off() {
    let net = net();
    let nginx = Nginx::start(
        &net,
        Setup {
            http: "server { listen 80; location /quiet { access_log off; return 200 a; } }",
            ports: &[HTTP],
            ..Setup::default()
        },
    );
    let mut client = net.connect_to_port(Way::Nat64, HTTP);
    // No variable has been evaluated, but nginx has the connection.
    assert_eq!(ask(&mut client.stream, "toa", "/quiet").status, 200);
    client
        .stream
        .write_all(b"GET /half HTTP/1.1\r\nHo")
        .expect("half of a request goes out");
    sockets::reset_at_end(&client.stream);
    let address = client.address;
    drop(client);
    let line = nginx.lines(1).remove(0);
    assert_eq!((line.status.as_str(), line.uri.as_str()), ("400", "/half"));
    assert_told(&line, address);
    nginx.assert_healthy();
}

fn nginx_module_survives_malformed_requests() {
    let net = net();
    let nginx = Nginx::start(
        &net,
        Setup {
            http: "server { listen 80; http2 on; toa_real_ip on; return 204; }",
            ports: &[HTTP],
            ..Setup::default()
        },
    );
    let long = [b"GET /".as_slice(), &[b'a'; 40_000], b" HTTP/1.1\r\n\r\n"].concat();
    let malformed: [&[u8]; 8] = [
        b"\0\0\0\0\r\n\r\n",
        b"GET\r\n\r\n",
        b"GET / HTTP/9.9\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n",
        b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: -1\r\n\r\n",
        b"\x16\x03\x01\x02\0\x01\0\x01\xfc\x03\x03\r\n\r\n",
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\xff\xff\xff\xff\xff\xff\xff\xff\xff",
        &long,
    ];
    let workers = nginx.workers();
    assert_eq!(workers.len(), 1);
    for bytes in malformed {
        let mut client = net.connect_to_port(Way::Nat64, HTTP);
        client.stream.write_all(bytes).expect("the bytes go out");
        let _ = client.stream.shutdown(std::net::Shutdown::Write);
        let mut answer = Vec::new();
        let _ = std::io::Read::read_to_end(&mut client.stream, &mut answer);
    }
    let client = visit(&net, Way::Nat64, HTTP, "/good");
    let lines = nginx.lines(1);
    let lines = nginx.lines(lines.len());
    let good = lines.iter().find(|line| line.uri == "/good");
    assert_own(good.expect("it is logged"), client);
    for line in lines {
        assert_eq!(line.client, CLIENT_V6.to_string(), "{line:?}");
    }
    assert_eq!(nginx.workers(), workers);
    nginx.assert_healthy();
}

fn nginx_stream_module_tells_each_kind_of_client() {
    for suite in [Suite::Trixie, Suite::Sid] {
        let net = net();
        let nginx = Nginx::start(
            &net,
            Setup {
                suite,
                stream: "log_format toa '$remote_addr $toa_remote_addr $toa_remote_port \
                         $toa_balancer_addr';\n\
                         access_log ROOT/stream.log toa;\n\
                         map $toa_remote_addr $known { default no; 2001:db8:7::7 yes; }\n\
                         server { listen 8090; listen [::]:8090; \
                           return \"$known $toa_remote_addr $toa_remote_port\\n\"; }",
                ports: &[STREAM],
                ..Setup::default()
            },
        );
        for (index, way) in Way::ALL.into_iter().enumerate() {
            let mut client = net.connect_to_port(way, STREAM);
            let told = sockets::read_all(&mut client.stream);
            let (ip, port) = (client.address.ip(), client.address.port());
            let known = if ip.is_ipv6() { "yes" } else { "no" };
            let expected = format!("{known} {ip} {port}\n");
            assert_eq!(String::from_utf8_lossy(&told), expected);
            let line = nginx.raw_lines("stream.log", index + 1).remove(index);
            let [remote, client, client_port, balancer] = line.split(' ').collect::<Vec<_>>()[..]
            else {
                panic!("{line:?}");
            };
            assert_eq!(
                (client, client_port),
                (&*ip.to_string(), &*port.to_string())
            );
            assert!(is_balancer(balancer), "{line:?}");
            match way {
                Way::Nat64 => assert_eq!(remote, balancer),
                _ => assert_eq!(remote, client),
            }
        }
        nginx.assert_healthy();
    }
}

/// Returns what a stream server sends to a client from this address, until the server ends
/// the connection.
#[track_caller]
fn stream_answer(net: &Net, source: IpAddr, port: u16) -> String {
    let mut client = net.connect_from(source, Way::Nat64, port);
    String::from_utf8(sockets::read_all(&mut client.stream)).expect("text")
}

/// Another client than the one of `Way::Nat64`.
const OTHER_CLIENT: IpAddr = IpAddr::V6(Ipv6Addr::new(0x2001, 0xdb8, 7, 0, 0, 0, 0, 8));

fn nginx_stream_real_ip_lets_access_rules_and_limits_judge_the_client() {
    for suite in [Suite::Trixie, Suite::Sid] {
        let net = net();
        let behind = listen_behind(&net);
        let nginx = Nginx::start(
            &net,
            Setup {
                suite,
                stream: "limit_conn_zone $binary_remote_addr zone=one:1m;\n\
                         map $remote_addr $judged { default other; 2001:db8:7::7 client; }\n\
                         server { listen 80; toa_real_ip on; deny 2001:db8:7::7; \
                           return \"$judged\"; }\n\
                         server { listen 81; toa_real_ip on; allow 2001:db8:7::7; deny all; \
                           return \"$judged $server_addr\"; }\n\
                         server { listen 443; deny 2001:db8:7::7; return \"$judged $server_addr\"; }\n\
                         server { listen 8090; toa_real_ip on; limit_conn one 1; \
                           proxy_pass 127.0.0.1:8180; }",
                ports: &PORTS,
                ..Setup::default()
            },
        );
        let client = CLIENT_V6.into();
        assert_eq!(stream_answer(&net, client, HTTP), "");
        assert_eq!(stream_answer(&net, OTHER_CLIENT, HTTP), "other");
        let local = "::ffff:10.0.0.1";
        assert_eq!(
            stream_answer(&net, client, DUAL_STACK),
            format!("client {local}")
        );
        assert_eq!(stream_answer(&net, OTHER_CLIENT, DUAL_STACK), "");
        // Without the directive the rule judges the balancer.
        assert_eq!(stream_answer(&net, client, TLS), "other 10.0.0.1");
        // One connection for each client.
        let first = net.connect_to_port(Way::Nat64, STREAM);
        let (first_end, _) = behind.accept().expect("nginx connects");
        assert_eq!(stream_answer(&net, client, STREAM), "");
        let other = net.connect_from(OTHER_CLIENT, Way::Nat64, STREAM);
        let (other_end, _) = behind.accept().expect("nginx connects");
        // Errors are logged with the client, too.
        for text in ["access forbidden by rule", "limiting connections"] {
            let found = nginx.errors(text);
            assert!(found[0].contains("client: 2001:db8:7::7, "), "{found:?}");
        }
        drop((first_end, other_end, first, other));
        nginx.assert_healthy();
    }
}

/// Starts a server behind nginx, which only listens.
#[track_caller]
fn listen_behind(net: &Net) -> TcpListener {
    let listener = net
        .server
        .enter(|| TcpListener::bind(("127.0.0.1", BEHIND)));
    listener.expect("the port is free")
}

/// Reads one line from a connection that nginx makes to the server behind it.
#[track_caller]
fn first_line(behind: &TcpListener) -> String {
    let (stream, _) = behind.accept().expect("nginx connects");
    let mut line = String::new();
    BufReader::new(stream)
        .read_line(&mut line)
        .expect("nginx sends a line");
    line
}

fn nginx_stream_real_ip_sends_the_client_in_the_proxy_protocol() {
    for suite in [Suite::Trixie, Suite::Sid] {
        let net = net();
        let behind = listen_behind(&net);
        let nginx = Nginx::start(
            &net,
            Setup {
                suite,
                stream: "proxy_protocol on;\n\
                         log_format toa '$remote_addr $remote_port $toa_balancer_addr \
                           $toa_balancer_port';\n\
                         access_log ROOT/stream.log toa;\n\
                         server { listen 80; listen [::]:80; proxy_pass 127.0.0.1:8180; }\n\
                         server { listen 81; listen [::]:81; toa_real_ip on; \
                           proxy_pass 127.0.0.1:8180; }\n\
                         server { listen 8090; toa_real_ip on; proxy_pass 127.0.0.1:8181; }",
                ports: &[HTTP, DUAL_STACK, STREAM],
                ..Setup::default()
            },
        );
        let header = |way: Way, port| {
            let client = net.connect_to_port(way, port);
            let line = first_line(&behind);
            (client.address, line)
        };
        let (_, before) = header(Way::Nat64, HTTP);
        let fields: Vec<&str> = before.split(' ').collect();
        assert_eq!((fields[0], fields[1]), ("PROXY", "TCP4"), "{before}");
        assert!(is_balancer(fields[2]), "{before}");
        let (client, after) = header(Way::Nat64, DUAL_STACK);
        let port = client.port();
        let expected = format!("PROXY TCP6 {CLIENT_V6} ::ffff:10.0.0.1 {port} 81\r\n");
        assert_eq!(after, expected);
        note(&format!("before: {before:?}, after: {after:?}"));
        for (way, family, server) in [(Way::V4, "TCP4", "10.0.0.1"), (Way::V6, "TCP6", "fd00::1")] {
            let (client, line) = header(way, DUAL_STACK);
            let (ip, port) = (client.ip(), client.port());
            assert_eq!(line, format!("PROXY {family} {ip} {server} {port} 81\r\n"));
        }
        // A parser that compares both addresses with the family accepts the header.
        let source = format!(
            "frontend source\n\
             \tbind 127.0.0.1:{BEHIND_PROXY_PROTOCOL} accept-proxy\n\
             \thttp-request return status 200 content-type text/plain \
             lf-string \"%[src] %[src_port]\"\n"
        );
        let _haproxy = haproxy(&net, &source, &[BEHIND_PROXY_PROTOCOL]);
        let mut client = net.connect_to_port(Way::Nat64, STREAM);
        write!(client.stream, "GET / HTTP/1.0\r\n\r\n").expect("the request goes out");
        let answer = sockets::read_all(&mut client.stream);
        let answer = String::from_utf8_lossy(&answer).into_owned();
        let expected = format!("\r\n\r\n{CLIENT_V6} {}", client.address.port());
        assert!(answer.ends_with(&expected), "{answer}");
        drop(client);
        let lines = nginx.raw_lines("stream.log", 5);
        let nat64: Vec<&str> = lines[1].split(' ').collect();
        assert_eq!(nat64[..2], [&*CLIENT_V6.to_string(), &*port.to_string()]);
        assert!(is_balancer(nat64[2]), "{lines:?}");
        let balancer: Vec<&str> = lines[0].split(' ').collect();
        assert_eq!(balancer[..2], balancer[2..], "{lines:?}");
        nginx.assert_healthy();
    }
}

/// Starts haproxy with the test's part of the configuration.
#[track_caller]
fn haproxy(net: &Net, configuration: &str, ports: &[u16]) -> (Process, Directory) {
    let directory = Directory::new(&net.server, "haproxy");
    let file = directory.0.join("haproxy.cfg");
    let defaults = "defaults\n\
         \tmode http\n\
         \ttimeout client 10s\n\
         \ttimeout connect 10s\n\
         \ttimeout server 10s\n";
    fs::write(&file, format!("{defaults}{configuration}")).expect("haproxy's configuration");
    let mut command = Command::new("haproxy");
    command.arg("-db").arg("-f").arg(&file);
    let process = Process::start_in(&net.server, &mut command, Signal::SIGTERM);
    for port in ports {
        wait_for_listener(&net.server, *port);
    }
    (process, directory)
}

fn nginx_stream_real_ip_comes_before_nginx_s_realip() {
    for suite in [Suite::Trixie, Suite::Sid] {
        let net = net();
        let nginx = Nginx::start(
            &net,
            Setup {
                suite,
                stream: "server {\n\
                           listen 8090 proxy_protocol;\n\
                           toa_real_ip on;\n\
                           set_real_ip_from 2001:db8:7::7;\n\
                           return \"$remote_addr $realip_remote_addr $toa_remote_addr\";\n\
                         }",
                ports: &[STREAM],
                ..Setup::default()
            },
        );
        let answer = |source: IpAddr| {
            let mut client = net.connect_from(source, Way::Nat64, STREAM);
            write!(
                client.stream,
                "PROXY TCP6 2001:db8:9::9 2001:db8::1 1 2\r\n"
            )
            .expect("the header goes out");
            String::from_utf8(sockets::read_all(&mut client.stream)).expect("text")
        };
        // The proxy in front of the balancer is believed, and another client is not.
        let proxy: IpAddr = CLIENT_V6.into();
        assert_eq!(answer(proxy), format!("2001:db8:9::9 {proxy} {proxy}"));
        let other = OTHER_CLIENT;
        assert_eq!(answer(other), format!("{other} {other} {other}"));
        nginx.assert_healthy();
    }
}

/// A process that does not run until this value is dropped.
struct Stopped(Pid);

impl Stopped {
    #[track_caller]
    fn new(process: &str) -> Self {
        let process = Pid::from_raw(process.parse().expect("a process id"));
        kill(process, Signal::SIGSTOP).expect("the process runs");
        Self(process)
    }
}

impl Drop for Stopped {
    fn drop(&mut self) {
        kill(self.0, Signal::SIGCONT).expect("the process runs");
    }
}

fn nginx_status_names_the_reason_why_no_client_is_known() {
    let net = net();
    let nginx = Nginx::start(
        &net,
        Setup {
            http: "server { listen 80; return 200 a; }",
            stream: "log_format toa '$toa_remote_addr $toa_status';\n\
                     access_log ROOT/stream.log toa;\n\
                     server { listen 8090; return \"$toa_status\"; }",
            ports: &[HTTP, STREAM],
            ..Setup::default()
        },
    );
    assert_eq!(stream_answer(&net, CLIENT_V6.into(), STREAM), "client");
    // A connection past the balancer.
    let connect = |port| {
        let direct = (Way::V4.real_server(), port);
        net.server.enter(|| TcpStream::connect(direct))
    };
    let mut direct = connect(HTTP).expect("it connects");
    assert_eq!(ask(&mut direct, "toa", "/").body, "a");
    assert_told_nobody(&nginx.lines(1)[0], "no_option");
    let mut direct = connect(STREAM).expect("it connects");
    assert_eq!(sockets::read_all(&mut direct), b"no_option");
    // The client resets the connection before nginx accepts it.
    let stopped = Stopped::new(&nginx.workers()[0]);
    let client = net.connect_to_port(Way::Nat64, STREAM);
    sockets::reset_at_end(&client.stream);
    drop(client);
    wait::until("the end of the connection", || {
        let mut open = proc_tcp::rows(&net.server);
        open.retain(|row| [ESTABLISHED, SYN_RECV].contains(&row.state));
        open.retain(|row| row.local.port() == STREAM);
        match open.is_empty() {
            true => Ok(()),
            false => Err(format!("{open:?}")),
        }
    });
    drop(stopped);
    let lines = nginx.raw_lines("stream.log", 3);
    assert_eq!(lines[2], "- closed");
    drop(direct);
    nginx.assert_healthy();
}

fn nginx_without_our_module_shows_the_client_of_a_dual_stack_listener() {
    let net = net();
    let nginx = Nginx::start(
        &net,
        Setup {
            modules: false,
            http: "server { listen 80; return 204; }\n\
                   server { listen [::]:81 ipv6only=off; return 204; }",
            ports: &[HTTP, DUAL_STACK],
            ..Setup::default()
        },
    );
    visit(&net, Way::Nat64, HTTP, "/");
    let client = visit(&net, Way::Nat64, DUAL_STACK, "/");
    let lines = nginx.lines(2);
    assert!(is_balancer(&lines[0].remote), "{lines:?}");
    assert_own(&lines[1], client);
    note(&format!("{lines:?}"));
}

fn haproxy_of_a_dual_stack_listener_forwards_the_client() {
    let net = net();
    let nginx = Nginx::start(
        &net,
        Setup {
            modules: false,
            http: "log_format forwarded '$http_x_forwarded_for $proxy_protocol_addr \
                   $proxy_protocol_port';\n\
                   access_log ROOT/forwarded.log forwarded;\n\
                   server { listen 127.0.0.1:8180; return 204; }\n\
                   server { listen 127.0.0.1:8181 proxy_protocol; return 204; }",
            ports: &[BEHIND, BEHIND_PROXY_PROTOCOL],
            ..Setup::default()
        },
    );
    let listeners = format!(
        "listen header\n\
         \toption forwardfor\n\
         \tbind :::{HTTP} v4v6\n\
         \tserver nginx 127.0.0.1:{BEHIND}\n\
         listen proxy\n\
         \toption forwardfor\n\
         \tbind :::{DUAL_STACK} v4v6\n\
         \tserver nginx 127.0.0.1:{BEHIND_PROXY_PROTOCOL} send-proxy\n"
    );
    let _haproxy = haproxy(&net, &listeners, &[HTTP, DUAL_STACK]);
    visit(&net, Way::Nat64, HTTP, "/");
    let client = visit(&net, Way::Nat64, DUAL_STACK, "/");
    let lines = nginx.raw_lines("forwarded.log", 2);
    let (ip, port) = (client.ip(), client.port());
    assert_eq!(lines, [format!("{ip} - -"), format!("{ip} {ip} {port}")]);
    note(&format!("{lines:?}"));
}

fn nginx_module_without_toa_says_so_once_and_tells_nobody() {
    let net = net();
    let nginx = Nginx::start(
        &net,
        Setup {
            workers: 2,
            // The default level of nginx.
            level: "error",
            http: "toa_real_ip on;\n\
                   server { listen 80; return 204; }",
            stream: "server { listen 8090; return \"$toa_remote_addr $toa_remote_port \
                     $toa_balancer_addr\\n\"; }",
            ports: &[HTTP, STREAM],
            ..Setup::default()
        },
    );
    for requests in 1..=3 {
        visit(&net, Way::Nat64, HTTP, "/");
        let line = nginx.lines(requests).remove(requests - 1);
        assert_told_nobody(&line, "no_module");
        assert!(is_balancer(&line.remote), "{line:?}");
    }
    let told = |net: &Net| {
        let mut client = net.connect_to_port(Way::Nat64, STREAM);
        String::from_utf8_lossy(&sockets::read_all(&mut client.stream)).into_owned()
    };
    assert_eq!(told(&net), "- - -\n");
    let said = || nginx.errors("toa: ");
    assert_eq!(said().len(), 1, "{:?}", said());
    note(&said().remove(0));
    // nginx needs no restart after toa is loaded.
    module::load();
    let client = visit(&net, Way::Nat64, HTTP, "/");
    let line = nginx.lines(4).remove(3);
    assert_told(&line, client);
    assert_own(&line, client);
    let answer = told(&net);
    assert!(answer.starts_with(&format!("{CLIENT_V6} ")), "{answer}");
    net.wait_for_no_records();
    module::unload();
    // A reload of the configuration does not repeat the message.
    nginx.reload();
    visit(&net, Way::Nat64, HTTP, "/");
    assert_told_nobody(&nginx.lines(5)[4], "no_module");
    let logged = nginx.errors("toa: ");
    assert_eq!(logged.len(), 1, "{logged:?}");
    nginx.assert_healthy();
}
