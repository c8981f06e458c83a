// SPDX-License-Identifier: GPL-2.0

//! The module's entry points: each call of the kernel becomes a safe call of [`Callbacks`].
//!
//! [`Registration`] puts all of them in place, and takes them away in the order that keeps the
//! answers right. Handlers of hooks run in the context of the hooked call and never sleep, see
//! [`ftrace`](super::ftrace).
//!
//! The C prototypes that this file assumes are asserted in `offsets.c`.

use crate::{
    endpoint::Endpoint,
    linux::{
        c,
        ftrace::{
            Call,
            Hook,
            Hooked, //
        },
        log::log,
        pernet,
        rcu,
        rcu_static::{
            Assignment,
            RcuStatic, //
        },
        sock::{
            Segment,
            Sock,
            Socket, //
        },
        sockopt::{
            Level,
            Sockopts, //
        },
        sysctl::Sysctls,
        tracepoint::Probe, //
    }, //
};
use core::marker::PhantomData;
use core::ops::RangeInclusive;
use kernel::ffi::{
    c_int,
    c_void, //
};
use kernel::prelude::*;
use kernel::transmute::AsBytes;
use kernel::uaccess::{
    UserPtr,
    UserSlice, //
};

/// The form of a name: the function that was called decides it, not the socket's family.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Form {
    /// A `struct sockaddr_in`.
    V4,
    /// A `struct sockaddr_in6`.
    #[cfg_attr(not(CONFIG_IPV6), allow(dead_code))]
    V6,
}

/// A question that needs a longer answer than most.
pub(crate) struct Unsure;

/// The module's side of the kernel's calls. Only `getsockopt` may sleep or take a lock that sleeps on
/// PREEMPT_RT: the removal of the hooks relies on it, see [`Hooked`].
pub(crate) trait Callbacks: 'static {
    /// The module's data in each network namespace.
    type PerNet: Sysctls;

    /// The state that all handlers use.
    type State: Send + Sync + 'static;

    /// The answer to getsockopt, as the process gets it.
    type Answer: AsBytes;

    /// The options of getsockopt that [`Callbacks::getsockopt`] answers.
    const OPTIONS: RangeInclusive<c_int>;

    /// The static that has the state while callbacks are in place.
    fn state() -> &'static RcuStatic<Self::State>;

    /// `segment` has created `child`. Softirq; the child is locked and in no process' hands yet.
    fn child_created(state: &Self::State, child: &Sock<Self::PerNet>, segment: &Segment);

    /// The connection of `sk` ends, and the socket stays. Process context; the socket is locked.
    fn disconnected(state: &Self::State, sk: &Sock<Self::PerNet>);

    /// `sk` dies. Softirq or process context.
    fn destroyed(state: &Self::State, sk: &Sock<Self::PerNet>);

    /// Sockets may die unseen from the end of this call on. Process context; may sleep.
    fn unwatch(state: &Self::State);

    /// Returns false if the kernel is to answer a question for the peer of a TCP socket: [`Callbacks::peer`]
    /// is not called then. Any context.
    fn may_have_peer(state: &Self::State, sk: &Sock<Self::PerNet>) -> bool;

    /// Does as [`Callbacks::peer`] in most cases. [`Unsure`] leaves the question to that, with the same
    /// arguments and without the section. Any context.
    fn peer_at_once(
        state: &Self::State,
        sk: &Sock<Self::PerNet>,
        form: Form,
        strict: impl FnOnce() -> bool,
        rcu: &rcu::Guard,
    ) -> Result<Option<Endpoint>, Unsure>;

    /// A question got what [`Callbacks::peer_at_once`] returned: a peer, or none. Any context.
    fn answered(sk: &Sock<Self::PerNet>, with_peer: bool);

    /// Returns the peer of a TCP socket in the kernel's place, or `None` if the kernel is to answer.
    /// `strict` is the question of getpeername, which has no answer for a connection that is over. An
    /// answer of [`Form::V4`] must be an IPv4 address. Any context.
    fn peer(
        state: &Self::State,
        sk: &Sock<Self::PerNet>,
        form: Form,
        strict: bool,
    ) -> Option<Endpoint>;

    /// Answers `option` of `sk` for a caller that has room for `room` bytes. Process context.
    fn getsockopt(
        state: &Self::State,
        sk: &Sock<Self::PerNet>,
        option: c_int,
        room: usize,
    ) -> Result<Self::Answer>;
}

