// SPDX-License-Identifier: MIT OR Apache-2.0

//! `toa doctor`: whether this host can build, load and trust the module. Each point that fails has the
//! command that mends it.

use std::fmt::Write as _;
use std::fs;
use std::fs::File;
use std::io::Write as _;
use std::path::Path;

use schemars::JsonSchema;
use serde::Serialize;

use crate::arguments::DoctorArguments;
use crate::failure;
use crate::failure::Failure;
use crate::failure::Result;
use crate::host::Host;
use crate::module;
use crate::module::Installed;
use crate::module::Running;
use crate::output;
use crate::output::printable;
use crate::output::Side;
use crate::output::Table;
use crate::policy::Policy;
use crate::policy::Trusted;
use crate::stats::Stats;
use crate::Context;

/// The state of a point.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum State {
    /// Nothing to do.
    Ok,
    /// Something that an operator should decide.
    Warning,
    /// Something that keeps toa from working.
    Failed,
    /// A point that could not be checked.
    Unknown,
}

impl State {
    fn name(self) -> &'static str {
        match self {
            Self::Ok => "ok",
            Self::Warning => "WARNING",
            Self::Failed => "FAILED",
            Self::Unknown => "unknown",
        }
    }
}

/// A point. It has no address, so that a report has none.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, JsonSchema)]
pub struct Point {
    /// The name.
    name: String,
    /// The state.
    state: State,
    /// The result.
    result: String,
    /// The command that mends it.
    remedy: Option<String>,
}

/// The output of `toa doctor --json`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, JsonSchema)]
pub struct Diagnosis {
    /// Whether no point failed.
    healthy: bool,
    /// The points, in the order build, load, trust.
    points: Vec<Point>,
}

/// Runs the command.
///
/// # Errors
///
/// The report cannot be written.
pub fn run(context: &Context, arguments: &DoctorArguments) -> Result<failure::Status> {
    let facts = Facts::read(&context.host);
    let diagnosis = facts.diagnose();
    if let Some(path) = &arguments.report {
        write_report(path, &facts, &diagnosis)?;
        output::remark(&format!(
            "{} has no addresses: attach it to an issue of the project",
            path.display()
        ));
    }
    if context.json {
        output::print_json(&diagnosis)?;
    } else {
        output::print(&screen(&diagnosis, output::width()))?;
    }
    Ok(if diagnosis.healthy {
        failure::Status::Success
    } else {
        failure::Status::Problem
    })
}

/// Returns the screen of 80 columns and the report about a host.
#[cfg(all(test, feature = "dev-tests"))]
pub fn examine(host: &Host) -> [String; 2] {
    let facts = Facts::read(host);
    let diagnosis = facts.diagnose();
    [screen(&diagnosis, Some(80)), report(&facts, &diagnosis)]
}

fn screen(diagnosis: &Diagnosis, width: Option<usize>) -> String {
    let mut table = Table::new(&[Side::Left; 3]);
    for point in &diagnosis.points {
        let text = match &point.remedy {
            Some(remedy) => format!("{}: {remedy}", point.result),
            None => point.result.clone(),
        };
        table.row([point.state.name().to_owned(), point.name.clone(), text]);
    }
    let mut out = String::new();
    table.write(&mut out, width);
    let count = |state| {
        diagnosis
            .points
            .iter()
            .filter(|point| point.state == state)
            .count()
    };
    let _ = writeln!(
        out,
        "failed: {}, warnings: {}, unknown: {}",
        count(State::Failed),
        count(State::Warning),
        count(State::Unknown)
    );
    out
}

/// Writes a report to a file that does not exist yet.
fn write_report(path: &Path, facts: &Facts, diagnosis: &Diagnosis) -> Result<()> {
    File::create_new(path)
        .and_then(|mut file| file.write_all(report(facts, diagnosis).as_bytes()))
        .map_err(|error| Failure::io("writing", path, &error))
}

fn report(facts: &Facts, diagnosis: &Diagnosis) -> String {
    let mut out = format!(
        "toa {}, report of toa doctor\n\n",
        env!("CARGO_PKG_VERSION")
    );
    for (name, value) in [
        ("kernel", &facts.release),
        ("machine", &facts.machine),
        ("build", &facts.build),
        ("system", &facts.system),
        ("rustc", &facts.rustc),
        ("bindgen", &facts.bindgen),
    ] {
        let _ = writeln!(out, "{name}: {}", value.as_deref().unwrap_or("unknown"));
    }
    out.push('\n');
    out.push_str(&screen(diagnosis, None));
    out.push('\n');
    for option in NAMED_IN_REPORT {
        if let Some(value) = facts.option(option) {
            let _ = writeln!(out, "{option}={}", printable(value));
        }
    }
    if let Some(stats) = &facts.stats {
        out.push('\n');
        for (row, count) in &stats.rows {
            let _ = writeln!(out, "{row}: {count}");
        }
    }
    out
}

