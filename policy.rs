// SPDX-License-Identifier: GPL-2.0

//! The policy of a network namespace: who may name clients, in which options, and which of them count.
//!
//! The files `net.toa.*` show and change it. Hooks read it without a lock, so the next connection sees
//! a change. A namespace follows each setting of its parent until a process writes that setting in
//! the namespace itself. A write sets the new value in all namespaces that follow, under the lock of
//! the family ([`family`](crate::linux::family)).

use crate::{
    kinds::{
        self,
        Rules, //
    },
    linux::{
        family::{
            Guard,
            Locked, //
        },
        log::log,
        own_address::Refused,
        pernet::HasNetId,
        ratelimit::RateLimit,
        rcu,
        rcu_shared::{
            RcuShared,
            Shared, //
        },
        read_once::ReadOnce,
        sysctl::Sysctls,
        task, //
    },
    namespace::{
        Namespace,
        Net, //
    },
    option::{
        self,
        ParsedOptions,
        Pick, //
    },
    prefixes::{
        self,
        Merged,
        Range,
        Set,
        Text, //
    },
    records,
    syntax::{
        self,
        Class,
        Refusal, //
    }, //
};
use kernel::fmt;
use kernel::prelude::*;
use kernel::sync::atomic::{
    Atomic,
    Relaxed, //
};

/// The settings that a namespace takes over from its parent.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Setting {
    /// One of [`SWITCHES`].
    Switch(&'static Switch),
    Trusted,
    Kinds,
}

/// A setting with two values.
#[derive(PartialEq, Eq)]
struct Switch {
    /// The bit in [`Policy::switches`]. All are clear by default.
    bit: u32,
    /// The words for the clear bit and for the set one.
    words: [&'static str; 2],
}

/// Options are ignored.
static DISABLED: Switch = Switch {
    bit: 1 << 0,
    words: ["1", "0"],
};

/// The last option counts.
static LAST: Switch = Switch {
    bit: 1 << 1,
    words: ["first", "last"],
};

/// IPv4 clients in IPv6 segments count.
static NAT46: Switch = Switch {
    bit: 1 << 2,
    words: ["0", "1"],
};

/// The server's own addresses count, from trusted hosts.
static OWN_ADDRESSES: Switch = Switch {
    bit: 1 << 3,
    words: ["0", "1"],
};

/// The bit in [`Policy::switches`] for rules that are not the default ones.
const RULES: u32 = 1 << 4;

/// The inherited settings with their files and bits, in the order of the files.
const SETTINGS: [(&CStr, Settings, Setting); 6] = [
    (c"enabled", 1 << 0, Setting::Switch(&DISABLED)),
    (c"trusted", 1 << 1, Setting::Trusted),
    (c"kinds", 1 << 2, Setting::Kinds),
    (c"pick", 1 << 3, Setting::Switch(&LAST)),
    (c"nat46", 1 << 4, Setting::Switch(&NAT46)),
    (c"own_addresses", 1 << 5, Setting::Switch(&OWN_ADDRESSES)),
];

/// The bits of some settings.
type Settings = u8;

/// All of [`SETTINGS`].
const ALL: Settings = (1 << SETTINGS.len()) - 1;

/// The file that names the inherited settings.
const INHERITED: &CStr = c"inherited";

/// The file of the namespace's share.
const MAX_RECORDS: &CStr = c"max_records";

/// All files.
const FILES: [&CStr; SETTINGS.len() + 2] = {
    let mut files = [INHERITED; SETTINGS.len() + 2];
    let mut index = 0;
    while index < SETTINGS.len() {
        files[index] = SETTINGS[index].0;
        index += 1;
    }
    files[SETTINGS.len() + 1] = MAX_RECORDS;
    files
};

/// The most bytes of a short value.
const MAX_SHORT: usize = 127;

/// The number of IPv4 ranges, which come first among the ranges of a set.
type V4Ranges = usize;

/// A set of trusted hosts.
type Trusted = Shared<V4Ranges, Range>;

/// The processes whose last write was a part of a value.
const WRITERS: usize = 8;

/// A policy.
pub(crate) struct Policy {
    /// The bits of the switches.
    switches: ReadOnce<u32>,
    /// The rules, or none for the default ones.
    kinds: RcuShared<Namespace, Rules, ()>,
    /// The trusted hosts, or none for any host.
    trusted: RcuShared<Namespace, V4Ranges, Range>,
    /// The settings that the parent decides.
    inherited: Locked<Namespace, Settings>,
    /// The last change that reached this namespace.
    change: Locked<Namespace, u64>,
    /// The writers of parts with their files, and 0 for none.
    writers: Locked<Namespace, [(i32, usize); WRITERS]>,
}

/// The number of the last change.
static CHANGES: Atomic<u64> = Atomic::new(0);

/// The limit of lines about refused values.
static REFUSALS: RateLimit = RateLimit::new();

impl Policy {
    /// The default policy, or one that trusts no host. May sleep.
    pub(crate) fn new(trusts_any_host: bool) -> Result<Self> {
        let trusted = if trusts_any_host {
            None
        } else {
            Some(Shared::new(0, 0, core::iter::empty())?)
        };
        Ok(Self {
            switches: ReadOnce::new(0),
            kinds: RcuShared::new(None),
            trusted: RcuShared::new(trusted),
            inherited: Locked::new(0),
            change: Locked::new(0),
            writers: Locked::new([(0, 0); WRITERS]),
        })
    }

