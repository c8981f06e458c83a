// SPDX-License-Identifier: GPL-2.0

//! `/proc/net/toa`: the connections of a network namespace that carry a client's address.
//!
//! A row is a record: the server's end, the balancer's end, the client. The file is written bucket by
//! bucket. A record stays in its bucket, so a connection that lives during the whole read has exactly
//! one row, however many others come and go.

use crate::{
    endpoint::Connection,
    linux::{
        proc_net::{
            Rows,
            Table, //
        },
        rcu, //
    },
    namespace::{
        Namespace,
        Net, //
    },
    records, //
};
use kernel::prelude::*;

/// `/proc/net/toa`.
pub(crate) struct ConnectionsFile;

impl Table for ConnectionsFile {
    type PerNet = Namespace;

    const NAME: &'static CStr = c"toa";

    /// The clients of a server are for root of the namespace only.
    const MODE: u16 = 0o440;

    const COLUMNS: [&'static CStr; 3] = [c"local", c"balancer", c"client"];

    fn parts() -> usize {
        records::buckets(&rcu::read_lock())
    }

    fn show(net: &Net, part: usize, rows: &Rows<'_>) {
        let namespace = net.number();
        let add =
            |connection: Connection, client| rows.add([connection.local, connection.peer, client]);
        records::for_each_in_bucket(part, namespace, &rcu::read_lock(), add);
    }
}
