// SPDX-License-Identifier: GPL-2.0

//! The namespaces of the filled table: the file `toa_stats` shows the progress of its churn.

use crate::{
    connections::ConnectionsFile,
    linux::{
        family::Guard,
        pernet::{
            self,
            net_id,
            PerNet, //
        },
        proc_net::Text,
        rcu,
        sysctl::Sysctls, //
    },
    records, //
};
use kernel::fmt;
use kernel::prelude::*;
use kernel::seq_file::SeqFile;
use kernel::seq_print;

/// Nothing for each namespace.
pub(crate) struct Namespace;

/// A network namespace.
pub(crate) type Net = pernet::Net<Namespace>;

net_id!(Namespace);

impl PerNet for Namespace {
    type Text = Progress;
    type Table = ConnectionsFile;

    fn new(_net: &pernet::Net<()>) -> Result<Self> {
        Ok(Self)
    }

    fn adopt(&self, _parent: &Self, _guard: &Guard<'_, Self>) {}

    fn lose(&self, _parent: &Self, _guard: &Guard<'_, Self>) {}
}

/// A directory without files.
impl Sysctls for Namespace {
    const DIRECTORY: &'static CStr = c"net/toa_test";

    const FILES: &'static [&'static CStr] = &[];

    fn read(_net: &Net, _file: usize, _f: &mut dyn fmt::Write) -> fmt::Result {
        Ok(())
    }

    fn write(_net: &Net, _file: usize, _offset: i64, _bytes: &[u8]) -> Result {
        Err(EINVAL)
    }
}

/// `/proc/net/toa_stats`: the number of records that came and went.
pub(crate) struct Progress;

impl Text for Progress {
    type PerNet = Namespace;

    const NAME: &'static CStr = c"toa_stats";
    const MODE: u16 = 0o444;

    fn show(_net: &Net, seq: &SeqFile) {
        seq_print!(seq, "{}\n", records::churned(&rcu::read_lock()));
    }
}