/// The options of the kernel without which the module cannot be built.
const REQUIRED: [&str; 7] = [
    "CONFIG_MODULE_UNLOAD",
    "CONFIG_SMP",
    "CONFIG_TRACEPOINTS",
    "CONFIG_NETFILTER",
    "CONFIG_PROC_FS",
    "CONFIG_NET_NS",
    "CONFIG_INET",
];

/// The options of which one must be set.
const FTRACE: [&str; 2] = [
    "CONFIG_DYNAMIC_FTRACE_WITH_ARGS",
    "CONFIG_DYNAMIC_FTRACE_WITH_REGS",
];

/// The options for debugging that the module cannot be built with.
const FORBIDDEN: [&str; 2] = ["CONFIG_DEBUG_SPINLOCK", "CONFIG_DEBUG_LOCK_ALLOC"];

/// The options in a report.
const NAMED_IN_REPORT: [&str; 12] = [
    "CONFIG_CC_VERSION_TEXT",
    "CONFIG_RUST",
    "CONFIG_RUSTC_VERSION_TEXT",
    "CONFIG_BINDGEN_VERSION_TEXT",
    "CONFIG_DYNAMIC_FTRACE_WITH_ARGS",
    "CONFIG_DYNAMIC_FTRACE_WITH_REGS",
    "CONFIG_PREEMPT_RT",
    "CONFIG_MODVERSIONS",
    "CONFIG_MODULE_SIG_FORCE",
    "CONFIG_X86_KERNEL_IBT",
    "CONFIG_LIVEPATCH",
    "CONFIG_IPV6",
];

/// The directories whose files name modules to load at start-up.
const AUTOLOAD: [&str; 4] = [
    "/etc/modules-load.d",
    "/run/modules-load.d",
    "/usr/local/lib/modules-load.d",
    "/usr/lib/modules-load.d",
];

/// The variable of the firmware.
const SECURE_BOOT: &str =
    "/sys/firmware/efi/efivars/SecureBoot-8be4df61-93ca-11d2-aa0d-00e098032b8c";

/// The facts about a host that decide.
#[derive(Debug, Default)]
struct Facts {
    release: Option<String>,
    machine: Option<String>,
    build: Option<String>,
    system: Option<String>,
    rustc: Option<String>,
    /// Whether that rustc has the source of its library.
    has_rust_source: bool,
    /// The packages of a rustc that is new enough and of its source, if apt has them.
    rust_packages: Option<[&'static str; 2]>,
    bindgen: Option<String>,
    has_make: bool,
    has_modprobe: bool,
    config: Option<String>,
    has_headers: bool,
    installed: Option<Installed>,
    files: Vec<String>,
    running: Option<Running>,
    stats: Option<Stats>,
    policy: Option<Policy>,
    secure_boot: Option<bool>,
    lockdown: Option<String>,
    enforces_signatures: Option<bool>,
    autoload: Vec<String>,
    /// Whether the first directory of [`AUTOLOAD`] is missing, as on a minimal Debian.
    lacks_autoload: bool,
    /// Whether the table of packaging/toa-trust.nft is loaded, if that can be read.
    firewall: Option<bool>,
}

impl Facts {
    fn read(host: &Host) -> Self {
        let release = host.word("/proc/sys/kernel/osrelease");
        let modules = format!("/lib/modules/{}", release.as_deref().unwrap_or_default());
        let configs = [
            format!("/boot/config-{}", release.as_deref().unwrap_or_default()),
            format!("{modules}/config"),
            format!("{modules}/build/.config"),
        ];
        let run = |name: &str, arguments: &[&str]| {
            if host.is_copy() {
                return None;
            }
            let output = module::tool(name).args(arguments).output().ok()?;
            let text = String::from_utf8_lossy(&output.stdout).trim().to_owned();
            (output.status.success() && !text.is_empty()).then(|| printable(&text))
        };
        let system = host.read("/etc/os-release").ok().flatten();
        let system = system.as_deref().and_then(|text| {
            let line = text
                .lines()
                .find_map(|line| line.strip_prefix("PRETTY_NAME="))?;
            Some(printable(line.trim_matches('"')))
        });
        let mut files = Vec::new();
        find_modules(host, &modules, 0, &mut files);
        Self {
            machine: machine(host),
            build: host
                .word("/proc/sys/kernel/version")
                .map(|text| printable(&text)),
            system,
            has_rust_source: run("rustc", &["--print", "sysroot"]).is_some_and(|root| {
                host.exists(&format!(
                    "{root}/lib/rustlib/src/rust/library/core/src/lib.rs"
                ))
            }),
            rust_packages: RUST_PACKAGES.into_iter().find(|[compiler, _]| {
                let policy = run("apt-cache", &["policy", compiler]);
                policy.is_some_and(|text| is_recent(candidate(&text)))
            }),
            rustc: run("rustc", &["--version"]),
            has_make: has_program(host, "make"),
            has_modprobe: has_program(host, "modprobe"),
            bindgen: run("bindgen", &["--version"]),
            config: configs
                .iter()
                .find_map(|path| host.read(path).ok().flatten()),
            has_headers: host.exists(&format!("{modules}/build/include")),
            installed: module::installed(host),
            files,
            running: module::running(host),
            stats: Stats::read(host).ok(),
            policy: Policy::read(host).ok().flatten(),
            secure_boot: secure_boot(host),
            lockdown: host
                .word("/sys/kernel/security/lockdown")
                .and_then(|text| chosen(&text).map(str::to_owned)),
            enforces_signatures: host
                .word("/sys/module/module/parameters/sig_enforce")
                .map(|word| word == "Y"),
            autoload: autoload(host),
            lacks_autoload: !host.exists(AUTOLOAD[0]),
            firewall: firewall(host),
            release,
        }
    }

