// SPDX-License-Identifier: MIT OR Apache-2.0

//! `toa reload`: replaces the loaded module by the installed one, while the server serves.
//!
//! `toa-swap` of the package toa-dkms proves that the kernel would load the installed module, and does
//! the swap. This command keeps the policy of all network namespaces. From its load on, the new module
//! trusts no host. The host's trusted set is written last, so no namespace trusts more hosts than before
//! at any time.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::fs::File;
use std::io::BufRead;
use std::io::BufReader;
use std::io::Read;
use std::io::Write as _;
use std::path::Path;
use std::process::Child;
use std::process::Stdio;
use std::time::Instant;

use nix::sys::signal::SigSet;
use nix::sys::signal::Signal;
use schemars::JsonSchema;
use serde::Serialize;

use crate::arguments::ReloadArguments;
use crate::failure::Failure;
use crate::failure::Result;
use crate::failure::Status;
use crate::host::Host;
use crate::module;
use crate::namespace;
use crate::namespace::Namespace;
use crate::netstat;
use crate::output;
use crate::output::printable;
use crate::policy;
use crate::Context;

/// The script of the package toa-dkms.
const SWAP: &str = "/usr/libexec/toa/toa-swap";

/// The settings that a namespace does not inherit, and the set that comes last.
const INHERITED: &str = "inherited";
const MAX_RECORDS: &str = "max_records";
const TRUSTED: &str = "trusted";

/// The result of a reload.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Outcome {
    /// The installed module is loaded in place of the previous one.
    Replaced,
    /// The loaded module is the installed one. Nothing was done.
    Same,
    /// The installed module can replace the loaded one (`--check`).
    Ready,
    /// The kernel would not load the installed module. The loaded one stays.
    Refused,
    /// The installed module could not be loaded. The previous one is loaded again.
    Restored,
    /// No module is loaded any more.
    Lost,
}

/// The output of `toa reload --json`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, JsonSchema)]
pub struct Reload {
    /// The result.
    outcome: Outcome,
    /// The version of the module that was loaded.
    old: Option<String>,
    /// The version of the installed module, if the check came to it.
    new: Option<String>,
    /// The version that is loaded at the end.
    loaded: Option<String>,
    /// The most milliseconds during which new connections showed the balancer.
    gap_ms: Option<u64>,
    /// The connections that all network namespaces accepted in that time, of any service. They are the
    /// most that showed the balancer.
    gap_connections: Option<u64>,
    /// The number of network namespaces, beside the host's, that have their own policy again.
    namespaces: usize,
    /// The settings that do not have their previous value, each with its namespace and the reason.
    not_restored: Vec<String>,
    /// The reason of a failure.
    reason: Option<String>,
}

impl Reload {
    fn status(&self) -> Status {
        match self.outcome {
            Outcome::Lost => Status::NotLoaded,
            Outcome::Refused | Outcome::Restored => Status::Problem,
            _ if !self.not_restored.is_empty() => Status::Problem,
            _ => Status::Success,
        }
    }

    /// The lines of the result, without a failure's.
    fn screen(&self) -> String {
        let version = |version: &Option<String>| version.clone().unwrap_or_default();
        let (old, new) = (version(&self.old), version(&self.new));
        let mut out = match self.outcome {
            Outcome::Replaced => format!("toa {new} is loaded in place of toa {old}\n"),
            Outcome::Same => {
                format!(
                    "toa {old} is loaded already: it is the installed one, and nothing was done\n"
                )
            }
            Outcome::Ready => {
                format!("toa {new} can replace the loaded toa {old}: run toa reload\n")
            }
            _ => String::new(),
        };
        if let (Some(gap), Some(connections)) = (self.gap_ms, self.gap_connections) {
            let _ = writeln!(
                out,
                "gap     {gap} ms at most, in which {connections} new connections at most showed the balancer"
            );
            let others = match self.namespaces {
                0 => String::new(),
                1 => ", also that of 1 other network namespace".to_owned(),
                count => format!(", also those of {count} other network namespaces"),
            };
            let _ = match self.not_restored.len() {
                0 => writeln!(out, "policy  restored{others}"),
                count => writeln!(out, "policy  restored{others}, but for {count} settings"),
            };
        }
        out
    }
}

