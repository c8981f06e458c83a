// SPDX-License-Identifier: MIT OR Apache-2.0

//! The module that runs, and the file that `modprobe toa` loads.

use std::process::Command;

use schemars::JsonSchema;
use serde::Serialize;

use crate::host::Host;
use crate::output::printable;

/// The module that runs.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, JsonSchema)]
pub struct Running {
    /// The version, which other modules called toa may not have.
    pub version: Option<String>,
    /// The checksum of the sources, if the kernel has it.
    pub srcversion: Option<String>,
}

/// The file that `modprobe toa` loads into the running kernel.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, JsonSchema)]
pub struct Installed {
    /// The path.
    pub filename: String,
    /// The version.
    pub version: Option<String>,
    /// The checksum of the sources.
    pub srcversion: Option<String>,
    /// The crate that it was built with: `kernel` or `stand-in`. Other modules have none.
    #[serde(rename = "crate")]
    pub kernel_crate: Option<String>,
    /// The kernel that it was built for.
    pub vermagic: Option<String>,
    /// The signer's name.
    pub signer: Option<String>,
}

/// Returns the module that runs, if one does.
pub fn running(host: &Host) -> Option<Running> {
    // A module that failed or ends has another state. Built-in code has no file of that name.
    let state = host.word("/sys/module/toa/initstate")?;
    let word = |name| host.word(&format!("/sys/module/toa/{name}"));
    (state == "live").then(|| Running {
        version: word("version"),
        srcversion: word("srcversion"),
    })
}

/// Returns the installed file, if there is one and `modinfo` finds it.
pub fn installed(host: &Host) -> Option<Installed> {
    if host.is_copy() {
        return None;
    }
    let release = host.word("/proc/sys/kernel/osrelease")?;
    let output = tool("modinfo")
        .args(["-k", &release, "toa"])
        .output()
        .ok()?;
    if !output.status.success() {
        return None;
    }
    parse(&String::from_utf8_lossy(&output.stdout))
}

/// Returns a command of the system, also for users whose PATH lacks `/sbin`.
pub fn tool(name: &str) -> Command {
    let path = std::env::var("PATH").unwrap_or_default();
    let mut command = Command::new(name);
    command
        .env("PATH", format!("{path}:/usr/sbin:/sbin"))
        .env("LC_ALL", "C");
    command
}

/// Parses the output of `modinfo`.
pub fn parse(text: &str) -> Option<Installed> {
    let field = |name: &str| {
        let fields = text.lines().filter_map(|line| line.split_once(':'));
        let mut found = fields.filter(|(field, _)| field.trim() == name);
        found.next().map(|(_, value)| printable(value.trim()))
    };
    Some(Installed {
        filename: field("filename")?,
        version: field("version"),
        srcversion: field("srcversion"),
        kernel_crate: field("crate"),
        vermagic: field("vermagic"),
        signer: field("signer"),
    })
}

/// Whether another toa runs than the one that is installed, as after an upgrade.
pub fn is_outdated(running: &Running, installed: &Installed) -> bool {
    let differs = |running: &Option<String>, installed: &Option<String>| matches!((running, installed), (Some(running), Some(installed)) if running != installed);
    differs(&running.version, &installed.version)
        || differs(&running.srcversion, &installed.srcversion)
}

#[cfg(test)]
mod tests {
    use super::*;

    const MODINFO: &str = "filename:       /lib/modules/7.3.4/updates/dkms/toa.ko.xz\n\
                           crate:          kernel\n\
                           version:        0.1.0\n\
                           license:        GPL\n\
                           parm:           max_records:Most connections: 0 (uint)\n";

    #[test]
    fn fields_of_modinfo_are_read() {
        let installed = parse(MODINFO).expect("a file");
        assert_eq!(
            installed.filename,
            "/lib/modules/7.3.4/updates/dkms/toa.ko.xz"
        );
        assert_eq!(installed.version.as_deref(), Some("0.1.0"));
        assert_eq!(installed.kernel_crate.as_deref(), Some("kernel"));
        assert_eq!(installed.signer, None);
        assert_eq!(parse("modinfo: ERROR\n"), None);
    }

    #[test]
    fn version_or_sources_that_differ_are_an_upgrade() {
        let of = |version: &str, srcversion: Option<&str>| {
            (Some(version.to_owned()), srcversion.map(str::to_owned))
        };
        for (running, installed, outdated) in [
            (of("0.1.0", None), of("0.1.0", None), false),
            (of("0.1.0", None), of("0.2.0", None), true),
            (of("0.1.0", Some("A")), of("0.1.0", Some("B")), true),
            (of("0.1.0", Some("A")), of("0.1.0", None), false),
        ] {
            let running = Running {
                version: running.0,
                srcversion: running.1,
            };
            let installed = Installed {
                version: installed.0,
                srcversion: installed.1,
                ..Installed::default()
            };
            assert_eq!(is_outdated(&running, &installed), outdated, "{running:?}");
        }
    }
}