    /// Follows the parent in all settings.
    pub(crate) fn adopt(&self, parent: &Self, guard: &Guard<'_, Namespace>) {
        self.inherited.set(ALL, guard);
        for (_, _, setting) in SETTINGS {
            self.copy(parent, setting, guard);
        }
    }

    /// Keeps the settings that the parent decides. Those that the parent inherits are followed
    /// further.
    pub(crate) fn lose(&self, parent: &Self, guard: &Guard<'_, Namespace>) {
        let both = self.inherited.get(guard) & parent.inherited.get(guard);
        self.inherited.set(both, guard);
    }

    /// Copies the value of a setting.
    fn copy(&self, other: &Self, setting: Setting, guard: &Guard<'_, Namespace>) {
        match setting {
            Setting::Switch(switch) => {
                let is_set = other.is_set(switch);
                self.set(switch, is_set, guard);
            }
            Setting::Trusted => self.trusted.set(other.trusted.share(guard), guard),
            Setting::Kinds => self.set_kinds(other.kinds.share(guard), guard),
        }
    }

    #[inline(always)]
    fn is_set(&self, switch: &Switch) -> bool {
        self.switches.load() & switch.bit != 0
    }

    fn set(&self, switch: &Switch, is_set: bool, guard: &Guard<'_, Namespace>) {
        self.set_bit(switch.bit, is_set, guard);
    }

    fn set_kinds(&self, kinds: Option<Shared<Rules, ()>>, guard: &Guard<'_, Namespace>) {
        let is_set = kinds.is_some();
        self.kinds.set(kinds, guard);
        self.set_bit(RULES, is_set, guard);
    }

    fn set_bit(&self, bit: u32, is_set: bool, _guard: &Guard<'_, Namespace>) {
        let others = self.switches.load() & !bit;
        self.switches
            .store(if is_set { others | bit } else { others });
    }

    /// Whether all but the trusted hosts is the default.
    #[inline(always)]
    pub(crate) fn is_default(&self) -> bool {
        self.switches.load() == 0
    }

    /// Whether new connections get records.
    pub(crate) fn is_enabled(&self) -> bool {
        !self.is_set(&DISABLED)
    }

    /// Reads the options of a segment by the rules.
    pub(crate) fn find_client(&self, options: &[u8], rcu: &rcu::Guard) -> ParsedOptions {
        let pick = if self.is_set(&LAST) {
            Pick::Last
        } else {
            Pick::First
        };
        match self.kinds.get(rcu) {
            None => option::find_client(options, &kinds::Default, pick),
            Some((rules, _)) => option::find_client(options, rules, pick),
        }
    }

    /// Whether options of which none counts have one that could be a client's: see
    /// [`option::has_other_kind`].
    pub(crate) fn has_other_kind(&self, options: &[u8], rcu: &rcu::Guard) -> bool {
        match self.kinds.get(rcu) {
            None => option::has_other_kind(options, &kinds::Default),
            Some((rules, _)) => option::has_other_kind(options, rules),
        }
    }

