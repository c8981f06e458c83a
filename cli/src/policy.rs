// SPDX-License-Identifier: MIT OR Apache-2.0

//! The policy of a network namespace, the files `net.toa.*`: their values, and the checks that the
//! module makes, so that a wrong value is refused before anything is written.

use std::fmt;
use std::fs::File;
use std::io;
use std::io::Write as _;
use std::net::IpAddr;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;
use std::str::FromStr;

use ipnet::IpNet;
use schemars::JsonSchema;
use serde::Serialize;

use crate::failure::Failure;
use crate::failure::Result;
use crate::failure::Status;
use crate::host::Host;
use crate::output::printable;

/// The directory of the files.
pub const DIRECTORY: &str = "/proc/sys/net/toa";

/// The most prefixes of the trusted set.
const MAX_PREFIXES: usize = 1024;

/// The most rules for kinds.
const MAX_RULES: usize = 32;

/// A file of the policy.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Setting {
    /// Whether options count at all.
    Enabled,
    /// The hosts that may name clients.
    Trusted,
    /// The rules by which options count.
    Kinds,
    /// The option that counts, of two.
    Pick,
    /// Whether IPv6 segments may name IPv4 clients.
    Nat46,
    /// Whether trusted hosts may name the server's addresses.
    OwnAddresses,
    /// The settings that follow the parent namespace.
    Inherited,
    /// The most records of the namespace.
    MaxRecords,
}

impl Setting {
    /// All settings, in the order in which they are shown.
    pub const ALL: [Self; 8] = [
        Self::Enabled,
        Self::Trusted,
        Self::Kinds,
        Self::Pick,
        Self::Nat46,
        Self::OwnAddresses,
        Self::Inherited,
        Self::MaxRecords,
    ];

    /// The file's name.
    pub fn name(self) -> &'static str {
        match self {
            Self::Enabled => "enabled",
            Self::Trusted => "trusted",
            Self::Kinds => "kinds",
            Self::Pick => "pick",
            Self::Nat46 => "nat46",
            Self::OwnAddresses => "own_addresses",
            Self::Inherited => "inherited",
            Self::MaxRecords => "max_records",
        }
    }

    /// Whether a namespace can follow its parent in this setting.
    fn is_inherited(self) -> bool {
        !matches!(self, Self::Inherited | Self::MaxRecords)
    }

    /// Whether the setting makes sense in a file for each start of the host.
    pub fn is_persistent(self) -> bool {
        self != Self::Inherited
    }

    fn path(self) -> String {
        format!("{DIRECTORY}/{}", self.name())
    }
}

impl FromStr for Setting {
    type Err = String;

    fn from_str(name: &str) -> Result<Self, String> {
        let mut all = Self::ALL.into_iter();
        all.find(|setting| setting.name() == name).ok_or_else(|| {
            let names = Self::ALL.map(Self::name).join(", ");
            format!("there is no setting {name:?}: write one of {names}")
        })
    }
}

/// The layout and meaning of an option.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Dialect {
    /// Port and IPv4 address of a client.
    Client4,
    /// Port and IPv6 address of a client.
    Client6,
    /// IPv4 address of a client.
    Client4NoPort,
    /// IPv6 address of a client.
    Client6NoPort,
    /// The virtual server's address.
    Vip,
}

impl Dialect {
    const ALL: [Self; 5] = [
        Self::Client4,
        Self::Client6,
        Self::Client4NoPort,
        Self::Client6NoPort,
        Self::Vip,
    ];

    /// The name in a rule.
    pub fn name(self) -> &'static str {
        match self {
            Self::Client4 => "client4",
            Self::Client6 => "client6",
            Self::Client4NoPort => "client4-noport",
            Self::Client6NoPort => "client6-noport",
            Self::Vip => "vip",
        }
    }

    /// The length of its options. Those of [`Dialect::Vip`] may have another one.
    fn length(self) -> u8 {
        match self {
            Self::Client4 | Self::Vip => 8,
            Self::Client6 => 20,
            Self::Client4NoPort => 6,
            Self::Client6NoPort => 18,
        }
    }

    /// Whether the options name IPv4 clients.
    fn is_ipv4(self) -> bool {
        matches!(self, Self::Client4 | Self::Client4NoPort)
    }
}

/// The meaning of the options of one kind and length.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rule {
    /// The kind.
    pub kind: u8,
    /// The length with the kind and length bytes.
    pub length: u8,
    /// The meaning.
    pub dialect: Dialect,
}

