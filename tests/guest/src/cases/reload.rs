// SPDX-License-Identifier: GPL-2.0

//! `toa reload` and the script `toa-swap` that it runs: the swap of the module on a live server, and the
//! policies that survive it.

use std::fmt::Write as _;
use std::fs;
use std::fs::File;
use std::io::Read;
use std::net::TcpListener;
use std::net::TcpStream;
use std::os::unix::fs::PermissionsExt;
use std::panic;
use std::panic::AssertUnwindSafe;
use std::process::Command;
use std::sync::atomic::AtomicBool;
use std::sync::atomic::AtomicUsize;
use std::sync::atomic::Ordering;
use std::sync::Mutex;
use std::thread;

use object::Object;
use object::ObjectSymbol;

use crate::kmsg::KernelLog;
use crate::ktap::note;
use crate::module;
use crate::namespace;
use crate::namespace::Namespace;
use crate::runner::cases;
use crate::runner::Case;
use crate::wait;

pub const CASES: &[Case] = cases![Unloaded:
    reload_keeps_the_policy_of_each_namespace_and_trusts_nobody_meanwhile,
    reload_leaves_the_installed_module_alone,
    reload_that_the_kernel_would_refuse_changes_nothing,
    reload_that_fails_brings_the_previous_module_back_with_its_policy,
    reload_without_the_previous_file_reports_that_no_module_is_loaded,
    reload_by_the_script_alone_keeps_the_hosts_policy,
    reload_needs_the_module_the_script_and_root,
];

const SWAP: &str = include_str!("../../../../packaging/toa-swap");

/// A directory in memory.
const STAGE: &str = "/run/reload";

/// The commands that make a server with packages: the installed module, the script, the headers'
/// checksums, and the part of binutils that the script runs, for a kernel whose modules list symbols.
const SERVER: &str = r#"
    kernel=$(uname -r)
    mount -t tmpfs toa /usr/lib/modules
    mkdir -p /usr/lib/modules/$kernel/build
    cp "$INSTALLED" /usr/lib/modules/$kernel/toa.ko
    depmod 2>/dev/null
    # A kernel without CONFIG_MODVERSIONS has no checksums.
    modprobe --dump-modversions "$INSTALLED" >/usr/lib/modules/$kernel/build/Module.symvers 2>/dev/null || true
    mount -t tmpfs toa /usr/libexec
    mkdir /usr/libexec/toa
    cp /run/reload/toa-swap /usr/libexec/toa/
    PATH=/run/reload/bin:$PATH
"#;

/// Stands in for `nm -u`, which the machine lacks. All modules of these tests use the same symbols.
const NM: &str = "#!/bin/sh\ncat /run/reload/symbols\n";

/// A server whose installed module is another one than the loaded one, until it is dropped.
struct Server {
    installed: String,
}

impl Server {
    /// Loads the module, and installs a newer one.
    fn new() -> Self {
        fs::create_dir_all(format!("{STAGE}/bin")).expect("the directory");
        for (name, text) in [("toa-swap", SWAP), ("bin/nm", NM)] {
            let path = format!("{STAGE}/{name}");
            fs::write(&path, text).expect("the file");
            fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).expect("its mode");
        }
        fs::write(format!("{STAGE}/symbols"), undefined_symbols()).expect("the list");
        module::load();
        let newer = format!("{STAGE}/newer.ko");
        fs::write(&newer, newer_module()).expect("the module");
        Self { installed: newer }
    }

    /// Runs a shell's commands with the installed file. Returns status, standard output and error.
    fn sh(&self, script: &str) -> (i32, String, String) {
        let output = Command::new("unshare")
            .args(["--mount", "sh", "-ec", &format!("{SERVER}\n{script}")])
            .env("INSTALLED", &self.installed)
            .output()
            .expect("unshare starts");
        let text = |bytes| String::from_utf8(bytes).expect("text");
        let status = output.status.code().expect("no signal");
        (status, text(output.stdout), text(output.stderr))
    }

    fn reload(&self) -> (i32, String, String) {
        self.sh("exec /toa/bin/toa reload --json")
    }

    /// Keeps the loaded module's file, as the packages do before they replace it.
    fn keep(&self) {
        let original = Self {
            installed: module::PATH.to_owned(),
        };
        let kept = original.sh("/usr/libexec/toa/toa-swap keep");
        std::mem::forget(original);
        assert_eq!(kept, (0, String::new(), String::new()));
        assert!(fs::exists("/run/toa/loaded.ko").expect("/run"));
    }

    /// Installs a module that the kernel refuses to start.
    fn refuse_parameters(&self) {
        fs::create_dir_all("/run/modprobe.d").expect("the directory");
        fs::write(MANY, "options toa max_records=many\n").expect("the file");
    }
}

