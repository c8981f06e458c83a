// SPDX-License-Identifier: GPL-2.0

//! An hour of mixed traffic: connections through the balancer that live for some time, namespaces that
//! come and go with theirs, changes of the policy, readers, and a hostile wire. At the end each
//! connection has been counted, and the memory is as before.

use std::collections::VecDeque;
use std::panic::catch_unwind;
use std::panic::resume_unwind;
use std::panic::AssertUnwindSafe;
use std::sync::atomic::AtomicBool;
use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering;
use std::thread;
use std::thread::Scope;
use std::time::Duration;
use std::time::Instant;

use crate::arguments;
use crate::connections_file;
use crate::hostile_wire::HostileWire;
use crate::ktap::note;
use crate::memory::Memory;
use crate::net::Net;
use crate::net::Way;
use crate::runner::cases;
use crate::runner::Case;
use crate::sockets;
use crate::sockets::Accepted;
use crate::sockets::Client;
use crate::sockets::Family;
use crate::stats::Stats;
use crate::wait;

pub const CASES: &[Case] = cases![Loaded:
    hostile_segments_change_the_counters_as_their_options_say,
];

pub const LONG: &[Case] = cases![Loaded:
    mixed_traffic_is_counted_and_leaves_the_memory_as_it_was,
];

/// The conversations of the short run, and those between two looks at the counters.
const SHORT: u64 = 400;
const BATCH: u64 = 200;

fn hostile_segments_change_the_counters_as_their_options_say() {
    let mut wire = HostileWire::new(arguments::get().seed);
    for _ in 0..SHORT / BATCH {
        wire.run(BATCH);
    }
    note(&format!(
        "{} segments in {} conversations",
        wire.segments(),
        wire.conversations()
    ));
}

/// Connections that a client of the balancer has at one time.
const HELD: usize = 64;

/// Connections of a namespace that comes and goes.
const OF_A_NAMESPACE: u64 = 9;

/// The work of the threads, in numbers.
#[derive(Default)]
struct Done {
    stop: AtomicBool,
    segments: AtomicU64,
    conversations: AtomicU64,
    connections: AtomicU64,
    namespaces: AtomicU64,
    questions: AtomicU64,
    reads: AtomicU64,
}

impl Done {
    fn goes_on(&self) -> bool {
        !self.stop.load(Ordering::Relaxed)
    }

