// SPDX-License-Identifier: GPL-2.0

//! Sockets that are disconnected at the worst moment: while another thread asks for their peer, or
//! while the module removes its hooks one after the other. In the second case the sockets connect
//! again to the same 4-tuple.

use std::hint;
use std::net::IpAddr;
use std::net::SocketAddr;
use std::os::fd::AsRawFd;
use std::sync::atomic::AtomicBool;
use std::sync::atomic::AtomicUsize;
use std::sync::atomic::Ordering;
use std::thread;
use std::time::Duration;
use std::time::Instant;

use nix::errno::Errno;
use nix::poll::PollFlags;
use socket2::SockRef;

use crate::balancer::toa_option;
use crate::balancer::TOA_KIND;
use crate::held_load::HeldLoad;
use crate::ktap::note;
use crate::module;
use crate::namespace::Namespace;
use crate::net::Net;
use crate::net::CLIENT_V4;
use crate::net::CLIENT_V6;
use crate::net::PORT;
use crate::net::ROWS_WITH_CLIENT;
use crate::net::SERVER_V4;
use crate::net::SERVER_V6;
use crate::remote::Remote;
use crate::runner::cases;
use crate::runner::Case;
use crate::sockets::Accepted;
use crate::sockets::Family;
use crate::sockets::Listener;
use crate::sys;
use crate::sys::Call;
use crate::sys::Name;
use crate::sys::Place;
use crate::wait;

pub const LOADED: &[Case] = cases![Loaded:
    question_that_races_a_disconnect_shows_the_client_or_no_peer,
];

pub const CASES: &[Case] = cases![Unloaded:
    socket_that_reconnects_during_an_unload_never_shows_its_client_of_before,
    socket_that_reconnects_during_a_failed_load_never_shows_its_client_of_before,
];

/// Disconnects of the race, split among the rows.
const RACES: usize = 500;

/// Asks for a socket's peer until the socket has none, and some times more. Counts the questions.
fn ask_until_disconnected(
    ask: impl Fn() -> Result<Name, Errno>,
    asked: &AtomicUsize,
) -> Vec<Result<Name, Errno>> {
    let mut answers = Vec::new();
    loop {
        answers.push(ask());
        asked.fetch_add(1, Ordering::SeqCst);
        let over = answers.iter().filter(|answer| answer.is_err()).count();
        if over == 3 {
            return answers;
        }
    }
}

/// Disconnects the socket after `questions` questions of two threads, by getpeername and by
/// SO_PEERNAME. Returns the number of answers that showed the client.
#[track_caller]
fn race(accepted: &Accepted, client: &Name, questions: usize) -> usize {
    let fd = accepted.stream.as_raw_fd();
    let asked = &AtomicUsize::new(0);
    let answers = thread::scope(|scope| {
        let getpeername =
            move || sys::ask(Call::GetPeerName, fd, Place::AMPLE).map(|answer| answer.name);
        let length = client.length();
        let so_peername = move || sys::so_peername(fd, length);
        let askers = [
            scope.spawn(move || ask_until_disconnected(getpeername, asked)),
            scope.spawn(move || ask_until_disconnected(so_peername, asked)),
        ];
        while asked.load(Ordering::SeqCst) < questions {
            hint::spin_loop();
        }
        sys::disconnect(fd).expect("AF_UNSPEC");
        askers.map(|asker| asker.join().expect("it does not panic"))
    });
    let mut shown = 0;
    for answers in answers {
        let (with_client, rest) = answers.split_at(answers.len() - 3);
        assert_eq!(rest, [const { Err(Errno::ENOTCONN) }; 3]);
        for answer in with_client {
            assert_eq!(answer.as_ref(), Ok(client));
        }
        shown += with_client.len();
    }
    shown
}

fn question_that_races_a_disconnect_shows_the_client_or_no_peer() {
    let net = Net::new();
    let mut shown = 0;
    for (family, way) in ROWS_WITH_CLIENT {
        let listener = net.listen(family);
        for number in 0..RACES / ROWS_WITH_CLIENT.len() {
            let (client, accepted) = net.pair(&listener, way);
            let client = family.name(client.address);
            shown += race(&accepted, &client, 2 + number % 20);
        }
    }
    net.wait_for_no_records();
    note(&format!(
        "{RACES} disconnects, {shown} answers with the client before them"
    ));
}

/// Reconnects that begin and end during the removal of the hooks, in each of the tests.
const RECONNECTS: usize = 1000;

/// Sockets with a record that each server has when the removal of the hooks begins.
const SOCKETS: u16 = 60;

/// The first port of the far end.
const FAR: u16 = 4000;

/// A server on its own host, the far end of its connections, and the client that they name.
struct Server {
    family: Family,
    client: SocketAddr,
    remote: Remote,
    sockets: Vec<Accepted>,
    namespace: Namespace,
}

impl Server {
    fn new(family: Family, ipv6: bool, client: IpAddr) -> Self {
        let namespace = Namespace::new("server");
        namespace.ip(&format!(
            "addr add {SERVER_V4}/32 dev lo\n\
             addr add {SERVER_V6}/128 dev lo nodad\n"
        ));
        let remote = if ipv6 {
            Remote::v6(&namespace)
        } else {
            Remote::v4(&namespace)
        };
        Self {
            family,
            client: (client, 4660).into(),
            remote,
            sockets: Vec::new(),
            namespace,
        }
    }