    /// Whether any host may name clients.
    #[inline(always)]
    pub(crate) fn trusts_any_host(&self) -> bool {
        !self.trusted.is_some()
    }

    /// Returns the hosts that may name clients, or `None` for any host.
    #[inline(always)]
    pub(crate) fn trusted<'rcu>(&self, rcu: &'rcu rcu::Guard) -> Option<Set<'rcu>> {
        let (&v4, ranges) = self.trusted.get(rcu)?;
        Some(set(v4, ranges))
    }

    /// Whether IPv6 segments may name IPv4 clients.
    pub(crate) fn admits_nat46(&self) -> bool {
        self.is_set(&NAT46)
    }

    /// The clients that are refused although the segment's source is trusted.
    pub(crate) fn refused_addresses(&self) -> Refused {
        if self.is_set(&OWN_ADDRESSES) && self.trusted.is_some() {
            Refused::Groups
        } else {
            Refused::OwnAndGroups
        }
    }

    /// Whether the last write of the current process to the file was a part of a value. If so, this
    /// write is another part, and the last one if it `ends` in a newline.
    fn continues(&self, file: usize, ends: bool, guard: &Guard<'_, Namespace>) -> bool {
        let writer = (task::current_process(), file);
        let mut writers = self.writers.get(guard);
        let Some(place) = writers.iter_mut().find(|other| **other == writer) else {
            return false;
        };
        if ends {
            *place = (0, 0);
            self.writers.set(writers, guard);
        }
        true
    }

    /// Remembers that the current process wrote a part of a value.
    fn expect_more(&self, file: usize, guard: &Guard<'_, Namespace>) {
        let writer = (task::current_process(), file);
        let mut writers = self.writers.get(guard);
        writers.rotate_right(1);
        if let Some(first) = writers.first_mut() {
            *first = writer;
        }
        self.writers.set(writers, guard);
    }
}

/// The set of which the first `v4` ranges are IPv4.
fn set(v4: V4Ranges, ranges: &[Range]) -> Set<'_> {
    let (v4, v6) = ranges.split_at_checked(v4).unwrap_or_default();
    Set { v4, v6 }
}

/// The reason for which a write fails.
enum Failure {
    /// The value is refused.
    Value(Refusal),
    /// An error, and the reason for the log.
    Other(Error, &'static str),
}

impl From<Refusal> for Failure {
    fn from(refusal: Refusal) -> Self {
        Self::Value(refusal)
    }
}

impl From<Error> for Failure {
    fn from(error: Error) -> Self {
        Self::Other(error, "no memory")
    }
}

/// The value of a setting, ready to be stored.
enum Value {
    Switch(&'static Switch, bool),
    Trusted(Option<Trusted>),
    Kinds(Option<Shared<Rules, ()>>),
}

impl Setting {
    /// The most bytes of a value's text.
    fn limit(self) -> usize {
        match self {
            Self::Switch(_) => MAX_SHORT,
            Self::Trusted => prefixes::MAX_TEXT,
            Self::Kinds => kinds::MAX_TEXT,
        }
    }

