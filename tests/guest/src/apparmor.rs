// SPDX-License-Identifier: GPL-2.0

//! AppArmor profiles of the tests, and a server that they confine (the kernel's
//! `security/apparmor/`, and `security/lsm_audit.c` for its log lines).

use std::fs;
use std::io::Read;
use std::io::Write;
use std::net::IpAddr;
use std::net::TcpStream;
use std::path::PathBuf;
use std::process::Command;
use std::process::ExitStatus;
use std::process::Stdio;

use crate::kmsg::KernelLog;
use crate::namespace;
use crate::net;
use crate::programs::Seen;
use crate::runner::problem;
use crate::wait;

/// The features of this kernel's AppArmor.
const FEATURES: &str = "/sys/kernel/security/apparmor/features";

/// The profile under which a server accepts connections.
const ACCEPTING: &str = "toa-accepting";

/// The profile under which the server serves them: it may not receive.
pub const SERVING: &str = "toa-serving";

/// Returns whether AppArmor mediates by peer: it calls getname when a program uses a
/// socket that was made under another profile. Linux does so since 7.3.
pub fn asks_for_peers() -> bool {
    let symbols = fs::read_to_string("/proc/kallsyms").expect("the kernel's symbols");
    let mut names = symbols.lines().filter_map(|line| line.split(' ').nth(2));
    names.any(|name| name == "aa_inet_file_perm")
}

/// The interval in seconds in which the kernel logs a limited number of audit lines.
const RATE_LIMIT: &str = "/proc/sys/kernel/printk_ratelimit";

/// Both profiles, loaded until the value is dropped. The kernel logs each denial.
#[derive(Debug)]
pub struct Profiles {
    file: PathBuf,
    rate_limit: String,
}

impl Profiles {
    #[track_caller]
    pub fn load() -> Self {
        let text = format!(
            "profile {ACCEPTING} {{\n\
               file,\n\
               capability,\n\
               signal,\n\
               network,\n\
               change_profile -> {SERVING},\n\
             }}\n\
             profile {SERVING} {{\n\
               file,\n\
               capability,\n\
               signal,\n\
               network (send) inet stream,\n\
               network (send) inet6 stream,\n\
             }}\n"
        );
        let file = std::env::temp_dir().join("profiles");
        fs::write(&file, text).expect("a file for profiles");
        let rate_limit = fs::read_to_string(RATE_LIMIT).expect("a limit");
        let profiles = Self { file, rate_limit };
        fs::write(RATE_LIMIT, "0").expect("no limit");
        namespace::run(&mut profiles.parser("--replace"));
        profiles
    }

    /// Returns the parser's command with this kernel's features instead of Debian's.
    fn parser(&self, action: &str) -> Command {
        let mut parser = Command::new("apparmor_parser");
        parser.args([action, "--skip-cache", "--policy-features", FEATURES]);
        parser.arg(&self.file);
        parser
    }
}

impl Drop for Profiles {
    fn drop(&mut self) {
        let _ = fs::write(RATE_LIMIT, &self.rate_limit);
        let removed = self.parser("--remove").stdin(Stdio::null()).status();
        if !removed.as_ref().is_ok_and(ExitStatus::success) {
            problem(format!("removing AppArmor's profiles: {removed:?}"));
        }
    }
}

/// Returns the command of a program that starts under [`ACCEPTING`].
pub fn confined(program: &str) -> Command {
    let mut command = Command::new("aa-exec");
    command.args(["-p", ACCEPTING, "--", program]);
    command
}

/// Sends a byte to a server that may not receive it; returns the kernel's log line.
pub fn denial(stream: &mut TcpStream) -> String {
    let mut log = KernelLog::from_now();
    stream.write_all(b"?").expect("the request is sent");
    // A socket that is closed with unread data is reset, perhaps before its answer
    // is read.
    let mut answer = [0; "EACCES".len()];
    stream.read_exact(&mut answer).expect("the answer arrives");
    assert_eq!(&answer, b"EACCES", "the server's read");
    // The kernel's audit thread writes the line.
    wait::until("a line of AppArmor's in the log", || {
        let denied = |line: &String| {
            ["apparmor=\"DENIED\"", "class=\"net\""]
                .iter()
                .all(|words| line.contains(words))
        };
        let line = log.new_lines().into_iter().find(denied);
        line.ok_or_else(|| "the log has no such line".to_owned())
    })
}

/// Returns the sender of the data according to that line. The address that the line
/// has from the socket itself must be the balancer's.
pub fn source(line: &str) -> Option<Seen> {
    let word = |key: &str| {
        let mut words = line.split(' ').filter_map(|word| word.split_once('='));
        words.find(|(name, _)| *name == key).map(|(_, value)| value)
    };
    let foreign: IpAddr = word("faddr")?.parse().ok()?;
    let address = word("daddr")?.parse().ok()?;
    let port = word("dest")?.parse().ok()?;
    net::is_local_address(foreign).then_some(Seen {
        address,
        port: Some(port),
    })
}