/// All callbacks in place. Dropping it removes them, field by field:
///
/// - first the options of getsockopt: a process in one of them holds the module;
/// - then the hooks, each of which waits until no task is in the module because of it. The hook that
///   sees children goes first, so no record is made any more. Then the questions for peers go, whose
///   answers need records. Then the hook on disconnects goes, without which a socket that
///   connects again to the same address would be answered with its client of before;
/// - then the probe, which removes records until it is gone, after [`Callbacks::unwatch`];
/// - then the data of the namespaces, which all of these use;
/// - then the state.
///
/// A registration that fails removes in the same order what is in place by then.
///
/// # Invariants
///
/// `T::PerNet` is registered, and the state is assigned, as long as one of the callbacks is in place:
/// they come first, and are the last fields.
pub(crate) struct Registration<T: Callbacks> {
    _sockopts4: Sockopts,
    _sockopts6: Sockopts,
    _child_created: Hook<TcpChildProcess<T>>,
    #[cfg(CONFIG_IPV6)]
    getname6: Option<Hook<Getname<Inet6, T>>>,
    _getname4: Hook<Getname<Inet, T>>,
    _disconnected: Hook<TcpClearRetrans<T>>,
    _watch: Watch<T>,
    _destroyed: Probe,
    _pernet: pernet::Registration<T::PerNet>,
    _state: Assignment<T::State>,
}

impl<T: Callbacks> Registration<T> {
    /// Puts the callbacks in place. May sleep.
    ///
    /// # Errors
    ///
    /// Each is in the log, with the step that failed.
    pub(crate) fn register(module: &'static ThisModule, state: KBox<T::State>) -> Result<Self> {
        // INVARIANT: The first of all, so on an error the last to be dropped.
        let state = T::state().assign(state);
        let pernet = explain(
            "making net.toa.*, /proc/net/toa_stats and /proc/net/toa (does another TOA module have them?)",
            pernet::Registration::register(),
        )?;
        let destroyed = explain(
            "setting the probe on the tracepoint tcp_destroy_sock",
            register_probe::<T>(),
        )?;
        // INVARIANT: The state is assigned, and dropped later.
        let watch = Watch(PhantomData);
        let disconnected = Hook::register()?;
        let getname4 = Hook::register()?;
        #[cfg(CONFIG_IPV6)]
        let getname6 = Hook::register_if_present()?;
        let child_created = Hook::register()?;
        // Last: as soon as the options are there, processes may be in them.
        let sockopts = |level| {
            explain(
                "taking the options 4096 and 4097 of getsockopt (does another module have them?)",
                register_sockopts::<T>(module, level),
            )
        };
        let sockopts6 = sockopts(Level::Ipv6)?;
        let sockopts4 = sockopts(Level::Ip)?;
        Ok(Self {
            _sockopts4: sockopts4,
            _sockopts6: sockopts6,
            _child_created: child_created,
            #[cfg(CONFIG_IPV6)]
            getname6,
            _getname4: getname4,
            _disconnected: disconnected,
            _watch: watch,
            _destroyed: destroyed,
            _pernet: pernet,
            _state: state,
        })
    }

    /// Whether `inet6_getname` is hooked: a kernel without IPv6 has no such function.
    #[cfg(CONFIG_IPV6)]
    pub(crate) fn has_ipv6(&self) -> bool {
        self.getname6.is_some()
    }

    /// Whether `inet6_getname` is hooked: this kernel has no such function.
    #[cfg(not(CONFIG_IPV6))]
    pub(crate) fn has_ipv6(&self) -> bool {
        false
    }
}