    /// Returns an option's value in the kernel's configuration.
    fn option(&self, name: &str) -> Option<&str> {
        let lines = self.config.as_deref()?.lines();
        let mut values = lines.filter_map(|line| line.strip_prefix(name)?.strip_prefix('='));
        values.next().map(|value| value.trim_matches('"'))
    }

    fn is_set(&self, name: &str) -> bool {
        matches!(self.option(name), Some("y" | "m"))
    }

    /// Major and minor version of the kernel.
    fn version(&self) -> Option<(u32, u32)> {
        let mut numbers = self
            .release
            .as_deref()?
            .split(|c: char| !c.is_ascii_digit());
        Some((numbers.next()?.parse().ok()?, numbers.next()?.parse().ok()?))
    }

    fn release(&self) -> &str {
        self.release.as_deref().unwrap_or("$(uname -r)")
    }

    /// Whether a module is there that needs no build.
    fn is_built(&self) -> bool {
        self.running.is_some() || self.installed.is_some()
    }

    fn diagnose(&self) -> Diagnosis {
        let mut points = vec![
            self.kernel(),
            self.features(),
            self.headers(),
            self.compilers(),
            self.signatures(),
            self.other_modules(),
            self.modprobe(),
            self.file(),
            self.loaded(),
            self.autoloaded(),
            self.trust(),
        ];
        points.retain(|point| !point.result.is_empty());
        Diagnosis {
            healthy: points.iter().all(|point| point.state != State::Failed),
            points,
        }
    }

    fn kernel(&self) -> Point {
        let release = self.release().to_owned();
        if self
            .machine
            .as_deref()
            .is_some_and(|machine| machine != "x86_64")
        {
            return Point::new(
                "kernel",
                State::Failed,
                format!("{release}: toa works on x86-64 only"),
            );
        }
        match self.version() {
            Some(version) if version >= (6, 1) => Point::new("kernel", State::Ok, release),
            Some(_) => Point::new(
                "kernel",
                State::Warning,
                format!("{release} is older than all tested kernels"),
            )
            .with("toa doctor --report FILE"),
            None => Point::new("kernel", State::Unknown, "/proc is not mounted"),
        }
    }

    fn features(&self) -> Point {
        const NAME: &str = "features";
        if self.config.is_none() {
            return Point::new(
                NAME,
                State::Unknown,
                "the kernel's configuration is neither in /boot nor with its headers",
            )
            .with(self.headers_command());
        }
        let mut missing: Vec<&str> = REQUIRED
            .into_iter()
            .filter(|option| !self.is_set(option))
            .collect();
        if !FTRACE.iter().any(|option| self.is_set(option)) {
            missing.push(FTRACE[0]);
        }
        let set: Vec<&str> = FORBIDDEN
            .into_iter()
            .filter(|option| self.is_set(option))
            .collect();
        if !missing.is_empty() {
            return Point::new(
                NAME,
                State::Failed,
                format!("without {}", missing.join(", ")),
            )
            .with("boot the distribution's kernel");
        }
        if !set.is_empty() {
            return Point::new(NAME, State::Failed, format!("with {}", set.join(", ")))
                .with("boot the distribution's kernel");
        }
        let kernel_crate = if self.is_set("CONFIG_RUST") {
            "all are there, and the kernel has Rust"
        } else {
            "all are there, and toa is built with its stand-in for the kernel's Rust"
        };
        Point::new(NAME, State::Ok, kernel_crate)
    }

