// SPDX-License-Identifier: MIT OR Apache-2.0

//! `toa generate`: manual pages, completions and the schema, made of the definitions of the commands.

use clap::CommandFactory;
use clap_complete::Shell;
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
        clap_mangen::generate_to(Arguments::command(), directory)
            .map_err(|error| Failure::io("writing to", directory, &error))?;
        return Ok(Status::Success);
    }
    let text = text(arguments.text).map_err(|error| Failure::failed(error.to_string()))?;
    output::print(&text)?;
    Ok(Status::Success)
}

fn text(text: Text) -> std::io::Result<String> {
    let mut bytes = Vec::new();
    let shell = match text {
        Text::Man => {
            clap_mangen::Man::new(Arguments::command()).render(&mut bytes)?;
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
    fn texts_name_the_commands() {
        for kind in [Text::Man, Text::Bash, Text::Zsh, Text::Fish] {
            let text = text(kind).expect("a text");
            for command in ["status", "list", "why", "doctor", "policy"] {
                assert!(text.contains(command), "{kind:?} lacks {command}");
            }
        }
    }
}