impl fmt::Display for Rule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}:{}", self.kind, self.length, self.dialect.name())
    }
}

/// The items of a value. Commas and blanks separate them.
fn items(value: &str) -> impl Iterator<Item = &str> {
    value
        .split([',', ' ', '\t'])
        .filter(|item| !item.is_empty())
}

/// Reads a decimal number without a sign or a leading zero.
fn number(text: &str) -> Option<u32> {
    let plain = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    let canonical = text == "0" || !text.starts_with('0');
    (plain && canonical).then(|| text.parse().ok()).flatten()
}

/// Reads `ADDRESS` or `ADDRESS/LENGTH`.
///
/// # Errors
///
/// The reason, with the item.
pub fn parse_prefix(item: &str) -> Result<IpNet, String> {
    let canonical_length = item
        .split_once('/')
        .is_none_or(|(_, length)| number(length).is_some());
    let prefix = IpNet::from_str(item)
        .or_else(|_| IpAddr::from_str(item).map(IpNet::from))
        .ok()
        .filter(|_| canonical_length)
        .ok_or_else(|| {
            format!("{item:?} is no IPv4 or IPv6 prefix: write one such as 10.0.1.0/28")
        })?;
    if prefix.trunc() != prefix {
        return Err(format!(
            "{item} has address bits beyond the prefix's length: write {}",
            prefix.trunc()
        ));
    }
    match prefix {
        IpNet::V6(v6) if v6.network().to_ipv4_mapped().is_some() => {
            Err(format!("{item} is IPv4-mapped: write the IPv4 prefix"))
        }
        _ => Ok(prefix),
    }
}

/// The hosts that may name clients.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Trusted {
    /// Any host: the empty value.
    Any,
    /// These hosts only. Without a prefix the value is `none`.
    Prefixes(Vec<IpNet>),
}

impl Trusted {
    /// Reads a value.
    ///
    /// # Errors
    ///
    /// The reason.
    pub fn parse(value: &str) -> Result<Self, String> {
        let found: Vec<&str> = items(value).collect();
        match found[..] {
            [] => Ok(Self::Any),
            ["none"] => Ok(Self::Prefixes(Vec::new())),
            _ if found.len() > MAX_PREFIXES => {
                Err(format!("more than {MAX_PREFIXES} prefixes: merge some"))
            }
            _ => {
                let prefixes = found.into_iter().map(parse_prefix);
                Ok(Self::Prefixes(prefixes.collect::<Result<_, _>>()?))
            }
        }
    }

    /// Whether an address is in the set.
    pub fn contains(&self, address: IpAddr) -> bool {
        match self {
            Self::Any => true,
            Self::Prefixes(prefixes) => prefixes.iter().any(|prefix| prefix.contains(&address)),
        }
    }
}

impl fmt::Display for Trusted {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Any => Ok(()),
            Self::Prefixes(prefixes) if prefixes.is_empty() => f.write_str("none"),
            Self::Prefixes(prefixes) => {
                let texts: Vec<String> = prefixes.iter().map(ToString::to_string).collect();
                f.write_str(&texts.join(","))
            }
        }
    }
}

/// Reads the rules for kinds: `KIND[/LENGTH][:DIALECT]`.
///
/// # Errors
///
/// The reason.
pub fn parse_kinds(value: &str) -> Result<Vec<Rule>, String> {
    let mut rules: Vec<Rule> = Vec::new();
    for item in items(value) {
        for rule in parse_rule(item)? {
            let same = |other: &Rule| (other.kind, other.length) == (rule.kind, rule.length);
            if rules.iter().any(same) {
                return Err(format!(
                    "{item} is a second rule for kind {} and length {}",
                    rule.kind, rule.length
                ));
            }
            rules.push(rule);
        }
    }
    if rules.is_empty() {
        return Err("no rule: run toa policy set enabled=0 instead".to_owned());
    }
    if rules.len() > MAX_RULES {
        return Err(format!("more than {MAX_RULES} rules"));
    }
    Ok(rules)
}