/// Calls [`Callbacks::unwatch`] when dropped.
///
/// # Invariants
///
/// The state is assigned.
struct Watch<T: Callbacks>(PhantomData<fn(T)>);

impl<T: Callbacks> Drop for Watch<T> {
    fn drop(&mut self) {
        // SAFETY: By the type invariant.
        T::unwatch(unsafe { T::state().get_assigned() });
    }
}

/// Returns the state for a handler.
///
/// # Safety
///
/// A callback of the [`Registration`] of `T` must be in place during `'a`.
#[inline(always)]
unsafe fn state<'a, T: Callbacks>() -> &'a T::State {
    // SAFETY: By the function's safety requirements and the invariant of `Registration`.
    unsafe { T::state().get_assigned() }
}

/// Logs the step of a load that failed.
fn explain<T>(step: &str, result: Result<T>) -> Result<T> {
    result.inspect_err(|error| {
        log!(
            ERR,
            "not loaded: {step} failed (error {})\n",
            error.to_errno()
        );
    })
}

/// `tcp_child_process(parent, child, skb)`: every child socket passes it once, with the segment
/// that created it, whichever way it came (`net/ipv4/tcp_minisocks.c`).
struct TcpChildProcess<T>(PhantomData<T>);

// SAFETY: It only calls a handler of `Callbacks`, which does not sleep.
unsafe impl<T: Callbacks> Hooked for TcpChildProcess<T> {
    const FUNCTION: &'static str = "tcp_child_process";
    const REDIRECTS: bool = false;

    #[inline(always)]
    fn enter(call: &mut Call) {
        // SAFETY: The second argument is the child, a TCP socket that the caller has locked and
        // holds; the third is the segment, owned by the caller, with its header pulled and checked
        // by `tcp_v4_rcv` or `tcp_v6_rcv`. By `Registration`'s invariant `T::PerNet` is registered. The hook is
        // in place.
        let (child, segment, state) = unsafe {
            (
                Sock::from_raw(call.argument1() as *const c_void),
                Segment::from_raw(call.argument2() as *const c_void),
                state::<T>(),
            )
        };
        T::child_created(state, child, segment);
    }
}

/// `tcp_clear_retrans(tp)`, as `tcp_disconnect` calls it (`net/ipv4/tcp.c`): the connection ends and
/// the socket stays. It may connect to the same address again.
///
/// Two things have happened by then that have not at the entry of `tcp_disconnect`. Some kernels
/// refuse to disconnect a socket on which a thread waits (EBUSY), and the connection stays. And the
/// socket has no port of its peer any more. Before 5.16 getname takes no lock, so until then it would
/// show the balancer for a socket whose record is gone.
struct TcpClearRetrans<T>(PhantomData<T>);

// SAFETY: It only calls a handler of `Callbacks`, which does not sleep.
unsafe impl<T: Callbacks> Hooked for TcpClearRetrans<T> {
    const FUNCTION: &'static str = "tcp_clear_retrans";
    const REDIRECTS: bool = false;

    #[inline(always)]
    fn enter(call: &mut Call) {
        // SAFETY: The first argument is a TCP socket, with which `struct tcp_sock` begins (asserted
        // in offsets.c). The caller has locked it. By `Registration`'s invariant `T::PerNet` is
        // registered.
        let sk = unsafe { Sock::from_raw(call.argument0() as *const c_void) };
        // `tcp_connect_init` calls the function too, for a socket that has no record.
        if sk.is_closed() {
            // SAFETY: The hook is in place.
            T::disconnected(unsafe { state::<T>() }, sk);
        }
    }
}

/// A getname function of the kernel, and the name that it writes.
trait Family: 'static {
    /// The function, `int (*)(struct socket *, struct sockaddr *, int peer)`.
    const FUNCTION: &'static str;

    /// The form of the name.
    const FORM: Form;

    /// The name.
    type Sockaddr;

    /// The name of `peer`, as the function writes it for `sk`. `None` if the name has no room for it.
    fn name<T>(sk: &Sock<T>, peer: Endpoint) -> Option<Self::Sockaddr>;
}

