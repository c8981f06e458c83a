// SPDX-License-Identifier: GPL-2.0

//! The screens of `toa` in a terminal of 80 and of 200 columns, which tmux emulates, and its JSON.

use std::collections::BTreeSet;
use std::fs;
use std::io::BufRead;
use std::io::BufReader;
use std::io::Write;
use std::net::SocketAddr;
use std::process::Command;
use std::process::Stdio;
use std::sync::atomic::AtomicUsize;
use std::sync::atomic::Ordering;
use std::time::Instant;

use crate::cases::command::end;
use crate::cases::command::printed;
use crate::cases::command::toa;
use crate::cases::command::TOA;
use crate::cases::connections::churned;
use crate::cases::connections::number;
use crate::ktap::note;
use crate::namespace::run;
use crate::namespace::Namespace;
use crate::net::Net;
use crate::net::Way;
use crate::net::PORT;
use crate::runner::cases;
use crate::runner::Case;
use crate::sockets::Accepted;
use crate::sockets::Client;
use crate::sockets::Family;
use crate::sockets::Listener;
use crate::test_module::TestModule;
use crate::wait;

pub const LOADED: &[Case] = cases![Loaded:
    command_fits_a_terminal_of_80_columns,
    command_fits_a_terminal_of_200_columns,
    command_has_styles_in_a_terminal_alone,
    command_top_redraws_and_restores_the_terminal,
    command_prints_json_as_its_schema_describes,
];

pub const CASES: &[Case] = cases![Unloaded:
    command_lists_a_hundred_thousand_connections_once_while_others_come_and_go,
];

/// The configuration of tmux: the screen of a program that ended stays as it is.
const CONFIGURATION: &str = "set -g status off\nset -g remain-on-exit on\n\
                             set -g remain-on-exit-format ''\nset -g default-terminal tmux-256color\n";

/// The lines of the terminal, more than any screen has.
const HEIGHT: usize = 90;

/// A terminal in which a program runs. Dropping it ends the program.
struct Terminal<'a> {
    namespace: &'a Namespace,
    socket: String,
}

impl<'a> Terminal<'a> {
    /// Starts a command of the shell.
    #[track_caller]
    fn start(namespace: &'a Namespace, width: usize, height: usize, command: &str) -> Self {
        static STARTED: AtomicUsize = AtomicUsize::new(0);
        let number = STARTED.fetch_add(1, Ordering::Relaxed);
        let socket = format!("/tmp/tmux-{number}");
        let file = format!("{socket}.conf");
        fs::write(&file, CONFIGURATION).expect("the file");
        let terminal = Self { namespace, socket };
        let (width, height) = (width.to_string(), height.to_string());
        let command = format!("unset NO_COLOR; {command}");
        let arguments = [
            "-f",
            &file,
            "new-session",
            "-d",
            "-x",
            &width,
            "-y",
            &height,
            &command,
        ];
        terminal.tmux(&arguments);
        terminal
    }

    #[track_caller]
    fn tmux(&self, arguments: &[&str]) -> String {
        let mut command = Command::new("tmux");
        command
            .env("LC_ALL", "C.UTF-8")
            .args(["-u", "-S", &self.socket]);
        self.namespace.enter(|| run(command.args(arguments)))
    }

    /// Returns a variable of tmux's formats.
    #[track_caller]
    fn variable(&self, name: &str) -> String {
        let text = self.tmux(&["display-message", "-p", &format!("#{{{name}}}")]);
        text.trim_end().to_owned()
    }

    /// Returns the screen's lines. Options of capture-pane change them.
    #[track_caller]
    fn lines(&self, options: &[&str]) -> Vec<String> {
        let text = self.tmux(&[&["capture-pane", "-p", "-S", "-"], options].concat());
        let mut lines: Vec<String> = text
            .lines()
            .map(|line| line.trim_end().to_owned())
            .collect();
        while lines.last().is_some_and(String::is_empty) {
            lines.pop();
        }
        lines
    }

    /// Waits until the program has ended, and returns its status.
    #[track_caller]
    fn wait_for_end(&self) -> i32 {
        wait::until("the program ends", || {
            match self.variable("pane_dead").as_str() {
                "1" => Ok(()),
                _ => Err(self.lines(&[]).join("\n")),
            }
        });
        let status = self.variable("pane_dead_status");
        status
            .parse()
            .unwrap_or_else(|_| panic!("{status}: a signal"))
    }

