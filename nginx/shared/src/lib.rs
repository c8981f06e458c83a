// SPDX-License-Identifier: MIT OR Apache-2.0

//! What the HTTP and the stream module for nginx share: who the two peers of a
//! connection are, as the kernel's `toa.ko` tells it, and what the variables say
//! of them.
//!
//! The kernel is asked once, when nginx has accepted the connection: a socket that
//! was reset since has no peers any more, and its requests are logged all the
//! same. The answer is kept in the connection's memory pool, for all requests on
//! it, and goes with it.
//!
//! It runs in nginx's processes, which have one thread. Nothing here panics, since
//! that would end a worker with all its connections.

mod ask;
pub mod connection;
pub mod name;
pub mod notice;
pub mod peers;
pub mod variable;

pub use connection::Connection;
pub use name::Name;
pub use peers::Peers;
pub use variable::Variable;
