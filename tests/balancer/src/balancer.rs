// SPDX-License-Identifier: GPL-2.0

//! The balancer's decision on each packet, without input, output or a clock.

use std::fmt;
use std::net::SocketAddr;
use std::time::Duration;
use std::time::Instant;

use fastrand::Rng;
use ipnet::IpNet;
use rustc_hash::FxHashMap;

use crate::flow::Flow;
use crate::local::LocalAddresses;
use crate::options;
use crate::options::Options;
use crate::packet::Packet;
use crate::packet::Unfit;
use crate::service::Place;
use crate::service::Service;
use crate::session::Session;
use crate::session::Sessions;
use crate::session::Side;
use crate::statistics::Statistics;

/// The parameters of a balancer.
#[derive(Clone, Debug)]
pub struct Config {
    pub services: Vec<Service>,
    pub local: Vec<IpNet>,
    pub mtu: usize,
    pub grace: Duration,
    /// Seed of the sequence numbers' shifts.
    pub seed: u64,
}

/// A configuration that cannot work.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum BadConfig {
    /// Two services have this virtual server.
    Twice(SocketAddr),
    /// This real server's family has no local address.
    NoLocalAddress(SocketAddr),
}

impl fmt::Display for BadConfig {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Twice(vip) => write!(f, "two services have vip={vip}"),
            Self::NoLocalAddress(server) => {
                write!(f, "rs={server} needs a --lip of the same family")
            }
        }
    }
}

impl std::error::Error for BadConfig {}

/// The reason for which the plan does not fit into an unchanged segment.
enum Misfit {
    NoRoom,
    MtuExcess,
}

/// The services, the sessions and the counters.
#[derive(Debug)]
pub struct Balancer {
    services: Vec<Service>,
    by_virtual_server: FxHashMap<SocketAddr, usize>,
    local: LocalAddresses,
    sessions: Sessions,
    mtu: usize,
    random: Rng,
    /// The buffer of the next outgoing packet.
    out: Vec<u8>,
    pub statistics: Statistics,
}

impl Balancer {
    pub fn new(config: Config) -> Result<Self, BadConfig> {
        let local = LocalAddresses::new(&config.local);
        let mut by_virtual_server = FxHashMap::default();
        for (index, service) in config.services.iter().enumerate() {
            if !local.serves(service.real_server) {
                return Err(BadConfig::NoLocalAddress(service.real_server));
            }
            if by_virtual_server
                .insert(service.virtual_server, index)
                .is_some()
            {
                return Err(BadConfig::Twice(service.virtual_server));
            }
        }
        Ok(Self {
            services: config.services,
            by_virtual_server,
            local,
            sessions: Sessions::new(config.grace),
            mtu: config.mtu,
            random: Rng::with_seed(config.seed),
            out: Vec::new(),
            statistics: Statistics::default(),
        })
    }

    /// Rewrites a client's packet for the real server, or drops it.
    pub fn pass_to_server(&mut self, bytes: &[u8], now: Instant) -> Option<&[u8]> {
        let mut packet = self.parse(bytes)?;
        let id = self.session_of_client(&packet, now)?;
        let session = self.sessions.get_mut(id);
        if session.losing_acks {
            session.losing_acks = packet.opens() || packet.is_bare_ack();
            if packet.is_bare_ack() {
                self.statistics.lost += 1;
                return None;
            }
        }
        if packet.opens() {
            options::remove_timestamps(packet.tcp.options.as_mut_slice());
        }
        let (shift, expected, flow) = (session.shift, session.expected_ack, session.server);
        packet.readdress(flow);
        if self.services[session.service].marks(&packet, expected) {
            self.insert_plan(&mut packet, id);
        }
        packet.tcp.sequence_number = packet.tcp.sequence_number.wrapping_add(shift);
        self.sessions.observe(id, &packet, Side::Client, now);
        self.statistics.from_client += 1;
        self.written(packet)
    }

    /// Rewrites a real server's packet for the client, or drops it.
    pub fn pass_to_client(&mut self, bytes: &[u8], now: Instant) -> Option<&[u8]> {
        let mut packet = self.parse(bytes)?;
        let Some(id) = self.sessions.of_server(packet.flow()) else {
            self.statistics.unknown += 1;
            return None;
        };
        let session = self.sessions.get_mut(id);
        let tcp = &mut packet.tcp;
        tcp.acknowledgment_number = tcp.acknowledgment_number.wrapping_sub(session.shift);
        options::shift_sack_back(tcp.options.as_mut_slice(), session.shift);
        if tcp.syn && tcp.ack {
            session.expected_ack = Some(tcp.sequence_number.wrapping_add(1));
            if self.services[session.service].lower_mss {
                options::lower_mss(tcp.options.as_mut_slice(), session.inserted.len() as u16);
            }
        }
        packet.readdress(session.client.reversed());
        self.sessions.observe(id, &packet, Side::Server, now);
        self.statistics.from_server += 1;
        self.written(packet)
    }

