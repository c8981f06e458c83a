// SPDX-License-Identifier: MIT OR Apache-2.0

//! `toa status`: the module, its policy, its records and its counters.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::thread;
use std::time::Duration;
use std::time::Instant;

use schemars::JsonSchema;
use serde::Serialize;

use crate::arguments::StatusArguments;
use crate::failure;
use crate::failure::Result;
use crate::host::Host;
use crate::module;
use crate::module::Installed;
use crate::module::Running;
use crate::output;
use crate::output::bold;
use crate::output::Side;
use crate::output::Table;
use crate::policy::Policy;
use crate::policy::Setting;
use crate::stats;
use crate::stats::Stats;
use crate::Context;

/// The output of `toa status --json`.
#[derive(Debug, Default, Serialize, JsonSchema)]
pub struct Status {
    /// Whether the module runs.
    pub loaded: bool,
    /// The module that runs.
    pub running: Option<Running>,
    /// The file that `modprobe toa` loads.
    pub installed: Option<Installed>,
    /// Whether another toa runs than the one that is installed.
    pub outdated: bool,
    /// The kernel's release, as `uname -r` prints it.
    pub kernel: Option<String>,
    /// The kernel functions with a hook of toa. Only root can read them.
    pub hooks: Option<Vec<String>>,
    /// The policy of the network namespace, unless this toa has none.
    pub policy: Option<Policy>,
    /// The records of the network namespace.
    pub records: Option<Records>,
    /// The rows of `/proc/net/toa_stats`, each summed over all processors.
    pub counters: Option<BTreeMap<String, u64>>,
    /// The growth of each row in a second, without `records_live`.
    pub rates: Option<BTreeMap<String, f64>>,
    /// Remarks, such as a command to type.
    pub remarks: Vec<String>,
    /// The rows in the file's order.
    #[serde(skip)]
    pub rows: Stats,
}

/// The records of a network namespace.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, JsonSchema)]
pub struct Records {
    /// The records that exist.
    pub live: u64,
    /// The namespace's share.
    pub share: Option<u64>,
}

impl Records {
    /// The records of these counters and this policy.
    pub fn of(stats: &Stats, policy: Option<&Policy>) -> Self {
        let share = policy.and_then(|policy| policy.get(Setting::MaxRecords)?.parse().ok());
        Self {
            live: stats.get(stats::RECORDS_LIVE).unwrap_or(0),
            share,
        }
    }

    /// The percentage in use.
    pub fn percentage(&self) -> Option<f64> {
        let share = self.share.filter(|share| *share > 0)?;
        Some(100.0 * self.live as f64 / share as f64)
    }
}

/// The functions that toa hooks.
const HOOKED: [&str; 4] = [
    "tcp_child_process",
    "inet_getname",
    "inet6_getname",
    "tcp_clear_retrans",
];

/// The files that list hooked functions.
const ENABLED_FUNCTIONS: [&str; 2] = [
    "/sys/kernel/tracing/enabled_functions",
    "/sys/kernel/debug/tracing/enabled_functions",
];

/// Runs the command.
///
/// # Errors
///
/// A namespace that cannot be entered, or files with a content that no toa writes.
pub fn run(context: &Context, arguments: &StatusArguments) -> Result<failure::Status> {
    let host = &context.host;
    let netns = arguments.place.netns.as_deref();
    let interval = if arguments.prometheus || host.is_copy() {
        Duration::ZERO
    } else {
        Duration::from_secs_f64(arguments.interval)
    };
    let status = context.within(netns, || read(host, interval))?;
    if arguments.prometheus {
        output::print(&metrics(&status))?;
        return Ok(failure::Status::Success);
    }
    if context.json {
        output::print_json(&status)?;
    } else {
        output::print(&screen(&status, output::has_styles(), output::width()))?;
    }
    Ok(if status.loaded {
        failure::Status::Success
    } else {
        failure::Status::NotLoaded
    })
}