    /// A server for each kind of socket and traffic.
    fn all() -> [Self; 5] {
        let (v4, v6) = (CLIENT_V4.into(), CLIENT_V6.into());
        [
            Self::new(Family::V4, false, v4),
            Self::new(Family::V6Only, true, v6),
            Self::new(Family::DualStack, false, v4),
            Self::new(Family::DualStack, true, v6),
            Self::new(Family::DualStack, false, v6),
        ]
    }

    /// Accepts connections that name the client.
    #[track_caller]
    fn prepare(&mut self) {
        self.sockets.clear();
        let listener = self.namespace.enter(|| Listener::new(self.family, PORT));
        let expected = self.family.name(self.client);
        for port in FAR..FAR + SOCKETS {
            self.remote
                .connect(port, 1000, &toa_option(TOA_KIND, self.client));
            let accepted = listener.accept().ending_by_reset();
            assert_eq!(accepted.name, expected, "accept");
            assert_eq!(accepted.peer(), expected, "getpeername");
            self.sockets.push(accepted);
        }
    }

    /// Disconnects the sockets and connects them again to the same address, until the hooks are
    /// removed. A socket with a record is due each `pace`, and sockets without one follow in
    /// between.
    #[track_caller]
    fn reconnect(&self, pace: Duration, hooks_go: &AtomicBool, counts: &Counts) {
        let begin = Instant::now();
        let mut with_record = (FAR..).zip(&self.sockets).peekable();
        let mut without = Vec::new();
        while hooks_go.load(Ordering::SeqCst) {
            let due = begin.elapsed() >= pace * without.len() as u32;
            let fresh = with_record.next_if(|_| due);
            let Some((port, accepted)) = fresh.or(without.last().copied()) else {
                continue;
            };
            if fresh.is_some() {
                without.push((port, accepted));
            }
            let shown = self.reconnect_one(port, accepted, fresh.is_some());
            // The whole reconnect was during the removal of the hooks.
            if hooks_go.load(Ordering::SeqCst) {
                counts.reconnects.fetch_add(1, Ordering::Relaxed);
                let fresh = usize::from(fresh.is_some());
                counts.with_record.fetch_add(fresh, Ordering::Relaxed);
            }
            if shown == self.family.name(self.client) {
                counts.stale.fetch_add(1, Ordering::Relaxed);
                continue;
            }
            let expected = self.family.name(self.remote.end(port));
            assert_eq!(shown, expected, "getpeername of {:?}", self.family);
        }
    }

    #[track_caller]
    fn reconnect_one(&self, port: u16, accepted: &Accepted, with_record: bool) -> Name {
        let socket = SockRef::from(&accepted.stream);
        let local = accepted.local().address().expect("an address");
        sys::disconnect(accepted.stream.as_raw_fd()).expect("AF_UNSPEC");
        // A socket keeps the port that it was bound to, not the one that it was accepted with.
        if with_record {
            socket.bind(&local.into()).expect("its own address");
        }
        socket.set_nonblocking(true).expect("O_NONBLOCK");
        let target = self.family.form(self.remote.end(port));
        let begun = socket.connect(&target.into()).expect_err("it takes time");
        assert_eq!(begun.raw_os_error(), Some(libc::EINPROGRESS));
        let _far = self.remote.accept(port);
        wait::ready(&accepted.stream, PollFlags::POLLOUT, "the connection");
        assert_eq!(socket.take_error().expect("SO_ERROR").map(|_| ()), None);
        assert_eq!(accepted.local().address(), Some(local), "the same end here");
        accepted.peer()
    }
}

/// The counts of all servers.
#[derive(Debug, Default)]
struct Counts {
    /// Reconnects that began and ended during the removal of the hooks.
    reconnects: AtomicUsize,
    /// The number of these reconnects whose socket had a record before the removal.
    with_record: AtomicUsize,
    /// Answers with the client of the previous connection.
    stale: AtomicUsize,
}

/// Reconnects sockets while `end` removes the hooks that `begin` has set, in several rounds.
#[track_caller]
fn check<T>(begin: impl Fn() -> T, end: impl Fn(T)) {
    let mut servers = Server::all();
    let counts = Counts::default();
    let mut rounds = 0;
    // The first round measures how long the removal of the hooks takes.
    let mut pace = Duration::ZERO;
    while counts.with_record.load(Ordering::Relaxed) < RECONNECTS {
        let hooks = begin();
        thread::scope(|scope| {
            for server in &mut servers {
                scope.spawn(|| server.prepare());
            }
        });
        let hooks_go = AtomicBool::new(true);
        thread::scope(|scope| {
            let (hooks_go, counts) = (&hooks_go, &counts);
            for server in &servers {
                scope.spawn(move || server.reconnect(pace, hooks_go, counts));
            }
            let begin = Instant::now();
            end(hooks);
            pace = begin.elapsed() / u32::from(SOCKETS);
            hooks_go.store(false, Ordering::SeqCst);
        });
        rounds += 1;
    }
    note(&format!(
        "{rounds} rounds, the last at {pace:?} for each socket: {counts:?}"
    ));
    assert_eq!(counts.stale.into_inner(), 0, "stale answers");
}

fn socket_that_reconnects_during_an_unload_never_shows_its_client_of_before() {
    check(module::load, |()| module::unload());
}

fn socket_that_reconnects_during_a_failed_load_never_shows_its_client_of_before() {
    check(HeldLoad::begin, |held| {
        assert_eq!(held.finish(), Err(Errno::EBUSY));
        assert!(!module::is_loaded());
    });
}