    /// Waits until a line has the text.
    #[track_caller]
    fn wait_for_text(&self, text: &str) {
        wait::until(text, || {
            let lines = self.lines(&[]);
            match lines.iter().any(|line| line.contains(text)) {
                true => Ok(()),
                false => Err(lines.join("\n")),
            }
        });
    }
}

impl Drop for Terminal<'_> {
    fn drop(&mut self) {
        let end = ["-S", &self.socket, "kill-server"];
        // Without a server there is nothing to end.
        let _ = Command::new("tmux").args(end).output();
    }
}

/// A server with a connection of each way, and a policy that is long.
struct Server {
    pairs: Vec<(Client, Accepted)>,
    listener: Listener,
    // Dropped last, when no record may be left.
    net: Net,
}

/// A client whose address is long.
const LONG_CLIENT: &str = "[2001:db8:7:0:aaaa:bbbb:cccc:dddd]:0";

const POLICY: &str =
    "policy set trusted=10.0.1.0/28,fd00:0:0:1::/124,192.0.2.0/25,198.51.100.0/25,\
                      2001:db8:1:2:3:4:5:0/112,2001:db8:2:2:3:4:5:0/112 pick=last";

impl Server {
    fn new() -> Self {
        let net = Net::new();
        let listener = net.listen(Family::DualStack);
        assert_eq!(printed(&net.server, POLICY), "");
        let pairs = Way::ALL.map(|way| net.pair(&listener, way)).into();
        let mut server = Self {
            net,
            pairs,
            listener,
        };
        server.connect(LONG_CLIENT);
        server
    }

    /// Makes a connection of an IPv6 client.
    #[track_caller]
    fn connect(&mut self, client: &str) {
        let target = SocketAddr::new(Way::V6.virtual_server(), PORT);
        let source = client.parse().expect("an end");
        let client = self.net.client.enter(|| Client::connect(source, target));
        let pair = (client.expect("a connection"), self.listener.accept());
        self.pairs.push(pair);
    }

    /// The commands whose output is the same each time, with their statuses.
    fn commands(&self) -> Vec<(String, i32)> {
        let balancer = self.net.balancer_of(&self.pairs[3].1);
        [
            ("status --interval 0", 0),
            ("list", 0),
            (&*format!("why {balancer} --interval 0"), 0),
            ("why 192.0.2.1:9 --interval 0", 1),
            ("verify", 0),
            ("check", 0),
            ("policy show", 0),
            ("policy set enabled=1", 0),
            ("policy test 203.0.113.7 254/8", 1),
            ("policy diff", 1),
        ]
        .map(|(arguments, status)| (arguments.to_owned(), status))
        .into()
    }
}

/// The output of the command in a pipe, with the environment of a terminal.
#[track_caller]
fn piped(server: &Server, arguments: &str) -> String {
    let mut command = Command::new(TOA);
    command.env("TERM", "tmux-256color").env_remove("NO_COLOR");
    let output = server
        .net
        .server
        .enter(|| command.args(arguments.split(' ')).output());
    end(output.expect("toa starts")).1
}

fn words(text: &str) -> Vec<&str> {
    text.split_whitespace().collect()
}

/// The columns of a line: where each begins, and its text. Two blanks separate them.
fn columns(line: &str) -> Vec<(usize, &str)> {
    let mut columns = Vec::new();
    let mut start = 0;
    for part in line.split("  ") {
        let text = part.trim_start();
        if !text.is_empty() {
            columns.push((start + part.len() - text.len(), text));
        }
        start += part.len() + 2;
    }
    columns
}

/// Checks that all lines begin their columns at the places of the first line.
#[track_caller]
fn check_alignment(lines: &[String]) {
    let starts = |line: &String| {
        columns(line)
            .iter()
            .map(|(start, _)| *start)
            .collect::<BTreeSet<_>>()
    };
    let expected = starts(&lines[0]);
    for line in lines {
        assert!(
            starts(line).is_subset(&expected),
            "{line}\n{}",
            lines.join("\n")
        );
    }
}

/// Checks the table against the text in a pipe: each text is whole, or cut and marked. Returns how many
/// are cut.
#[track_caller]
fn check_cuts(lines: &[String], whole: &str) -> usize {
    let mut cut = 0;
    for (line, whole) in lines.iter().zip(whole.lines()) {
        let (cells, whole) = (columns(line), columns(whole));
        assert_eq!(cells.len(), whole.len(), "{line}");
        for ((_, cell), (_, whole)) in cells.iter().zip(whole) {
            if *cell != whole {
                let start = cell.strip_suffix('+').expect("a mark");
                assert!(whole.starts_with(start), "{cell}: {whole}");
                cut += 1;
            }
        }
    }
    cut
}