/// Reads everything in the thread's network namespace.
///
/// # Errors
///
/// Files with a content that no toa writes.
pub fn read(host: &Host, interval: Duration) -> Result<Status> {
    let mut status = Status {
        kernel: host.word("/proc/sys/kernel/osrelease"),
        installed: module::installed(host),
        running: module::running(host),
        ..Status::default()
    };
    status.loaded = status.running.is_some();
    let Some(running) = &status.running else {
        let advice = match &status.installed {
            Some(_) => "servers see the balancer: run modprobe toa",
            None if host.is_copy() => "servers see the balancer",
            None => "this kernel has no toa: toa doctor names the steps to get one",
        };
        status.remarks.push(advice.to_owned());
        return Ok(status);
    };
    if let Some(installed) = &status.installed {
        status.outdated = module::is_outdated(running, installed);
        if status.outdated {
            status.remarks.push(format!(
                "an older toa runs than {}: run toa reload",
                installed.filename
            ));
        }
    }
    let stats = match Stats::read(host) {
        Ok(stats) if stats.are_ours() => stats,
        // It was unloaded since.
        Err(failure) if failure.status == failure::Status::NotLoaded => {
            status.loaded = module::running(host).is_some();
            status
                .remarks
                .push("the module runs without /proc/net/toa_stats: it is another module called toa, or has just ended".to_owned());
            return Ok(status);
        }
        Err(failure) => return Err(failure),
        Ok(_) => {
            status
                .remarks
                .push("another module called toa runs: toa doctor finds it".to_owned());
            return Ok(status);
        }
    };
    status.hooks = hooks(host);
    status.policy = Policy::read(host)?;
    if !interval.is_zero() {
        let start = Instant::now();
        thread::sleep(interval);
        // The module may have been unloaded since, and loaded again.
        if let Ok(later) = Stats::read(host) {
            status.rates = Some(rates(&stats, &later, start.elapsed()));
            status.rows = later;
        }
    }
    if status.rows.rows.is_empty() {
        status.rows = stats;
    }
    status.records = Some(Records::of(&status.rows, status.policy.as_ref()));
    status.counters = Some(status.rows.rows.iter().cloned().collect());
    if let Some(policy) = &status.policy {
        if !policy.is_enabled() {
            status.remarks.push(
                "toa is switched off in this network namespace: run toa policy set enabled=1"
                    .to_owned(),
            );
        } else if policy.trusts_any_host() {
            status.remarks.push(
                "any host that reaches a server's port can name any client: run toa policy set trusted=PREFIX"
                    .to_owned(),
            );
        }
    }
    if status.hooks.is_none() && !host.is_copy() {
        status
            .remarks
            .push("the hooks are shown to root only: run sudo toa status".to_owned());
    }
    Ok(status)
}

fn rates(before: &Stats, after: &Stats, elapsed: Duration) -> BTreeMap<String, f64> {
    let mut growth = after.since(before);
    growth.remove(stats::RECORDS_LIVE);
    let rate = |count: u64| (count as f64 / elapsed.as_secs_f64() * 10.0).round() / 10.0;
    growth
        .into_iter()
        .map(|(row, count)| (row, rate(count)))
        .collect()
}

/// Returns the hooked functions, if they may be read.
fn hooks(host: &Host) -> Option<Vec<String>> {
    let text = ENABLED_FUNCTIONS
        .iter()
        .find_map(|path| host.read(path).ok().flatten())?;
    Some(hooks_in(&text))
}

/// Finds the hooked functions in ftrace's list.
pub fn hooks_in(enabled_functions: &str) -> Vec<String> {
    let hooked = |name: &&&str| {
        let mut lines = enabled_functions.lines();
        lines.any(|line| line.split_whitespace().next() == Some(**name))
    };
    let found = HOOKED.iter().filter(hooked);
    found.map(|name| (*name).to_owned()).collect()
}

