// SPDX-License-Identifier: GPL-2.0

//! Tests the module from user space, inside the virtual machine, as root.
//!
//! Each test is a claim ([`cases`]) about the view of a server behind the balancer.
//! A test gets a new client's host and a new server's host with the balancer between
//! them ([`net`]). It makes connections ([`sockets`]), and compares the kernel's
//! answers with the expected ones. After every test [`runner`] checks for leaks, and
//! [`ktap`] reports the result to the host. [`demo`] shows the effect to people.

mod apparmor;
mod arguments;
mod balancer;
mod bench;
mod btf;
mod capture;
mod cases;
mod connections_file;
mod demo;
mod failures;
mod handmade;
mod held_load;
mod hostile_wire;
mod kernel_checks;
mod kmsg;
mod ktap;
mod memory;
mod model;
mod module;
mod namespace;
mod net;
mod netstat;
mod nginx;
mod path;
mod proc_tcp;
mod process;
mod programs;
mod remote;
mod runner;
mod selftests;
mod servers;
mod site;
mod sockets;
mod stats;
mod sys;
mod test_module;
mod tracing;
mod traffic;
mod wait;

use std::fs;
use std::process::exit;
use std::process::Command;
use std::process::ExitCode;
use std::time::Duration;

use lexopt::prelude::*;
use nix::sys::resource::setrlimit;
use nix::sys::resource::Resource;

use crate::arguments::Arguments;
use crate::cases::Boot;

const HELP: &str = "\
Tests toa.ko inside the virtual machine that the harness boots.

toa-guest test [--boot NAME] [--filter TEXT]... [--list] [--tracer]
    run the tests of that boot, stock (default), no-ipv6, unload, one-cpu,
    servers, secure-boot, faults, planted, model, soak or selftests, whose names
    contain TEXT, and write KTAP; or only name them
    --tracer: the function tracer runs during the tests
    boot model: --steps N and --seed N of the random scripts, or --script FILE
    to run that script
    boots unload and one-cpu: --cycles N loads and unloads
    boot soak: --minutes N of traffic, at least --segments N hostile ones, --seed N
toa-guest demo
    show what real servers log without the module and with it
toa-guest bench
    count the instructions that the module adds; the machine needs toa-vm's option --icount
toa-guest traffic
    on the server of tests/upgrade-test.sh, connect from a balancer and from a host that
    forges clients until SIGTERM, and write what the server sees to the standard output

The program expects /toa/toa.ko and /toa/bin/toa-balancer, and writes to /toa/out.
";

/// The name of process 1 in the harness' virtual machine.
const VM_INIT: &str = "toa-init";

/// Limit of open sockets in a test.
const OPEN_FILES: u64 = 16_384;

enum Action {
    Test { boot: Boot, filters: Vec<String> },
    List { boot: Boot, filters: Vec<String> },
    Demo,
    Bench,
    Traffic,
}

fn main() -> ExitCode {
    let action = match parse(lexopt::Parser::from_env()) {
        Ok(action) => action,
        Err(error) => {
            eprintln!("toa-guest: {error}: see --help");
            return ExitCode::from(2);
        }
    };
    if let Action::List { boot, filters } = &action {
        selected(*boot, filters).for_each(|case| println!("{}", case.name));
        return ExitCode::SUCCESS;
    }
    let checked = match action {
        Action::Traffic => traffic::check_machine(),
        _ => check_machine(),
    };
    if let Err(reason) = checked {
        eprintln!("toa-guest: {reason}");
        return ExitCode::from(2);
    }
    prepare_machine();
    let good = match action {
        Action::Test { boot, filters } => test(boot, &filters),
        Action::Demo => demo::run(),
        Action::Bench => bench::run(),
        Action::Traffic => traffic::run(),
        Action::List { .. } => unreachable!("the list returned above"),
    };
    if good {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    }
}

