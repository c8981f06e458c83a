// SPDX-License-Identifier: MIT OR Apache-2.0

//! `toa policy`: shows, sets and tests the policy.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::fs;
use std::io;
use std::io::Write as _;
use std::path::Path;

use ipnet::IpNet;
use schemars::JsonSchema;
use serde::Serialize;

use crate::arguments::PolicyCommand;
use crate::arguments::PolicyDiffArguments;
use crate::arguments::PolicySetArguments;
use crate::arguments::PolicyShowArguments;
use crate::arguments::PolicyTestArguments;
use crate::failure::Failure;
use crate::failure::Result;
use crate::failure::Status;
use crate::host::Host;
use crate::namespace::Namespace;
use crate::output;
use crate::output::bold;
use crate::output::printable;
use crate::output::Side;
use crate::output::Table;
use crate::policy;
use crate::policy::Assignment;
use crate::policy::Policy;
use crate::policy::Setting;
use crate::policy::Trusted;
use crate::status::policy_table;
use crate::Context;

/// The file of `--persist`.
const PERSISTENT: &str = "/etc/sysctl.d/toa.conf";

/// The directories of such files, the ones with the last word first (sysctl.d(5)).
const DIRECTORIES: [&str; 4] = [
    "/etc/sysctl.d",
    "/run/sysctl.d",
    "/usr/local/lib/sysctl.d",
    "/usr/lib/sysctl.d",
];

/// Runs the command.
///
/// # Errors
///
/// A wrong value, a missing right, or a module without a policy.
pub fn run(context: &Context, command: &PolicyCommand) -> Result<Status> {
    match command {
        PolicyCommand::Show(arguments) => show(context, arguments),
        PolicyCommand::Set(arguments) => set(context, arguments),
        PolicyCommand::Test(arguments) => test(context, arguments),
        PolicyCommand::Diff(arguments) => diff(context, arguments),
    }
}

/// A policy in the output of `toa policy show --json`.
#[derive(Debug, Serialize, JsonSchema)]
pub struct PolicyOf {
    /// The network namespace, with `--all-netns`.
    #[serde(skip_serializing_if = "Option::is_none")]
    netns: Option<String>,
    /// Its policy.
    policy: Policy,
}

fn show(context: &Context, arguments: &PolicyShowArguments) -> Result<Status> {
    let found = context.within_each(&arguments.places, || Policy::require(&context.host))?;
    let found = found.into_iter().map(|(namespace, policy)| PolicyOf {
        netns: namespace.map(|namespace| namespace.name),
        policy,
    });
    let found: Vec<PolicyOf> = found.collect();
    if context.json {
        output::print_json(&found)?;
        return Ok(Status::Success);
    }
    let mut out = String::new();
    for PolicyOf { netns, policy } in &found {
        let title = match netns {
            None => "policy".to_owned(),
            Some(name) => format!("policy of {name}"),
        };
        let _ = writeln!(out, "{}", bold(&title, output::has_styles()));
        policy_table(policy).write(&mut out, output::width());
    }
    output::print(&out)?;
    Ok(Status::Success)
}

/// A change of a setting.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Change {
    /// A new value.
    Set(Assignment),
    /// Prefixes to add to the trusted set.
    Add(Vec<IpNet>),
    /// Prefixes to remove from it.
    Remove(Vec<IpNet>),
}

impl Change {
    /// Reads `NAME=VALUE`, `trusted+=PREFIXES` or `trusted-=PREFIXES`.
    fn parse(text: &str) -> Result<Self, String> {
        let (name, value) = text
            .split_once('=')
            .ok_or_else(|| format!("{text:?}: write NAME=VALUE, such as trusted=10.0.1.0/28"))?;
        let prefixes = || match Trusted::parse(value)? {
            Trusted::Prefixes(prefixes) if !prefixes.is_empty() => Ok(prefixes),
            _ => Err(format!("{text:?} has no prefix")),
        };
        match name {
            "trusted+" => Ok(Self::Add(prefixes()?)),
            "trusted-" => Ok(Self::Remove(prefixes()?)),
            _ => Assignment::new(name.parse()?, value).map(Self::Set),
        }
    }

