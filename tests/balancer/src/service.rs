// SPDX-License-Identifier: GPL-2.0

//! A virtual server and its balancing options.

use std::net::SocketAddr;
use std::str::FromStr;

use crate::packet::Packet;
use crate::plan;
use crate::plan::Pad;
use crate::plan::Plan;

/// The client's segments that get the plan.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Segments {
    /// All segments that DPVS marks.
    All,
    /// The segments without payload that DPVS marks.
    AckOnly,
    /// The segments with payload that DPVS marks.
    DataOnly,
    /// The SYN alone.
    Syn,
}

/// The plan's place among the segment's own options.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Place {
    Front,
    Back,
    /// The plan replaces the segment's own options.
    Only,
}

/// One service, as `--service` describes it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Service {
    pub virtual_server: SocketAddr,
    pub real_server: SocketAddr,
    pub plan: Plan,
    pub segments: Segments,
    pub place: Place,
    pub lower_mss: bool,
    pub lose_ack: bool,
}

impl Service {
    /// Returns a service that behaves as DPVS does.
    pub fn new(virtual_server: SocketAddr, real_server: SocketAddr) -> Self {
        Self {
            virtual_server,
            real_server,
            plan: Plan::default(),
            segments: Segments::All,
            place: Place::Front,
            lower_mss: true,
            lose_ack: false,
        }
    }

    /// Returns whether a segment gets the plan. `expected` is the acknowledgement number
    /// of a client that has no data of the server yet.
    pub fn marks(&self, packet: &Packet<'_>, expected: Option<u32>) -> bool {
        let tcp = &packet.tcp;
        let early =
            !tcp.syn && !tcp.rst && expected.is_some_and(|ack| tcp.acknowledgment_number == ack);
        match self.segments {
            Segments::All => early,
            Segments::AckOnly => early && !packet.has_payload(),
            Segments::DataOnly => early && packet.has_payload(),
            Segments::Syn => packet.opens(),
        }
    }

    fn set(&mut self, key: &str, value: &str) -> Result<(), String> {
        match (key, value) {
            ("plan", items) => self.plan.items = plan::parse_items(items)?,
            ("kind", number) => {
                self.plan.kind = number
                    .parse()
                    .map_err(|_| format!("kind={number}: not a number up to 255"))?;
            }
            ("pad", "nop") => self.plan.pad = Pad::Nop,
            ("pad", "eol") => self.plan.pad = Pad::Eol,
            ("segments", "all") => self.segments = Segments::All,
            ("segments", "ack-only") => self.segments = Segments::AckOnly,
            ("segments", "data-only") => self.segments = Segments::DataOnly,
            ("segments", "syn") => self.segments = Segments::Syn,
            ("place", "front") => self.place = Place::Front,
            ("place", "back") => self.place = Place::Back,
            ("place", "only") => self.place = Place::Only,
            ("mss", "lower") => self.lower_mss = true,
            ("mss", "keep") => self.lower_mss = false,
            ("lose", "ack") => self.lose_ack = true,
            ("vip" | "rs", _) => return Err(format!("{key}= is given twice")),
            _ => return Err(format!("{key}={value}: see --help")),
        }
        Ok(())
    }

    fn check(self) -> Result<Self, String> {
        if self.virtual_server.is_ipv4() && self.real_server.is_ipv6() {
            return Err("an IPv4 client cannot have an IPv6 server".into());
        }
        match self.plan.render(self.virtual_server) {
            Some(_) => Ok(self),
            None => Err("the plan is longer than the 40 bytes of a header's options".into()),
        }
    }
}

impl FromStr for Service {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let (addresses, others): (Vec<_>, Vec<_>) = text
            .split(',')
            .map(|pair| pair.split_once('=').unwrap_or((pair, "")))
            .partition(|(key, _)| matches!(*key, "vip" | "rs"));
        let address = |key: &str| match &addresses[..] {
            [first, second] if first.0 != second.0 => {
                let value = if first.0 == key { first.1 } else { second.1 };
                value
                    .parse()
                    .map_err(|_| format!("{key}={value}: not an address and port"))
            }
            _ => Err("one vip=ADDR:PORT and one rs=ADDR:PORT are needed".to_owned()),
        };
        let mut service = Self::new(address("vip")?, address("rs")?);
        for (key, value) in others {
            service.set(key, value)?;
        }
        service.check()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::plan::Item;

    #[test]
    fn addresses_alone_mean_dpvs() {
        let service: Service = "vip=198.51.100.1:80,rs=10.9.1.1:8080"
            .parse()
            .expect("valid service");
        assert_eq!(
            service,
            Service::new(
                "198.51.100.1:80".parse().expect("valid address"),
                "10.9.1.1:8080".parse().expect("valid address")
            )
        );
        assert_eq!(service.plan.items, [Item::Client]);
    }

    #[test]
    fn every_key_counts() {
        let service: Service = "rs=10.9.1.1:80,plan=nop+toa,kind=253,pad=eol,segments=data-only,\
             place=back,mss=keep,lose=ack,vip=[2001:db8::1]:80"
            .parse()
            .expect("valid service");
        assert_eq!(service.plan.items, [Item::Raw(vec![1]), Item::Client]);
        assert_eq!((service.plan.kind, service.plan.pad), (253, Pad::Eol));
        assert_eq!(
            (service.segments, service.place),
            (Segments::DataOnly, Place::Back)
        );
        assert!(service.lose_ack && !service.lower_mss);
    }

    #[test]
    fn bad_services_are_refused() {
        let refused = |tail: &str| {
            let text = format!("vip=198.51.100.1:80,rs=10.9.1.1:80{tail}");
            text.parse::<Service>().expect_err(tail)
        };
        for tail in [
            ",",
            ",plan=",
            ",kind=256",
            ",segments=none",
            ",place=middle",
            ",vip=1.2.3.4:5",
            ",lose=all",
            ",mss=0",
            ",pad=0",
            ",what=ever",
        ] {
            assert!(!refused(tail).is_empty());
        }
        assert!(refused(",plan=toa+toa+toa+toa+toa+nop").contains("40 bytes"));
        for text in ["", "vip=1.2.3.4:80", "vip=1.2.3.4,rs=1.2.3.4:5"] {
            text.parse::<Service>().expect_err(text);
        }
        "vip=1.2.3.4:80,rs=[::1]:80"
            .parse::<Service>()
            .expect_err("NAT46");
    }
}
