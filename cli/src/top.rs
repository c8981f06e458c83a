// SPDX-License-Identifier: MIT OR Apache-2.0

//! `toa top`: new connections by client and by balancer, and the reasons of refusals, one screen after the
//! other.

use std::collections::BTreeMap;
use std::collections::HashSet;
use std::fmt::Write as _;
use std::io;
use std::io::IsTerminal;
use std::io::Write as _;
use std::net::IpAddr;
use std::thread;
use std::time::Duration;
use std::time::Instant;

use crossterm::cursor::Hide;
use crossterm::cursor::MoveTo;
use crossterm::cursor::Show;
use crossterm::event;
use crossterm::event::Event;
use crossterm::event::KeyCode;
use crossterm::event::KeyModifiers;
use crossterm::execute;
use crossterm::queue;
use crossterm::style::Print;
use crossterm::terminal;
use crossterm::terminal::Clear;
use crossterm::terminal::ClearType;
use crossterm::terminal::EnterAlternateScreen;
use crossterm::terminal::LeaveAlternateScreen;
use ipnet::IpNet;
use schemars::JsonSchema;
use serde::Serialize;

use crate::arguments::TopArguments;
use crate::connections;
use crate::connections::Connection;
use crate::failure::Failure;
use crate::failure::Result;
use crate::failure::Status;
use crate::host::Host;
use crate::output;
use crate::output::Side;
use crate::output::Table;
use crate::policy::Policy;
use crate::stats;
use crate::stats::Stats;
use crate::status::Records;
use crate::Context;

/// The prefix lengths by which clients are grouped.
const CLIENTS_V4: u8 = 24;
const CLIENTS_V6: u8 = 48;

/// A line of `toa top --json`.
#[derive(Debug, PartialEq, Serialize, JsonSchema)]
pub struct Screen {
    /// The seconds since the screen before.
    seconds: f64,
    /// The records of the network namespace.
    records: Records,
    /// Clients by /24 or /48, those with most new connections first. Without the right to read the list,
    /// there are none.
    clients: Vec<Group>,
    /// Balancers by address, in the same order.
    balancers: Vec<Group>,
    /// The connections of each outcome in that time, without those that had none.
    outcomes: BTreeMap<String, u64>,
    /// The reason for which the lists are empty.
    remark: Option<String>,
}

/// Connections with something in common.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, JsonSchema)]
pub struct Group {
    /// The prefix or address.
    name: String,
    /// The connections that were not in the screen before.
    new: u64,
    /// All connections.
    open: u64,
}

/// The files at one time.
struct Sample {
    time: Instant,
    stats: Stats,
    connections: HashSet<Connection>,
    remark: Option<String>,
    records: Records,
}

impl Sample {
    fn read(host: &Host) -> Result<Self> {
        let stats = Stats::read(host)?;
        let policy = Policy::read(host)?;
        let (connections, remark) = match connections::read(host) {
            Ok(connections) => (connections.into_iter().collect(), None),
            Err(failure) if failure.status == Status::NotLoaded => return Err(failure),
            Err(failure) => (HashSet::new(), Some(failure.text)),
        };
        Ok(Self {
            time: Instant::now(),
            records: Records::of(&stats, policy.as_ref()),
            stats,
            connections,
            remark,
        })
    }

    fn since(&self, before: &Self) -> Screen {
        let grown = self.stats.since(&before.stats);
        let outcomes = grown
            .into_iter()
            .filter(|(row, count)| *count > 0 && stats::outcome(row).is_some());
        Screen {
            seconds: self.time.duration_since(before.time).as_secs_f64(),
            records: self.records,
            clients: groups(self, before, |connection| prefix(connection.client.ip())),
            balancers: groups(self, before, |connection| {
                connection.balancer.ip().to_string()
            }),
            outcomes: outcomes.collect(),
            remark: self.remark.clone(),
        }
    }
}

fn prefix(address: IpAddr) -> String {
    let length = if address.is_ipv4() {
        CLIENTS_V4
    } else {
        CLIENTS_V6
    };
    IpNet::new(address, length).map_or(address.to_string(), |prefix| prefix.trunc().to_string())
}

/// Groups connections by a name. Those with most new connections come first.
fn groups(now: &Sample, before: &Sample, name: impl Fn(&Connection) -> String) -> Vec<Group> {
    let mut by_name: BTreeMap<String, (u64, u64)> = BTreeMap::new();
    for connection in &now.connections {
        let (new, open) = by_name.entry(name(connection)).or_default();
        *open += 1;
        *new += u64::from(!before.connections.contains(connection));
    }
    let mut groups: Vec<Group> = by_name
        .into_iter()
        .map(|(name, (new, open))| Group { name, new, open })
        .collect();
    groups.sort_by_key(|group| std::cmp::Reverse((group.new, group.open)));
    groups
}