    /// Returns the value to write.
    fn apply(&self, policy: &Policy) -> Result<Assignment, String> {
        let trusted = || match policy.trusted() {
            Trusted::Prefixes(prefixes) => Some(prefixes),
            Trusted::Any => None,
        };
        let prefixes = match self {
            Self::Set(assignment) => return Ok(assignment.clone()),
            // With the first prefix, the set no longer has all hosts.
            Self::Add(added) => {
                let old = trusted().unwrap_or_default();
                IpNet::aggregate(&[old, added.clone()].concat())
            }
            Self::Remove(removed) => {
                let mut left = trusted().ok_or(
                    "trusted is empty, which is any host: set it to the balancers' prefixes first",
                )?;
                for prefix in removed {
                    let before = left.len();
                    left.retain(|other| other != prefix);
                    if left.len() == before {
                        return Err(format!(
                            "{prefix} is not in the trusted set, which is {}",
                            policy.trusted()
                        ));
                    }
                }
                left
            }
        };
        Assignment::new(Setting::Trusted, &Trusted::Prefixes(prefixes).to_string())
    }
}

fn set(context: &Context, arguments: &PolicySetArguments) -> Result<Status> {
    if context.host.is_copy() {
        return Err(Failure::usage(
            "a copy of files has no policy to set: leave out --sysroot",
        ));
    }
    let changes = arguments.assignments.iter().map(|text| Change::parse(text));
    let changes: Vec<Change> = changes.collect::<Result<_, _>>().map_err(Failure::usage)?;
    if arguments.persist {
        if arguments.places.netns.is_some() {
            return Err(Failure::usage(
                "--persist is for the host's policy: leave out --netns",
            ));
        }
        let volatile = |change: &Change| matches!(change, Change::Set(assignment) if !assignment.setting.is_persistent());
        if changes.iter().any(volatile) {
            return Err(Failure::usage(
                "the host's policy inherits nothing: leave out inherited or --persist",
            ));
        }
    }
    let written = context.within_each(&arguments.places, || write_all(&context.host, &changes))?;
    if arguments.persist {
        let own = written
            .iter()
            .find(|(namespace, _)| namespace.as_ref().is_none_or(Namespace::is_current));
        if let Some((_, assignments)) = own {
            persist(Path::new(PERSISTENT), assignments)?;
        }
    }
    if context.json {
        let rows: Vec<PolicyOf> = context
            .within_each(&arguments.places, || Policy::require(&context.host))?
            .into_iter()
            .map(|(namespace, policy)| PolicyOf {
                netns: namespace.map(|namespace| namespace.name),
                policy,
            })
            .collect();
        output::print_json(&rows)?;
    }
    Ok(Status::Success)
}

/// Writes all changes to the thread's network namespace. If the kernel refuses one, those before it are
/// taken back.
fn write_all(host: &Host, changes: &[Change]) -> Result<Vec<Assignment>> {
    let before = Policy::require(host)?;
    let assignments = changes.iter().map(|change| change.apply(&before));
    let assignments: Vec<Assignment> = assignments
        .collect::<Result<_, _>>()
        .map_err(Failure::usage)?;
    for (at, assignment) in assignments.iter().enumerate() {
        let Err(failure) = assignment.write() else {
            continue;
        };
        let written = assignments[..at].iter().map(|done| done.setting);
        // A written setting follows the parent no more, so the list of those that do comes last.
        let inherited = (at > 0).then_some(Setting::Inherited);
        for setting in written.chain(inherited) {
            let Some(value) = before.get(setting) else {
                continue;
            };
            let old = Assignment {
                setting,
                value: value.to_owned(),
            };
            if let Err(again) = old.write() {
                output::remark(&format!("{} has its new value: {again}", setting.name()));
            }
        }
        return Err(failure);
    }
    Ok(assignments)
}

/// Writes values to a file of sysctl.d, whose other lines stay.
fn persist(path: &Path, assignments: &[Assignment]) -> Result<()> {
    let failed = |error: io::Error| Failure::io("writing", path, &error);
    let old = match fs::read_to_string(path) {
        Ok(text) => text,
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            "# Written by toa policy set --persist.\n".to_owned()
        }
        Err(error) => return Err(failed(error)),
    };
    let new = path.with_extension("conf.new");
    fs::File::create(&new)
        .and_then(|mut file| {
            file.write_all(merged(&old, assignments).as_bytes())?;
            file.sync_all()
        })
        .and_then(|()| fs::rename(&new, path))
        .map_err(failed)
}

/// Replaces the values in a file of sysctl.d.
pub fn merged(old: &str, assignments: &[Assignment]) -> String {
    let mut lines: Vec<String> = old.lines().map(str::to_owned).collect();
    for Assignment { setting, value } in assignments {
        lines.retain(|line| sysctl_line(line).is_none_or(|(found, _)| found != *setting));
        let line = format!("net.toa.{} = {value}", setting.name());
        lines.push(line.trim_end().to_owned());
    }
    lines.join("\n") + "\n"
}

