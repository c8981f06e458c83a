// SPDX-License-Identifier: MIT OR Apache-2.0

//! The code that the HTTP and the stream module for nginx share. It gets the two peers
//! of a connection from the kernel's `toa.ko`, and sets the variables' values.
//!
//! The crate asks the kernel once, when nginx has accepted the connection. A socket has
//! no peers after a reset, but nginx still logs its requests. The answer lives in the
//! connection's memory pool, for all requests of the connection.
//!
//! The code runs in nginx's processes, which have one thread. It never panics, since a
//! panic would end a worker with all its connections.

mod ask;
pub mod connection;
pub mod name;
pub mod notice;
pub mod peers;
pub mod reason;
pub mod switch;
pub mod text;
pub mod variable;

pub use connection::Address;
pub use connection::Connection;
pub use connection::NoMemory;
pub use name::Name;
pub use peers::Peers;
pub use reason::Reason;
pub use switch::Switch;
pub use text::ngx_str;
pub use variable::Variable;