/// Runs the command.
///
/// # Errors
///
/// A missing right, a module that is not loaded, or a missing `toa-swap`. The installed module cannot be
/// loaded.
pub fn run(context: &Context, arguments: &ReloadArguments) -> Result<Status> {
    if context.host.is_copy() {
        return Err(Failure::usage(
            "a copy of files has no module to replace: leave out --sysroot",
        ));
    }
    if module::running(&context.host).is_none() {
        return Err(Failure::not_loaded());
    }
    if !nix::unistd::geteuid().is_root() {
        return Err(Failure::new(
            Status::NotPermitted,
            "replacing the module needs root: run sudo toa reload",
        ));
    }
    let reload = reload(&context.host, arguments.check)?;
    for setting in &reload.not_restored {
        output::remark(setting);
    }
    if context.json {
        output::print_json(&reload)?;
    } else {
        output::print(&reload.screen())?;
    }
    match &reload.reason {
        Some(reason) => Err(Failure::new(reload.status(), reason)),
        None => Ok(reload.status()),
    }
}

fn reload(host: &Host, only_checks: bool) -> Result<Reload> {
    // An interrupt must not leave the server without toa, nor without its policy.
    let mut signals = SigSet::empty();
    for signal in [Signal::SIGHUP, Signal::SIGINT, Signal::SIGTERM] {
        signals.add(signal);
    }
    signals
        .thread_block()
        .map_err(|error| Failure::failed(format!("blocking signals: {error}")))?;

    let mut swap = Swap::start(Path::new(SWAP))?;
    let answer = swap.line();
    let mut reload = Reload {
        outcome: Outcome::Refused,
        old: module::running(host).and_then(|running| running.version),
        new: None,
        loaded: None,
        gap_ms: None,
        gap_connections: None,
        namespaces: 0,
        not_restored: Vec::new(),
        reason: None,
    };
    match Answer::parse(&answer) {
        Answer::Same => {
            reload.outcome = Outcome::Same;
            reload.new.clone_from(&reload.old);
            swap.end()?;
        }
        Answer::Ready(new) if only_checks => {
            reload.outcome = Outcome::Ready;
            reload.new = Some(new);
            swap.end()?;
        }
        Answer::Ready(new) => {
            reload.new = Some(new);
            replace(host, swap, &mut reload)?;
        }
        Answer::Refused => reload.reason = Some(swap.end()?.1),
    }
    reload.loaded = module::running(host).and_then(|running| running.version);
    Ok(reload)
}

/// The first line of `toa-swap ask`.
#[derive(Debug, PartialEq, Eq)]
pub enum Answer {
    /// The installed module is loaded.
    Same,
    /// The module of this version can be loaded.
    Ready(String),
    /// There is no such line: the errors have the reason.
    Refused,
}

impl Answer {
    /// Parses the line, whose words are the answer, the loaded version and the installed one.
    pub fn parse(line: &str) -> Self {
        let words: Vec<&str> = line.split_whitespace().collect();
        match words[..] {
            ["same", _] => Self::Same,
            ["ready", _, new] => Self::Ready(printable(new)),
            _ => Self::Refused,
        }
    }
}