/// Reads a line of sysctl.d that sets a value of toa.
pub fn sysctl_line(line: &str) -> Option<(Setting, &str)> {
    let line = line.trim_start();
    let line = line.strip_prefix('-').unwrap_or(line);
    let (key, value) = line.split_once('=')?;
    let name = key
        .trim()
        .strip_prefix("net.toa.")
        .or_else(|| key.trim().strip_prefix("net/toa/"))?;
    Some((name.parse().ok()?, value.trim()))
}

/// The output of `toa policy test --json` is a [`policy::Decision`].
fn test(context: &Context, arguments: &PolicyTestArguments) -> Result<Status> {
    let (kind, length) = policy::parse_option(&arguments.option).map_err(Failure::usage)?;
    let netns = arguments.place.netns.as_deref();
    let policy = context.within(netns, || Policy::require(&context.host))?;
    let address = arguments.address.to_canonical();
    let decision = policy.decide(address, kind, length);
    if context.json {
        output::print_json(&decision)?;
    } else {
        let answer = if decision.believed {
            "believed"
        } else {
            "not believed"
        };
        output::print_wrapped(&format!("{answer} ({}): {}", decision.row, decision.reason))?;
    }
    Ok(if decision.believed {
        Status::Success
    } else {
        Status::Problem
    })
}

/// A setting in the output of `toa policy diff --json`.
#[derive(Debug, PartialEq, Eq, Serialize, JsonSchema)]
pub struct Difference {
    /// The setting.
    setting: String,
    /// The value that counts now.
    running: String,
    /// The value after the next start.
    persistent: String,
    /// The file that sets it. Without one, it is the module's default.
    file: Option<String>,
}

/// The values that the module begins with. The share depends on the machine.
const DEFAULTS: [(Setting, &str); 6] = [
    (Setting::Enabled, "1"),
    (Setting::Trusted, ""),
    (Setting::Kinds, "254/8:client4,254/20:client6"),
    (Setting::Pick, "first"),
    (Setting::Nat46, "0"),
    (Setting::OwnAddresses, "0"),
];

fn diff(context: &Context, arguments: &PolicyDiffArguments) -> Result<Status> {
    let netns = arguments.place.netns.as_deref();
    let policy = context.within(netns, || Policy::require(&context.host))?;
    let differences = differences(&policy, &persistent(&context.host)?);
    if context.json {
        output::print_json(&differences)?;
    } else if differences.is_empty() {
        output::print("the next start sets the policy that counts now\n")?;
    } else {
        let mut table = Table::new(&[Side::Left; 4]);
        table.row(["setting", "now", "after a start", "file"]);
        for difference in &differences {
            let shown = |value: &str| match value {
                "" => "(empty)".to_owned(),
                value => value.to_owned(),
            };
            table.row([
                difference.setting.clone(),
                shown(&difference.running),
                shown(&difference.persistent),
                difference.file.clone().unwrap_or("(default)".to_owned()),
            ]);
        }
        let mut out = String::new();
        table.cut(output::width()).write(&mut out, None);
        output::print(&out)?;
    }
    Ok(if differences.is_empty() {
        Status::Success
    } else {
        Status::Problem
    })
}

/// The values in the files of sysctl.d, each with its file.
type Persistent = BTreeMap<Setting, (String, String)>;

fn persistent(host: &Host) -> Result<Persistent> {
    // A file hides the files of its name in later directories. Names decide the order.
    let mut files = BTreeMap::new();
    for directory in DIRECTORIES {
        for name in host.names(directory) {
            if name.ends_with(".conf") {
                let path = format!("{directory}/{name}");
                files.entry(name).or_insert(path);
            }
        }
    }
    let mut values = Persistent::new();
    let last = "/etc/sysctl.conf".to_owned();
    for file in files.into_values().chain([last]) {
        let text = host.read(&file)?.unwrap_or_default();
        for (setting, value) in text.lines().filter_map(sysctl_line) {
            values.insert(setting, (value.to_owned(), file.clone()));
        }
    }
    Ok(values)
}

