// SPDX-License-Identifier: GPL-2.0

//! The segments on the wire to the server, which prove that the other tests test what they claim.
//! The capture of each way through the balancer is kept.

use std::fs;
use std::path::Path;

use crate::balancer;
use crate::balancer::toa_option;
use crate::balancer::TOA_KIND;
use crate::capture::Capture;
use crate::capture::Segment;
use crate::net;
use crate::net::Net;
use crate::net::Way;
use crate::net::PORT;
use crate::runner::cases;
use crate::runner::Case;
use crate::sockets;
use crate::sockets::Client;
use crate::sockets::Family;

pub const CASES: &[Case] = cases![Loaded:
    segments_to_the_server_come_from_the_balancer_with_the_option,
];

const FILE: &str = "/toa/out/server-side.pcap";

fn segments_to_the_server_come_from_the_balancer_with_the_option() {
    let net = Net::new();
    let listener = net.listen(Family::DualStack);
    let capture = Capture::start(&net.server, balancer::SERVER_SIDE, Path::new(FILE));
    let mut connections = Vec::new();
    for way in Way::ALL {
        let (mut client, mut accepted) = net.pair(&listener, way);
        sockets::exchange(&mut client, &mut accepted);
        let balancer = net.balancer_of(&accepted);
        sockets::finish(&mut client, &mut accepted);
        connections.push((client, balancer));
    }
    let segments = capture.finish(2 * connections.len());
    for (client, balancer) in &connections {
        assert!(net::is_local_address(balancer.ip()));
        let of_client: Vec<&Segment> = segments
            .iter()
            .filter(|segment| segment.target.port() == PORT)
            .filter(|segment| segment.source.ip() == balancer.ip().to_canonical())
            .filter(|segment| segment.source.port() == balancer.port())
            .collect();
        check_connection(&of_client, client);
    }
    let from_clients = |segment: &&Segment| segment.target.port() == PORT;
    for segment in segments.iter().filter(from_clients) {
        assert!(net::is_local_address(segment.source.ip()), "{segment:?}");
    }
    assert!(fs::metadata(FILE).is_ok_and(|file| file.len() > 0));
}

/// A client's segments: the SYN without the option, the handshake's ACK with it.
#[track_caller]
fn check_connection(segments: &[&Segment], client: &Client) {
    let [syn, ack, ..] = segments else {
        panic!("a connection has more segments than {segments:?}");
    };
    assert!(syn.syn, "{syn:?}");
    assert_eq!(syn.options_of_kind(TOA_KIND), Vec::<&[u8]>::new());
    assert!(!ack.syn && ack.payload == 0, "{ack:?}");
    let expected = toa_option(TOA_KIND, client.address);
    assert_eq!(ack.options_of_kind(TOA_KIND), [&expected[2..]]);
    let without = segments
        .iter()
        .filter(|s| s.options_of_kind(TOA_KIND).is_empty());
    assert!(
        without.count() >= 2,
        "the option is still there after the server has answered: {segments:?}"
    );
}
