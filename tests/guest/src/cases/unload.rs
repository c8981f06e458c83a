// SPDX-License-Identifier: GPL-2.0

//! Loading and unloading while other code is in the hooked functions, or hooks them too: tasks that
//! sleep in the kernel's own getname, tracers, probes, another module. Nothing is left after the
//! unload.

use std::fs;
use std::fs::File;
use std::io::Write;
use std::os::fd::AsRawFd;
use std::panic;
use std::panic::AssertUnwindSafe;
use std::sync::atomic::AtomicBool;
use std::sync::atomic::AtomicUsize;
use std::sync::atomic::Ordering;
use std::sync::mpsc;
use std::sync::Arc;
use std::thread;
use std::thread::JoinHandle;
use std::time::Duration;

use nix::errno::Errno;

use crate::arguments;
use crate::cases::trampolines::Trampolines;
use crate::connections_file;
use crate::kmsg::KernelLog;
use crate::ktap::note;
use crate::memory::Memory;
use crate::module;
use crate::namespace::Namespace;
use crate::net::Net;
use crate::net::Way;
use crate::net::PORT;
use crate::runner::cases;
use crate::runner::problem;
use crate::runner::skip;
use crate::runner::Case;
use crate::sockets;
use crate::sockets::Accepted;
use crate::sockets::Client;
use crate::sockets::Family;
use crate::sockets::Listener;
use crate::stats;
use crate::stats::Stats;
use crate::sys;
use crate::sys::Call;
use crate::sys::Name;
use crate::sys::SleepyPage;
use crate::test_module::TestModule;
use crate::tracing;
use crate::tracing::Probes;
use crate::tracing::Tracer;
use crate::tracing::FUNCTIONS;
use crate::wait;

pub const CASES: &[Case] = cases![Unloaded:
    questions_asleep_in_the_kernels_own_getname_outlive_the_unload,
    questions_asleep_in_getname_outlive_a_load_and_an_unload,
    client_is_told_while_somebody_else_has_the_sockets_lock,
    unload_waits_for_a_reader_of_the_statistics,
    unload_waits_for_a_reader_of_the_connections,
    open_files_do_not_keep_the_module,
    load_is_refused_while_another_module_redirects_inet_getname,
    load_is_refused_while_another_module_redirects_inet6_getname,
    module_that_redirects_getname_is_refused_under_toa,
    function_tracer_older_than_the_module_sees_the_hooked_functions,
    tracers_come_and_go_under_the_module,
    probes_older_than_the_module_count_each_call,
    probes_younger_than_the_module_count_each_call,
    unload_leaves_no_hook_no_symbol_and_no_file,
];

/// Cases that are too long for each run.
pub const LONG: &[Case] = cases![Unloaded:
    many_loads_and_unloads_among_sleepers_tracers_trampolines_and_probes,
    many_loads_and_unloads_leave_the_memory_as_it_was,
];

/// A socket that is locked until this value is dropped. A receive sleeps in the middle, because the
/// memory to copy to is absent.
struct Locked {
    page: Arc<SleepyPage>,
    receiver: Option<JoinHandle<Result<usize, Errno>>>,
}

impl Locked {
    #[track_caller]
    fn new(client: &mut Client, accepted: &Accepted) -> Self {
        client.stream.write_all(b"?").expect("the client sends");
        let page = Arc::new(SleepyPage::new().expect("userfaultfd"));
        let stream = accepted.stream.try_clone().expect("a descriptor");
        let receiver = thread::spawn({
            let page = Arc::clone(&page);
            move || page.receive(stream.as_raw_fd())
        });
        let locked = Self {
            page,
            receiver: Some(receiver),
        };
        locked.page.wait_until_touched();
        locked
    }
}

impl Drop for Locked {
    fn drop(&mut self) {
        self.page.release();
        let received = self.receiver.take().map(JoinHandle::join);
        if !matches!(received, Some(Ok(Ok(1)))) {
            problem(format!("the receive that slept: {received:?}"));
        }
    }
}

/// A question for a socket's name, in a thread that sleeps for the socket's lock
/// in the kernel's own function.
struct Sleeper {
    thread: JoinHandle<Name>,
    /// The thread's directory under `/proc`.
    task: String,
    function: &'static str,
}

