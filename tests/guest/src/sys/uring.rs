// SPDX-License-Identifier: GPL-2.0

//! A ring of io_uring (`include/uapi/linux/io_uring.h`) for calls that return sockets'
//! names: one request at a time, in the calling thread's context.

use std::os::fd::AsFd;
use std::os::fd::AsRawFd;
use std::os::fd::BorrowedFd;
use std::os::fd::FromRawFd;
use std::os::fd::OwnedFd;
use std::os::fd::RawFd;
use std::ptr;
use std::sync::atomic::AtomicU32;
use std::sync::atomic::Ordering;

use libc::c_int;
use libc::c_void;
use nix::errno::Errno;
use nix::poll::PollFlags;

use super::Name;
use super::CANARY;
use super::ROOM;
use crate::wait;

const ENTRIES: u32 = 8;

/// Operations of requests, and commands of sockets.
const IORING_OP_ACCEPT: u64 = 13;
const IORING_OP_URING_CMD: u64 = 46;
const SOCKET_URING_OP_GETSOCKOPT: u64 = 2;
const SOCKET_URING_OP_GETSOCKNAME: u64 = 5;

const IORING_ACCEPT_MULTISHOT: u64 = 1;
const IORING_CQE_F_MORE: u32 = 2;
const IORING_FEAT_SINGLE_MMAP: u32 = 1;
const IORING_OFF_SQ_RING: i64 = 0;
const IORING_OFF_SQES: i64 = 0x1000_0000;

/// Words of `struct io_uring_params`.
const SQ_ENTRIES: usize = 0;
const CQ_ENTRIES: usize = 1;
const FEATURES: usize = 5;
const SQ_TAIL: usize = 11;
const SQ_MASK: usize = 12;
const SQ_ARRAY: usize = 16;
const CQ_HEAD: usize = 20;
const CQ_TAIL: usize = 21;
const CQ_MASK: usize = 22;
const CQ_CQES: usize = 25;
const WORDS: usize = 30;

/// `struct io_uring_sqe` and `struct io_uring_cqe`.
type Request = [u64; 8];
#[derive(Clone, Copy)]
#[repr(C)]
struct Completion {
    _user_data: u64,
    result: i32,
    flags: u32,
}

/// The result of a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Outcome {
    pub result: Result<i32, Errno>,
    /// Whether the request continues.
    pub more: bool,
}

/// The memory for names, to which the kernel may write as long as a request runs.
#[repr(C)]
struct Room {
    name: [u8; ROOM],
    length: i32,
}

/// Memory that is shared with the kernel.
struct Mapping {
    start: *mut u8,
    length: usize,
}

impl Mapping {
    fn new(ring: &OwnedFd, length: usize, offset: i64) -> Result<Self, Errno> {
        // SAFETY: the kernel chooses an unused address.
        let start = unsafe {
            libc::mmap(
                ptr::null_mut(),
                length,
                libc::PROT_READ | libc::PROT_WRITE,
                libc::MAP_SHARED | libc::MAP_POPULATE,
                ring.as_raw_fd(),
                offset,
            )
        };
        if start == libc::MAP_FAILED {
            return Err(Errno::last());
        }
        let start = start.cast();
        Ok(Self { start, length })
    }

    /// Returns the address of the kernel's `T` at that offset.
    fn at<T>(&self, offset: u32) -> *mut T {
        let offset = offset as usize;
        assert!(offset + size_of::<T>() <= self.length, "in the mapping");
        self.start.wrapping_add(offset).cast()
    }

    /// Returns a number that the kernel also reads or writes.
    fn number(&self, offset: u32) -> &AtomicU32 {
        // SAFETY: the number is in the mapping, which lives as long as `self`. It is
        // aligned by the kernel, and all accesses to it are atomic.
        unsafe { AtomicU32::from_ptr(self.at(offset)) }
    }
}

impl Drop for Mapping {
    fn drop(&mut self) {
        // SAFETY: the memory was mapped with this length, and no borrow of it is left.
        unsafe { libc::munmap(self.start.cast::<c_void>(), self.length) };
    }
}

/// A ring, whose requests end when it is dropped.
pub struct Ring {
    ring: OwnedFd,
    offsets: [u32; WORDS],
    queues: Mapping,
    requests: Mapping,
    /// The room for names, never freed: a cancelled request may still write to it.
    room: *mut Room,
}

impl Ring {
    #[track_caller]
    pub fn new() -> Self {
        Self::try_new().unwrap_or_else(|error| panic!("io_uring: {error}"))
    }

    fn try_new() -> Result<Self, Errno> {
        let mut offsets = [0_u32; WORDS];
        // SAFETY: the kernel reads and writes a `struct io_uring_params`, and `offsets`
        // has its size.
        let ring =
            unsafe { libc::syscall(libc::SYS_io_uring_setup, ENTRIES, offsets.as_mut_ptr()) };
        let ring = Errno::result(ring)?;
        // SAFETY: the descriptor is new, and no other value owns it.
        let ring = unsafe { OwnedFd::from_raw_fd(ring as RawFd) };
        assert_ne!(offsets[FEATURES] & IORING_FEAT_SINGLE_MMAP, 0, "since 5.4");
        let queues = (offsets[SQ_ARRAY] + 4 * offsets[SQ_ENTRIES])
            .max(offsets[CQ_CQES] + 16 * offsets[CQ_ENTRIES]);
        let requests = offsets[SQ_ENTRIES] as usize * size_of::<Request>();
        Ok(Self {
            queues: Mapping::new(&ring, queues as usize, IORING_OFF_SQ_RING)?,
            requests: Mapping::new(&ring, requests, IORING_OFF_SQES)?,
            room: Box::into_raw(Box::new(Room {
                name: [CANARY; ROOM],
                length: ROOM as i32,
            })),
            ring,
            offsets,
        })
    }