    /// The state of what only a build needs.
    fn for_builds(&self) -> State {
        if self.is_built() {
            State::Warning
        } else {
            State::Failed
        }
    }

    fn headers(&self) -> Point {
        if self.has_headers {
            return Point::new("headers", State::Ok, "installed");
        }
        Point::new(
            "headers",
            self.for_builds(),
            "those of the kernel are missing",
        )
        .with(self.headers_command())
    }

    fn headers_command(&self) -> String {
        format!("apt install linux-headers-{}", self.release())
    }

    /// The compilers of the stand-in crate. The headers depend on their C compiler.
    fn stand_in_compilers(&self) -> Point {
        const NAME: &str = "compilers";
        let [compiler, source] = self.rust_packages.unwrap_or(RUST_PACKAGES[0]);
        let (mut missing, mut packages) = (Vec::new(), Vec::new());
        if !self.has_make {
            missing.push("make");
            packages.push("make");
        }
        let mut old = None;
        match &self.rustc {
            None => {
                missing.push("rustc from 1.85 on");
                packages.extend([compiler, source]);
            }
            Some(rustc) if !is_recent(rustc.split(' ').nth(1)) => {
                let version = rustc.split(' ').nth(1).unwrap_or(rustc);
                old = Some(format!("rustc is {version}, and toa needs 1.85"));
                packages.extend([compiler, source]);
            }
            Some(_) if !self.has_rust_source => {
                missing.push("the source of rustc's library");
                packages.push(source);
            }
            Some(rustc) if missing.is_empty() => {
                return Point::new(NAME, State::Ok, rustc.clone());
            }
            Some(_) => {}
        }
        let verb = if missing.len() == 1 { "is" } else { "are" };
        let missing =
            (!missing.is_empty()).then(|| format!("{} {verb} missing", missing.join(" and ")));
        let results: Vec<String> = old.into_iter().chain(missing).collect();
        let update = match self.rust_packages {
            Some(_) => "",
            None => "apt update && ",
        };
        Point::new(NAME, self.for_builds(), results.join(", and "))
            .with(format!("{update}apt install {}", packages.join(" ")))
    }

    /// Whether the programs that load and find modules are there.
    fn modprobe(&self) -> Point {
        const NAME: &str = "modprobe";
        if self.has_modprobe {
            return Point::new(NAME, State::Ok, "");
        }
        Point::new(NAME, State::Failed, "missing, it loads the module").with("apt install kmod")
    }

    fn compilers(&self) -> Point {
        const NAME: &str = "compilers";
        if !self.is_set("CONFIG_RUST") {
            return self.stand_in_compilers();
        }
        let Some(rustc) = &self.rustc else {
            return Point::new(NAME, self.for_builds(), "rustc is missing")
                .with("apt install rustc rust-src bindgen");
        };
        match self.option("CONFIG_RUSTC_VERSION_TEXT") {
            Some(built_by) if built_by != rustc => Point::new(
                NAME,
                self.for_builds(),
                format!("the kernel was built by {built_by}, and rustc is {rustc}"),
            )
            .with("make RUST=standin, or install that rustc"),
            _ if self.bindgen.is_none() => {
                Point::new(NAME, self.for_builds(), "bindgen is missing")
                    .with("apt install bindgen")
            }
            _ => Point::new(NAME, State::Ok, rustc.clone()),
        }
    }

    fn signatures(&self) -> Point {
        const NAME: &str = "Secure Boot";
        let locked = self.lockdown.as_deref().is_some_and(|mode| mode != "none");
        let enforced = locked || self.enforces_signatures == Some(true);
        let reason = match (self.secure_boot, &self.lockdown) {
            (Some(true), _) => "on",
            (_, Some(mode)) if mode != "none" => "off, and the kernel is locked down",
            _ if enforced => "off, and the kernel enforces signatures",
            (Some(false), _) => "off",
            (None, _) => "none in this firmware",
        };
        if !enforced {
            return Point::new(NAME, State::Ok, reason);
        }
        match self.installed.as_ref().map(|installed| &installed.signer) {
            Some(Some(signer)) => Point::new(
                NAME,
                State::Ok,
                format!("{reason}, toa.ko is signed by {signer}"),
            ),
            Some(None) => Point::new(
                NAME,
                State::Failed,
                format!("{reason}, and toa.ko is not signed"),
            )
            .with("mokutil --import /var/lib/dkms/mok.pub, and dkms install toa again"),
            None => Point::new(
                NAME,
                State::Warning,
                format!("{reason}: toa.ko must be signed"),
            )
            .with("mokutil --import /var/lib/dkms/mok.pub"),
        }
    }