/// Groups digits, for people.
fn grouped(number: u64) -> String {
    let digits = number.to_string();
    let mut text = String::new();
    for (at, digit) in digits.chars().enumerate() {
        if at > 0 && (digits.len() - at) % 3 == 0 {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

fn or_unknown(text: &Option<String>) -> &str {
    text.as_deref().unwrap_or("unknown")
}

/// The screen.
fn screen(status: &Status, styles: bool, width: Option<usize>) -> String {
    let mut out = String::new();
    let loaded = if status.loaded {
        "loaded"
    } else {
        "not loaded"
    };
    let _ = writeln!(out, "{}: {loaded}", bold("toa", styles));
    let mut head = Table::new(&[Side::Left, Side::Left]).indented(2);
    if let Some(running) = &status.running {
        head.row(["version", or_unknown(&running.version)]);
    }
    if let Some(installed) = &status.installed {
        let kernel_crate = installed.kernel_crate.as_deref();
        let made = kernel_crate.map_or(String::new(), |name| format!(", {name} crate"));
        let text = format!(
            "{}{made}, {}",
            or_unknown(&installed.version),
            installed.filename
        );
        head.row(["installed".to_owned(), text]);
    }
    head.row(["kernel", or_unknown(&status.kernel)]);
    if let Some(hooks) = &status.hooks {
        let text = if hooks.is_empty() {
            "none".to_owned()
        } else {
            hooks.join(", ")
        };
        head.row(["hooks".to_owned(), text]);
    }
    if let Some(records) = &status.records {
        let text = match (records.share, records.percentage()) {
            (Some(share), Some(percentage)) => format!(
                "{} of {} ({percentage:.0} %)",
                grouped(records.live),
                grouped(share)
            ),
            (Some(share), None) => format!("{} of {}", grouped(records.live), grouped(share)),
            _ => grouped(records.live),
        };
        head.row(["records".to_owned(), text]);
    }
    head.write(&mut out, width);
    if let Some(policy) = &status.policy {
        let _ = writeln!(out, "\n{}", bold("policy", styles));
        policy_table(policy).write(&mut out, width);
    }
    if !status.rows.rows.is_empty() {
        out.push('\n');
        counters(&mut out, status, styles, width);
    }
    for remark in &status.remarks {
        let lines = output::wrap(remark, width.unwrap_or(usize::MAX));
        let _ = writeln!(out, "\n{}", lines.join("\n"));
    }
    out
}

/// The rows of a policy for people.
pub fn policy_table(policy: &Policy) -> Table {
    let mut table = Table::new(&[Side::Left, Side::Left]).indented(2);
    for setting in Setting::ALL {
        let Some(value) = policy.get(setting) else {
            continue;
        };
        let text = match (setting, value) {
            (Setting::Trusted, "") => "any host",
            (Setting::Trusted, "none") => "no host",
            (Setting::Inherited, "") => "nothing",
            _ => value,
        };
        // A long list may break between its items.
        let text = if setting == Setting::Trusted || setting == Setting::Kinds {
            text.replace(',', ", ")
        } else {
            text.to_owned()
        };
        table.row([setting.name().to_owned(), text]);
    }
    table
}

fn counters(out: &mut String, status: &Status, styles: bool, width: Option<usize>) {
    let rate = |row: &str| {
        let rate = status.rates.as_ref().and_then(|rates| rates.get(row));
        rate.map_or(String::new(), |rate| format!("{rate:.1}/s"))
    };
    // Older modules count refusals only.
    let counts_all = status.rows.get(stats::TAKEN).is_some();
    let total: u64 = status.rows.outcomes().map(|(_, count)| count).sum();
    let title = bold("connections", styles);
    let _ = if counts_all {
        writeln!(out, "{title}: {} since the load", grouped(total))
    } else {
        writeln!(out, "{title}, refusals only")
    };
    let sides = [Side::Left, Side::Right, Side::Right, Side::Left];
    let mut table = Table::new(&sides).indented(2);
    for (outcome, count) in status.rows.outcomes() {
        table.row([
            outcome.row.to_owned(),
            grouped(count),
            rate(outcome.row),
            outcome.meaning.to_owned(),
        ]);
    }
    table.write(out, width);
    let _ = writeln!(out, "\n{}", bold("other counters", styles));
    let mut table = Table::new(&sides[..3]).indented(2);
    for (row, count) in &status.rows.rows {
        if stats::outcome(row).is_none() && row != stats::RECORDS_LIVE {
            table.row([row.clone(), grouped(*count), rate(row)]);
        }
    }
    table.write(out, width);
}

/// The metrics for Prometheus, in its text format.
fn metrics(status: &Status) -> String {
    let mut out = String::new();
    let mut metric = |name: &str, kind: &str, help: &str, samples: &[(String, f64)]| {
        if samples.is_empty() {
            return;
        }
        let _ = writeln!(out, "# HELP {name} {help}\n# TYPE {name} {kind}");
        for (labels, value) in samples {
            let _ = writeln!(out, "{name}{labels} {value}");
        }
    };
    let flag = |value: bool| vec![(String::new(), f64::from(u8::from(value)))];
    let label = |value: &Option<String>| escaped(value.as_deref().unwrap_or_default());
    metric(
        "toa_loaded",
        "gauge",
        "Whether the module toa is loaded.",
        &flag(status.loaded),
    );
    let running = status.running.clone().unwrap_or_default();
    let installed = status.installed.clone().unwrap_or_default();
    metric(
        "toa_info",
        "gauge",
        "The versions of the module that runs and of the installed one.",
        &[(
            format!(
                "{{version=\"{}\",installed=\"{}\",kernel=\"{}\"}}",
                label(&running.version),
                label(&installed.version),
                label(&status.kernel)
            ),
            1.0,
        )],
    );
    metric(
        "toa_outdated",
        "gauge",
        "Whether another toa runs than the installed one.",
        &flag(status.outdated),
    );
    if let Some(policy) = &status.policy {
        metric(
            "toa_enabled",
            "gauge",
            "Whether the policy enables toa.",
            &flag(policy.is_enabled()),
        );
        metric(
            "toa_trusts_any_host",
            "gauge",
            "Whether any host may name clients.",
            &flag(policy.trusts_any_host()),
        );
    }
    if let Some(records) = &status.records {
        metric(
            "toa_records",
            "gauge",
            "Connections whose client is recorded now.",
            &[(String::new(), records.live as f64)],
        );
        let share = records.share.map(|share| (String::new(), share as f64));
        metric(
            "toa_records_max",
            "gauge",
            "The share of the network namespace.",
            share.as_slice(),
        );
    }
    let outcomes: Vec<_> = status
        .rows
        .outcomes()
        .map(|(outcome, count)| (format!("{{outcome=\"{}\"}}", outcome.row), count as f64))
        .collect();
    metric(
        "toa_connections_total",
        "counter",
        "Connections since the load, by their outcome.",
        &outcomes,
    );
    let others: Vec<_> = status
        .rows
        .rows
        .iter()
        .filter(|(row, _)| stats::outcome(row).is_none() && row != stats::RECORDS_LIVE)
        .map(|(row, count)| (format!("{{row=\"{row}\"}}"), *count as f64))
        .collect();
    metric(
        "toa_events_total",
        "counter",
        "The other rows of /proc/net/toa_stats.",
        &others,
    );
    out
}

/// A label's value.
fn escaped(text: &str) -> String {
    text.replace('\\', "\\\\")
        .replace('"', "\\\"")
        .replace('\n', "\\n")
}
