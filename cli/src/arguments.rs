// SPDX-License-Identifier: MIT OR Apache-2.0

//! The commands and their arguments. Help, manual pages and completions are made of these definitions.

use std::net::IpAddr;
use std::path::PathBuf;

use clap::Args;
use clap::Parser;
use clap::Subcommand;
use clap::ValueEnum;

/// The end of the help.
const STATUSES: &str = "\
Exit status:
  0  the command did its work, and found nothing wrong
  1  it found a problem
  2  the arguments are wrong, and nothing changed
  3  the module is not loaded, or reload could load none
  4  a right is missing: run it with sudo
  5  a file or a call failed in another way
toa check has those of monitoring plugins instead: 0 OK, 1 WARNING, 2 CRITICAL, 3 UNKNOWN.";

/// Shows, checks and sets toa, the kernel module that gives servers their clients' real addresses.
#[derive(Debug, Parser)]
#[command(name = "toa", version, after_help = STATUSES, max_term_width = 100)]
pub struct Arguments {
    /// Print JSON, as schema.json describes it.
    #[arg(long, global = true)]
    pub json: bool,

    /// Read a copy of another host's /proc and /sys below this directory.
    #[arg(long, global = true, value_name = "DIRECTORY")]
    pub sysroot: Option<PathBuf>,

    /// The command, status by default.
    #[command(subcommand)]
    pub command: Option<Command>,
}

/// A command.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Show the module, its policy, its records and its counters.
    Status(StatusArguments),
    /// List the connections that carry a client.
    List(ListArguments),
    /// Watch new connections by client and by balancer, and the reasons of refusals.
    Top(TopArguments),
    /// Explain why a server sees the balancer instead of a client.
    Why(WhyArguments),
    /// Send TOA connections through the module in a network namespace for this purpose.
    Verify(VerifyArguments),
    /// Check whether this host can build, load and trust the module.
    Doctor(DoctorArguments),
    /// Replace the loaded module by the installed one, and keep the policy.
    Reload(ReloadArguments),
    /// Check the module as a monitoring plugin does.
    Check(CheckArguments),
    /// Show, set and test the policy.
    #[command(subcommand)]
    Policy(PolicyCommand),
    /// Print a manual page, a shell's completions or the schema of the JSON output.
    Generate(GenerateArguments),
}

/// A network namespace.
#[derive(Args, Clone, Debug, Default)]
pub struct Place {
    /// The network namespace: a name of ip netns, or the number of a process.
    #[arg(long, value_name = "NAME|PID")]
    pub netns: Option<String>,
}

/// One network namespace or all.
#[derive(Args, Clone, Debug, Default)]
pub struct Places {
    /// The network namespace: a name of ip netns, or the number of a process.
    #[arg(long, value_name = "NAME|PID")]
    pub netns: Option<String>,

    /// All network namespaces of this host.
    #[arg(long, conflicts_with = "netns")]
    pub all_netns: bool,
}

/// The arguments of `toa status`.
#[derive(Args, Debug)]
pub struct StatusArguments {
    /// Print metrics for the textfile collector of Prometheus' node_exporter.
    #[arg(long, conflicts_with = "json")]
    pub prometheus: bool,

    /// The seconds over which rates are measured, 0 for none.
    #[arg(long, value_name = "SECONDS", default_value_t = 1.0, value_parser = seconds)]
    pub interval: f64,

    #[command(flatten)]
    pub place: Place,
}

impl Default for StatusArguments {
    fn default() -> Self {
        Self {
            prometheus: false,
            interval: 1.0,
            place: Place::default(),
        }
    }
}

/// The arguments of `toa list`.
#[derive(Args, Debug)]
pub struct ListArguments {
    /// Only connections that match all of these: PREFIX, client PREFIX, balancer PREFIX, server PREFIX, :PORT
    /// or port PORT (of the server).
    #[arg(value_name = "FILTER")]
    pub filter: Vec<String>,

    /// Only IPv4 clients.
    #[arg(short = '4', long, conflicts_with = "ipv6")]
    pub ipv4: bool,

    /// Only IPv6 clients.
    #[arg(short = '6', long)]
    pub ipv6: bool,

    /// Print numbers only, as toa always does. For the habits of ss.
    #[arg(short = 'n', long)]
    pub numeric: bool,

    /// Print no line with the columns' names.
    #[arg(short = 'H', long)]
    pub no_header: bool,

    #[command(flatten)]
    pub places: Places,
}

/// The arguments of `toa top`.
#[derive(Args, Debug)]
pub struct TopArguments {
    /// The seconds between two screens.
    #[arg(short = 'd', long, value_name = "SECONDS", default_value_t = 1.0, value_parser = positive_seconds)]
    pub interval: f64,

    /// Print plain screens one after the other, as for a pipe.
    #[arg(short = 'b', long)]
    pub batch: bool,

    /// End after so many screens.
    #[arg(short = 'n', long, value_name = "SCREENS", value_parser = clap::value_parser!(u64).range(1..))]
    pub count: Option<u64>,