    /// Runs a thread until the time is over. If it panics, the others stop.
    fn spawn<'scope>(&'scope self, scope: &'scope Scope<'scope, '_>, work: fn(&Self)) {
        scope.spawn(move || {
            let outcome = catch_unwind(AssertUnwindSafe(|| work(self)));
            if let Err(cause) = outcome {
                self.stop.store(true, Ordering::Relaxed);
                resume_unwind(cause);
            }
        });
    }

    /// Sends hostile segments.
    fn be_hostile(&self) {
        let mut wire = HostileWire::new(arguments::get().seed);
        while self.goes_on() {
            wire.run(BATCH);
            self.segments.store(wire.segments(), Ordering::Relaxed);
            self.conversations
                .store(wire.conversations(), Ordering::Relaxed);
        }
    }

    /// Makes connections through the balancer, holds each while [`HELD`] others begin, and asks for
    /// their peers.
    fn connect(&self) {
        let net = Net::new();
        let listener = net.listen(Family::DualStack);
        let mut held: VecDeque<(Client, Accepted)> = VecDeque::new();
        let mut made = 0;
        let check = |accepted: &Accepted, client: &Client| {
            accepted.assert_shows(client.address);
            self.questions.fetch_add(1, Ordering::Relaxed);
        };
        for way in Way::ALL.into_iter().cycle().take_while(|_| self.goes_on()) {
            let (mut client, mut accepted) = net.pair(&listener, way);
            check(&accepted, &client);
            sockets::exchange(&mut client, &mut accepted);
            held.push_back((client, accepted));
            made += 1;
            self.connections.fetch_add(1, Ordering::Relaxed);
            if held.len() > HELD {
                let (mut client, mut accepted) = held.pop_front().expect("the oldest");
                check(&accepted, &client);
                match made % 3 {
                    0 => sockets::finish(&mut client, &mut accepted),
                    1 => sockets::reset_at_end(&client.stream),
                    _ => sockets::reset_at_end(&accepted.stream),
                }
            }
            if made % BATCH == 0 {
                let rows = connections_file::rows(&net.server).len();
                // A connection that was reset may have its record for a moment.
                assert!(
                    rows >= held.len(),
                    "{rows} rows of {} connections",
                    held.len()
                );
                self.reads.fetch_add(1, Ordering::Relaxed);
            }
        }
        for (client, accepted) in &held {
            check(accepted, client);
        }
        drop(held);
        net.wait_for_no_records();
        let stats = net.stats();
        let counted = ["syn_recv_sock_toa", "option_taken"].map(|row| stats.get(row));
        assert_eq!(counted, [made; 2]);
        assert_eq!(stats.connections(), made);
    }

    /// Makes and removes namespaces, each with connections and a policy.
    fn come_and_go(&self) {
        while self.goes_on() {
            let number = self.namespaces.fetch_add(1, Ordering::Relaxed);
            let net = Net::new();
            let believes = number % 3 != 0;
            if !believes {
                net.server.set_policy("trusted", "198.18.0.0/15");
            }
            let listener = net.listen(Family::DualStack);
            let ways = Way::ALL.into_iter().cycle().take(OF_A_NAMESPACE as usize);
            let pairs: Vec<_> = ways.map(|way| net.pair(&listener, way)).collect();
            for (client, accepted) in &pairs {
                match believes {
                    true => accepted.assert_shows(client.address),
                    false => accepted.assert_shows(net.balancer_of(accepted)),
                }
            }
            let outcome = if believes {
                "option_taken"
            } else {
                "untrusted"
            };
            let stats = net.stats();
            assert_eq!(stats.get(outcome), OF_A_NAMESPACE);
            assert_eq!(stats.connections(), OF_A_NAMESPACE);
        }
    }

    /// Reads the statistics of the first namespace, and its connections.
    fn read(&self) {
        while self.goes_on() {
            let stats = Stats::read_here().expect("the module is loaded");
            assert_eq!(stats.get("records_live"), 0);
            self.reads.fetch_add(1, Ordering::Relaxed);
            thread::park_timeout(Duration::from_millis(50));
        }
    }

    fn describe(&self) -> String {
        let get = |number: &AtomicU64| number.load(Ordering::Relaxed);
        format!(
            "{} hostile segments in {} conversations, {} connections through the balancer, {} \
             namespaces of {OF_A_NAMESPACE} connections, {} questions, {} reads",
            get(&self.segments),
            get(&self.conversations),
            get(&self.connections),
            get(&self.namespaces),
            get(&self.questions),
            get(&self.reads),
        )
    }
}

/// The time between two lines of progress, which the harness waits for.
const NOTED: Duration = Duration::from_secs(60);

/// Runs the threads until the time is over and so many hostile segments are sent.
fn traffic(time: Duration, segments: u64) -> Done {
    let done = Done::default();
    let start = Instant::now();
    thread::scope(|scope| {
        for work in [
            Done::be_hostile,
            Done::connect,
            Done::connect,
            Done::come_and_go,
            Done::read,
        ] {
            done.spawn(scope, work);
        }
        let is_over =
            || start.elapsed() >= time && done.segments.load(Ordering::Relaxed) >= segments;
        let mut noted = start;
        while done.goes_on() && !is_over() {
            thread::park_timeout(Duration::from_secs(1));
            if noted.elapsed() >= NOTED {
                noted = Instant::now();
                note(&done.describe());
            }
        }
        done.stop.store(true, Ordering::Relaxed);
    });
    note(&format!(
        "{} s: {}",
        start.elapsed().as_secs(),
        done.describe()
    ));
    done
}

/// The share of the time that the traffic runs before the memory is read: the kernel's caches grow at
/// first.
const WARM_UP: u32 = 12;

/// Objects by which a cache of the kernel grows in the first minutes.
const CACHES: i64 = 400;

fn mixed_traffic_is_counted_and_leaves_the_memory_as_it_was() {
    let arguments = arguments::get();
    traffic(arguments.time / WARM_UP, 0);
    let before = Memory::read();
    let done = traffic(arguments.time, arguments.segments);
    // A leak of a namespace is there as many times. In a short run the caches still grow.
    let least = (done.namespaces.load(Ordering::Relaxed) as i64 / 2).max(CACHES);
    // RCU frees memory some seconds later.
    wait::until("the memory is as before", || {
        let grown = Memory::read().grown(&before, least);
        grown
            .is_empty()
            .then_some(())
            .ok_or_else(|| format!("{grown:?}"))
    });
    note(&format!("grown: {:?}", Memory::read().grown(&before, 1)));
}