/// The name of this process, whose previous name returns on drop.
struct ProcessName(String);

impl ProcessName {
    const FILE: &'static str = "/proc/self/comm";

    fn set(name: &str) -> Self {
        let before = fs::read_to_string(Self::FILE).expect("the name");
        fs::write(Self::FILE, name).expect("the name");
        Self(before.trim_end().to_owned())
    }
}

impl Drop for ProcessName {
    fn drop(&mut self) {
        let _ = fs::write(Self::FILE, &self.0);
    }
}

/// A name whose five characters take ten columns. The kernel keeps 15 bytes.
const WIDE_NAME: &str = "データベー";

/// Checks each command's screen. Returns how many texts were cut.
#[track_caller]
fn check_screens(width: usize) -> usize {
    let server = Server::new();
    let _name = ProcessName::set(WIDE_NAME);
    let mut cut = 0;
    for (arguments, status) in server.commands() {
        let command = format!("{TOA} {arguments}");
        let terminal = Terminal::start(&server.net.server, width, HEIGHT, &command);
        assert_eq!(terminal.wait_for_end(), status, "{arguments}");
        let lines = terminal.lines(&[]);
        let text = lines.join("\n");
        assert_eq!(terminal.lines(&["-J"]), lines, "{arguments}: a line wraps");
        let whole = piped(&server, &arguments);
        if arguments == "list" {
            assert!(whole.contains(WIDE_NAME), "{whole}");
        }
        assert!(
            !whole.contains(|c: char| c.is_control() && c != '\n'),
            "{whole:?}"
        );
        let name = arguments.split(" --").next().expect("a word");
        match name {
            "list" | "policy diff" => {
                assert_eq!(lines.len(), whole.lines().count(), "{arguments}: {text}");
                check_alignment(&lines);
                cut += check_cuts(&lines, &whole);
            }
            _ => assert_eq!(words(&text), words(&whole), "{arguments}"),
        }
        match name {
            "policy show" => check_alignment(&lines[1..]),
            "verify" => check_alignment(&lines[..lines.len() - 1]),
            "status" => {
                let meanings = lines.iter().filter(|line| line.contains("  carries "));
                let at: BTreeSet<_> = meanings.map(|line| line.find("carries ")).collect();
                assert_eq!(at.len(), 1, "{text}");
            }
            _ => {}
        }
    }
    // The time of a diagnosis is long, so one width is enough for its words.
    let command = format!("{TOA} doctor");
    let terminal = Terminal::start(&server.net.server, width, HEIGHT, &command);
    terminal.wait_for_end();
    let lines = terminal.lines(&[]);
    assert_eq!(terminal.lines(&["-J"]), lines, "doctor: a line wraps");
    check_alignment(&lines[..lines.len() - 1]);
    cut
}

fn command_fits_a_terminal_of_80_columns() {
    // The client and its process in the list, and the two policies in the comparison.
    assert!(check_screens(80) >= 2);
}

fn command_fits_a_terminal_of_200_columns() {
    assert_eq!(check_screens(200), 0);
}

fn command_has_styles_in_a_terminal_alone() {
    let server = Server::new();
    let styled = |command: &str| {
        let terminal = Terminal::start(&server.net.server, 100, HEIGHT, command);
        assert_eq!(terminal.wait_for_end(), 0);
        terminal.lines(&["-e"]).join("\n")
    };
    let bold = |text: &str| format!("\u{1b}[1m{text}");
    let status = styled(&format!("{TOA} status --interval 0"));
    for title in ["toa", "policy", "connections", "other counters"] {
        assert!(status.contains(&bold(title)), "{status:?}");
    }
    assert!(styled(&format!("{TOA} policy show")).starts_with(&bold("policy")));
    for plain in [
        &*format!("{TOA} list"),
        &format!("{TOA} policy show | cat"),
        &format!("NO_COLOR=1 {TOA} policy show"),
        &format!("TERM=dumb {TOA} policy show"),
    ] {
        let text = styled(plain);
        assert!(!text.contains('\u{1b}'), "{plain}: {text:?}");
        assert!(!text.is_empty(), "{plain}");
    }
    // Outside of a terminal, top prints no sequence of control characters either.
    let top = piped(&server, "top -n 2 -d 0.1");
    assert!(
        !top.contains(|c: char| c.is_control() && c != '\n'),
        "{top:?}"
    );
    assert_eq!(top.matches("toa: ").count(), 2, "{top}");
}