    fn other_modules(&self) -> Point {
        const NAME: &str = "other toa";
        let is_foreign =
            self.running.is_some() && self.stats.as_ref().is_some_and(|stats| !stats.are_ours());
        if is_foreign {
            return Point::new(NAME, State::Failed, "another module called toa runs")
                .with("remove its insmod from /etc/rc.local and its toa.ko, then reboot");
        }
        let foreign_file = self
            .installed
            .as_ref()
            .filter(|installed| installed.kernel_crate.is_none());
        if let Some(file) = foreign_file {
            return Point::new(
                NAME,
                State::Failed,
                format!("modprobe toa loads another module: {}", file.filename),
            )
            .with(format!("rm {} && depmod", file.filename));
        }
        if self.files.len() > 1 {
            return Point::new(
                NAME,
                State::Warning,
                format!("modprobe chooses one of {}", self.files.join(", ")),
            )
            .with("remove the others, then run depmod");
        }
        Point::new(NAME, State::Ok, "none")
    }

    fn file(&self) -> Point {
        const NAME: &str = "toa.ko";
        let Some(installed) = &self.installed else {
            // A copy of files has no modinfo.
            let Some(file) = self.files.first() else {
                // One that insmod loaded is gone after the next start.
                let state = if self.running.is_some() {
                    State::Warning
                } else {
                    State::Failed
                };
                return Point::new(NAME, state, "not installed for this kernel")
                    .with("make && sudo make install, or apt install ./toa-dkms_VERSION_all.deb");
            };
            return Point::new(NAME, State::Ok, file.clone());
        };
        let vermagic = installed.vermagic.as_deref().unwrap_or_default();
        let built_for = vermagic.split(' ').next().unwrap_or_default();
        if built_for != self.release() {
            return Point::new(NAME, State::Failed, format!("built for {built_for}")).with(
                format!(
                    "make KVER={0} && sudo make install KVER={0}",
                    self.release()
                ),
            );
        }
        let version = installed.version.as_deref().unwrap_or("without a version");
        Point::new(
            NAME,
            State::Ok,
            format!("{version}, {}", installed.filename),
        )
    }

    fn loaded(&self) -> Point {
        const NAME: &str = "loaded";
        let Some(running) = &self.running else {
            return Point::new(NAME, State::Failed, "no, servers see the balancer")
                .with("modprobe toa, and dmesg | grep TOA if that fails");
        };
        let version = running.version.as_deref().unwrap_or("without a version");
        match &self.installed {
            Some(installed) if module::is_outdated(running, installed) => Point::new(
                NAME,
                State::Warning,
                format!("{version}, which is not the installed toa"),
            )
            .with("toa reload"),
            _ => Point::new(NAME, State::Ok, version),
        }
    }

    fn autoloaded(&self) -> Point {
        const NAME: &str = "start-up";
        match self.autoload.first() {
            Some(file) => Point::new(NAME, State::Ok, format!("{file} loads toa")),
            None => Point::new(NAME, State::Warning, "nothing loads toa at the next start").with(
                format!(
                    "{}echo toa | sudo tee {}/toa.conf",
                    if self.lacks_autoload {
                        "sudo mkdir /etc/modules-load.d && "
                    } else {
                        ""
                    },
                    AUTOLOAD[0]
                ),
            ),
        }
    }