/// `inet_getname(sock, uaddr, peer)` (`net/ipv4/af_inet.c`).
struct Inet;

impl Family for Inet {
    const FUNCTION: &'static str = "inet_getname";
    const FORM: Form = Form::V4;
    type Sockaddr = c::sockaddr_in;

    #[inline(always)]
    fn name<T>(_sk: &Sock<T>, peer: Endpoint) -> Option<Self::Sockaddr> {
        Some(c::sockaddr_in {
            sin_family: c::TOA_AF_INET as u16,
            sin_port: peer.port().to_be(),
            sin_addr: peer.address_v4()?.to_bits().to_be(),
            // As `inet_getname` leaves them.
            zero: [0; 8],
        })
    }
}

/// `inet6_getname(sock, uaddr, peer)` (`net/ipv6/af_inet6.c`).
#[cfg(CONFIG_IPV6)]
struct Inet6;

#[cfg(CONFIG_IPV6)]
impl Family for Inet6 {
    const FUNCTION: &'static str = "inet6_getname";
    const FORM: Form = Form::V6;
    type Sockaddr = c::sockaddr_in6;

    #[inline(always)]
    fn name<T>(sk: &Sock<T>, peer: Endpoint) -> Option<Self::Sockaddr> {
        Some(c::sockaddr_in6 {
            sin6_family: c::TOA_AF_INET6 as u16,
            sin6_port: peer.port().to_be(),
            sin6_flowinfo: sk.reported_flow_label(),
            sin6_addr: c::in6_addr(peer.address().octets()),
            // A client's address has no scope on this host.
            sin6_scope_id: 0,
        })
    }
}

/// The hook on a getname function: writes the names that [`Callbacks::peer`] returns in the
/// function's place.
struct Getname<F, T>(PhantomData<(F, T)>);

// SAFETY: It only calls a handler of `Callbacks`, which does not sleep.
unsafe impl<F: Family, T: Callbacks> Hooked for Getname<F, T> {
    const FUNCTION: &'static str = F::FUNCTION;
    const REDIRECTS: bool = true;

    #[inline(always)]
    fn enter(call: &mut Call) {
        // 0: the socket's own name is asked for.
        if call.argument2() as c_int == 0 {
            return;
        }
        // SAFETY: The first argument is a socket of the function's family, which the caller holds.
        // By `Registration`'s invariant `T::PerNet` is registered.
        let socket = unsafe { Socket::from_raw(call.argument0() as *const c_void) };
        let sk = socket.sk();
        // UDP and raw sockets come here as well.
        if !sk.is_tcp() {
            return;
        }
        // SAFETY: The hook is in place.
        let state = unsafe { state::<T>() };
        if T::may_have_peer(state, sk) {
            answer::<F, T>(call, state, sk);
        }
    }
}

/// The rest of the hook on a getname function. Out of line, so that the calls that end before it save no
/// registers. Its section lasts until the end, so that it saves few itself.
#[inline(never)]
fn answer<F: Family, T: Callbacks>(call: &mut Call, state: &T::State, sk: &Sock<T::PerNet>) {
    let rcu = rcu::read_lock();
    match T::peer_at_once(state, sk, F::FORM, || is_strict(call), &rcu) {
        Ok(Some(peer)) => {
            redirect::<F, _>(call, sk, peer);
            T::answered(sk, true);
        }
        Ok(None) => T::answered(sk, false),
        Err(Unsure) => {
            drop(rcu);
            answer_any::<F, T>(call, state, sk);
        }
    }
}

/// Answers any question.
#[inline(never)]
fn answer_any<F: Family, T: Callbacks>(call: &mut Call, state: &T::State, sk: &Sock<T::PerNet>) {
    if let Some(peer) = T::peer(state, sk, F::FORM, is_strict(call)) {
        redirect::<F, _>(call, sk, peer);
    }
}

