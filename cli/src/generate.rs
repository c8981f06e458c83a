// SPDX-License-Identifier: MIT OR Apache-2.0

//! `toa generate`: manual pages, completions and the schema, made of the definitions of the commands.

use std::fs;
use std::io;
use std::path::Path;

use clap::Command;
use clap::CommandFactory;
use clap_complete::Shell;
use clap_mangen::Man;
use schemars::schema_for;
use schemars::JsonSchema;

use crate::arguments::Arguments;
use crate::arguments::GenerateArguments;
use crate::arguments::Text;
use crate::check;
use crate::doctor;
use crate::failure::Failure;
use crate::failure::Result;
use crate::failure::Status;
use crate::list;
use crate::output;
use crate::policy;
use crate::policy_commands;
use crate::reload;
use crate::status;
use crate::top;
use crate::verify;
use crate::why;

/// The outputs of `--json`, each under the command's name.
#[derive(JsonSchema)]
#[schemars(rename_all = "kebab-case")]
#[allow(dead_code)]
struct Outputs {
    status: status::Status,
    list: Vec<list::Row>,
    top: top::Screen,
    why: why::Explanation,
    verify: verify::Verification,
    doctor: doctor::Diagnosis,
    reload: reload::Reload,
    check: check::Check,
    policy_show: Vec<policy_commands::PolicyOf>,
    policy_set: Vec<policy_commands::PolicyOf>,
    policy_test: policy::Decision,
    policy_diff: Vec<policy_commands::Difference>,
}

/// Runs the command.
///
/// # Errors
///
/// The output cannot be written.
pub fn run(arguments: &GenerateArguments) -> Result<Status> {
    if let Some(directory) = &arguments.directory {
        if arguments.text != Text::Man {
            return Err(Failure::usage(
                "only manual pages are several files: leave out the directory",
            ));
        }
        let mut command = Arguments::command().disable_help_subcommand(true);
        command.build();
        write_pages(&command, directory)
            .map_err(|error| Failure::io("writing to", directory, &error))?;
        return Ok(Status::Success);
    }
    let text = text(arguments.text).map_err(|error| Failure::failed(error.to_string()))?;
    output::print(&text)?;
    Ok(Status::Success)
}

/// Writes the pages of a command and of all below it.
fn write_pages(command: &Command, directory: &Path) -> io::Result<()> {
    for below in command
        .get_subcommands()
        .filter(|below| !below.is_hide_set())
    {
        write_pages(below, directory)?;
    }
    let name = command.get_display_name().unwrap_or(command.get_name());
    fs::write(directory.join(format!("{name}.1")), page(command.clone())?)
}

/// The manual page of a command.
fn page(command: Command) -> io::Result<String> {
    let name = command.get_display_name().unwrap_or(command.get_name());
    let title = name.to_uppercase();
    let mut bytes = Vec::new();
    Man::new(command)
        .title(title)
        .date(date())
        .source(concat!("toa ", env!("CARGO_PKG_VERSION")))
        .manual("toa")
        .render(&mut bytes)?;
    // The blank line between two breaks is vertical space, of which man and mandoc warn.
    Ok(String::from_utf8_lossy(&bytes).replace("\n.br\n\n.br\n", "\n.sp\n"))
}

/// The day of this version, of the package's changelog: `21 Nov 2026` as `2026-11-21`.
fn date() -> String {
    const CHANGELOG: &str = include_str!("../debian/changelog");
    const MONTHS: [&str; 12] = [
        "Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec",
    ];
    let line = CHANGELOG.lines().find(|line| line.starts_with(" -- "));
    let (_, time) = line
        .and_then(|line| line.split_once(", "))
        .unwrap_or_default();
    let words: Vec<&str> = time.split_whitespace().collect();
    let [day, month, year, ..] = words[..] else {
        return String::new();
    };
    let month = MONTHS.iter().position(|name| *name == month).unwrap_or(0) + 1;
    format!("{year}-{month:02}-{day:0>2}")
}

fn text(text: Text) -> io::Result<String> {
    let mut bytes = Vec::new();
    let shell = match text {
        Text::Man => {
            bytes = page(Arguments::command())?.into_bytes();
            None
        }
        Text::Schema => {
            serde_json::to_writer_pretty(&mut bytes, &schema_for!(Outputs))?;
            bytes.push(b'\n');
            None
        }
        Text::Bash => Some(Shell::Bash),
        Text::Zsh => Some(Shell::Zsh),
        Text::Fish => Some(Shell::Fish),
    };
    if let Some(shell) = shell {
        clap_complete::generate(shell, &mut Arguments::command(), "toa", &mut bytes);
    }
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn schema_is_the_committed_one() {
        let schema = text(Text::Schema).expect("a schema");
        assert!(
            schema == include_str!("../schema.json"),
            "run: cargo run -- generate schema > schema.json"
        );
    }

    #[test]
    fn pages_have_a_title_with_the_day_of_the_version() {
        let page = text(Text::Man).expect("a page");
        let title = page.lines().find(|line| line.starts_with(".TH "));
        let (_, rest) = title
            .and_then(|title| title.split_once(".TH TOA 1 "))
            .expect("a title");
        let date: Vec<&str> = rest
            .split(' ')
            .next()
            .unwrap_or_default()
            .split('-')
            .collect();
        let lengths: Vec<usize> = date.iter().map(|part| part.len()).collect();
        assert_eq!(lengths, [4, 2, 2], "{rest}");
        assert!(date
            .iter()
            .all(|part| part.parse::<u16>().is_ok_and(|part| part > 0)));
    }

    #[test]
    fn texts_name_the_commands() {
        for kind in [Text::Man, Text::Bash, Text::Zsh, Text::Fish] {
            let text = text(kind).expect("a text");
            for command in ["status", "list", "why", "doctor", "policy", "reload"] {
                assert!(text.contains(command), "{kind:?} lacks {command}");
            }
        }
    }
}