    fn trust(&self) -> Point {
        const NAME: &str = "trust";
        const ADVICE: &str = "toa policy set --persist trusted=PREFIX";
        if self.running.is_none() {
            return Point::new(
                NAME,
                State::Unknown,
                "the policy is there while toa is loaded",
            );
        }
        if let Some(policy) = &self.policy {
            if !policy.is_enabled() {
                return Point::new(NAME, State::Failed, "the policy disables toa")
                    .with("toa policy set enabled=1");
            }
            match policy.trusted() {
                Trusted::Prefixes(prefixes) if prefixes.is_empty() => {
                    return Point::new(NAME, State::Failed, "the policy trusts no host")
                        .with(ADVICE);
                }
                Trusted::Prefixes(prefixes) => {
                    return Point::new(
                        NAME,
                        State::Ok,
                        format!("the policy has a list of {}", prefixes.len()),
                    );
                }
                Trusted::Any => {}
            }
        }
        match self.firewall {
            Some(true) => Point::new(
                NAME,
                State::Ok,
                "any host by the policy, and the firewall has the table inet toa",
            ),
            Some(false) => Point::new(
                NAME,
                State::Warning,
                "any host that reaches a server's port can name any client",
            )
            .with(ADVICE),
            None => Point::new(
                NAME,
                State::Warning,
                "any host by the policy, and only root can read the firewall",
            )
            .with(format!("{ADVICE}, or sudo toa doctor")),
        }
    }
}

impl Point {
    fn new(name: &str, state: State, result: impl Into<String>) -> Self {
        Self {
            name: name.to_owned(),
            state,
            result: printable(&result.into()),
            remedy: None,
        }
    }

    fn with(mut self, remedy: impl Into<String>) -> Self {
        self.remedy = Some(remedy.into());
        self
    }
}

/// Debian's packages of rustc and of its library's source. Debian 12 has a newer one for browsers.
const RUST_PACKAGES: [[&str; 2]; 2] = [["rustc", "rust-src"], ["rustc-web", "rust-web-src"]];

/// Returns the version that apt would install, of the output of `apt-cache policy`.
fn candidate(policy: &str) -> Option<&str> {
    // A control character of the output became a question mark.
    let (_, rest) = policy.split_once("Candidate: ")?;
    rest.split(|c: char| c.is_whitespace() || c == '?').next()
}

/// Whether a version of rustc builds the module.
fn is_recent(version: Option<&str>) -> bool {
    let mut numbers = version
        .unwrap_or_default()
        .split(|c: char| !c.is_ascii_digit());
    let mut number = || numbers.next().and_then(|number| number.parse::<u32>().ok());
    (number(), number()) >= (Some(1), Some(85))
}

/// Whether a program is in one of the directories for programs. A copy of files has none.
fn has_program(host: &Host, name: &str) -> bool {
    let directories = ["/usr/bin", "/usr/sbin", "/bin", "/sbin", "/usr/local/bin"];
    host.is_copy()
        || directories
            .iter()
            .any(|directory| host.exists(&format!("{directory}/{name}")))
}

fn machine(host: &Host) -> Option<String> {
    if host.is_copy() {
        return None;
    }
    let name = nix::sys::utsname::uname().ok()?;
    Some(name.machine().to_string_lossy().into_owned())
}

/// The directories between a kernel's modules and a file, at most.
const DEPTH: usize = 6;

/// Finds all files called toa.ko, compressed or not.
fn find_modules(host: &Host, directory: &str, depth: usize, found: &mut Vec<String>) {
    for name in host.names(directory) {
        let path = format!("{directory}/{name}");
        if name == "toa.ko" || name.starts_with("toa.ko.") {
            found.push(path);
        } else if depth < DEPTH && name != "build" && name != "source" {
            let metadata = fs::symlink_metadata(host.path(&path));
            if metadata.is_ok_and(|metadata| metadata.is_dir()) {
                find_modules(host, &path, depth + 1, found);
            }
        }
    }
}

/// Reads the state of Secure Boot: four bytes of attributes, and a byte.
fn secure_boot(host: &Host) -> Option<bool> {
    let bytes = fs::read(host.path(SECURE_BOOT)).ok()?;
    bytes.get(4).map(|byte| *byte == 1)
}

/// Returns the word in brackets.
fn chosen(text: &str) -> Option<&str> {
    let (_, rest) = text.split_once('[')?;
    Some(rest.split_once(']')?.0)
}

/// The files that load toa at start-up.
fn autoload(host: &Host) -> Vec<String> {
    let in_directories = AUTOLOAD.iter().flat_map(|directory| {
        let names = host.names(directory).into_iter();
        let names = names.filter(|name| name.ends_with(".conf"));
        names.map(move |name| (format!("{directory}/{name}"), name))
    });
    let mut seen: Vec<String> = Vec::new();
    let mut found = Vec::new();
    for (path, name) in in_directories.chain([("/etc/modules".to_owned(), String::new())]) {
        // A file hides those of its name in later directories.
        if seen.contains(&name) {
            continue;
        }
        seen.push(name);
        let text = host.read(&path).ok().flatten().unwrap_or_default();
        if text.lines().any(|line| line.trim() == "toa") {
            found.push(path);
        }
    }
    found
}

/// Whether the table of packaging/toa-trust.nft is loaded.
fn firewall(host: &Host) -> Option<bool> {
    if host.is_copy() || !nix::unistd::geteuid().is_root() {
        return None;
    }
    let output = module::tool("nft")
        .args(["list", "table", "inet", "toa"])
        .output();
    Some(output.is_ok_and(|output| output.status.success()))
}

#[cfg(test)]
mod tests {
    use super::*;