impl Sleeper {
    /// Asks for the name of a locked socket, and waits until the question sleeps.
    #[track_caller]
    fn ask(call: Call, accepted: &Accepted) -> Self {
        let sleeper = Self::start(call, accepted);
        wait::until("the question sleeps", || sleeper.is_asleep());
        sleeper
    }

    /// Asks for the name of a socket.
    #[track_caller]
    fn start(call: Call, accepted: &Accepted) -> Self {
        let stream = accepted.stream.try_clone().expect("a descriptor");
        let (sender, receiver) = mpsc::channel();
        let thread = thread::spawn(move || {
            let task = fs::read_link("/proc/thread-self").expect("this thread");
            sender.send(task).expect("it is waited for");
            sockets::name(call, &stream)
        });
        let task = receiver.recv().expect("the thread runs");
        Self {
            thread,
            task: format!("/proc/{}", task.display()),
            function: match accepted.family {
                Family::V4 => "inet_getname",
                Family::V6Only | Family::DualStack => "inet6_getname",
            },
        }
    }

    fn is_asleep(&self) -> Result<(), String> {
        let stack = fs::read_to_string(format!("{}/stack", self.task)).unwrap_or_default();
        let within = |function: &str| stack.contains(&format!(" {function}+"));
        let asleep = within("__lock_sock") && within(self.function);
        asleep.then_some(()).ok_or(stack)
    }

    #[track_caller]
    fn assert_asleep(&self) {
        self.is_asleep()
            .unwrap_or_else(|stack| panic!("it does not sleep any more: {stack}"));
    }

    #[track_caller]
    fn answer(self) -> Name {
        self.thread.join().expect("an answer")
    }
}

/// Listeners whose sockets are asked by `inet_getname` and by `inet6_getname`, on
/// one port, each with a way to it.
pub(super) fn listeners(net: &Net) -> [(Listener, Way); 2] {
    net.server.enter(|| {
        [(Family::V4, Way::V4), (Family::V6Only, Way::V6)]
            .map(|(family, way)| (Listener::new(family, PORT), way))
    })
}

/// Makes a connection to each listener.
pub(super) fn pairs(net: &Net, listeners: &[(Listener, Way); 2]) -> [(Client, Accepted); 2] {
    listeners
        .each_ref()
        .map(|(listener, way)| net.pair(listener, *way))
}

#[track_caller]
pub(super) fn assert_clients(pairs: &[(Client, Accepted)]) {
    for (client, accepted) in pairs {
        assert_eq!(accepted.peer(), accepted.family.name(client.address));
    }
}

#[track_caller]
fn assert_balancer(net: &Net, pairs: &[(Client, Accepted)]) {
    for (_, accepted) in pairs {
        assert_eq!(accepted.peer(), Name::of(net.balancer_of(accepted)));
    }
}

/// Whether the kernel's own getname waits for the socket's lock, as from 5.16 on.
#[track_caller]
fn getname_locks(net: &Net, listeners: &[(Listener, Way); 2]) -> bool {
    pairs(net, listeners).iter_mut().all(|(client, accepted)| {
        let lock = Locked::new(client, accepted);
        let sleeper = Sleeper::start(Call::GetPeerName, accepted);
        wait::until("the question sleeps or has its answer", || {
            match sleeper.thread.is_finished() {
                true => Ok(()),
                false => sleeper.is_asleep(),
            }
        });
        let sleeps = !sleeper.thread.is_finished();
        drop(lock);
        assert_eq!(sleeper.answer(), Name::of(net.balancer_of(accepted)));
        sleeps
    })
}

/// Skips the case if the kernel's own getname takes no lock: no question sleeps in it.
#[track_caller]
fn need_getname_that_locks(net: &Net, listeners: &[(Listener, Way); 2]) {
    if !getname_locks(net, listeners) {
        skip("getname of this kernel takes no lock");
    }
}

