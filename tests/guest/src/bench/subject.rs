// SPDX-License-Identifier: GPL-2.0

//! The ways to show clients that are compared.

use std::error::Error;
use std::ffi::CString;
use std::fmt;
use std::fs::File;
use std::thread;
use std::time::Duration;

use aya::programs::cgroup_sock_addr::CgroupSockAddr;
use aya::programs::CgroupAttachMode;
use aya::programs::Program;
use aya::programs::ProgramError;
use aya::programs::SockOps;
use aya::Ebpf;
use aya::EbpfLoader;
use nix::kmod::delete_module;
use nix::kmod::DeleteModuleFlags;
use nix::time::ClockId;

use crate::module;
use crate::net::Way;

/// The build of the C module, of `tests/bench/overwrite`.
const OVERWRITE: &str = "/toa/toa_overwrite.ko";

/// The build of the eBPF programs, of `tests/bench/ebpf`.
const EBPF: &str = "/toa/toa.bpf.o";

/// The programs run for the sockets of all processes.
const CGROUP: &str = "/sys/fs/cgroup";

/// A way to show clients, which runs during a load.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Subject {
    Nothing,
    Toa,
    /// A build of toa.ko with this number of records.
    Filled(&'static str),
    /// A build of toa.ko that does not look clients up among the server's own addresses.
    NoLookUp,
    /// A build of toa.ko with records that measures sections with interrupts off.
    Timed,
    /// A C module that overwrites function pointers, IPv4 only.
    Overwrite,
    /// Programs for socket events and getpeername.
    Ebpf,
}

/// A cap that admits the most records of [`Subject::Filled`]: the table has a bucket for each.
const MOST: &str = "max_records=1000000";

/// A subject that runs until the value is dropped.
pub enum Running {
    Nothing,
    Module(&'static str),
    Programs { _programs: Box<Ebpf> },
}

impl Subject {
    #[track_caller]
    pub fn start(self) -> Running {
        match self {
            Self::Nothing => Running::Nothing,
            Self::Toa => load(module::PATH, "", "toa"),
            Self::Filled(records) => load(&format!("/toa/toa-{records}.ko"), MOST, "toa"),
            Self::NoLookUp => load("/toa/toa-no-lookup.ko", "", "toa"),
            Self::Timed => load("/toa/toa-timed.ko", MOST, "toa"),
            Self::Overwrite => load(OVERWRITE, "", "toa_overwrite"),
            Self::Ebpf => Running::Programs {
                _programs: Box::new(attach().unwrap_or_else(|error| panic!("{EBPF}: {error}"))),
            },
        }
    }

    /// Whether a server sees the option's client in connections of that way.
    pub fn shows(self, way: Way) -> bool {
        match self {
            Self::Nothing => false,
            Self::Overwrite => way == Way::V4,
            _ => true,
        }
    }

    /// Whether this has the policy of `net.toa`.
    pub fn has_policy(self) -> bool {
        matches!(
            self,
            Self::Toa | Self::Filled(_) | Self::NoLookUp | Self::Timed
        )
    }
}

impl fmt::Display for Subject {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Nothing => "nothing",
            Self::Toa | Self::Filled(_) | Self::NoLookUp | Self::Timed => "toa",
            Self::Overwrite => "C hook",
            Self::Ebpf => "eBPF",
        })
    }
}

#[track_caller]
fn load(path: &str, parameters: &str, name: &'static str) -> Running {
    module::insert_file(path, parameters).unwrap_or_else(|error| panic!("insmod {path}: {error}"));
    Running::Module(name)
}

/// Attaches the programs until the returned value is dropped.
fn attach() -> Result<Ebpf, Box<dyn Error>> {
    // The programs' storage of sockets is a kind of map that aya can make, but not read.
    let mut programs = EbpfLoader::new().allow_unsupported_maps().load_file(EBPF)?;
    let cgroup = File::open(CGROUP)?;
    let keep: &mut SockOps = program(&mut programs, "toa_keep")?;
    keep.load()?;
    keep.attach(&cgroup, CgroupAttachMode::Single)?;
    for name in ["toa_answer4", "toa_answer6"] {
        let answer: &mut CgroupSockAddr = program(&mut programs, name)?;
        answer.load()?;
        answer.attach(&cgroup, CgroupAttachMode::Single)?;
    }
    Ok(programs)
}

/// Finds a program by its function's name.
fn program<'a, P>(programs: &'a mut Ebpf, name: &str) -> Result<&'a mut P, Box<dyn Error>>
where
    &'a mut P: TryFrom<&'a mut Program, Error = ProgramError>,
{
    let program = programs.program_mut(name);
    let program = program.ok_or_else(|| format!("there is no program {name}"))?;
    Ok(program.try_into()?)
}

impl Running {
    /// Ends it, and returns the processor time that this takes: without the waits for grace periods.
    pub fn end(self) -> Duration {
        let now = || Duration::from(ClockId::CLOCK_THREAD_CPUTIME_ID.now().expect("the clock"));
        let start = now();
        drop(self);
        now() - start
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        if let Self::Module(name) = self {
            let name = CString::new(*name).expect("names have no NUL");
            let removed = delete_module(&name, DeleteModuleFlags::O_NONBLOCK);
            // A second panic would hide the first.
            if let (Err(error), false) = (removed, thread::panicking()) {
                panic!("rmmod {name:?}: {error}");
            }
        }
    }
}
