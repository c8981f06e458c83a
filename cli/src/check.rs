// SPDX-License-Identifier: MIT OR Apache-2.0

//! `toa check`: a monitoring plugin, in the form that Nagios, Icinga and their kin read.

use std::fmt::Write as _;
use std::time::Duration;

use schemars::JsonSchema;
use serde::Serialize;

use crate::arguments::CheckArguments;
use crate::failure::Result;
use crate::output;
use crate::output::printable;
use crate::stats;
use crate::status;
use crate::status::Status;
use crate::Context;

/// The exit status of a plugin.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, JsonSchema)]
#[serde(rename_all = "UPPERCASE")]
#[repr(u8)]
pub enum State {
    /// All is well.
    Ok = 0,
    /// Servers see their clients, and an operator should look soon.
    Warning = 1,
    /// Servers see the balancer.
    Critical = 2,
    /// The check could not be made.
    Unknown = 3,
}

impl State {
    fn name(self) -> &'static str {
        match self {
            Self::Ok => "OK",
            Self::Warning => "WARNING",
            Self::Critical => "CRITICAL",
            Self::Unknown => "UNKNOWN",
        }
    }
}

/// The output of `toa check --json`.
#[derive(Debug, PartialEq, Eq, Serialize, JsonSchema)]
pub struct Check {
    /// The worst state of all findings.
    pub state: State,
    /// The findings, the worst first.
    pub findings: Vec<String>,
    /// The performance data, in the form of plugins.
    pub perfdata: String,
}

/// Runs the command. A failure is the state UNKNOWN.
pub fn run(context: &Context, arguments: &CheckArguments) -> State {
    let netns = arguments.place.netns.as_deref();
    let read = context.within(netns, || status::read(&context.host, Duration::ZERO));
    let check = match read {
        Ok(status) => judge(&status, arguments.warning, arguments.critical),
        Err(failure) => Check {
            state: State::Unknown,
            findings: vec![failure.text],
            perfdata: String::new(),
        },
    };
    match print(context, &check) {
        Ok(()) => check.state,
        Err(_) => State::Unknown,
    }
}

fn print(context: &Context, check: &Check) -> Result<()> {
    if context.json {
        return output::print_json(check);
    }
    // A bar separates the text from the data.
    let text = check.findings.join("; ").replace('|', "/");
    let mut line = format!("TOA {} - {}", check.state.name(), printable(&text));
    if !check.perfdata.is_empty() {
        let _ = write!(line, " | {}", check.perfdata);
    }
    output::print_wrapped(&line)
}

/// Judges a status by thresholds for the records in use.
fn judge(status: &Status, warning: u8, critical: u8) -> Check {
    let mut findings = Vec::new();
    if !status.loaded {
        findings.push((
            State::Critical,
            "toa is not loaded, servers see the balancer: run modprobe toa".to_owned(),
        ));
    } else if status.counters.is_none() {
        let remark = status.remarks.join("; ");
        findings.push((State::Critical, remark));
    }
    if status.outdated {
        let version = |version: Option<&String>| version.cloned().unwrap_or("unknown".to_owned());
        let running = version(
            status
                .running
                .as_ref()
                .and_then(|module| module.version.as_ref()),
        );
        let installed = status.installed.as_ref();
        let installed = version(installed.and_then(|module| module.version.as_ref()));
        let finding = if running == installed {
            format!("another build of toa {running} runs than the installed one: run toa reload")
        } else {
            format!("toa {running} runs, and {installed} is installed: run toa reload")
        };
        findings.push((State::Warning, finding));
    }
    if status
        .policy
        .as_ref()
        .is_some_and(|policy| !policy.is_enabled())
    {
        let finding = "the policy disables toa: run toa policy set enabled=1";
        findings.push((State::Warning, finding.to_owned()));
    }
    let mut perfdata = Vec::new();
    if let Some(records) = &status.records {
        let mut finding = format!("{} records", records.live);
        let mut data = format!("records={}", records.live);
        let mut state = State::Ok;
        if let (Some(share), Some(percentage)) = (records.share, records.percentage()) {
            let limit = |percent: u8| share.saturating_mul(percent.into()) / 100;
            let _ = write!(finding, " of {share} ({percentage:.0} %)");
            let _ = write!(data, ";{};{};0;{share}", limit(warning), limit(critical));
            if percentage >= critical.into() {
                state = State::Critical;
            } else if percentage >= warning.into() {
                state = State::Warning;
            }
            if state != State::Ok {
                finding.push_str(": load toa with a larger max_records");
            }
        }
        findings.push((state, finding));
        perfdata.push(data);
    }
    for outcome in stats::OUTCOMES {
        let count = status
            .counters
            .as_ref()
            .and_then(|rows| rows.get(outcome.row));
        perfdata.extend(count.map(|count| format!("{}={count}c", outcome.row)));
    }
    findings.sort_by_key(|(state, _)| std::cmp::Reverse(*state));
    Check {
        state: findings.first().map_or(State::Unknown, |(state, _)| *state),
        findings: findings.into_iter().map(|(_, text)| text).collect(),
        perfdata: perfdata.join(" "),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::module::Installed;
    use crate::module::Running;
    use crate::policy::Policy;
    use crate::status::Records;

    fn running(live: u64) -> Status {
        Status {
            loaded: true,
            running: Some(Running {
                version: Some("0.1.0".to_owned()),
                srcversion: None,
            }),
            records: Some(Records {
                live,
                share: Some(1000),
            }),
            counters: Some([("option_taken".to_owned(), 7)].into()),
            ..Status::default()
        }
    }

    #[test]
    fn records_in_use_decide_by_the_thresholds() {
        for (live, state) in [
            (0, State::Ok),
            (799, State::Ok),
            (800, State::Warning),
            (949, State::Warning),
            (950, State::Critical),
            (1000, State::Critical),
        ] {
            let check = judge(&running(live), 80, 95);
            assert_eq!(check.state, state, "{live}");
            assert_eq!(
                check.perfdata,
                format!("records={live};800;950;0;1000 option_taken=7c")
            );
        }
        let check = judge(&running(8), 80, 95);
        assert_eq!(check.findings, ["8 records of 1000 (1 %)"]);
    }

    #[test]
    fn worst_finding_comes_first() {
        let mut status = running(990);
        status.outdated = true;
        status.installed = Some(Installed {
            version: Some("0.2.0".to_owned()),
            ..Installed::default()
        });
        status.policy = Some(Policy {
            enabled: Some("0".to_owned()),
            ..Policy::default()
        });
        let check = judge(&status, 80, 95);
        assert_eq!(check.state, State::Critical);
        assert_eq!(
            check.findings,
            [
                "990 records of 1000 (99 %): load toa with a larger max_records",
                "toa 0.1.0 runs, and 0.2.0 is installed: run toa reload",
                "the policy disables toa: run toa policy set enabled=1",
            ]
        );
    }

    #[test]
    fn module_that_does_not_run_is_critical() {
        let check = judge(&Status::default(), 80, 95);
        assert_eq!(check.state, State::Critical);
        assert_eq!(check.perfdata, "");
    }
}