    #[command(flatten)]
    pub place: Place,
}

/// The arguments of `toa why`.
#[derive(Args, Debug)]
pub struct WhyArguments {
    /// One end of a connection, such as the one in a server's log, or :PORT for the connections that a server's
    /// port gets while the command waits.
    #[arg(value_name = "ADDRESS:PORT")]
    pub end: String,

    /// The seconds during which the counters are watched.
    #[arg(long, value_name = "SECONDS", default_value_t = 1.0, value_parser = seconds)]
    pub interval: f64,

    #[command(flatten)]
    pub place: Place,
}

/// The arguments of `toa verify`.
#[derive(Args, Debug)]
pub struct VerifyArguments {
    /// The balancer's address, for which the host's policy is tried out. By default an address of the trusted
    /// set.
    #[arg(long, value_name = "ADDRESS")]
    pub sender: Option<IpAddr>,
}

/// The arguments of `toa doctor`.
#[derive(Args, Debug)]
pub struct DoctorArguments {
    /// Write the result to a new file, without addresses, for a report about a kernel.
    #[arg(long, value_name = "FILE")]
    pub report: Option<PathBuf>,
}

/// The arguments of `toa reload`.
#[derive(Args, Debug)]
pub struct ReloadArguments {
    /// Check whether the installed module can replace the loaded one, and change nothing.
    #[arg(long)]
    pub check: bool,
}

/// The arguments of `toa check`.
#[derive(Args, Debug)]
pub struct CheckArguments {
    /// The percentage of the records in use that is a warning.
    #[arg(short, long, value_name = "PERCENT", default_value_t = 80, value_parser = clap::value_parser!(u8).range(0..=100))]
    pub warning: u8,

    /// The percentage of the records in use that is critical.
    #[arg(short, long, value_name = "PERCENT", default_value_t = 95, value_parser = clap::value_parser!(u8).range(0..=100))]
    pub critical: u8,

    #[command(flatten)]
    pub place: Place,
}

/// A command of `toa policy`.
#[derive(Debug, Subcommand)]
pub enum PolicyCommand {
    /// Show the policy.
    Show(PolicyShowArguments),
    /// Set values, all of which are checked before the first one is written.
    Set(PolicySetArguments),
    /// Try an option out: would the policy believe it, and why.
    Test(PolicyTestArguments),
    /// Compare the policy with the one in /etc/sysctl.d, which the next start sets.
    Diff(PolicyDiffArguments),
}

/// The arguments of `toa policy show`.
#[derive(Args, Debug)]
pub struct PolicyShowArguments {
    #[command(flatten)]
    pub places: Places,
}

/// The arguments of `toa policy set`.
#[derive(Args, Debug)]
pub struct PolicySetArguments {
    /// NAME=VALUE. For trusted, += adds prefixes and -= removes them.
    #[arg(value_name = "NAME=VALUE", required = true)]
    pub assignments: Vec<String>,

    /// Write the values to /etc/sysctl.d/toa.conf too, so that the next start sets them.
    #[arg(long)]
    pub persist: bool,

    #[command(flatten)]
    pub places: Places,
}

/// The arguments of `toa policy test`.
#[derive(Args, Debug)]
pub struct PolicyTestArguments {
    /// The address that the segment comes from, which is the balancer's.
    pub address: IpAddr,

    /// The option, such as 254/8.
    #[arg(value_name = "KIND/LENGTH")]
    pub option: String,

    #[command(flatten)]
    pub place: Place,
}

/// The arguments of `toa policy diff`.
#[derive(Args, Debug)]
pub struct PolicyDiffArguments {
    #[command(flatten)]
    pub place: Place,
}

/// The arguments of `toa generate`.
#[derive(Args, Debug)]
pub struct GenerateArguments {
    /// The text to print.
    #[arg(value_enum)]
    pub text: Text,

    /// Write the manual pages of all commands to this directory instead.
    #[arg(value_name = "DIRECTORY")]
    pub directory: Option<PathBuf>,
}

/// A text that the definitions determine.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Text {
    /// The manual page.
    Man,
    /// Completions for bash.
    Bash,
    /// Completions for zsh.
    Zsh,
    /// Completions for fish.
    Fish,
    /// The JSON schema of all outputs.
    Schema,
}

/// Reads a number of seconds, up to an hour.
fn seconds(text: &str) -> Result<f64, String> {
    let number = text.parse().ok();
    number
        .filter(|number| (0.0..=3600.0).contains(number))
        .ok_or_else(|| "write a number of seconds from 0 to 3600".to_owned())
}

/// Reads a number of seconds that is not 0.
fn positive_seconds(text: &str) -> Result<f64, String> {
    match seconds(text)? {
        number if number >= 0.1 => Ok(number),
        _ => Err("write a number of seconds from 0.1 to 3600".to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory;

    #[test]
    fn definitions_are_consistent() {
        Arguments::command().debug_assert();
    }
}