/// Runs the command.
///
/// # Errors
///
/// The module is not loaded, or ends.
pub fn run(context: &Context, arguments: &TopArguments) -> Result<Status> {
    if context.host.is_copy() {
        return Err(Failure::usage(
            "a copy of files does not change: toa status reads it",
        ));
    }
    let term = std::env::var("TERM").unwrap_or_default();
    let is_terminal = io::stdout().is_terminal() && !term.is_empty() && term != "dumb";
    let interval = Duration::from_secs_f64(arguments.interval);
    let count = arguments.count.unwrap_or(u64::MAX);
    let netns = arguments.place.netns.as_deref();
    context.within(netns, || {
        let first = Sample::read(&context.host)?;
        if arguments.batch || context.json || !is_terminal {
            print_screens(context, first, interval, count)
        } else {
            show(context, first, interval, count)
        }
    })?;
    Ok(Status::Success)
}

/// Prints screens one after the other.
fn print_screens(
    context: &Context,
    mut before: Sample,
    interval: Duration,
    count: u64,
) -> Result<()> {
    for _ in 0..count {
        thread::sleep(interval);
        let now = Sample::read(&context.host)?;
        let screen = now.since(&before);
        if context.json {
            let line = serde_json::to_string(&screen)
                .map_err(|error| Failure::failed(format!("JSON: {error}")))?;
            output::print(&format!("{line}\n"))?;
        } else {
            output::print(&format!(
                "{}\n",
                lines(&screen, usize::MAX, usize::MAX).join("\n")
            ))?;
        }
        before = now;
    }
    Ok(())
}

/// The terminal's alternate screen. Dropping it restores the terminal.
struct Alternate;

impl Alternate {
    fn enter() -> io::Result<Self> {
        terminal::enable_raw_mode()?;
        let alternate = Self;
        execute!(io::stdout(), EnterAlternateScreen, Hide)?;
        Ok(alternate)
    }

    fn draw(&self, screen: Option<&Screen>) -> io::Result<()> {
        let (width, height) = terminal::size()?;
        let mut stdout = io::stdout().lock();
        queue!(stdout, MoveTo(0, 0), Clear(ClearType::All))?;
        let text = match screen {
            Some(screen) => lines(screen, width.into(), height.into()),
            None => vec!["waiting for the first interval, q ends".to_owned()],
        };
        for (line, row) in text.iter().zip(0..) {
            queue!(stdout, MoveTo(0, row), Print(line))?;
        }
        stdout.flush()
    }
}

impl Drop for Alternate {
    fn drop(&mut self) {
        // The terminal may be gone.
        let _ = execute!(io::stdout(), Show, LeaveAlternateScreen);
        let _ = terminal::disable_raw_mode();
    }
}

/// Shows screens until a key ends it.
fn show(context: &Context, mut before: Sample, interval: Duration, count: u64) -> Result<()> {
    let failed = |error: io::Error| Failure::failed(format!("the terminal: {error}"));
    let alternate = Alternate::enter().map_err(failed)?;
    let mut screen = None;
    for _ in 0..count {
        let next = Instant::now() + interval;
        loop {
            alternate.draw(screen.as_ref()).map_err(failed)?;
            let left = next.saturating_duration_since(Instant::now());
            if !event::poll(left).map_err(failed)? {
                break;
            }
            if let Event::Key(key) = event::read().map_err(failed)? {
                let interrupt =
                    key.modifiers.contains(KeyModifiers::CONTROL) && key.code == KeyCode::Char('c');
                if interrupt || matches!(key.code, KeyCode::Char('q') | KeyCode::Esc) {
                    return Ok(());
                }
            }
        }
        let now = Sample::read(&context.host)?;
        screen = Some(now.since(&before));
        before = now;
    }
    alternate.draw(screen.as_ref()).map_err(failed)
}