fn command_top_redraws_and_restores_the_terminal() {
    let mut server = Server::new();
    for key in ["q", "C-c"] {
        let file = format!("/tmp/terminal-{key}");
        let command = format!(
            "echo before; stty -g >{file}; {TOA} top -d 0.2; status=$?; stty -g >>{file}; echo after $status; read _"
        );
        let open = server.pairs.len();
        // All clients but one are of this prefix.
        let of_v6 = |open: usize| format!("{}  2001:db8:7::/48", open - 1);
        let terminal = Terminal::start(&server.net.server, 80, 24, &command);
        terminal.wait_for_text(&of_v6(open));
        assert_eq!(terminal.variable("alternate_on"), "1");
        assert_eq!(terminal.variable("cursor_flag"), "0");
        assert_eq!(terminal.lines(&["-J"]), terminal.lines(&[]), "a line wraps");
        let target = SocketAddr::new(Way::V6.virtual_server(), PORT);
        let source: SocketAddr = LONG_CLIENT.parse().expect("an end");
        let client = server.net.client.enter(|| Client::connect(source, target));
        let pair = (client.expect("a connection"), server.listener.accept());
        terminal.wait_for_text(&of_v6(open + 1));
        terminal.tmux(&["send-keys", key]);
        terminal.wait_for_text("after 0");
        assert_eq!(terminal.lines(&[]), ["before", "after 0"], "{key}");
        assert_eq!(terminal.variable("alternate_on"), "0", "{key}");
        assert_eq!(terminal.variable("cursor_flag"), "1", "{key}");
        let modes = fs::read_to_string(&file).expect("the modes");
        let [before, after] = words(&modes)[..] else {
            panic!("{key}: {modes}")
        };
        assert_eq!(before, after, "{key}");
        drop(terminal);
        server.pairs.push(pair);
    }
}

/// Validates documents against the schema, in which no object may have fields that it does not describe.
/// Reads a line of the command's name and a document for each.
const VALIDATE: &str = r#"
import json, sys
import jsonschema

schema = json.load(open("/toa/schema.json"))

def close(node):
    if isinstance(node, dict):
        if "properties" in node:
            node.setdefault("additionalProperties", False)
        for value in node.values():
            close(value)
    elif isinstance(node, list):
        for value in node:
            close(value)

def objects(node):
    if isinstance(node, dict):
        yield node
        for value in node.values():
            yield from objects(value)
    elif isinstance(node, list):
        for value in node:
            yield from objects(value)

close(schema)
jsonschema.Draft202012Validator.check_schema(schema)
for line in sys.stdin:
    name, text = line.split("\t")
    document = json.loads(text)
    outputs = schema["properties"]
    own = {key: value for key, value in schema.items() if key in ("$schema", "$defs")}
    validator = jsonschema.Draft202012Validator({**own, **outputs[name]})
    for error in validator.iter_errors(document):
        print(f"{name}: {error.json_path}: {error.message}")
    refused = 0
    for node in objects(document):
        node["unknown"] = {}
        refused += not validator.is_valid(document)
        del node["unknown"]
    print(f"{name} refused {refused}")
"#;

fn command_prints_json_as_its_schema_describes() {
    let server = Server::new();
    let namespace = &server.net.server;
    fs::write("/toa/schema.json", printed(namespace, "generate schema")).expect("the schema");
    let balancer = server.net.balancer_of(&server.pairs[0].1);
    let mut input = String::new();
    let why = format!("why {balancer} --interval 0");
    let commands = [
        ("status", "status --interval 0.1"),
        ("list", "list"),
        ("list", "list --all-netns"),
        ("list", "list 192.0.2.1"),
        ("top", "top -n 1 -d 0.1"),
        ("why", &why),
        ("why", "why 192.0.2.1:9 --interval 0"),
        ("verify", "verify"),
        ("doctor", "doctor"),
        ("check", "check"),
        ("policy-show", "policy show"),
        ("policy-set", "policy set enabled=1"),
        ("policy-test", "policy test 203.0.113.7 254/8"),
        ("policy-diff", "policy diff"),
    ];
    for (name, arguments) in commands {
        let (_, text, errors) = toa(namespace, &format!("{arguments} --json"));
        assert_eq!(errors, "", "{arguments}");
        // In strings, JSON has no newline.
        input.push_str(&format!("{name}\t{}\n", text.replace('\n', " ")));
    }
    let mut python = Command::new("python3")
        .args(["-c", VALIDATE])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .expect("python3 starts");
    let mut pipe = python.stdin.take().expect("it is piped");
    pipe.write_all(input.as_bytes()).expect("it reads");
    drop(pipe);
    let (status, found, _) = end(python.wait_with_output().expect("python3 ends"));
    assert_eq!(
        (status, found.lines().count()),
        (0, commands.len()),
        "{found}"
    );
    for (line, (name, arguments)) in found.lines().zip(commands) {
        let refused = line
            .strip_prefix(&format!("{name} refused "))
            .unwrap_or_else(|| panic!("{line}"));
        // An empty list has no object.
        let none = arguments == "list 192.0.2.1";
        assert_eq!(refused == "0", none, "{arguments}: {found}");
    }
}