/// Does the swap, which has been proved possible.
fn replace(host: &Host, mut swap: Swap, reload: &mut Reload) -> Result<()> {
    let saved = Saved::all(host)?;
    let before = saved.connections();
    let begin = Instant::now();
    swap.go();
    if swap.line().trim() == "loaded" {
        reload.not_restored = saved.restore(host);
        let gap = begin.elapsed().as_micros().div_ceil(1000);
        reload.gap_ms = Some(u64::try_from(gap).unwrap_or(u64::MAX));
        reload.gap_connections = Some(saved.connections().saturating_sub(before));
        reload.namespaces = saved.others.iter().filter(|other| other.has_own()).count();
    }
    let (status, reason) = swap.end()?;
    (reload.outcome, reload.reason) = match (status, reload.gap_ms) {
        (0, _) => (Outcome::Replaced, None),
        (_, Some(_)) => (Outcome::Restored, Some(reason)),
        _ if module::running(host).is_some() => (Outcome::Refused, Some(reason)),
        _ => (Outcome::Lost, Some(reason)),
    };
    Ok(())
}

/// `toa-swap ask`, which checks, waits for a line, and replaces the module.
struct Swap {
    child: Child,
    output: BufReader<std::process::ChildStdout>,
}

impl Swap {
    fn start(path: &Path) -> Result<Self> {
        if !path.exists() {
            return Err(Failure::failed(format!(
                "{} is missing: apt install ./toa-dkms_VERSION_all.deb, or accept a longer gap and run rmmod toa && modprobe toa",
                path.display()
            )));
        }
        let mut child = module::tool(&path.to_string_lossy())
            .arg("ask")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .map_err(|error| Failure::io("starting", path, &error))?;
        let output = child.stdout.take().expect("it is a pipe");
        Ok(Self {
            child,
            output: BufReader::new(output),
        })
    }

    /// Reads a line, or nothing at the end.
    fn line(&mut self) -> String {
        let mut line = String::new();
        // An error is an end: the status has the reason.
        let _ = self.output.read_line(&mut line);
        line
    }

    /// Lets it replace the module.
    fn go(&mut self) {
        if let Some(input) = &mut self.child.stdin {
            // Its status has the reason, if it has ended.
            let _ = input.write_all(b"go\n");
        }
    }

    /// Waits for its end. Returns its status and the last line of its errors.
    fn end(mut self) -> Result<(i32, String)> {
        drop(self.child.stdin.take());
        let mut errors = String::new();
        if let Some(mut stderr) = self.child.stderr.take() {
            let _ = stderr.read_to_string(&mut errors);
        }
        let status = self
            .child
            .wait()
            .map_err(|error| Failure::failed(format!("waiting for {SWAP}: {error}")))?;
        let last = errors.lines().last().unwrap_or_default();
        let reason = last.strip_prefix("toa-swap: ").unwrap_or(last);
        let reason = match printable(reason) {
            empty if empty.is_empty() => format!("{SWAP} failed: {status}"),
            reason => reason,
        };
        Ok((status.code().unwrap_or(-1), reason))
    }
}

/// The values of the policy's files, by their names. A later module may have further ones.
type Values = BTreeMap<String, String>;

fn read_values(host: &Host) -> Values {
    let names = host.names(policy::DIRECTORY).into_iter();
    let values = names.filter_map(|name| {
        let value = host.read(&format!("{}/{name}", policy::DIRECTORY)).ok()??;
        Some((name, value.trim().to_owned()))
    });
    values.collect()
}

/// The policy of a namespace, which stays while this value does.
struct SavedNamespace {
    namespace: Namespace,
    values: Values,
    /// The values to write: the namespace's own, and those that it inherits from another than the host's.
    own: Values,
    _file: File,
}

impl SavedNamespace {
    fn new(host: &Host, namespace: &Namespace) -> Result<Self> {
        let (file, namespace) = namespace.hold()?;
        let values = namespace.enter(|| Ok(read_values(host)))?;
        Ok(Self {
            namespace,
            own: own(&values, &Values::new()),
            values,
            _file: file,
        })
    }

    /// Keeps the values that a namespace does not have without any own setting.
    fn without_those_of(mut self, first: &Values) -> Self {
        self.own = own(&self.values, first);
        self
    }

    /// Whether a setting was written in the namespace.
    fn has_own(&self) -> bool {
        self.own.keys().any(|name| name != MAX_RECORDS)
    }