fn questions_asleep_in_the_kernels_own_getname_outlive_the_unload() {
    let net = Net::new();
    let listeners = listeners(&net);
    need_getname_that_locks(&net, &listeners);
    let mut old = pairs(&net, &listeners);
    module::load();
    let mut new = pairs(&net, &listeners);
    assert_clients(&new);
    let own = new.each_ref().map(|(_, accepted)| accepted.local());
    let locks: Vec<Locked> = old
        .iter_mut()
        .chain(&mut new)
        .map(|(client, accepted)| Locked::new(client, accepted))
        .collect();
    // The hooks pass both kinds of question on: those for sockets without a record, and those for
    // the socket's own name.
    let of_peer = old
        .each_ref()
        .map(|(_, accepted)| Sleeper::ask(Call::GetPeerName, accepted));
    let of_own = new
        .each_ref()
        .map(|(_, accepted)| Sleeper::ask(Call::GetSockName, accepted));
    module::unload();
    of_peer
        .iter()
        .chain(&of_own)
        .for_each(Sleeper::assert_asleep);
    drop(locks);
    for (sleeper, (_, accepted)) in of_peer.into_iter().zip(&old) {
        assert_eq!(sleeper.answer(), Name::of(net.balancer_of(accepted)));
    }
    for (sleeper, own) in of_own.into_iter().zip(own) {
        assert_eq!(sleeper.answer(), own);
    }
    assert_balancer(&net, &new);
}

fn questions_asleep_in_getname_outlive_a_load_and_an_unload() {
    let net = Net::new();
    let listeners = listeners(&net);
    need_getname_that_locks(&net, &listeners);
    let mut old = pairs(&net, &listeners);
    let locks = old
        .each_mut()
        .map(|(client, accepted)| Locked::new(client, accepted));
    let ask = || {
        old.each_ref()
            .map(|(_, accepted)| Sleeper::ask(Call::GetPeerName, accepted))
    };
    let before = ask();
    module::load();
    before.iter().for_each(Sleeper::assert_asleep);
    let during = ask();
    module::unload();
    let sleepers = before.into_iter().chain(during);
    let sleepers: Vec<Sleeper> = sleepers
        .inspect(|sleeper| sleeper.assert_asleep())
        .collect();
    module::load();
    drop(locks);
    for (sleeper, (_, accepted)) in sleepers.into_iter().zip(old.iter().chain(&old)) {
        assert_eq!(sleeper.answer(), Name::of(net.balancer_of(accepted)));
    }
    module::unload();
}

fn client_is_told_while_somebody_else_has_the_sockets_lock() {
    let net = Net::new();
    let listeners = listeners(&net);
    module::load();
    let mut pairs = pairs(&net, &listeners);
    let locks = pairs
        .each_mut()
        .map(|(client, accepted)| Locked::new(client, accepted));
    thread::scope(|scope| {
        let questions = scope.spawn(|| assert_clients(&pairs));
        let answered = wait::try_until(|| {
            let answered = questions.is_finished();
            answered
                .then_some(())
                .ok_or_else(|| "the question sleeps".to_owned())
        });
        drop(locks);
        assert_eq!(answered, Ok(()));
    });
    assert_clients(&pairs);
    drop(pairs);
    net.wait_for_no_records();
    module::unload();
    // Without the module, the same question has to wait for the lock.
    need_getname_that_locks(&net, &listeners);
}

const STATS: &str = "/proc/thread-self/net/toa_stats";

fn unload_waits_for_a_reader_of_the_statistics() {
    check_unload_waits_for_a_reader_of(STATS);
}

fn unload_waits_for_a_reader_of_the_connections() {
    check_unload_waits_for_a_reader_of(connections_file::PATH);
}

#[track_caller]
fn check_unload_waits_for_a_reader_of(path: &str) {
    module::load();
    let file = File::open(path).expect("the module is loaded");
    let page = Arc::new(SleepyPage::new().expect("userfaultfd"));
    let reader = thread::spawn({
        let page = Arc::clone(&page);
        move || page.read(file.as_raw_fd())
    });
    page.wait_until_touched();
    let (sender, receiver) = mpsc::channel();
    let unloader = thread::spawn(move || {
        let task = fs::read_link("/proc/thread-self").expect("this thread");
        sender.send(task).expect("it is waited for");
        module::remove()
    });
    let task = receiver.recv().expect("the thread runs");
    let waits = wait::try_until(|| {
        let stack = fs::read_to_string(format!("/proc/{}/stack", task.display()));
        let stack = stack.unwrap_or_default();
        let waits = stack.contains(" proc_entry_rundown+") && stack.contains("[toa]");
        waits.then_some(()).ok_or(stack)
    });
    let ended = reader.is_finished() || unloader.is_finished();
    page.release();
    let read = reader.join().expect("the reader ends");
    let unloaded = unloader.join().expect("the unload ends");
    assert_eq!(waits, Ok(()));
    assert!(!ended, "one of them did not wait for the page");
    assert!(read.is_ok_and(|length| length > 0), "{read:?}");
    assert_eq!(unloaded, Ok(()));
    assert!(!module::is_loaded());
}