const MANY: &str = "/run/modprobe.d/many.conf";

impl Drop for Server {
    fn drop(&mut self) {
        if module::is_loaded() {
            let _ = module::remove();
        }
        let _ = fs::remove_file(MANY);
        let _ = fs::remove_dir_all("/run/toa");
        let _ = fs::remove_dir_all(STAGE);
    }
}

/// The file of a module that differs from the loaded one in its version and its build ID.
fn newer_module() -> Vec<u8> {
    let mut bytes = fs::read(module::PATH).expect("the module");
    replace(&mut bytes, b"version=0.1.0\0", b"version=9.9.9\0");
    let id = fs::read("/sys/module/toa/notes/.note.gnu.build-id").expect("the build ID");
    let mut other = id.clone();
    *other.last_mut().expect("it has bytes") ^= 1;
    replace(&mut bytes, &id, &other);
    bytes
}

/// Lists the symbols that the module uses, in the form of `nm -u`.
fn undefined_symbols() -> String {
    let bytes = fs::read(module::PATH).expect("the module");
    let file = object::File::parse(&*bytes).expect("an object file");
    let symbols = file.symbols().filter(|symbol| symbol.is_undefined());
    let names = symbols.map(|symbol| symbol.name().expect("text"));
    let lines = names.filter(|name| !name.is_empty());
    lines.fold(String::new(), |mut text, name| {
        let _ = writeln!(text, "{:17}U {name}", "");
        text
    })
}

#[track_caller]
fn replace(bytes: &mut [u8], old: &[u8], new: &[u8]) {
    let at = bytes.windows(old.len()).position(|window| window == old);
    let at = at.expect("the module has it");
    bytes[at..at + old.len()].copy_from_slice(new);
}

fn version() -> String {
    let text = fs::read_to_string("/sys/module/toa/version").expect("a module is loaded");
    text.trim().to_owned()
}

/// Returns a number of a JSON object.
#[track_caller]
fn number(json: &str, name: &str) -> u64 {
    let (_, rest) = json.split_once(&format!("\"{name}\": ")).expect(name);
    let digits: String = rest.chars().take_while(char::is_ascii_digit).collect();
    digits.parse().unwrap_or_else(|_| panic!("{name}: {json}"))
}

#[track_caller]
fn has(json: &str, name: &str, value: &str) {
    assert!(json.contains(&format!("\"{name}\": {value}")), "{json}");
}

/// Adds each value that a namespace's trusted set has.
fn watch_trust(namespace: &Namespace, stop: &AtomicBool, seen: &Mutex<Vec<String>>) {
    namespace.enter(|| {
        let mut buffer = vec![0; 65536];
        while !stop.load(Ordering::Relaxed) {
            // Without a module there is no file. One call, because a value that changes between two has
            // parts of both.
            let file = File::open(namespace::policy_path("trusted"));
            let Ok(length) = file.and_then(|mut file| file.read(&mut buffer)) else {
                continue;
            };
            let value = String::from_utf8_lossy(&buffer[..length]).into_owned();
            let mut seen = seen.lock().expect("no panic");
            if seen.last() != Some(&value) {
                seen.push(value);
            }
        }
    });
}

/// Connects to a server of the machine, one connection after the other.
fn connect(stop: &AtomicBool, made: &AtomicUsize) {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let address = listener.local_addr().expect("an address");
    while !stop.load(Ordering::Relaxed) {
        let client = TcpStream::connect(address).expect("a connection");
        drop((client, listener.accept().expect("the connection")));
        made.fetch_add(1, Ordering::Relaxed);
    }
}

/// A list of prefixes that takes several pages.
fn long_list() -> String {
    let prefixes: Vec<String> = (0..1000)
        .map(|at| format!("100.{}.{}.0/25", at / 256, at % 256))
        .collect();
    prefixes.join(",")
}