    /// Returns the number of sessions: open connections and recently closed ones.
    pub fn live(&self) -> usize {
        self.sessions.count()
    }

    fn parse<'a>(&mut self, bytes: &'a [u8]) -> Option<Packet<'a>> {
        match Packet::parse(bytes) {
            Ok(packet) => return Some(packet),
            Err(Unfit::NotTcp) => self.statistics.not_tcp += 1,
            Err(Unfit::Malformed) => self.statistics.malformed += 1,
        }
        None
    }

    fn written(&mut self, packet: Packet<'_>) -> Option<&[u8]> {
        if packet.write(&mut self.out).is_none() {
            self.statistics.malformed += 1;
            return None;
        }
        Some(&self.out)
    }

    fn session_of_client(&mut self, packet: &Packet<'_>, now: Instant) -> Option<usize> {
        let flow = packet.flow();
        let found = self.sessions.of_client(&flow, packet.opens());
        if found.is_some() {
            return found;
        }
        if !packet.opens() {
            self.statistics.unknown += 1;
            return None;
        }
        self.sessions.expire(now);
        self.open_session(flow)
    }

    fn open_session(&mut self, client: Flow) -> Option<usize> {
        let Some(&index) = self.by_virtual_server.get(&client.to()) else {
            self.statistics.no_service += 1;
            return None;
        };
        let service = &self.services[index];
        let sessions = &self.sessions;
        let taken = |flow: &Flow| sessions.is_taken(flow);
        let Some(server) = self.local.choose(service.real_server, taken) else {
            self.statistics.no_local_port += 1;
            return None;
        };
        let inserted = service.plan.render(client.from()).unwrap_or_default();
        let shift = self.random.u32(..);
        let mut session = Session::new(client, server, index, inserted, shift);
        session.losing_acks = service.lose_ack;
        self.statistics.connections += 1;
        Some(self.sessions.insert(session))
    }

    /// Inserts the plan into a segment that already has its new addresses. If cutting
    /// options did not help, they stay cut, as in DPVS.
    fn insert_plan(&mut self, packet: &mut Packet<'_>, id: usize) {
        let session = self.sessions.get_mut(id);
        let service = &self.services[session.service];
        let inserted = &session.inserted;
        if inserted.is_empty() {
            return;
        }
        let statistics = &mut self.statistics;
        let mut result = insert(packet, inserted, service.place, self.mtu);
        match result {
            Ok(()) => {}
            Err(Misfit::NoRoom) => statistics.no_room += 1,
            Err(Misfit::MtuExcess) => statistics.mtu_excess += 1,
        }
        if result.is_err() && !packet.tcp.syn {
            let before = packet.tcp.options.len();
            let left = options::prune(
                packet.tcp.options.as_slice(),
                inserted.len(),
                service.plan.kind,
            );
            set_options(packet, &left);
            if before - left.len() >= inserted.len() {
                result = insert(packet, inserted, service.place, self.mtu);
                statistics.pruned += u64::from(result.is_ok());
            }
        }
        match result {
            Ok(()) => statistics.option_inserted += 1,
            Err(_) => statistics.forwarded_without += 1,
        }
    }
}

/// Inserts the bytes among the packet's own options, or leaves the packet unchanged.
fn insert(
    packet: &mut Packet<'_>,
    inserted: &Options,
    place: Place,
    mtu: usize,
) -> Result<(), Misfit> {
    let own: Options = match place {
        Place::Only => Options::new(),
        Place::Front | Place::Back => packet.tcp.options.as_slice().iter().copied().collect(),
    };
    let length = packet.length() - packet.tcp.options.len() + own.len() + inserted.len();
    if length > mtu {
        return Err(Misfit::MtuExcess);
    }
    let (mut options, last) = match place {
        Place::Front | Place::Only => (inserted.clone(), &own),
        Place::Back => (own, inserted),
    };
    options
        .try_extend_from_slice(last)
        .map_err(|_| Misfit::NoRoom)?;
    set_options(packet, &options);
    Ok(())
}

fn set_options(packet: &mut Packet<'_>, options: &Options) {
    packet
        .tcp
        .set_options_raw(options)
        .expect("40 bytes at the most");
}