fn parse_rule(item: &str) -> Result<Vec<Rule>, String> {
    let (front, dialect) = match item.split_once(':') {
        None => (item, None),
        Some((front, name)) => {
            let mut all = Dialect::ALL.into_iter();
            let dialect = all.find(|dialect| dialect.name() == name).ok_or_else(|| {
                let names = Dialect::ALL.map(Dialect::name).join(", ");
                format!("{item:?}: there is no dialect {name:?}: write one of {names}")
            })?;
            (front, Some(dialect))
        }
    };
    let (kind, length) = match front.split_once('/') {
        None => (front, None),
        Some((kind, length)) => (kind, Some(length)),
    };
    let kind = parse_kind(kind).map_err(|reason| format!("{item:?}: {reason}"))?;
    let rule = |dialect: Dialect, length| Rule {
        kind,
        length,
        dialect,
    };
    let Some(length) = length else {
        return Ok(match dialect {
            Some(dialect) => vec![rule(dialect, dialect.length())],
            None => [Dialect::Client4, Dialect::Client6]
                .map(|dialect| rule(dialect, dialect.length()))
                .to_vec(),
        });
    };
    let length = parse_length(length).map_err(|reason| format!("{item:?}: {reason}"))?;
    let fits = |dialect: &Dialect| *dialect == Dialect::Vip || dialect.length() == length;
    let dialect = match dialect {
        Some(dialect) => Some(dialect).filter(fits),
        None => [Dialect::Client4, Dialect::Client6].into_iter().find(fits),
    };
    let dialect = dialect.ok_or_else(|| {
        format!(
            "{item:?}: the dialect has another length: client4 8, client6 20, client4-noport 6, \
             client6-noport 18"
        )
    })?;
    Ok(vec![rule(dialect, length)])
}

fn parse_kind(text: &str) -> Result<u8, String> {
    let kind = number(text).and_then(|kind| u8::try_from(kind).ok());
    match kind {
        Some(19 | 29) => Err(format!(
            "the kernel drops segments with kind {text} unless the socket has a key"
        )),
        // Those of RFC 9293, 7323, 2018, 8684 and 7413.
        Some(0..=5 | 8 | 30 | 34) => Err(format!("TCP itself uses kind {text}")),
        Some(kind) => Ok(kind),
        None => Err(format!("{text:?} is no kind: 6 to 255")),
    }
}

fn parse_length(text: &str) -> Result<u8, String> {
    let length = number(text).filter(|length| (2..=40).contains(length));
    length
        .and_then(|length| u8::try_from(length).ok())
        .ok_or_else(|| format!("{text:?} is no option's length: 2 to 40"))
}

/// Reads `KIND/LENGTH`, an option in a segment.
///
/// # Errors
///
/// The reason.
pub fn parse_option(text: &str) -> Result<(u8, u8), String> {
    let (kind, length) = text
        .split_once('/')
        .ok_or_else(|| format!("{text:?}: write KIND/LENGTH, such as 254/8"))?;
    Ok((parse_kind(kind)?, parse_length(length)?))
}

/// A value of a setting that the module accepts, as far as its text decides.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Assignment {
    /// The setting.
    pub setting: Setting,
    /// The value, without a newline.
    pub value: String,
}

impl Assignment {
    /// Checks a value.
    ///
    /// # Errors
    ///
    /// The reason.
    pub fn new(setting: Setting, value: &str) -> Result<Self, String> {
        let only = || {
            let mut items = items(value);
            items.next().filter(|_| items.next().is_none())
        };
        let word = |allowed: [&str; 2]| match only() {
            Some(word) if allowed.contains(&word) => Ok(word.to_owned()),
            _ => Err(format!(
                "{value:?} is neither {} nor {}",
                allowed[0], allowed[1]
            )),
        };
        let value = match setting {
            Setting::Enabled | Setting::Nat46 | Setting::OwnAddresses => word(["0", "1"]),
            Setting::Pick => word(["first", "last"]),
            Setting::Trusted => Trusted::parse(value).map(|trusted| trusted.to_string()),
            Setting::Kinds => parse_kinds(value).map(|rules| {
                let texts: Vec<String> = rules.iter().map(ToString::to_string).collect();
                texts.join(",")
            }),
            Setting::Inherited => {
                let names = items(value).map(|item| match item.parse::<Setting>() {
                    Ok(setting) if setting.is_inherited() => Ok(item),
                    _ => Err(format!("{item:?} is no setting that can be inherited")),
                });
                names
                    .collect::<Result<Vec<_>, _>>()
                    .map(|names| names.join(" "))
            }
            Setting::MaxRecords => only()
                .and_then(number)
                .map(|number| number.to_string())
                .ok_or_else(|| format!("{value:?} is no number of records")),
        };
        let value = value.map_err(|reason| format!("{}: {reason}", setting.name()))?;
        Ok(Self { setting, value })
    }