    /// Submits accept, once or as a multishot request.
    #[track_caller]
    pub fn accept(&self, listener: RawFd, multishot: bool) {
        self.clear(ROOM as i32);
        let flags = if multishot {
            IORING_ACCEPT_MULTISHOT
        } else {
            0
        };
        let start = IORING_OP_ACCEPT | (flags << 16) | descriptor(listener);
        self.submit([start, self.length_at(), self.name_at(), 0, 0, 0, 0, 0]);
    }

    /// Calls getsockname or getpeername with that length of the room.
    #[track_caller]
    pub fn name_of(&self, socket: RawFd, peer: bool, room: i32) -> Outcome {
        self.clear(room);
        let start = IORING_OP_URING_CMD | descriptor(socket);
        self.submit([
            start,
            SOCKET_URING_OP_GETSOCKNAME,
            self.name_at(),
            0,
            0,
            u64::from(peer) << 32,
            self.length_at(),
            0,
        ]);
        self.outcome()
    }

    /// Calls getsockopt(SO_PEERNAME), whose result is the length.
    #[track_caller]
    pub fn so_peername(&self, socket: RawFd, room: i32) -> Outcome {
        self.clear(room);
        let start = IORING_OP_URING_CMD | descriptor(socket);
        let option = libc::SOL_SOCKET as u64 | ((libc::SO_PEERNAME as u64) << 32);
        self.submit([
            start,
            SOCKET_URING_OP_GETSOCKOPT,
            option,
            0,
            0,
            (room as u64) << 32,
            self.name_at(),
            0,
        ]);
        self.outcome()
    }

    /// Returns the name that was written last.
    pub fn name(&self) -> Name {
        // SAFETY: `room` is ours until the ring is dropped. The read is volatile, since
        // the kernel writes to the room without the compiler's knowledge.
        let room = unsafe { self.room.read_volatile() };
        Name::read(&room.name, room.length)
    }

    /// Waits for the next completion of a request.
    #[track_caller]
    pub fn outcome(&self) -> Outcome {
        wait::ready(self, PollFlags::POLLIN, "a completion of io_uring");
        let head = self.queues.number(self.offsets[CQ_HEAD]);
        let tail = self.queues.number(self.offsets[CQ_TAIL]);
        let mask = self.queues.number(self.offsets[CQ_MASK]);
        let next = head.load(Ordering::Relaxed);
        assert_ne!(
            next,
            tail.load(Ordering::Acquire),
            "a completion is announced"
        );
        let index = next & mask.load(Ordering::Relaxed);
        let at = self
            .queues
            .at::<Completion>(self.offsets[CQ_CQES] + 16 * index);
        // SAFETY: the completion is in the mapping, aligned by the kernel. The kernel does
        // not write to it before `head` moves.
        let completion = unsafe { at.read_volatile() };
        head.store(next.wrapping_add(1), Ordering::Release);
        Outcome {
            result: match completion.result {
                error @ ..0 => Err(Errno::from_raw(-error)),
                result => Ok(result),
            },
            more: completion.flags & IORING_CQE_F_MORE != 0,
        }
    }

    /// Waits for the next socket of an `accept` request.
    #[track_caller]
    pub fn accepted(&self) -> (OwnedFd, bool) {
        let Outcome { result, more } = self.outcome();
        let socket = result.unwrap_or_else(|error| panic!("accept: {error}"));
        // SAFETY: the descriptor is new, and no other value owns it.
        (unsafe { OwnedFd::from_raw_fd(socket) }, more)
    }

    fn name_at(&self) -> u64 {
        self.room as u64
    }

    fn length_at(&self) -> u64 {
        self.name_at() + std::mem::offset_of!(Room, length) as u64
    }

    /// Prepares the room for a name.
    fn clear(&self, length: i32) {
        let name = [CANARY; ROOM];
        // SAFETY: `room` is ours, and no running request writes to it.
        unsafe { self.room.write_volatile(Room { name, length }) };
    }

    #[track_caller]
    fn submit(&self, request: Request) {
        let tail = self.queues.number(self.offsets[SQ_TAIL]);
        let mask = self.queues.number(self.offsets[SQ_MASK]);
        let next = tail.load(Ordering::Relaxed);
        let index = next & mask.load(Ordering::Relaxed);
        let at = self.requests.at::<Request>(index * 64);
        // SAFETY: the request's place is in the mapping and aligned. The kernel has
        // consumed the previous request.
        unsafe { at.write_volatile(request) };
        let slot = self.queues.number(self.offsets[SQ_ARRAY] + 4 * index);
        slot.store(index, Ordering::Relaxed);
        tail.store(next.wrapping_add(1), Ordering::Release);
        let (flags, nothing) = (0, ptr::null::<c_void>());
        // SAFETY: the request's addresses are those of `room`, which is never freed;
        // there is no signal mask.
        let submitted = unsafe {
            libc::syscall(
                libc::SYS_io_uring_enter,
                self.ring.as_raw_fd(),
                1,
                0,
                flags,
                nothing,
                0,
            )
        };
        assert_eq!(Errno::result(submitted), Ok(1), "io_uring_enter");
    }
}

fn descriptor(fd: RawFd) -> u64 {
    (fd as c_int as u64) << 32
}

impl AsFd for Ring {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.ring.as_fd()
    }
}