fn open_files_do_not_keep_the_module() {
    check_open_file_does_not_keep_the_module(STATS);
    check_open_file_does_not_keep_the_module(connections_file::PATH);
}

#[track_caller]
fn check_open_file_does_not_keep_the_module(path: &str) {
    module::load();
    let open = File::open(path).expect("the module is loaded");
    module::unload();
    let gone = std::io::read_to_string(&open).expect_err("there is nothing to read");
    assert_eq!(gone.raw_os_error(), Some(libc::EIO));
    module::load();
    let still = std::io::read_to_string(&open).expect_err("it was of another load");
    assert_eq!(still.raw_os_error(), Some(libc::EIO));
    module::unload();
}

fn load_is_refused_while_another_module_redirects_inet_getname() {
    load_is_refused_under("hold=4", "inet_getname");
}

/// toa hooks `inet6_getname` after `inet_getname`, so the failed load has a hook to remove.
fn load_is_refused_while_another_module_redirects_inet6_getname() {
    load_is_refused_under("hold=6", "inet6_getname");
}

#[track_caller]
fn load_is_refused_under(hold: &str, function: &'static str) {
    let net = Net::new();
    let listeners = listeners(&net);
    let holder = TestModule::load(hold).expect("no module redirects it");
    let mut log = KernelLog::from_now();
    assert_eq!(module::insert(""), Err(Errno::EBUSY));
    let lines = log.new_lines();
    let said: Vec<&String> = lines.iter().filter(|l| l.starts_with("TOA: ")).collect();
    let reason =
        format!("TOA: cannot hook {function}: another module or a live patch redirects it");
    assert!(
        matches!(said[..], [line] if line.starts_with(&reason) && line.contains("(EBUSY)")),
        "{lines:?}"
    );
    assert_eq!(tracing::hooked(), [function], "by the test module");
    assert_nothing_of_toa(&net);
    assert_balancer(&net, &pairs(&net, &listeners));
    drop(holder);
    assert_eq!(tracing::hooked(), [""; 0]);
    module::load();
    let pairs = pairs(&net, &listeners);
    assert_clients(&pairs);
    drop(pairs);
    net.wait_for_no_records();
    module::unload();
}

fn module_that_redirects_getname_is_refused_under_toa() {
    let net = Net::new();
    let listeners = listeners(&net);
    module::load();
    let old = pairs(&net, &listeners);
    for hold in ["hold=4", "hold=6"] {
        let refused = TestModule::load(hold).expect_err("toa redirects it");
        assert_eq!(refused, Errno::EBUSY, "{hold}");
        assert_clients(&old);
        let new = pairs(&net, &listeners);
        assert_clients(&new);
    }
    assert_eq!(tracing::hooked(), FUNCTIONS);
    drop(old);
    net.wait_for_no_records();
    module::unload();
    for hold in ["hold=4", "hold=6"] {
        drop(TestModule::load(hold).expect("no module redirects it any more"));
    }
}

/// Calls each hooked function at least once, and checks the answers.
#[track_caller]
fn use_all_functions(net: &Net, listeners: &[(Listener, Way); 2], loaded: bool) {
    let pairs = pairs(net, listeners);
    match loaded {
        true => assert_clients(&pairs),
        false => assert_balancer(net, &pairs),
    }
    for (_, accepted) in &pairs {
        sys::disconnect(accepted.stream.as_raw_fd()).expect("AF_UNSPEC");
        assert_eq!(sockets::peer_error(&accepted.stream), Errno::ENOTCONN);
    }
}

fn function_tracer_older_than_the_module_sees_the_hooked_functions() {
    let net = Net::new();
    let listeners = listeners(&net);
    for name in ["function", "function_graph"] {
        let tracer = Tracer::start(name);
        use_all_functions(&net, &listeners, false);
        assert_eq!(tracer.seen(), FUNCTIONS, "{name}, without the module");
        module::load();
        tracer.seen();
        use_all_functions(&net, &listeners, true);
        assert_eq!(tracer.seen(), FUNCTIONS, "{name}, with the module");
        net.wait_for_no_records();
        module::unload();
        tracer.seen();
        use_all_functions(&net, &listeners, false);
        assert_eq!(tracer.seen(), FUNCTIONS, "{name}, after the module");
        drop(tracer);
        assert_eq!(tracing::hooked(), [""; 0]);
    }
}