    const CONFIG: &str = "CONFIG_MODULE_UNLOAD=y\nCONFIG_SMP=y\nCONFIG_TRACEPOINTS=y\nCONFIG_NETFILTER=y\n\
                          CONFIG_PROC_FS=y\nCONFIG_NET_NS=y\nCONFIG_INET=y\nCONFIG_DYNAMIC_FTRACE_WITH_ARGS=y\n\
                          CONFIG_RUST=y\nCONFIG_RUSTC_VERSION_TEXT=\"rustc 1.85.1\"\n# CONFIG_PREEMPT_RT is not set\n";

    fn healthy() -> Facts {
        Facts {
            release: Some("7.3.4+deb13-amd64".to_owned()),
            machine: Some("x86_64".to_owned()),
            rustc: Some("rustc 1.85.1".to_owned()),
            has_rust_source: true,
            rust_packages: Some(RUST_PACKAGES[0]),
            has_make: true,
            has_modprobe: true,
            bindgen: Some("bindgen 0.71.1".to_owned()),
            config: Some(CONFIG.to_owned()),
            has_headers: true,
            installed: Some(Installed {
                filename: "/lib/modules/7.3.4+deb13-amd64/updates/dkms/toa.ko.xz".to_owned(),
                version: Some("0.1.0".to_owned()),
                kernel_crate: Some("kernel".to_owned()),
                vermagic: Some("7.3.4+deb13-amd64 SMP".to_owned()),
                ..Installed::default()
            }),
            running: Some(Running {
                version: Some("0.1.0".to_owned()),
                srcversion: None,
            }),
            policy: Some(Policy {
                enabled: Some("1".to_owned()),
                trusted: Some("10.0.1.0/28,fd00::/8".to_owned()),
                ..Policy::default()
            }),
            secure_boot: Some(false),
            autoload: vec!["/usr/lib/modules-load.d/toa.conf".to_owned()],
            ..Facts::default()
        }
    }

    /// The points that are not ok, each with its state and remedy.
    fn problems(facts: &Facts) -> Vec<(String, State, String)> {
        let points = facts.diagnose().points.into_iter();
        points
            .filter(|point| point.state != State::Ok)
            .map(|point| (point.name, point.state, point.remedy.unwrap_or_default()))
            .collect()
    }

    #[track_caller]
    fn check(change: impl Fn(&mut Facts), name: &str, state: State, remedy: &str) {
        let mut facts = healthy();
        change(&mut facts);
        assert_eq!(
            problems(&facts),
            [(name.to_owned(), state, remedy.to_owned())]
        );
    }

    fn installed(facts: &mut Facts) -> &mut Installed {
        facts.installed.as_mut().expect("a file")
    }