fn reload_keeps_the_policy_of_each_namespace_and_trusts_nobody_meanwhile() {
    let server = Server::new();
    let host = Namespace::first();
    let [own, follower] = ["own", "follower"].map(Namespace::new);
    host.set_policy("trusted", &long_list());
    host.set_policy("pick", "last");
    host.set_policy("max_records", "4242");
    own.set_policy("trusted", "192.0.2.0/24");
    own.set_policy("kinds", "253/20:client6");
    own.set_policy("max_records", "17");
    let files = [
        "enabled",
        "trusted",
        "kinds",
        "pick",
        "nat46",
        "own_addresses",
        "inherited",
        "max_records",
    ];
    let policies = || [&host, &own, &follower].map(|space| files.map(|file| space.policy(file)));
    let before = policies();

    // The check changes nothing.
    let loaded_by = fs::read("/sys/module/toa/notes/.note.gnu.build-id").expect("the build ID");
    let (status, text, errors) = server.sh("/toa/bin/toa reload --check");
    assert_eq!(
        (status, &*text, &*errors),
        (
            0,
            "toa 9.9.9 can replace the loaded toa 0.1.0: run toa reload\n",
            ""
        )
    );
    assert_eq!(
        fs::read("/sys/module/toa/notes/.note.gnu.build-id").expect("the build ID"),
        loaded_by
    );
    assert_eq!(policies(), before);

    let (stop, made) = (AtomicBool::new(false), AtomicUsize::new(0));
    let seen = [(); 3].map(|()| Mutex::new(Vec::new()));
    let mut log = KernelLog::from_now();
    let outcome = thread::scope(|scope| {
        for (space, seen) in [&host, &own, &follower].into_iter().zip(&seen) {
            let stop = &stop;
            scope.spawn(move || watch_trust(space, stop, seen));
        }
        scope.spawn(|| connect(&stop, &made));
        let outcome = panic::catch_unwind(AssertUnwindSafe(|| {
            wait::until("connections are made", || {
                match made.load(Ordering::Relaxed) {
                    0..10 => Err("few".to_owned()),
                    _ => Ok(()),
                }
            });
            server.reload()
        }));
        stop.store(true, Ordering::Relaxed);
        outcome.unwrap_or_else(|cause| panic::resume_unwind(cause))
    });
    let (status, json, errors) = outcome;
    assert_eq!((status, &*errors), (0, ""), "{json}");
    for (name, value) in [
        ("outcome", "\"replaced\""),
        ("old", "\"0.1.0\""),
        ("new", "\"9.9.9\""),
        ("loaded", "\"9.9.9\""),
        ("namespaces", "1"),
        ("not_restored", "[]"),
        ("reason", "null"),
    ] {
        has(&json, name, value);
    }
    let (gap, connections) = (number(&json, "gap_ms"), number(&json, "gap_connections"));
    note(&format!("{gap} ms, {connections} of {made:?} connections"));
    assert!(gap > 0 && connections > 0, "{json}");
    assert!(connections <= made.load(Ordering::Relaxed) as u64, "{json}");
    assert_eq!(version(), "9.9.9");
    assert_eq!(policies(), before);

    // No namespace trusted more hosts than before at any time.
    let lines = log.new_lines();
    let trusting: Vec<&String> = lines
        .iter()
        .filter(|line| line.contains("trusting TOA"))
        .collect();
    assert_eq!(trusting.len(), 1, "{lines:?}");
    assert!(trusting[0].contains("from no host until"), "{trusting:?}");
    for (seen, policy) in seen.iter().zip(&before) {
        let trusted = format!("{}\n", policy[1]);
        for value in seen.lock().expect("no panic").iter() {
            assert!(
                *value == trusted || value == "none\n",
                "{value:?} in place of {trusted:?}"
            );
        }
    }
}

fn reload_leaves_the_installed_module_alone() {
    let mut server = Server::new();
    server.installed = module::PATH.to_owned();
    let mut log = KernelLog::from_now();
    let (status, json, errors) = server.reload();
    assert_eq!((status, &*errors), (0, ""));
    has(&json, "outcome", "\"same\"");
    has(&json, "gap_ms", "null");
    let (status, text, _) = server.sh("/toa/bin/toa reload");
    let expected = "toa 0.1.0 is loaded already: it is the installed one, and nothing was done\n";
    assert_eq!((status, &*text), (0, expected));
    let lines = log.new_lines();
    assert!(
        !lines.iter().any(|line| line.contains("toa unloaded")),
        "{lines:?}"
    );
}