fn tracers_come_and_go_under_the_module() {
    let net = Net::new();
    let listeners = listeners(&net);
    module::load();
    for name in ["function", "function_graph", "function"] {
        let tracer = Tracer::start(name);
        use_all_functions(&net, &listeners, true);
        assert_eq!(tracer.seen(), FUNCTIONS, "{name}");
        drop(tracer);
        assert_eq!(tracing::hooked(), FUNCTIONS, "by the module");
        use_all_functions(&net, &listeners, true);
    }
    // The tracer is active during the unload.
    let tracer = Tracer::start("function");
    net.wait_for_no_records();
    module::unload();
    use_all_functions(&net, &listeners, false);
    assert_eq!(tracer.seen(), FUNCTIONS);
}

/// Checks that a question is one call of the kernel's function, with the module and without. `calls`
/// returns the number of a function's calls.
#[track_caller]
pub(super) fn assert_counted(
    net: &Net,
    listeners: &[(Listener, Way); 2],
    calls: impl Fn(&str) -> u64,
    loaded: bool,
) {
    const QUESTIONS: u64 = 10;
    for (listener, way) in listeners {
        let function = match listener.family {
            Family::V4 => "inet_getname",
            Family::V6Only | Family::DualStack => "inet6_getname",
        };
        let before = calls(function);
        let children = calls("tcp_child_process");
        let (client, accepted) = net.pair(listener, *way);
        let expected = match loaded {
            true => accepted.family.name(client.address),
            false => Name::of(net.balancer_of(&accepted)),
        };
        for _ in 0..QUESTIONS {
            assert_eq!(accepted.peer(), expected);
        }
        // Two other calls: the client asks for its own name, and accept asks for the peer's.
        assert_eq!(calls(function), before + QUESTIONS + 2);
        assert_eq!(calls("tcp_child_process"), children + 1);
    }
}

fn probes_older_than_the_module_count_each_call() {
    let net = Net::new();
    let listeners = listeners(&net);
    let probes = Probes::set();
    assert_counted(&net, &listeners, |function| probes.calls(function), false);
    module::load();
    assert_counted(&net, &listeners, |function| probes.calls(function), true);
    net.wait_for_no_records();
    module::unload();
    assert_counted(&net, &listeners, |function| probes.calls(function), false);
}

fn probes_younger_than_the_module_count_each_call() {
    let net = Net::new();
    let listeners = listeners(&net);
    module::load();
    let probes = Probes::set();
    assert_counted(&net, &listeners, |function| probes.calls(function), true);
    drop(probes);
    assert_clients(&pairs(&net, &listeners));
    let probes = Probes::set();
    net.wait_for_no_records();
    module::unload();
    assert_counted(&net, &listeners, |function| probes.calls(function), false);
}

/// The lines of a file that name toa.
fn lines_of_toa(path: &str) -> Vec<String> {
    let text = fs::read_to_string(path).unwrap_or_else(|error| panic!("{path}: {error}"));
    let ours = |line: &&str| {
        line.split(|c: char| !(c.is_alphanumeric() || c == '_'))
            .any(|word| word == "toa" || word == "toa_stats")
    };
    text.lines().filter(ours).map(str::to_owned).collect()
}

/// The kernel's lists in which a module may appear.
const LISTS: [&str; 4] = [
    "/proc/modules",
    "/proc/kallsyms",
    "/proc/vmallocinfo",
    "/sys/kernel/tracing/enabled_functions",
];

#[track_caller]
pub(super) fn assert_nothing_of_toa(net: &Net) {
    for list in LISTS {
        assert_eq!(lines_of_toa(list), [""; 0], "{list}");
    }
    assert_eq!(stats::text(&net.server), None);
    assert!(!fs::exists("/sys/module/toa").expect("/sys"));
}