/// Whether the question is that of getpeername.
#[inline(always)]
fn is_strict(call: &Call) -> bool {
    call.argument2() as c_int == 1
}

/// Writes the name of `peer`, and sends the call to a function that returns the name's length.
#[inline(always)]
fn redirect<F: Family, T>(call: &mut Call, sk: &Sock<T>, peer: Endpoint) {
    let Some(name) = F::name(sk, peer) else {
        return;
    };
    // SAFETY: The second argument is where the function of `F` would write an `F::Sockaddr`: memory of
    // the kernel that the caller has made ready. It need not be aligned for the larger fields.
    unsafe { (call.argument1() as *mut F::Sockaddr).write_unaligned(name) };
    // SAFETY: The hook is on the function of `F`, whose prototype `length_of_name` has, and
    // `length_of_name` does not sleep.
    unsafe { call.redirect(length_of_name::<F> as *const c_void) };
}

/// Takes the place of the function of `F` whose name is written.
///
/// # Safety
///
/// None: it uses no argument. It has the type of the function of `F`, which is unsafe.
unsafe extern "C" fn length_of_name<F: Family>(
    _socket: *mut c::socket,
    _address: *mut c::sockaddr,
    _peer: c_int,
) -> c_int {
    size_of::<F::Sockaddr>() as c_int
}

/// Registers the probe on `tcp_destroy_sock`, which fires once for each TCP socket that dies
/// (`tcp_v4_destroy_sock`, for IPv6 as well), after the socket has left its process.
fn register_probe<T: Callbacks>() -> Result<Probe> {
    // SAFETY: The prototype is that of the tracepoint's probes, asserted in offsets.c.
    unsafe { Probe::register(c"tcp_destroy_sock", destroy_sock::<T> as *mut c_void) }
}

/// The probe on `tcp_destroy_sock`.
///
/// # Safety
///
/// `sk` must be a live TCP socket.
unsafe extern "C" fn destroy_sock<T: Callbacks>(_private: *mut c_void, sk: *mut c::sock) {
    // SAFETY: By the function's safety requirements. By `Registration`'s invariant `T::PerNet` is
    // registered. The probe is in place.
    let (sk, state) = unsafe { (Sock::from_raw(sk.cast()), state::<T>()) };
    T::destroyed(state, sk);
}

fn register_sockopts<T: Callbacks>(module: &'static ThisModule, level: Level) -> Result<Sockopts> {
    // SAFETY: The function is this module's.
    unsafe { Sockopts::register(module, level, T::OPTIONS, getsockopt::<T>) }
}

/// The answering function of the options.
///
/// # Safety
///
/// As the kernel calls it (`nf_getsockopt`): `sk` is a live socket of AF_INET or AF_INET6, `len`
/// points to the kernel's copy of the length, `user` is whatever the process gave. Process context.
unsafe extern "C" fn getsockopt<T: Callbacks>(
    sk: *mut c::sock,
    option: c_int,
    user: *mut c_void,
    len: *mut c_int,
) -> c_int {
    kernel::error::from_result(|| {
        // SAFETY: By the function's safety requirements. `T::PerNet` is registered, and the options are in
        // place: a process in this function holds a reference on the module, and `Sockopts::drop` waits for
        // it.
        let (sk, state, len_given) = unsafe { (Sock::from_raw(sk.cast()), state::<T>(), *len) };
        // DPVS's module takes the null pointer for no room at all.
        let room = if user.is_null() { 0 } else { len_given };
        let answer = T::getsockopt(state, sk, option, usize::try_from(room).unwrap_or(0))?;
        UserSlice::new(UserPtr::from_ptr(user), size_of::<T::Answer>())
            .writer()
            .write(&answer)?;
        // SAFETY: By the function's safety requirements.
        unsafe { *len = size_of::<T::Answer>() as c_int };
        Ok(0)
    })
}
