// SPDX-License-Identifier: MIT OR Apache-2.0

//! `toa`: shows, checks, sets and explains the kernel module toa.
//!
//! A command reads the module's files, and prints a screen or JSON. A failure is one line on standard
//! error that ends with the command to type. [`arguments`] lists the commands, and [`failure`] the exit
//! statuses.

mod arguments;
mod check;
mod connections;
mod doctor;
mod failure;
mod filter;
mod generate;
mod host;
#[cfg(all(test, feature = "dev-tests"))]
mod hostile;
mod list;
mod module;
mod namespace;
mod netstat;
mod output;
mod policy;
mod policy_commands;
mod reload;
mod sockets;
mod stats;
mod status;
mod top;
mod tun;
mod verify;
mod why;

use std::process::ExitCode;

use clap::Parser;

use crate::arguments::Arguments;
use crate::arguments::Command;
use crate::arguments::Places;
use crate::arguments::StatusArguments;
use crate::failure::Failure;
use crate::failure::Result;
use crate::host::Host;
use crate::namespace::Namespace;

/// The place of a command: the host's files, and the form of the output.
#[derive(Debug)]
pub struct Context {
    /// The host.
    pub host: Host,
    /// Whether the output is JSON.
    pub json: bool,
}

impl Context {
    /// Runs `job` in the namespace that an option names, or else in this one.
    ///
    /// # Errors
    ///
    /// There is no such namespace, it cannot be entered, or the job fails.
    pub fn within<T: Send>(
        &self,
        netns: Option<&str>,
        job: impl FnOnce() -> Result<T> + Send,
    ) -> Result<T> {
        match netns {
            None => job(),
            Some(_) if self.host.is_copy() => Err(Failure::usage(
                "a copy of files has one network namespace: leave out --netns",
            )),
            Some(name) => Namespace::find(name)?.enter(job),
        }
    }

    /// Runs `job` in each namespace that the options name. The flag of the result is whether several
    /// were asked for. A namespace that cannot be entered is left out with a remark.
    ///
    /// # Errors
    ///
    /// As [`Context::within`], if one namespace was named. Otherwise all of them failed.
    pub fn within_each<T: Send>(
        &self,
        places: &Places,
        job: impl Fn() -> Result<T> + Sync,
    ) -> Result<Vec<(Option<Namespace>, T)>> {
        if !places.all_netns {
            let found = self.within(places.netns.as_deref(), &job)?;
            return Ok(vec![(None, found)]);
        }
        if self.host.is_copy() {
            return Err(Failure::usage(
                "a copy of files has one network namespace: leave out --all-netns",
            ));
        }
        let all = namespace::all();
        let mut found = Vec::new();
        let mut first_failure = None;
        for namespace in all.namespaces {
            match namespace.enter(&job) {
                Ok(result) => found.push((Some(namespace), result)),
                Err(failure) => {
                    output::remark(&format!("{}: {failure}", namespace.name));
                    first_failure.get_or_insert(failure);
                }
            }
        }
        if all.hidden > 0 {
            output::remark(&format!(
                "{} processes may have further network namespaces: run it with sudo",
                all.hidden
            ));
        }
        match first_failure {
            Some(failure) if found.is_empty() => Err(failure),
            _ => Ok(found),
        }
    }
}

fn run(arguments: Arguments) -> Result<u8> {
    let context = Context {
        host: Host::new(arguments.sysroot),
        json: arguments.json,
    };
    let command = arguments
        .command
        .unwrap_or(Command::Status(StatusArguments::default()));
    let status = match &command {
        Command::Status(arguments) => status::run(&context, arguments)?,
        Command::List(arguments) => list::run(&context, arguments)?,
        Command::Why(arguments) => why::run(&context, arguments)?,
        Command::Policy(command) => policy_commands::run(&context, command)?,
        Command::Verify(arguments) => verify::run(&context, arguments)?,
        Command::Top(arguments) => top::run(&context, arguments)?,
        Command::Doctor(arguments) => doctor::run(&context, arguments)?,
        Command::Reload(arguments) => reload::run(&context, arguments)?,
        Command::Generate(arguments) => generate::run(arguments)?,
        Command::Check(arguments) => return Ok(check::run(&context, arguments) as u8),
    };
    Ok(status as u8)
}

fn main() -> ExitCode {
    match run(Arguments::parse()) {
        Ok(status) => ExitCode::from(status),
        Err(failure) => {
            output::remark(&failure.text);
            ExitCode::from(failure.status as u8)
        }
    }
}