    /// Writes the value in the thread's network namespace, in one call at offset 0. The module takes
    /// nothing else.
    ///
    /// # Errors
    ///
    /// The kernel refuses the value, which then is unchanged.
    pub fn write(&self) -> Result<()> {
        let name = self.setting.name();
        write(name, &self.value).map_err(|error| match error.kind() {
            io::ErrorKind::NotFound => missing(),
            io::ErrorKind::PermissionDenied => Failure::new(
                Status::NotPermitted,
                match self.setting {
                    Setting::MaxRecords => format!(
                        "{name} keeps its value: raising it needs root of the host: run it with sudo there"
                    ),
                    _ => format!(
                        "{name} keeps its value: it needs root of this network namespace: run it with sudo"
                    ),
                },
            ),
            _ => Failure::failed(format!(
                "{name} keeps its value: {error}: dmesg | grep TOA has the reason"
            )),
        })
    }
}

/// Writes a value to the file of that name, in one call, as the module demands.
///
/// # Errors
///
/// The kernel refuses the value, or has no such file.
pub fn write(name: &str, value: &str) -> io::Result<()> {
    let mut file = File::options()
        .write(true)
        .custom_flags(nix::libc::O_CLOEXEC)
        .open(Path::new(DIRECTORY).join(name))?;
    let bytes = format!("{value}\n").into_bytes();
    match file.write(&bytes)? {
        count if count == bytes.len() => Ok(()),
        _ => Err(io::ErrorKind::WriteZero.into()),
    }
}

/// The failure of a kernel without the files.
fn missing() -> Failure {
    if std::path::Path::new("/sys/module/toa").exists() {
        Failure::failed(
            "the toa that runs has no policy (/proc/sys/net/toa): upgrade it, then run rmmod toa && modprobe toa",
        )
    } else {
        Failure::not_loaded()
    }
}

/// The values of all settings, as the module prints them. A setting that the module lacks is absent.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, JsonSchema)]
pub struct Policy {
    /// Whether options count.
    pub enabled: Option<String>,
    /// The trusted prefixes, `none`, or nothing for any host.
    pub trusted: Option<String>,
    /// The rules for kinds.
    pub kinds: Option<String>,
    /// The option that counts, of two: `first` or `last`.
    pub pick: Option<String>,
    /// Whether IPv6 segments may name IPv4 clients.
    pub nat46: Option<String>,
    /// Whether trusted hosts may name the server's addresses.
    pub own_addresses: Option<String>,
    /// The settings that follow the parent namespace.
    pub inherited: Option<String>,
    /// The most records of the namespace.
    pub max_records: Option<String>,
}

impl Policy {
    /// Reads the policy of the thread's network namespace, or returns none if the module has none.
    ///
    /// # Errors
    ///
    /// A value that the module does not write.
    pub fn read(host: &Host) -> Result<Option<Self>> {
        if !host.exists(DIRECTORY) {
            return Ok(None);
        }
        let mut policy = Self::default();
        for setting in Setting::ALL {
            let Some(text) = host.read(&setting.path())? else {
                continue;
            };
            let value = text.trim_end_matches('\n');
            let checked = Assignment::new(setting, value).map_err(|reason| {
                Failure::failed(format!("{}: {}", setting.path(), printable(&reason)))
            })?;
            *policy.place(setting) = Some(checked.value);
        }
        Ok(Some(policy))
    }

    /// Reads the policy, which must be there.
    ///
    /// # Errors
    ///
    /// As [`Policy::read`], and a module without a policy.
    pub fn require(host: &Host) -> Result<Self> {
        Self::read(host)?.ok_or_else(missing)
    }

    fn place(&mut self, setting: Setting) -> &mut Option<String> {
        match setting {
            Setting::Enabled => &mut self.enabled,
            Setting::Trusted => &mut self.trusted,
            Setting::Kinds => &mut self.kinds,
            Setting::Pick => &mut self.pick,
            Setting::Nat46 => &mut self.nat46,
            Setting::OwnAddresses => &mut self.own_addresses,
            Setting::Inherited => &mut self.inherited,
            Setting::MaxRecords => &mut self.max_records,
        }
    }

    /// Returns a setting's value.
    pub fn get(&self, setting: Setting) -> Option<&str> {
        self.clone_of(setting).as_deref()
    }