    /// Writes the values with these names that differ. Returns a line for each that failed.
    fn write(&self, host: &Host, is_meant: impl Fn(&str) -> bool + Sync) -> Vec<String> {
        let written = self.namespace.enter(|| {
            let now = read_values(host);
            let inherited = words(now.get(INHERITED));
            let mut failed = Vec::new();
            for (name, value) in self.own.iter().filter(|(name, _)| is_meant(name)) {
                let is_own = !inherited.contains(&name.as_str());
                if is_own && now.get(name) == Some(value) {
                    continue;
                }
                if let Err(error) = policy::write(name, value) {
                    failed.push(format!(
                        "net.toa.{name} of {} does not have its previous value {value:?}: {error}: run dmesg | grep TOA, then toa policy set {name}={value}",
                        self.namespace.name
                    ));
                }
            }
            Ok(failed)
        });
        written.unwrap_or_else(|failure| vec![failure.text])
    }

    /// The connections that sockets of the namespace have accepted since its start.
    fn connections(&self, host: &Host) -> u64 {
        let opens = self.namespace.enter(|| Ok(netstat::passive_opens(host)));
        opens.ok().flatten().unwrap_or(0)
    }
}

/// The policies of all namespaces.
struct Saved {
    first: SavedNamespace,
    others: Vec<SavedNamespace>,
}

impl Saved {
    fn all(host: &Host) -> Result<Self> {
        let first = SavedNamespace::new(host, &Namespace::first()?)?;
        let all = namespace::all().namespaces.into_iter();
        let others = all.filter(|other| other.number != first.namespace.number);
        // Those that end right now need no policy.
        let others = others.filter_map(|other| SavedNamespace::new(host, &other).ok());
        let others = others.map(|other| other.without_those_of(&first.values));
        Ok(Self {
            others: others.collect(),
            first,
        })
    }

    /// Writes the policies. The hosts that a namespace trusts come after its other settings, and those of
    /// the host after all.
    fn restore(&self, host: &Host) -> Vec<String> {
        let mut failed = self.first.write(host, |name| name != TRUSTED);
        for other in &self.others {
            failed.extend(other.write(host, |name| name != TRUSTED));
            failed.extend(other.write(host, |name| name == TRUSTED));
        }
        failed.extend(self.first.write(host, |name| name == TRUSTED));
        failed
    }

    fn connections(&self) -> u64 {
        let host = Host::default();
        let all = self.others.iter().chain([&self.first]);
        all.map(|namespace| namespace.connections(&host)).sum()
    }
}

fn words(text: Option<&String>) -> Vec<&str> {
    text.map(|text| text.split_whitespace().collect())
        .unwrap_or_default()
}