/// Runs the selected tests; returns whether at least one exists and all passed.
fn test(boot: Boot, filters: &[String]) -> bool {
    if let Err(reason) = check_boot(boot) {
        eprintln!("toa-guest: {reason}");
        return false;
    }
    let cases: Vec<_> = selected(boot, filters).collect();
    if cases.is_empty() {
        eprintln!("toa-guest: no test has any of {filters:?} in its name");
        return false;
    }
    runner::run(&cases, boot.case_bound())
}

fn parse(mut parser: lexopt::Parser) -> Result<Action, lexopt::Error> {
    let mut verb = None;
    let mut boot = Boot::default();
    let mut filters = Vec::new();
    let mut list = false;
    let mut arguments = Arguments::default();
    while let Some(arg) = parser.next()? {
        match arg {
            Long("boot") => boot = parser.value()?.parse()?,
            Long("filter") => filters.push(parser.value()?.string()?),
            Long("list") => list = true,
            Long("tracer") => arguments.tracer = true,
            Long("steps") => arguments.steps = parser.value()?.parse()?,
            Long("seed") => arguments.seed = parser.value()?.parse()?,
            Long("script") => arguments.script = Some(parser.value()?.string()?),
            Long("cycles") => arguments.cycles = parser.value()?.parse()?,
            Long("minutes") => {
                let minutes: u64 = parser.value()?.parse()?;
                arguments.time = Duration::from_secs(60 * minutes);
            }
            Long("segments") => arguments.segments = parser.value()?.parse()?,
            Short('h') | Long("help") => {
                print!("{HELP}");
                exit(0);
            }
            Value(word) if verb.is_none() => verb = Some(word.string()?),
            _ => return Err(arg.unexpected()),
        }
    }
    arguments::set(arguments);
    match verb.as_deref() {
        Some("test") if list => Ok(Action::List { boot, filters }),
        Some("test") => Ok(Action::Test { boot, filters }),
        Some("demo") => Ok(Action::Demo),
        Some("bench") => Ok(Action::Bench),
        Some("traffic") => Ok(Action::Traffic),
        _ => Err("test, demo, bench or traffic?".into()),
    }
}

fn selected(boot: Boot, filters: &[String]) -> impl Iterator<Item = &'static runner::Case> + '_ {
    let cases = boot.cases().into_iter();
    cases.filter(move |case| {
        filters.is_empty()
            || filters
                .iter()
                .any(|filter| case.name.contains(filter.as_str()))
    })
}

/// Checks that this is the harness' virtual machine: the tests load a module into the
/// running kernel, which could crash a machine in use.
fn check_machine() -> Result<(), String> {
    let init = fs::read_to_string("/proc/1/comm").unwrap_or_default();
    if init.trim() != VM_INIT {
        return Err(format!(
            "this is not the harness' virtual machine (its init is {VM_INIT}, not {}): \
             toa-guest would load a module into this machine's kernel",
            init.trim()
        ));
    }
    if !fs::exists(module::PATH).unwrap_or(false) {
        return Err(format!("{} is missing", module::PATH));
    }
    Ok(())
}

/// Checks that the kernel's command line has the words that the tests rely on.
fn check_boot(boot: Boot) -> Result<(), String> {
    let told = fs::read_to_string("/proc/cmdline").unwrap_or_default();
    let told: Vec<&str> = told.split_whitespace().collect();
    match boot.parameters().iter().find(|word| !told.contains(word)) {
        Some(word) => Err(format!("boot the kernel with {word}")),
        None => Ok(()),
    }
}

/// Prepares the sockets and TUN devices for the tests and the balancer. If IPv6 is a module, toa.ko
/// needs its functions.
fn prepare_machine() {
    setrlimit(Resource::RLIMIT_NOFILE, OPEN_FILES, OPEN_FILES).expect("more open files");
    if !fs::exists("/sys/module/ipv6").expect("/sys") {
        namespace::run(Command::new("modprobe").arg("ipv6"));
    }
    namespace::run(Command::new("modprobe").arg("tun"));
}
