// SPDX-License-Identifier: GPL-2.0

//! BPF programs on the hooked functions (fentry), as monitoring tools attach them. They run at each
//! call, whether they are older than the module or younger.

use crate::btf;
use crate::cases::unload::assert_clients;
use crate::cases::unload::assert_counted;
use crate::cases::unload::listeners;
use crate::cases::unload::pairs;
use crate::module;
use crate::net::Net;
use crate::runner::cases;
use crate::runner::skip;
use crate::runner::Case;
use crate::sys::bpf::Fentry;
use crate::tracing::FUNCTIONS;

pub const CASES: &[Case] = cases![Unloaded:
    bpf_programs_older_than_the_module_run_at_each_call,
    bpf_programs_younger_than_the_module_run_at_each_call,
];

/// The sysctl by which the kernel counts the runs of programs.
const COUNTED: &str = "/proc/sys/kernel/bpf_stats_enabled";

/// A program on each of [`FUNCTIONS`], until the value is dropped.
#[derive(Debug)]
pub struct Trampolines([Fentry; FUNCTIONS.len()]);

impl Trampolines {
    /// Attaches the programs. Returns `None` if the kernel has no BTF.
    #[track_caller]
    pub fn attach() -> Option<Self> {
        std::fs::write(COUNTED, "1").expect("the kernel counts runs");
        btf::function(FUNCTIONS[0])?;
        Some(Self(FUNCTIONS.map(|function| {
            let number = btf::function(function).expect("the kernel has BTF");
            Fentry::attach(number).unwrap_or_else(|error| panic!("fentry/{function}: {error}"))
        })))
    }

    #[track_caller]
    fn needed() -> Self {
        need_btf();
        Self::attach().expect("the kernel has BTF")
    }

    /// Returns how often the function's program ran.
    fn runs(&self, function: &str) -> u64 {
        let place = FUNCTIONS.iter().position(|other| *other == function);
        self.0[place.expect("a hooked function")].runs()
    }
}

/// Skips the case if the kernel has no BTF. A case that is skipped later would leave its module.
#[track_caller]
fn need_btf() {
    if btf::function(FUNCTIONS[0]).is_none() {
        skip("the kernel has no BTF");
    }
}

fn bpf_programs_older_than_the_module_run_at_each_call() {
    let net = Net::new();
    let listeners = listeners(&net);
    let programs = Trampolines::needed();
    let runs = |function: &str| programs.runs(function);
    assert_counted(&net, &listeners, runs, false);
    module::load();
    assert_counted(&net, &listeners, runs, true);
    net.wait_for_no_records();
    module::unload();
    assert_counted(&net, &listeners, runs, false);
}

fn bpf_programs_younger_than_the_module_run_at_each_call() {
    let net = Net::new();
    let listeners = listeners(&net);
    need_btf();
    module::load();
    let programs = Trampolines::needed();
    assert_counted(&net, &listeners, |function| programs.runs(function), true);
    drop(programs);
    assert_clients(&pairs(&net, &listeners));
    let programs = Trampolines::needed();
    net.wait_for_no_records();
    module::unload();
    assert_counted(&net, &listeners, |function| programs.runs(function), false);
}