/// The lines of a screen in a terminal of that size. Long lists and lines are cut, and a mark shows that.
fn lines(screen: &Screen, width: usize, height: usize) -> Vec<String> {
    let rate = |count: u64| format!("{:.1}", count as f64 / screen.seconds.max(0.001));
    let taken = screen.outcomes.get(stats::TAKEN).copied().unwrap_or(0);
    let all: u64 = screen.outcomes.values().sum();
    let share = screen.records.share;
    let share = share.map_or(String::new(), |share| format!(" of {share}"));
    let mut lines = vec![
        format!(
            "toa: {}/s new connections, {}/s with a client, {}{share} records",
            rate(all),
            rate(taken),
            screen.records.live
        ),
        String::new(),
    ];
    let reasons = screen
        .outcomes
        .iter()
        .filter(|(row, _)| *row != stats::TAKEN);
    let mut table = Table::new(&[Side::Right, Side::Left, Side::Left]);
    table.row(["new/s", "without a client", "the first segment"]);
    for (row, count) in reasons {
        let meaning = stats::outcome(row).map_or("", |outcome| outcome.meaning);
        table.row([rate(*count), row.clone(), meaning.to_owned()]);
    }
    lines.extend(written(&table));
    if let Some(remark) = &screen.remark {
        lines.push(String::new());
        lines.extend(output::wrap(remark, width));
    }
    // The two lists share the rest.
    let rest = height.saturating_sub(lines.len());
    for (title, groups, part) in [
        ("client", &screen.clients, 2),
        ("balancer", &screen.balancers, 1),
    ] {
        let room = height.saturating_sub(lines.len()).min(rest.div_ceil(part));
        // An empty line and the heading come first. The last line has the number of those not shown.
        let shown = match room.saturating_sub(2) {
            room if room >= groups.len() => groups.len(),
            room => room.saturating_sub(1),
        };
        if shown == 0 {
            continue;
        }
        let mut table = Table::new(&[Side::Right, Side::Right, Side::Left]);
        table.row(["new/s", "open", title]);
        for group in &groups[..shown] {
            table.row([rate(group.new), group.open.to_string(), group.name.clone()]);
        }
        let rest = groups.len() - shown;
        if rest > 0 {
            table.row([String::new(), String::new(), format!("and {rest} others")]);
        }
        lines.push(String::new());
        lines.extend(written(&table));
    }
    lines.truncate(height);
    for line in &mut lines {
        output::cut(line, width);
    }
    lines
}

fn written(table: &Table) -> Vec<String> {
    let mut text = String::new();
    table.write(&mut text, None);
    let mut lines: Vec<String> = text.lines().map(str::to_owned).collect();
    // A heading without rows is noise.
    if let [heading] = &mut lines[..] {
        let _ = write!(heading, ": none");
        *heading = heading
            .trim_start()
            .replace("new/s  ", "")
            .replace("  the first segment", "");
    }
    lines
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sample(after: u64, stats: &[(&str, u64)], connections: &[[&str; 3]]) -> Sample {
        let end = |text: &str| text.parse().expect("an end");
        let stats = Stats {
            rows: stats
                .iter()
                .map(|(row, count)| ((*row).to_owned(), *count))
                .collect(),
        };
        Sample {
            time: Instant::now() + Duration::from_secs(after),
            records: Records::of(&stats, None),
            stats,
            connections: connections
                .iter()
                .map(|[client, balancer, server]| Connection {
                    client: end(client),
                    balancer: end(balancer),
                    server: end(server),
                })
                .collect(),
            remark: None,
        }
    }

    const OLD: [&str; 3] = ["203.0.113.7:1", "10.0.1.1:1", "10.0.0.1:80"];
    const NEW: [&str; 3] = ["203.0.113.9:2", "10.0.1.1:2", "10.0.0.1:80"];
    const OTHER: [&str; 3] = ["[2001:db8:7::7]:3", "10.0.1.2:3", "10.0.0.1:80"];

    fn screen() -> Screen {
        let before = sample(
            0,
            &[("option_taken", 1), ("untrusted", 4), ("malformed", 9)],
            &[OLD],
        );
        let now = sample(
            2,
            &[
                ("option_taken", 3),
                ("untrusted", 8),
                ("malformed", 9),
                ("records_live", 3),
            ],
            &[OLD, NEW, OTHER],
        );
        let mut screen = now.since(&before);
        screen.seconds = 2.0;
        screen
    }

    #[test]
    fn connections_are_grouped_and_counted() {
        assert_eq!(
            lines(&screen(), usize::MAX, usize::MAX),
            [
                "toa: 3.0/s new connections, 1.0/s with a client, 3 records",
                "",
                "new/s  without a client  the first segment",
                "  2.0  untrusted         comes from a host that the policy does not trust",
                "",
                "new/s  open  client",
                "  0.5     2  203.0.113.0/24",
                "  0.5     1  2001:db8:7::/48",
                "",
                "new/s  open  balancer",
                "  0.5     2  10.0.1.1",
                "  0.5     1  10.0.1.2",
            ]
        );
    }

    #[test]
    fn what_a_terminal_has_no_room_for_is_marked() {
        let mut screen = screen();
        screen.clients = (0..9)
            .map(|at| Group {
                name: format!("10.0.{at}.0/24"),
                new: 1,
                open: 1,
            })
            .collect();
        let lines = lines(&screen, 30, 14);
        assert_eq!(lines[3], "  2.0  untrusted         come+");
        assert_eq!(
            lines[4..9],
            [
                "",
                "new/s  open  client",
                "  0.5     1  10.0.0.0/24",
                "  0.5     1  10.0.1.0/24",
                "             and 7 others",
            ]
        );
    }

    #[test]
    fn screens_fit_each_terminal() {
        for width in 0..100 {
            for height in 0..20 {
                let lines = lines(&screen(), width, height);
                assert!(lines.len() <= height, "{width} {height}");
                let widest = lines.iter().map(|line| output::columns_of(line)).max();
                assert!(widest.unwrap_or(0) <= width, "{width} {height}");
            }
        }
    }
}