fn unload_leaves_no_hook_no_symbol_and_no_file() {
    let net = Net::new();
    let listener = net.listen(Family::DualStack);
    assert_nothing_of_toa(&net);
    assert_eq!(tracing::hooked(), [""; 0]);
    module::load();
    for list in ["/proc/modules", "/proc/kallsyms"] {
        assert_ne!(lines_of_toa(list), [""; 0], "{list}");
    }
    assert_eq!(tracing::hooked(), FUNCTIONS);
    let pairs = Way::ALL.map(|way| net.pair(&listener, way));
    module::unload();
    assert_nothing_of_toa(&net);
    assert_eq!(tracing::hooked(), [""; 0]);
    drop(pairs);
}

/// The loads and unloads of a case.
fn cycles() -> usize {
    arguments::get().cycles as usize
}

/// Cycles between two lines of progress, which the harness waits for.
const NOTED: usize = 10;

/// The pause after each turn of the threads below, which leaves time to the loads.
const PAUSE: Duration = Duration::from_millis(20);

/// Work of separate threads while the module is loaded and unloaded.
#[derive(Default)]
struct Work {
    stop: AtomicBool,
    connections: AtomicUsize,
    told_client: AtomicUsize,
    told_balancer: AtomicUsize,
    reads: AtomicUsize,
}

impl Work {
    fn goes_on(&self) -> bool {
        !self.stop.load(Ordering::Relaxed)
    }

    fn count(counter: &AtomicUsize) {
        counter.fetch_add(1, Ordering::Relaxed);
    }

    fn told(&self, answer: &Name, client: &Name, balancer: &Name) {
        if answer == client {
            Self::count(&self.told_client);
        } else if answer == balancer {
            Self::count(&self.told_balancer);
        } else {
            panic!("{answer:?} is neither {client:?} nor {balancer:?}");
        }
    }

    /// Makes connections each way, and asks often for their peers. The connections end in order, or
    /// by a reset of the client or of the server.
    fn connect(&self, net: &Net, listener: &Listener) {
        let ways = Way::ALL.into_iter().cycle();
        for (number, way) in ways.enumerate().take_while(|_| self.goes_on()) {
            let (mut client, mut accepted) = net.pair(listener, way);
            let of_client = accepted.family.name(client.address);
            let of_balancer = Name::of(net.balancer_of(&accepted));
            self.told(&accepted.name, &of_client, &of_balancer);
            for _ in 0..20 {
                self.told(&accepted.peer(), &of_client, &of_balancer);
            }
            match number % 4 {
                0 => sockets::exchange(&mut client, &mut accepted),
                1 => sockets::finish(&mut client, &mut accepted),
                2 => sockets::reset_at_end(&client.stream),
                _ => sockets::reset_at_end(&accepted.stream),
            }
            Self::count(&self.connections);
            thread::park_timeout(PAUSE);
        }
    }

    fn read_statistics(&self, net: &Net) {
        while self.goes_on() {
            if let Some(stats) = Stats::read_if_loaded(&net.server) {
                assert_eq!(stats.get("malformed"), 0);
                Self::count(&self.reads);
            }
            thread::park_timeout(PAUSE);
        }
    }

    /// Runs `cycles` beside the threads.
    fn beside(&self, net: &Net, listener: &Listener, cycles: impl FnOnce()) {
        thread::scope(|scope| {
            scope.spawn(|| self.connect(net, listener));
            scope.spawn(|| self.read_statistics(net));
            // The threads must be stopped before a panic unwinds further.
            let outcome = panic::catch_unwind(AssertUnwindSafe(cycles));
            self.stop.store(true, Ordering::Relaxed);
            outcome.unwrap_or_else(|cause| panic::resume_unwind(cause));
        });
    }

    #[track_caller]
    fn wait_for_connection(&self) {
        let before = self.connections.load(Ordering::Relaxed);
        wait::until("a connection comes and goes", || {
            let more = self.connections.load(Ordering::Relaxed) > before;
            more.then_some(()).ok_or_else(|| format!("{before}"))
        });
    }

    fn note(&self, cycle: usize) {
        note(&format!(
            "{cycle} cycles, {:?} connections, {:?} answers with the client, {:?} with the balancer, \
             {:?} statistics",
            self.connections, self.told_client, self.told_balancer, self.reads
        ));
    }
}

