// SPDX-License-Identifier: GPL-2.0

//! Calls of bpf(2) for programs of up to three instructions (the kernel's
//! `include/uapi/linux/bpf.h`).

use std::os::fd::AsRawFd;
use std::os::fd::BorrowedFd;
use std::os::fd::FromRawFd;
use std::os::fd::OwnedFd;
use std::os::fd::RawFd;

use nix::errno::Errno;

/// `enum bpf_cmd`
const MAP_CREATE: u32 = 0;
const MAP_UPDATE_ELEM: u32 = 2;
const PROG_LOAD: u32 = 5;
const PROG_ATTACH: u32 = 8;
const RAW_TRACEPOINT_OPEN: u32 = 17;
const LINK_CREATE: u32 = 28;

const MAP_TYPE_SOCKMAP: u64 = 15;

/// The event for which a program runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Data that a socket of a sockmap sends.
    SkMsg,
    /// getpeername of an AF_INET socket.
    GetPeerName4,
    /// getpeername of an AF_INET6 socket.
    GetPeerName6,
}

impl Kind {
    /// `enum bpf_prog_type`
    fn program(self) -> u64 {
        match self {
            Self::SkMsg => 16,
            Self::GetPeerName4 | Self::GetPeerName6 => 18,
        }
    }

    /// `enum bpf_attach_type`
    fn attachment(self) -> u64 {
        match self {
            Self::SkMsg => 7,
            Self::GetPeerName4 => 29,
            Self::GetPeerName6 => 30,
        }
    }
}

/// `BPF_MOV64_IMM(register, value)`
pub const fn set_register(register: u8, value: u32) -> u64 {
    0xb7 | ((register as u64) << 8) | ((value as u64) << 32)
}

/// `BPF_STX_MEM(BPF_W, r1, r2, offset)`: stores register 2 in the context.
pub const fn store_register_2(offset: u16) -> u64 {
    0x63 | (0x21 << 8) | ((offset as u64) << 16)
}

/// `BPF_EXIT_INSN()`
pub const EXIT: u64 = 0x95;

/// Calls bpf(2). Each attribute here is 8 bytes, or a pair of 4 bytes.
fn bpf(command: u32, attributes: &[u64]) -> Result<RawFd, Errno> {
    let size = size_of_val(attributes);
    // SAFETY: the kernel reads `size` bytes. The addresses in them are those of the
    // callers' borrowed data, which the kernel reads within its bounds.
    let result = unsafe { libc::syscall(libc::SYS_bpf, command, attributes.as_ptr(), size) };
    Errno::result(result).map(|result| result as RawFd)
}

fn new_descriptor(command: u32, attributes: &[u64]) -> Result<OwnedFd, Errno> {
    let fd = bpf(command, attributes)?;
    // SAFETY: the descriptor is new, and no other value owns it.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

fn pair(low: u64, high: u64) -> u64 {
    low | (high << 32)
}

fn number(fd: &impl AsRawFd) -> u64 {
    fd.as_raw_fd() as u64
}

/// Loads a program.
pub fn load(kind: Kind, instructions: &[u64]) -> Result<OwnedFd, Errno> {
    let license = c"GPL";
    new_descriptor(
        PROG_LOAD,
        &[
            pair(kind.program(), instructions.len() as u64),
            instructions.as_ptr() as u64,
            license.as_ptr() as u64,
            // No log, version, flags, name nor interface.
            0,
            0,
            0,
            0,
            0,
            pair(0, kind.attachment()),
        ],
    )
}

/// `BPF_PROG_TYPE_TRACING` and `BPF_TRACE_FENTRY`.
const TRACING: u64 = 26;
const FENTRY: u64 = 24;

/// A program that runs at the begin of each call of a kernel function, and does nothing, until the value
/// is dropped. The kernel calls it by a trampoline (the kernel's `kernel/bpf/trampoline.c`).
#[derive(Debug)]
pub struct Fentry {
    program: OwnedFd,
    _link: OwnedFd,
}

impl Fentry {
    /// Attaches a program to the function that has this number in the kernel's BTF.
    pub fn attach(function: u32) -> Result<Self, Errno> {
        let (instructions, license) = ([set_register(0, 0), EXIT], c"GPL");
        let mut attributes = [0; 14];
        attributes[0] = pair(TRACING, instructions.len() as u64);
        attributes[1] = instructions.as_ptr() as u64;
        attributes[2] = license.as_ptr() as u64;
        attributes[8] = pair(0, FENTRY);
        attributes[13] = pair(0, function.into());
        let program = new_descriptor(PROG_LOAD, &attributes)?;
        let link = new_descriptor(RAW_TRACEPOINT_OPEN, &[0, number(&program)])?;
        Ok(Self {
            program,
            _link: link,
        })
    }

    /// Returns how often the program ran while the kernel counted runs (`kernel.bpf_stats_enabled`).
    pub fn runs(&self) -> u64 {
        let file = format!("/proc/self/fdinfo/{}", self.program.as_raw_fd());
        let text = std::fs::read_to_string(file).expect("the program's numbers");
        let runs = text.lines().find_map(|line| line.strip_prefix("run_cnt:"));
        let runs = runs.and_then(|runs| runs.trim().parse().ok());
        runs.unwrap_or_else(|| panic!("{text}"))
    }
}

/// Makes a sockmap with room for `entries` sockets.
pub fn sockmap(entries: u32) -> Result<OwnedFd, Errno> {
    let (key, value) = (4, 4);
    new_descriptor(
        MAP_CREATE,
        &[pair(MAP_TYPE_SOCKMAP, key), pair(value, entries.into())],
    )
}

/// Puts a socket into a sockmap.
pub fn add_to_sockmap(map: &OwnedFd, key: u32, socket: RawFd) -> Result<(), Errno> {
    let value = socket as u32;
    let (key, value) = (&raw const key as u64, &raw const value as u64);
    bpf(MAP_UPDATE_ELEM, &[number(map), key, value, 0]).map(drop)
}

/// Runs a program for the sockets of a sockmap, as long as the sockmap exists.
pub fn attach_to_sockmap(map: &OwnedFd, kind: Kind, program: &OwnedFd) -> Result<(), Errno> {
    let attributes = [pair(number(map), number(program)), kind.attachment()];
    bpf(PROG_ATTACH, &attributes).map(drop)
}

/// Runs a program for the sockets of a cgroup, until the returned link is dropped.
pub fn link_to_cgroup(
    cgroup: BorrowedFd<'_>,
    kind: Kind,
    program: &OwnedFd,
) -> Result<OwnedFd, Errno> {
    let attributes = [pair(number(program), number(&cgroup)), kind.attachment()];
    new_descriptor(LINK_CREATE, &attributes)
}