fn reload_that_the_kernel_would_refuse_changes_nothing() {
    let server = Server::new();
    let mut bytes = fs::read(&server.installed).expect("the module");
    replace(&mut bytes, b" SMP ", b" SMQ ");
    fs::write(&server.installed, bytes).expect("the module");
    let mut log = KernelLog::from_now();
    for command in ["reload", "reload --check"] {
        let (status, text, errors) = server.sh(&format!("/toa/bin/toa {command}"));
        let lines: Vec<&str> = errors.lines().collect();
        assert_eq!((status, &*text, lines.len()), (1, "", 1), "{errors}");
        assert!(
            lines[0].starts_with("toa: the kernel refuses /"),
            "{errors}"
        );
        assert!(
            lines[0].ends_with("; toa 0.1.0 stays loaded. Run: dmesg | tail"),
            "{errors}"
        );
    }
    let lines = log.new_lines();
    assert!(
        !lines.iter().any(|line| line.contains("toa unloaded")),
        "{lines:?}"
    );
    assert_eq!(version(), "0.1.0");
}

fn reload_that_fails_brings_the_previous_module_back_with_its_policy() {
    let server = Server::new();
    server.keep();
    server.refuse_parameters();
    let host = Namespace::first();
    host.set_policy("trusted", "10.0.1.0/28");
    let (status, json, errors) = server.reload();
    let expected =
        "toa: toa 9.9.9 could not be loaded, and toa 0.1.0 is loaded again: read dmesg\n";
    assert_eq!((status, &*errors), (1, expected), "{json}");
    has(&json, "outcome", "\"restored\"");
    has(&json, "loaded", "\"0.1.0\"");
    assert_eq!(version(), "0.1.0");
    assert_eq!(host.policy("trusted"), "10.0.1.0/28");
}

fn reload_without_the_previous_file_reports_that_no_module_is_loaded() {
    let server = Server::new();
    server.refuse_parameters();
    let (status, json, errors) = server.reload();
    assert_eq!((status, errors.lines().count()), (3, 1), "{errors}");
    assert!(
        errors.contains("servers see the balancer. Read dmesg, then run modprobe toa"),
        "{errors}"
    );
    has(&json, "outcome", "\"lost\"");
    has(&json, "loaded", "null");
    assert!(!module::is_loaded());
}

fn reload_by_the_script_alone_keeps_the_hosts_policy() {
    let server = Server::new();
    let host = Namespace::first();
    host.set_policy("trusted", &long_list());
    host.set_policy("kinds", "253/20:client6");
    host.set_policy("enabled", "0");
    let files = [
        "enabled",
        "trusted",
        "kinds",
        "pick",
        "nat46",
        "own_addresses",
        "inherited",
        "max_records",
    ];
    let before = files.map(|file| host.policy(file));
    let mut log = KernelLog::from_now();
    // Its policy is that of the first namespace, wherever it is called.
    let elsewhere = Namespace::new("elsewhere");
    let (status, text, errors) = elsewhere.enter(|| server.sh("/usr/libexec/toa/toa-swap"));
    assert_eq!((status, &*errors), (0, ""), "{text}");
    assert!(
        text.starts_with("toa 9.9.9 is loaded in place of toa 0.1.0. "),
        "{text}"
    );
    assert_eq!(files.map(|file| host.policy(file)), before);
    let lines = log.new_lines();
    assert!(
        !lines.iter().any(|line| line.contains("from any host")),
        "{lines:?}"
    );
    // udev's rule counts again.
    assert!(!fs::exists("/run/toa/swap").expect("/run"));
}

fn reload_needs_the_module_the_script_and_root() {
    let server = Server::new();
    for (script, status, line) in [
        (
            "setpriv --reuid=65534 --regid=65534 --clear-groups /toa/bin/toa reload",
            4,
            "toa: replacing the module needs root: run sudo toa reload\n",
        ),
        (
            "rm /usr/libexec/toa/toa-swap; /toa/bin/toa reload",
            5,
            "toa: /usr/libexec/toa/toa-swap is missing: apt install ./toa-dkms_VERSION_all.deb, \
             or accept a longer gap and run rmmod toa && modprobe toa\n",
        ),
        (
            "/toa/bin/toa reload --sysroot /",
            2,
            "toa: a copy of files has no module to replace: leave out --sysroot\n",
        ),
        (
            "rmmod toa; /toa/bin/toa reload",
            3,
            "toa: the module toa is not loaded: run modprobe toa, and read the kernel's log if that fails\n",
        ),
    ] {
        assert_eq!(server.sh(script), (status, String::new(), line.to_owned()), "{script}");
    }
    // udev's rule counts.
    namespace::run(Command::new("test").args(["!", "-e", "/run/toa/swap"]));
}