fn differences(policy: &Policy, persistent: &Persistent) -> Vec<Difference> {
    let mut found = Vec::new();
    for setting in Setting::ALL {
        let mut defaults = DEFAULTS.iter();
        let default = defaults.find(|(other, _)| *other == setting);
        let next = match (persistent.get(&setting), default) {
            (Some((value, file)), _) => (value.clone(), Some(file.clone())),
            (None, Some((_, value))) => ((*value).to_owned(), None),
            (None, None) => continue,
        };
        let Some(running) = policy.get(setting) else {
            continue;
        };
        // A value that the module refuses stays as it is in the file.
        let canonical = Assignment::new(setting, &next.0).map_or(next.0, |checked| checked.value);
        if running != canonical {
            found.push(Difference {
                setting: setting.name().to_owned(),
                running: running.to_owned(),
                persistent: printable(&canonical),
                file: next.1.as_deref().map(printable),
            });
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    fn trusting(value: &str) -> Policy {
        Policy {
            trusted: Some(value.to_owned()),
            ..Policy::default()
        }
    }

    #[test]
    fn prefixes_are_added_and_removed() {
        for (before, change, after) in [
            ("10.0.0.0/24", "trusted+=10.0.1.0/24", "10.0.0.0/23"),
            ("none", "trusted+=fd00::/8", "fd00::/8"),
            ("", "trusted+=10.0.0.1", "10.0.0.1/32"),
            ("10.0.0.0/8,fd00::/8", "trusted-=10.0.0.0/8", "fd00::/8"),
            ("10.0.0.0/8", "trusted-=10.0.0.0/8", "none"),
            ("10.0.0.0/8", "trusted=", ""),
        ] {
            let parsed = Change::parse(change).expect(change);
            let applied = parsed.apply(&trusting(before)).expect(change);
            assert_eq!(applied.value, after, "{before} {change}");
        }
    }

    #[test]
    fn wrong_changes_are_refused() {
        for (text, reason) in [
            (
                "trusted",
                "\"trusted\": write NAME=VALUE, such as trusted=10.0.1.0/28",
            ),
            ("trusted+=", "\"trusted+=\" has no prefix"),
            ("trusted-=none", "\"trusted-=none\" has no prefix"),
            ("enabled=2", "enabled: \"2\" is neither 0 nor 1"),
        ] {
            assert_eq!(Change::parse(text), Err(reason.to_owned()));
        }
        let remove = Change::parse("trusted-=10.1.0.0/16").expect("a change");
        assert_eq!(
            remove.apply(&trusting("10.0.0.0/8")),
            Err("10.1.0.0/16 is not in the trusted set, which is 10.0.0.0/8".to_owned())
        );
        assert!(remove.apply(&trusting("")).is_err());
    }

    #[test]
    fn persistent_file_keeps_its_other_lines() {
        let old =
            "# mine\nnet.toa.enabled = 0\n-net/toa/trusted=10.0.0.0/8\nnet.ipv4.ip_forward = 1\n";
        let assign = |setting, value| Assignment::new(setting, value).expect("a value");
        let new = merged(
            old,
            &[
                assign(Setting::Trusted, "10.0.1.0/28"),
                assign(Setting::Pick, "last"),
            ],
        );
        assert_eq!(
            new,
            "# mine\nnet.toa.enabled = 0\nnet.ipv4.ip_forward = 1\nnet.toa.trusted = 10.0.1.0/28\n\
             net.toa.pick = last\n"
        );
        assert_eq!(
            merged("", &[assign(Setting::Trusted, "")]),
            "net.toa.trusted =\n"
        );
    }

    #[test]
    fn differences_are_those_of_canonical_values() {
        let policy = Policy {
            enabled: Some("1".to_owned()),
            trusted: Some("10.0.0.0/8".to_owned()),
            kinds: Some("253/20:client6".to_owned()),
            pick: Some("last".to_owned()),
            max_records: Some("7".to_owned()),
            ..Policy::default()
        };
        let mut persistent = Persistent::new();
        let file = || "/etc/sysctl.d/a.conf".to_owned();
        persistent.insert(Setting::Trusted, (" 10.0.0.0/8 ".to_owned(), file()));
        persistent.insert(Setting::Pick, ("first".to_owned(), file()));
        let rows: Vec<_> = differences(&policy, &persistent)
            .into_iter()
            .map(|row| (row.setting, row.persistent, row.file))
            .collect();
        assert_eq!(
            rows,
            [
                (
                    "kinds".to_owned(),
                    "254/8:client4,254/20:client6".to_owned(),
                    None
                ),
                ("pick".to_owned(), "first".to_owned(), Some(file())),
            ]
        );
    }
}