/// Loads and unloads the module. Some tasks sleep in the kernel's own function from before the load
/// until after the unload.
fn cycle(net: &Net, listeners: &[(Listener, Way); 2], work: &Work) {
    let mut old = pairs(net, listeners);
    let mut locks: Vec<Locked> = old
        .iter_mut()
        .map(|(client, accepted)| Locked::new(client, accepted))
        .collect();
    let mut sleepers: Vec<Sleeper> = old
        .iter()
        .map(|(_, accepted)| Sleeper::ask(Call::GetPeerName, accepted))
        .collect();
    module::load();
    let mut new = pairs(net, listeners);
    for (client, accepted) in &mut new {
        locks.push(Locked::new(client, accepted));
        sleepers.push(Sleeper::ask(Call::GetSockName, accepted));
    }
    for (_, accepted) in &old {
        sleepers.push(Sleeper::ask(Call::GetPeerName, accepted));
    }
    assert_clients(&new);
    work.wait_for_connection();
    module::unload();
    sleepers.iter().for_each(Sleeper::assert_asleep);
    drop(locks);
    let of_balancer = old.each_ref().map(|(_, a)| Name::of(net.balancer_of(a)));
    let of_own = new.each_ref().map(|(_, accepted)| accepted.local());
    let expected = of_balancer.iter().chain(&of_own).chain(&of_balancer);
    for (sleeper, expected) in sleepers.into_iter().zip(expected) {
        assert_eq!(&sleeper.answer(), expected);
    }
    assert_balancer(net, &new);
}

fn many_loads_and_unloads_among_sleepers_tracers_trampolines_and_probes() {
    let (net, other) = (Net::new(), Net::new());
    let listener = other.listen(Family::DualStack);
    let listeners = listeners(&net);
    need_getname_that_locks(&net, &listeners);
    let probes = Probes::set();
    let hits = probes.hits("inet6_getname");
    let mut trampolines = Trampolines::attach();
    let work = Work::default();
    let cycles = cycles();
    work.beside(&other, &listener, || {
        for number in 1..=cycles {
            // Of three cycles, one has the function tracer from before the load until after the
            // unload, one has the function_graph tracer, and one has none.
            let _tracer = match number % 3 {
                0 => Some(Tracer::start("function")),
                1 => Some(Tracer::start("function_graph")),
                _ => None,
            };
            // Programs of BPF are attached before some loads, and detached before others.
            if number % 5 == 0 {
                trampolines = match trampolines {
                    Some(_) => None,
                    None => Trampolines::attach(),
                };
            }
            cycle(&net, &listeners, &work);
            if number % NOTED == 0 {
                work.note(number);
            }
        }
    });
    let answers = [&work.told_client, &work.told_balancer, &work.reads];
    assert!(answers.iter().all(|n| n.load(Ordering::Relaxed) > cycles));
    let more = probes
        .hits("inet6_getname")
        .map(|n| n > hits[0] + cycles as u64);
    assert_eq!(more, [true, true], "the probes' counts");
}

/// Namespaces that each load finds. A leak for each namespace counts this many times.
const NAMESPACES: usize = 10;

fn many_loads_and_unloads_leave_the_memory_as_it_was() {
    let (net, cycles) = (Net::new(), cycles());
    let listener = net.listen(Family::DualStack);
    let _others: Vec<Namespace> = (0..NAMESPACES).map(|_| Namespace::new("other")).collect();
    let cycle = |with: bool| {
        let holder = (!with).then(|| TestModule::load("").expect("it loads"));
        if with {
            module::load();
        }
        for way in Way::ALL {
            let (mut client, mut accepted) = net.pair(&listener, way);
            sockets::exchange(&mut client, &mut accepted);
        }
        drop(holder);
        if with {
            module::unload();
        }
    };
    // The kernel's caches grow with the first loads of any module.
    for with in [false, true, false, true] {
        (0..10).for_each(|_| cycle(with));
    }
    for with in [false, true] {
        let before = Memory::read();
        for number in 1..=cycles {
            cycle(with);
            if number % NOTED == 0 {
                note(&format!("{number} cycles"));
            }
        }
        // RCU frees memory some seconds later.
        let what = if with {
            "toa"
        } else {
            "a module that does nothing"
        };
        let least = cycles as i64 / 2;
        wait::until(what, || {
            let grown = Memory::read().grown(&before, least);
            match grown[..] {
                [] => Ok(()),
                _ => Err(format!("{grown:?}")),
            }
        });
        let grown = Memory::read().grown(&before, 1);
        note(&format!("{what}, {cycles} times: {grown:?}"));
    }
}