    #[test]
    fn each_fault_has_its_point_and_remedy() {
        assert_eq!(problems(&healthy()), []);
        let config = |facts: &mut Facts, old: &str, new: &str| {
            facts.config = Some(CONFIG.replace(old, new));
        };
        let distribution = "boot the distribution's kernel";
        check(
            |facts| config(facts, "CONFIG_NETFILTER=y", ""),
            "features",
            State::Failed,
            distribution,
        );
        check(
            |facts| config(facts, "CONFIG_DYNAMIC_FTRACE_WITH_ARGS=y", ""),
            "features",
            State::Failed,
            distribution,
        );
        check(
            |facts| {
                config(
                    facts,
                    "CONFIG_SMP=y",
                    "CONFIG_SMP=y\nCONFIG_DEBUG_SPINLOCK=y",
                )
            },
            "features",
            State::Failed,
            distribution,
        );
        check(
            |facts| facts.machine = Some("aarch64".to_owned()),
            "kernel",
            State::Failed,
            "",
        );
        check(
            |facts| facts.has_headers = false,
            "headers",
            State::Warning,
            "apt install linux-headers-7.3.4+deb13-amd64",
        );
        check(
            |facts| facts.rustc = Some("rustc 1.97.1".to_owned()),
            "compilers",
            State::Warning,
            "make RUST=standin, or install that rustc",
        );
        check(
            |facts| facts.lockdown = Some("integrity".to_owned()),
            "Secure Boot",
            State::Failed,
            "mokutil --import /var/lib/dkms/mok.pub, and dkms install toa again",
        );
        check(
            |facts| installed(facts).kernel_crate = None,
            "other toa",
            State::Failed,
            "rm /lib/modules/7.3.4+deb13-amd64/updates/dkms/toa.ko.xz && depmod",
        );
        check(
            |facts| installed(facts).vermagic = Some("7.3.5 SMP".to_owned()),
            "toa.ko",
            State::Failed,
            "make KVER=7.3.4+deb13-amd64 && sudo make install KVER=7.3.4+deb13-amd64",
        );
        check(
            |facts| installed(facts).version = Some("0.2.0".to_owned()),
            "loaded",
            State::Warning,
            "toa reload",
        );
        check(
            |facts| facts.autoload.clear(),
            "start-up",
            State::Warning,
            "echo toa | sudo tee /etc/modules-load.d/toa.conf",
        );
        let trust = |value: &str| {
            Some(Policy {
                trusted: Some(value.to_owned()),
                ..Policy::default()
            })
        };
        let advice = "toa policy set --persist trusted=PREFIX";
        check(
            |facts| facts.policy = trust("none"),
            "trust",
            State::Failed,
            advice,
        );
        check(
            |facts| {
                facts.policy = trust("");
                facts.firewall = Some(false);
            },
            "trust",
            State::Warning,
            advice,
        );
    }

    #[test]
    fn compilers_of_the_stand_in_crate_are_named_with_their_packages() {
        let compilers = |change: fn(&mut Facts)| {
            let mut facts = healthy();
            facts.config = Some(CONFIG.replace("CONFIG_RUST=y\n", ""));
            change(&mut facts);
            let point = facts.compilers();
            format!("{}: {}", point.result, point.remedy.unwrap_or_default())
        };
        assert_eq!(compilers(|_| {}), "rustc 1.85.1: ");
        assert_eq!(
            compilers(|facts| facts.has_make = false),
            "make is missing: apt install make"
        );
        assert_eq!(
            compilers(|facts| {
                facts.rustc = None;
                facts.rust_packages = None;
            }),
            "rustc from 1.85 on is missing: apt update && apt install rustc rust-src"
        );
        assert_eq!(
            compilers(|facts| {
                facts.rustc = Some("rustc 1.63.0".to_owned());
                facts.has_make = false;
                facts.rust_packages = Some(RUST_PACKAGES[1]);
            }),
            "rustc is 1.63.0, and toa needs 1.85, and make is missing: apt install make rustc-web rust-web-src"
        );
        assert_eq!(
            compilers(|facts| facts.has_rust_source = false),
            "the source of rustc's library is missing: apt install rust-src"
        );
    }

    #[test]
    fn versions_of_apt_and_rustc_are_compared() {
        let policy = "rustc:?  Installed: (none)?  Candidate: 1.63.0+dfsg1-2?  Version table:";
        assert_eq!(candidate(policy), Some("1.63.0+dfsg1-2"));
        assert_eq!(candidate("N: Unable to locate package"), None);
        for (version, recent) in [
            ("1.63.0+dfsg1-2", false),
            ("1.85.0+dfsg3-1~deb12u3", true),
            ("1.100.0", true),
            ("2.0.0", true),
            ("(none)", false),
        ] {
            assert_eq!(is_recent(Some(version)), recent, "{version}");
        }
        assert!(!is_recent(None));
    }

    #[test]
    fn without_a_module_what_a_build_needs_is_a_failure() {
        let mut facts = healthy();
        (facts.installed, facts.running) = (None, None);
        facts.has_headers = false;
        facts.rustc = None;
        let found = problems(&facts);
        let names: Vec<&str> = found.iter().map(|(name, ..)| name.as_str()).collect();
        assert_eq!(names, ["headers", "compilers", "toa.ko", "loaded", "trust"]);
        assert!(!facts.diagnose().healthy);
    }

    #[test]
    fn report_has_no_address() {
        let facts = healthy();
        let text = report(&facts, &facts.diagnose());
        assert!(text.contains("kernel: 7.3.4+deb13-amd64\n"), "{text}");
        assert!(text.contains("CONFIG_RUST=y\n"), "{text}");
        assert!(text.contains("the policy has a list of 2"), "{text}");
        assert!(
            !text.contains("10.0.1.0") && !text.contains("fd00"),
            "{text}"
        );
    }
}