    fn clone_of(&self, setting: Setting) -> &Option<String> {
        match setting {
            Setting::Enabled => &self.enabled,
            Setting::Trusted => &self.trusted,
            Setting::Kinds => &self.kinds,
            Setting::Pick => &self.pick,
            Setting::Nat46 => &self.nat46,
            Setting::OwnAddresses => &self.own_addresses,
            Setting::Inherited => &self.inherited,
            Setting::MaxRecords => &self.max_records,
        }
    }

    /// Whether new connections get records.
    pub fn is_enabled(&self) -> bool {
        self.enabled.as_deref() != Some("0")
    }

    /// Returns the trusted set.
    pub fn trusted(&self) -> Trusted {
        let value = self.trusted.as_deref().unwrap_or_default();
        Trusted::parse(value).unwrap_or(Trusted::Any)
    }

    /// Whether any host may name clients.
    pub fn trusts_any_host(&self) -> bool {
        self.trusted() == Trusted::Any
    }

    /// Decides on an option in a segment from `source`, in the order of the module.
    pub fn decide(&self, source: IpAddr, kind: u8, length: u8) -> Decision {
        if !self.is_enabled() {
            return Decision::refused(
                "disabled",
                "toa is switched off: run toa policy set enabled=1",
            );
        }
        let kinds = self.kinds.as_deref().unwrap_or("254");
        let rules = parse_kinds(kinds).unwrap_or_default();
        let rule = rules
            .iter()
            .find(|rule| (rule.kind, rule.length) == (kind, length));
        let rule = match rule {
            Some(rule) if rule.dialect == Dialect::Vip => {
                return Decision::refused(
                    "no_option",
                    format!("the rule {rule} is for virtual servers, not for clients"),
                );
            }
            Some(rule) => rule,
            None => {
                let names_clients = |rule: &Rule| rule.kind == kind && rule.dialect != Dialect::Vip;
                return if rules.iter().any(names_clients) {
                    Decision::refused(
                        "malformed",
                        format!(
                            "no rule of kind {kind} has length {length}: the rules are {kinds}"
                        ),
                    )
                } else {
                    Decision::refused(
                        "kind_not_configured",
                        format!("no rule has kind {kind}: the rules are {kinds}"),
                    )
                };
            }
        };
        if !self.trusted().contains(source) {
            return Decision::refused(
                "untrusted",
                format!("{source} is not in the trusted set: run toa policy set trusted+={source}"),
            );
        }
        if source.is_ipv6() && rule.dialect.is_ipv4() && self.nat46.as_deref() != Some("1") {
            return Decision::refused(
                "foreign_length",
                "IPv6 segments may not name IPv4 clients: nat46 is 0",
            );
        }
        Decision {
            believed: true,
            row: "option_taken".to_owned(),
            reason: match self.trusted() {
                Trusted::Any => format!("any host is trusted, and the rule is {rule}"),
                Trusted::Prefixes(_) => format!("{source} is trusted, and the rule is {rule}"),
            },
        }
    }
}

/// The policy's answer to an option.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, JsonSchema)]
pub struct Decision {
    /// Whether a possible client in the option is recorded.
    pub believed: bool,
    /// The row of `/proc/net/toa_stats` that counts the connection.
    pub row: String,
    /// The reason.
    pub reason: String,
}