/// The connections of a large server, which live during the whole test.
const MANY: usize = 100_000;

/// The connections beside them that exist at the same time (`tests/kernel/records.rs`). Each one is removed when
/// so many younger ones have come.
const YOUNG: usize = 1000;

/// The least number of connections that come and go while the command reads the list.
const CHURN: usize = 10_000;

/// Returns the length of the shortest arc that has all numbers, on a circle of `circle` numbers.
fn arc(numbers: &BTreeSet<usize>, circle: usize) -> usize {
    let (Some(first), Some(last)) = (numbers.first(), numbers.last()) else {
        return 0;
    };
    let gaps = numbers.iter().zip(numbers.iter().skip(1));
    let around = first + circle - last;
    let widest = gaps.map(|(one, next)| next - one).fold(around, usize::max);
    circle - widest
}

/// The records are those of the test module's table: so many connections do not fit in the machine.
fn command_lists_a_hundred_thousand_connections_once_while_others_come_and_go() {
    let _module = TestModule::load(&format!("fill={MANY}")).expect("it loads");
    let before = churned();
    let started = Instant::now();
    let mut child = Command::new(TOA)
        .args(["list", "-H"])
        .stdout(Stdio::piped())
        .spawn()
        .expect("toa starts");
    let mut output = BufReader::new(child.stdout.take().expect("it is piped"));
    // The command has its whole output in memory, and waits for room in the pipe.
    assert!(!output.fill_buf().expect("rows").is_empty());
    let (read_in, came) = (started.elapsed(), churned() - before);
    let status = fs::read_to_string(format!("/proc/{}/status", child.id())).expect("it waits");
    let memory = status.lines().find(|line| line.starts_with("VmHWM:"));
    let memory = memory.expect("the most memory").to_owned();
    let mut seen = vec![0_u8; MANY];
    let mut others = BTreeSet::new();
    let mut wrong = Vec::new();
    for line in output.lines() {
        let line = line.expect("a row");
        let client = line.split(' ').next().expect("a client");
        let client: SocketAddr = client.parse().unwrap_or_else(|_| panic!("{line}"));
        match number(client) {
            number @ ..MANY => seen[number] = seen[number].saturating_add(1),
            // Those behind are of another namespace.
            number if number < 2 * MANY && others.insert(number - MANY) => {}
            _ => wrong.push(line),
        }
    }
    assert!(child.wait().expect("it ends").success());
    let memory = words(&memory).join(" ");
    note(&format!(
        "toa list of {MANY} connections: first row after {:.1} s, last row after {:.1} s, {memory}",
        read_in.as_secs_f32(),
        started.elapsed().as_secs_f32(),
    ));
    // Others are numbered in the order in which they come. Of those that exist at one time, the first and
    // the last are `YOUNG` apart.
    let between = arc(&others, MANY).saturating_sub(YOUNG);
    note(&format!(
        "{} other rows: at least {between} connections came and went between two of the rows, and {came} came \
         before the first one was printed",
        others.len()
    ));
    let not_once = seen.iter().position(|&times| times != 1);
    assert_eq!(not_once, None, "the first record without exactly one row");
    assert_eq!(
        wrong, [""; 0],
        "rows that are twice or of another namespace"
    );
    assert!(between >= CHURN, "{between}");
    assert!(came >= between as u64, "{came} came, {between} between");
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn arc_goes_around_the_end_of_the_circle() {
        let arc_of = |numbers: &[usize]| arc(&numbers.iter().copied().collect(), 100);
        assert_eq!(arc_of(&[]), 0);
        assert_eq!(arc_of(&[7]), 0);
        assert_eq!(arc_of(&[10, 20, 40]), 30);
        assert_eq!(arc_of(&[95, 99, 3]), 8);
    }
}
