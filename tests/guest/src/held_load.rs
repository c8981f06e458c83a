// SPDX-License-Identifier: GPL-2.0

//! A load that fails while a process is in getsockopt. It waits for that process, and until then
//! all hooks are in place.

use std::os::fd::AsRawFd;
use std::sync::Arc;
use std::thread;
use std::thread::JoinHandle;

use libc::IPPROTO_IPV6;
use nix::errno::Errno;

use crate::balancer::toa_option;
use crate::balancer::TOA_KIND;
use crate::handmade::HandmadeClient;
use crate::module;
use crate::namespace::Namespace;
use crate::net::CLIENT_V4;
use crate::net::PORT;
use crate::net::SERVER_V4;
use crate::sockets::Accepted;
use crate::sockets::Family;
use crate::sockets::Listener;
use crate::sys::SleepyPage;
use crate::test_module::TestModule;
use crate::tracing;
use crate::tracing::FUNCTIONS;
use crate::wait;

/// DPVS's `TOA_SO_GET_LOOKUP`.
const CLIENT: i32 = 4096;

/// The length of its answer.
const LENGTH: i32 = 20;

/// The first port of the connections, of which one is enough if the first segment finds the hooks.
const FIRST_PORT: u16 = 4000;

/// The load waits until [`HeldLoad::finish`].
///
/// The load fails at the last step, because the test module has option 4096 of IPPROTO_IP. The test
/// module also holds up that step until the process is in option 4096 of IPPROTO_IPV6, which was
/// registered in the step before.
pub struct HeldLoad {
    sleeper: Sleeper,
    asker: JoinHandle<Result<i32, Errno>>,
    loader: JoinHandle<Result<(), Errno>>,
    _holder: TestModule,
    _accepted: Accepted,
    _client: HandmadeClient,
    _namespace: Namespace,
}

/// The process' sleep, which ends when this is dropped.
struct Sleeper(Arc<SleepyPage>);

impl Drop for Sleeper {
    fn drop(&mut self) {
        self.0.release();
    }
}

impl HeldLoad {
    /// Returns when the process sleeps in the answer.
    #[track_caller]
    pub fn begin() -> Self {
        let namespace = Namespace::new("held");
        namespace.ip(&format!("addr add {SERVER_V4}/32 dev lo"));
        let client = HandmadeClient::new(&namespace);
        let page = Arc::new(SleepyPage::new().expect("userfaultfd"));
        let holder = TestModule::load("hold=4096 wait=1").expect("the option is free");
        let loader = thread::spawn(|| module::insert(""));
        wait::until("all functions are hooked", || {
            let hooked = tracing::hooked();
            (hooked == FUNCTIONS)
                .then_some(())
                .ok_or(format!("{hooked:?}"))
        });
        let accepted = recorded(&namespace, &client);
        let asker = thread::spawn({
            let page = Arc::clone(&page);
            let stream = accepted.stream.try_clone().expect("a descriptor");
            move || loop {
                match page.get_option(stream.as_raw_fd(), IPPROTO_IPV6, CLIENT) {
                    Err(Errno::ENOPROTOOPT) => {}
                    result => return result,
                }
            }
        });
        page.wait_until_touched();
        Self {
            sleeper: Sleeper(page),
            asker,
            loader,
            _holder: holder,
            _accepted: accepted,
            _client: client,
            _namespace: namespace,
        }
    }

    /// Whether the load has returned.
    pub fn is_over(&self) -> bool {
        self.loader.is_finished()
    }

    /// Lets the process go, and returns the load's result once the load is over.
    #[track_caller]
    pub fn finish(self) -> Result<(), Errno> {
        drop(self.sleeper);
        let answer = self.asker.join().expect("it does not panic");
        assert_eq!(answer, Ok(LENGTH), "the answer of getsockopt");
        self.loader.join().expect("it does not panic")
    }
}

/// A connection that has a record: the last of the hooks may still be on its way to its function.
#[track_caller]
fn recorded(namespace: &Namespace, client: &HandmadeClient) -> Accepted {
    let family = Family::DualStack;
    let listener = namespace.enter(|| Listener::new(family, PORT));
    let mut ports = FIRST_PORT..;
    wait::until("a connection has a record", || {
        let port = ports.next().expect("there are enough");
        let named = (CLIENT_V4, port).into();
        let (mut connection, _) = client.connect(port, &[]);
        connection.send(&toa_option(TOA_KIND, named), &[]);
        let accepted = listener.accept().ending_by_reset();
        match accepted.name == family.name(named) {
            true => Ok(accepted),
            false => Err(format!("accept: {:?}", accepted.name)),
        }
    })
}