impl Decision {
    fn refused(row: &str, reason: impl Into<String>) -> Self {
        Self {
            believed: false,
            row: row.to_owned(),
            reason: reason.into(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn checked(name: &str, value: &str) -> Result<String, String> {
        let setting: Setting = name.parse()?;
        Assignment::new(setting, value).map(|assignment| assignment.value)
    }

    #[test]
    fn values_get_the_modules_form() {
        for (name, value, expected) in [
            ("enabled", " 0 ", "0"),
            ("trusted", "10.0.1.0/24, fd00::/8", "10.0.1.0/24,fd00::/8"),
            ("trusted", "10.0.0.1", "10.0.0.1/32"),
            ("trusted", "none", "none"),
            ("trusted", "", ""),
            (
                "kinds",
                "253/20 254",
                "253/20:client6,254/8:client4,254/20:client6",
            ),
            (
                "kinds",
                "200:client4-noport,253/8:vip",
                "200/6:client4-noport,253/8:vip",
            ),
            ("pick", "last", "last"),
            ("inherited", "kinds,pick", "kinds pick"),
            ("max_records", "7", "7"),
        ] {
            assert_eq!(checked(name, value).as_deref(), Ok(expected), "{name}");
        }
    }

    #[test]
    fn wrong_values_are_refused_with_their_reason() {
        let too_many = vec!["10.0.0.1/32"; 1025].join(",");
        for (name, value, reason) in [
            ("enabled", "yes", "enabled: \"yes\" is neither 0 nor 1"),
            ("enabled", "1 1", "enabled: \"1 1\" is neither 0 nor 1"),
            ("pick", "", "pick: \"\" is neither first nor last"),
            (
                "trusted",
                "10.0.0.0/2",
                "trusted: 10.0.0.0/2 has address bits beyond the prefix's length: write 0.0.0.0/2",
            ),
            (
                "trusted",
                "10.0.0.0/33",
                "trusted: \"10.0.0.0/33\" is no IPv4 or IPv6 prefix: write one such as 10.0.1.0/28",
            ),
            (
                "trusted",
                "10.0.0.0/08",
                "trusted: \"10.0.0.0/08\" is no IPv4 or IPv6 prefix: write one such as 10.0.1.0/28",
            ),
            (
                "trusted",
                "none,10.0.0.1",
                "trusted: \"none\" is no IPv4 or IPv6 prefix: write one such as 10.0.1.0/28",
            ),
            (
                "trusted",
                "::ffff:10.0.0.0/104",
                "trusted: ::ffff:10.0.0.0/104 is IPv4-mapped: write the IPv4 prefix",
            ),
            (
                "trusted",
                &too_many,
                "trusted: more than 1024 prefixes: merge some",
            ),
            (
                "kinds",
                "",
                "kinds: no rule: run toa policy set enabled=0 instead",
            ),
            ("kinds", "5", "kinds: \"5\": TCP itself uses kind 5"),
            (
                "kinds",
                "256",
                "kinds: \"256\": \"256\" is no kind: 6 to 255",
            ),
            (
                "kinds",
                "254,254/8",
                "kinds: 254/8 is a second rule for kind 254 and length 8",
            ),
            (
                "kinds",
                "254/41",
                "kinds: \"254/41\": \"41\" is no option's length: 2 to 40",
            ),
            (
                "inherited",
                "max_records",
                "inherited: \"max_records\" is no setting that can be inherited",
            ),
            (
                "max_records",
                "-1",
                "max_records: \"-1\" is no number of records",
            ),
            (
                "max_records",
                "01",
                "max_records: \"01\" is no number of records",
            ),
        ] {
            assert_eq!(checked(name, value), Err(reason.to_owned()), "{name}");
        }
        assert!(checked("trust", "1").is_err_and(|reason| reason.contains("there is no setting")));
    }

    fn policy(trusted: &str, kinds: &str) -> Policy {
        Policy {
            enabled: Some("1".to_owned()),
            trusted: Some(trusted.to_owned()),
            kinds: Some(kinds.to_owned()),
            nat46: Some("0".to_owned()),
            ..Policy::default()
        }
    }

    #[test]
    fn decisions_are_those_of_the_module() {
        let kinds = "254/8:client4,254/20:client6,253/8:vip";
        for (trusted, source, kind, length, row) in [
            ("", "10.0.1.1", 254, 8, "option_taken"),
            ("", "10.0.1.1", 254, 20, "option_taken"),
            ("10.0.1.0/28", "10.0.1.1", 254, 8, "option_taken"),
            ("10.0.1.0/28", "10.0.1.16", 254, 8, "untrusted"),
            ("10.0.1.0/28", "fd00::1", 254, 20, "untrusted"),
            ("none", "10.0.1.1", 254, 8, "untrusted"),
            ("", "fd00::1", 254, 8, "foreign_length"),
            ("", "10.0.1.1", 254, 9, "malformed"),
            ("", "10.0.1.1", 253, 8, "no_option"),
            ("", "10.0.1.1", 253, 9, "kind_not_configured"),
            ("", "10.0.1.1", 200, 8, "kind_not_configured"),
        ] {
            let source: IpAddr = source.parse().expect("an address");
            let decision = policy(trusted, kinds).decide(source, kind, length);
            assert_eq!(decision.row, row, "{trusted} {source} {kind}/{length}");
            assert_eq!(decision.believed, row == "option_taken");
        }
        let mut off = policy("none", kinds);
        off.enabled = Some("0".to_owned());
        let source: IpAddr = "10.0.1.1".parse().expect("an address");
        assert_eq!(off.decide(source, 9, 9).row, "disabled");
    }
}
