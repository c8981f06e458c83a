// SPDX-License-Identifier: GPL-2.0

//! Kernel threads that ask for a peer. The answer is the balancer, as without the module, since
//! nfsd, ksmbd and similar servers authorize by the address.

use std::os::fd::AsRawFd;
use std::time::Duration;

use nix::errno::Errno;
use socket2::SockRef;

use crate::kmsg::KernelLog;
use crate::module;
use crate::net::Net;
use crate::net::Way;
use crate::runner::cases;
use crate::runner::Case;
use crate::sockets;
use crate::sockets::Accepted;
use crate::sockets::Family;
use crate::sys::Name;
use crate::test_module::TestModule;

pub const LOADED: &[Case] = cases![Loaded:
    kernel_thread_is_told_the_balancer,
    kernel_thread_gets_the_errors_of_the_original,
];

pub const CASES: &[Case] = cases![Unloaded:
    kernel_thread_is_told_the_same_with_the_module_and_without,
];

/// Returns the answers to a process and to a kernel thread for the same socket: the length of the
/// name or the error, and the bytes.
pub fn ask(accepted: &Accepted) -> [String; 2] {
    let mut log = KernelLog::from_now();
    let fd = accepted.stream.as_raw_fd();
    drop(TestModule::load(&format!("ask={fd}")).expect("it loads"));
    let lines = log.new_lines();
    ["process", "kernel thread"].map(|who| {
        let start = format!("TOA_TEST: {who} ");
        let said: Vec<&str> = lines
            .iter()
            .filter_map(|l| l.strip_prefix(&start))
            .collect();
        let [said] = said[..] else {
            panic!("{who}: {lines:?}");
        };
        said.to_owned()
    })
}

/// The test module's text for that name.
pub fn printed(name: &Name) -> String {
    format!("{} {:02x?}", name.length(), name.bytes())
}

fn printed_error(errno: Errno) -> String {
    format!("{} []", -(errno as i32))
}

fn kernel_thread_is_told_the_balancer() {
    let net = Net::new();
    let listener = net.listen(Family::DualStack);
    for way in Way::ALL {
        let (_client, accepted) = net.pair(&listener, way);
        let client = accepted.name.clone();
        let balancer = Name::of(net.balancer_of(&accepted));
        assert_ne!(client, balancer);
        let before = net.stats();
        assert_eq!(
            ask(&accepted),
            [printed(&client), printed(&balancer)],
            "{way:?}"
        );
        assert_eq!(
            net.stats().since(&before),
            [("getname_toa_ok", 1), ("getname_toa_bypass", 1)],
            "{way:?}"
        );
        assert_eq!(accepted.peer(), client, "{way:?}, asked again");
    }
    drop(listener);
    // `inet_getname` gives the same answers.
    let listener = net.listen(Family::V4);
    let (_client, accepted) = net.pair(&listener, Way::V4);
    let balancer = Name::of(net.balancer_of(&accepted));
    let before = net.stats();
    assert_eq!(
        ask(&accepted),
        [printed(&accepted.name), printed(&balancer)]
    );
    let counted = [("getname_toa_ok", 1), ("getname_toa_bypass", 1)];
    assert_eq!(net.stats().since(&before), counted);
}

fn kernel_thread_gets_the_errors_of_the_original() {
    let net = Net::new();
    let listener = net.listen(Family::DualStack);
    for way in Way::ALL {
        let (client, accepted) = net.pair(&listener, way);
        let at_once = Some(Duration::ZERO);
        let stream = SockRef::from(&client.stream);
        stream.set_linger(at_once).expect("SO_LINGER");
        drop(client);
        // The reset has arrived when the socket has an error to read.
        let mut byte = [0];
        let error = std::io::Read::read(&mut &accepted.stream, &mut byte).expect_err("a reset");
        assert_eq!(error.raw_os_error(), Some(Errno::ECONNRESET as i32));
        assert_eq!(sockets::peer_error(&accepted.stream), Errno::ENOTCONN);
        let error = printed_error(Errno::ENOTCONN);
        assert_eq!(ask(&accepted), [error.clone(), error], "{way:?}");
    }
}

fn kernel_thread_is_told_the_same_with_the_module_and_without() {
    let net = Net::new();
    let listener = net.listen(Family::DualStack);
    module::load();
    let pairs = Way::ALL.map(|way| net.pair(&listener, way));
    let with = pairs
        .each_ref()
        .map(|(_, accepted)| ask(accepted)[1].clone());
    module::unload();
    for ((_, accepted), with) in pairs.iter().zip(with) {
        assert_eq!(ask(accepted), [with.clone(), with]);
    }
}