/// The values that a namespace would not have if it inherited all from the first one.
fn own(values: &Values, first: &Values) -> Values {
    let inherited = words(values.get(INHERITED));
    let is_own = |name: &str, value: &str| {
        !inherited.contains(&name) || first.get(name).map(String::as_str) != Some(value)
    };
    let found = values
        .iter()
        .filter(|(name, value)| *name != INHERITED && is_own(name, value));
    found
        .map(|(name, value)| (name.clone(), value.clone()))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn values(of: &[(&str, &str)]) -> Values {
        let pairs = of.iter();
        pairs
            .map(|(name, value)| ((*name).to_owned(), (*value).to_owned()))
            .collect()
    }

    #[test]
    fn a_namespace_keeps_what_it_wrote_and_what_another_than_the_host_gave_it() {
        let first = values(&[("trusted", "10.0.0.0/8"), ("pick", "first"), ("nat46", "0")]);
        let namespace = values(&[
            ("inherited", "pick nat46"),
            ("trusted", "10.0.0.0/8"),
            ("pick", "last"),
            ("nat46", "0"),
            ("max_records", "10"),
        ]);
        assert_eq!(
            own(&namespace, &first),
            values(&[
                ("trusted", "10.0.0.0/8"),
                ("pick", "last"),
                ("max_records", "10")
            ])
        );
    }

    #[test]
    fn answers_of_the_script_are_read() {
        for (line, answer) in [
            ("same 0.1.0\n", Answer::Same),
            ("ready 0.1.0 9.9.9\n", Answer::Ready("9.9.9".to_owned())),
            ("ready 0.1.0 \u{1b}[2J\n", Answer::Ready("?[2J".to_owned())),
            ("ready 0.1.0\n", Answer::Refused),
            ("same\n", Answer::Refused),
            ("", Answer::Refused),
        ] {
            assert_eq!(Answer::parse(line), answer, "{line:?}");
        }
    }

    fn result(outcome: Outcome) -> Reload {
        Reload {
            outcome,
            old: Some("0.1.0".to_owned()),
            new: Some("0.2.0".to_owned()),
            loaded: None,
            gap_ms: None,
            gap_connections: None,
            namespaces: 0,
            not_restored: Vec::new(),
            reason: None,
        }
    }

    #[test]
    fn each_outcome_has_its_status_and_lines() {
        for (outcome, status, screen) in [
            (
                Outcome::Same,
                Status::Success,
                "toa 0.1.0 is loaded already: it is the installed one, and nothing was done\n",
            ),
            (
                Outcome::Ready,
                Status::Success,
                "toa 0.2.0 can replace the loaded toa 0.1.0: run toa reload\n",
            ),
            (Outcome::Refused, Status::Problem, ""),
            (Outcome::Restored, Status::Problem, ""),
            (Outcome::Lost, Status::NotLoaded, ""),
        ] {
            let reload = result(outcome);
            assert_eq!((reload.status(), &*reload.screen()), (status, screen));
        }
        let mut reload = result(Outcome::Replaced);
        (reload.gap_ms, reload.gap_connections, reload.namespaces) = (Some(700), Some(12), 2);
        assert_eq!(
            reload.screen(),
            "toa 0.2.0 is loaded in place of toa 0.1.0\n\
             gap     700 ms at most, in which 12 new connections at most showed the balancer\n\
             policy  restored, also those of 2 other network namespaces\n"
        );
        assert_eq!(reload.status(), Status::Success);
        reload.not_restored.push("net.toa.pick".to_owned());
        assert_eq!(reload.status(), Status::Problem);
    }

    #[test]
    fn a_missing_script_is_named_with_what_to_type() {
        let failure = Swap::start(Path::new("/nonexistent/toa-swap"))
            .err()
            .expect("no script");
        assert_eq!(failure.status, Status::Failed);
        assert!(failure
            .text
            .starts_with("/nonexistent/toa-swap is missing: apt install "));
    }

    /// A script that answers as `toa-swap ask` does.
    fn script(name: &str, text: &str) -> std::path::PathBuf {
        use std::os::unix::fs::PermissionsExt;
        let path = std::env::temp_dir().join(format!("toa-swap-{name}-{}", std::process::id()));
        std::fs::write(&path, format!("#!/bin/sh\n{text}\n")).expect("the script");
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o755)).expect("its mode");
        path
    }

    #[test]
    fn the_script_waits_for_a_line_and_its_last_error_is_the_reason() {
        let path = script(
            "line",
            "echo ready 1 2; read -r _ || exit 0; echo loaded; echo a >&2; echo 'toa-swap: b' >&2; exit 1",
        );
        let mut swap = Swap::start(&path).expect("it starts");
        assert_eq!(swap.line(), "ready 1 2\n");
        swap.go();
        assert_eq!(swap.line(), "loaded\n");
        assert_eq!(swap.end().expect("its end"), (1, "b".to_owned()));
        // Without a line nothing is replaced.
        let mut swap = Swap::start(&path).expect("it starts");
        assert_eq!(swap.line(), "ready 1 2\n");
        assert_eq!(swap.end().expect("its end").0, 0);
        std::fs::remove_file(path).expect("the script");
    }
}