    /// Reads a value.
    fn parse(self, line: &[u8]) -> Result<Value, Failure> {
        match self {
            Self::Switch(switch) => {
                let word = syntax::only(line);
                let [clear, set] = switch.words;
                let is_set = match word {
                    Some(word) if word == clear.as_bytes() => false,
                    Some(word) if word == set.as_bytes() => true,
                    _ => {
                        let reason = if clear.len() == 1 {
                            "neither 0 nor 1"
                        } else {
                            "neither first nor last"
                        };
                        return Err(Refusal::invalid(1, reason).into());
                    }
                };
                Ok(Value::Switch(switch, is_set))
            }
            Self::Trusted => Ok(Value::Trusted(match prefixes::parse(line) {
                Text::Any => None,
                Text::Set(prefixes) => Some(trusted(prefixes)?),
            })),
            Self::Kinds => {
                let rules = Rules::parse(line)?;
                let shared = if rules.is_default() {
                    None
                } else {
                    Some(Shared::new(rules, 0, core::iter::empty())?)
                };
                Ok(Value::Kinds(shared))
            }
        }
    }
}

/// Merges prefixes into a set. May sleep.
fn trusted(prefixes: prefixes::Prefixes<'_>) -> Result<Trusted, Failure> {
    let (mut v4, mut v6) = (KVVec::new(), KVVec::new());
    for prefix in prefixes {
        let prefix = prefix?;
        let list: &mut KVVec<Range> = match prefix.family {
            prefixes::Family::V4 => &mut v4,
            prefixes::Family::V6 => &mut v6,
        };
        let greatest = prefixes::insert(list, prefix.range());
        list.push(greatest, GFP_KERNEL_ACCOUNT)
            .map_err(Error::from)?;
    }
    let (v4_ranges, v6_ranges) = (Merged::new(&v4).len(), Merged::new(&v6).len());
    Ok(Shared::new(
        v4_ranges,
        v4_ranges.saturating_add(v6_ranges),
        Iterator::chain(Merged::new(&v4), Merged::new(&v6)),
    )?)
}

/// Stores a value in a namespace and in those that follow it.
fn store(namespace: &Namespace, bit: Settings, value: Value, guard: &Guard<'_, Namespace>) {
    let policy = &namespace.policy;
    match value {
        Value::Switch(switch, is_set) => policy.set(switch, is_set, guard),
        Value::Trusted(trusted) => policy.trusted.set(trusted, guard),
        Value::Kinds(kinds) => policy.set_kinds(kinds, guard),
    }
    let inherited = policy.inherited.get(guard) & !bit;
    policy.inherited.set(inherited, guard);
    spread(namespace, bit, guard);
}

/// Copies settings of a namespace to those that follow it, directly or through others.
fn spread(namespace: &Namespace, settings: Settings, guard: &Guard<'_, Namespace>) {
    for (_, bit, setting) in SETTINGS {
        if settings & bit == 0 {
            continue;
        }
        let change = CHANGES.fetch_add(1, Relaxed).wrapping_add(1);
        namespace.policy.change.set(change, guard);
        // Parents come first, so one pass reaches all.
        for (follower, parent) in guard.iter() {
            let Some(parent) = parent else {
                continue;
            };
            let follows = follower.policy.inherited.get(guard) & bit != 0;
            if follows && parent.policy.change.get(guard) == change {
                follower.policy.copy(&parent.policy, setting, guard);
                follower.policy.change.set(change, guard);
            }
        }
    }
}

/// Reads the text of [`INHERITED`].
fn parse_inherited(line: &[u8]) -> Result<Settings, Refusal> {
    let mut inherited = 0;
    for (column, item) in syntax::Items::new(line) {
        let mut names = SETTINGS.iter();
        let found = names.find(|(name, ..)| name.to_bytes() == item);
        let (_, bit, _) = found.ok_or(Refusal::invalid(column, "not the name of a setting"))?;
        inherited |= bit;
    }
    Ok(inherited)
}

/// Makes the namespace follow its parent in these settings, and keep the values of all others.
fn follow(
    namespace: &Namespace,
    inherited: Settings,
    guard: &Guard<'_, Namespace>,
) -> Result<(), Failure> {
    let mut members = guard.iter();
    let found = members.find(|(member, _)| core::ptr::eq(*member, namespace));
    let parent = found.and_then(|(_, parent)| parent);
    let Some(parent) = parent else {
        if inherited == 0 {
            return Ok(());
        }
        let reason = "this namespace has no parent";
        return Err(Refusal::invalid(1, reason).into());
    };
    let new = inherited & !namespace.policy.inherited.get(guard);
    for (_, bit, setting) in SETTINGS {
        if new & bit != 0 {
            namespace.policy.copy(&parent.policy, setting, guard);
        }
    }
    namespace.policy.inherited.set(inherited, guard);
    spread(namespace, new, guard);
    Ok(())
}

/// Writes the names of the inherited settings.
fn write_inherited(policy: &Policy, f: &mut dyn fmt::Write) -> fmt::Result {
    let inherited = policy.inherited.get(&Namespace::id().lock());
    let mut separator = "";
    for (name, bit, _) in SETTINGS {
        if inherited & bit != 0 {
            f.write_str(separator)?;
            f.write_str(name.to_str().unwrap_or_default())?;
            separator = " ";
        }
    }
    Ok(())
}

/// Changes the share of a namespace.
fn set_share(namespace: &Namespace, line: &[u8]) -> Result<(), Failure> {
    let number = syntax::only(line).and_then(syntax::number);
    let share = i64::from(number.ok_or(Refusal::invalid(1, "not a number of records"))?);
    let guard = Namespace::id().lock();
    if share > namespace.share.load() && !task::may_administer_the_host() {
        return Err(Failure::Other(
            EPERM,
            "raising a share needs CAP_NET_ADMIN in the initial user namespace",
        ));
    }
    if share > records::largest_share(namespace) {
        let reason = "more than the namespaces of that owner may hold, see the load line";
        return Err(Refusal::invalid(1, reason).into());
    }
    namespace.share.store(share);
    drop(guard);
    Ok(())
}

/// Takes a value for a file.
fn write(namespace: &Namespace, file: usize, offset: i64, bytes: &[u8]) -> Result<(), Failure> {
    let setting = SETTINGS.get(file);
    let limit = setting.map_or(MAX_SHORT, |(_, _, setting)| setting.limit());
    let line = {
        let guard = Namespace::id().lock();
        let ends = bytes.last() == Some(&b'\n');
        if namespace.policy.continues(file, ends, &guard) {
            let reason = "the rest of a value that was refused: write the whole value again";
            return Err(Refusal::invalid(1, reason).into());
        }
        syntax::line(bytes, offset, limit).inspect_err(|refusal| {
            if refusal.class == Class::Part && !ends {
                namespace.policy.expect_more(file, &guard);
            }
        })?
    };
    if let Some((_, bit, setting)) = setting {
        // Parsing and allocating need no lock.
        let value = setting.parse(line)?;
        store(namespace, *bit, value, &Namespace::id().lock());
        return Ok(());
    }
    if FILES.get(file) == Some(&MAX_RECORDS) {
        return set_share(namespace, line);
    }
    let inherited = parse_inherited(line)?;
    follow(namespace, inherited, &Namespace::id().lock())
}

impl Sysctls for Namespace {
    const DIRECTORY: &'static CStr = c"net/toa";

    const FILES: &'static [&'static CStr] = &FILES;

    fn read(net: &Net, file: usize, f: &mut dyn fmt::Write) -> fmt::Result {
        let rcu = rcu::read_lock();
        let namespace = net.data();
        let policy = &namespace.policy;
        match SETTINGS.get(file) {
            Some((.., Setting::Switch(switch))) => {
                let [clear, set] = switch.words;
                f.write_str(if policy.is_set(switch) { set } else { clear })
            }
            Some((.., Setting::Trusted)) => match policy.trusted(&rcu) {
                None => Ok(()),
                Some(hosts) => write!(f, "{hosts}"),
            },
            Some((.., Setting::Kinds)) => match policy.kinds.get(&rcu) {
                None => write!(f, "{}", kinds::Default),
                Some((rules, _)) => write!(f, "{rules}"),
            },
            None if FILES.get(file) == Some(&MAX_RECORDS) => {
                write!(f, "{}", namespace.share.load())
            }
            None => {
                // The lock sleeps.
                drop(rcu);
                write_inherited(policy, f)
            }
        }
    }

    fn write(net: &Net, file: usize, offset: i64, bytes: &[u8]) -> Result {
        if !net.current_may_administer() {
            return Err(EPERM);
        }
        // Programs that have nothing to write.
        if bytes.is_empty() {
            return Ok(());
        }
        let namespace = net.data();
        let failure = match write(namespace, file, offset, bytes) {
            Ok(()) => return Ok(()),
            Err(failure) => failure,
        };
        let name = FILES.get(file).and_then(|name| name.to_str().ok());
        let (name, number) = (name.unwrap_or_default(), net.number());
        let (error, column, reason) = match failure {
            Failure::Value(refusal) => (
                match refusal.class {
                    Class::Invalid | Class::Part => EINVAL,
                    Class::TooLong => E2BIG,
                },
                refusal.column,
                refusal.reason,
            ),
            Failure::Other(error, reason) => (error, 1, reason),
        };
        if REFUSALS.permits() {
            log!(
                WARNING,
                "net.toa.{name} of network namespace {number} keeps its value: column {column}: \
                 {reason}\n"
            );
        }
        Err(error)
    }
}
