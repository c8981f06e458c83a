// SPDX-License-Identifier: GPL-2.0

//! Allocations that fail: each one of a load, and those of records while connections are made. The
//! kernel must be able to fail them ([`Boot::Faults`]).
//!
//! [`Boot::Faults`]: super::Boot::Faults

use std::collections::BTreeMap;
use std::ffi::CStr;
use std::fs;
use std::ops::Range;

use crate::cases::unload::assert_nothing_of_toa;
use crate::failures;
use crate::failures::Failures;
use crate::ktap::note;
use crate::module;
use crate::net::Net;
use crate::net::Way;
use crate::runner::cases;
use crate::runner::skip;
use crate::runner::Case;
use crate::sockets;
use crate::sockets::Family;
use crate::sys::Name;

pub const CASES: &[Case] = cases![Unloaded:
    each_failed_allocation_of_a_load_leaves_nothing_behind,
    connections_live_on_while_records_cannot_be_allocated,
];

fn prepare() -> Failures {
    if !failures::supported() {
        skip("the kernel cannot fail allocations");
    }
    Failures::prepare()
}

/// Few idle records, each of which is allocated at the load.
const PARAMETERS: &CStr = c"max_records=1000";

/// The load that no failure reaches has allocated fewer times than this.
const ALLOCATIONS: u32 = 5000;

/// Loads between two lines of progress, which the harness waits for.
const NOTED: u32 = 20;

fn each_failed_allocation_of_a_load_leaves_nothing_behind() {
    let mut failures = prepare();
    let net = Net::new();
    let mut outcomes: BTreeMap<String, u32> = BTreeMap::new();
    for number in 1..ALLOCATIONS {
        let file = module::open(module::PATH);
        let (loaded, failed) = failures.nth(number, || module::insert_open(&file, PARAMETERS));
        let outcome = match loaded {
            Ok(()) => "loaded".to_owned(),
            Err(error) => error.to_string(),
        };
        *outcomes.entry(outcome).or_default() += 1;
        if number % NOTED == 0 {
            note(&format!("{number} allocations failed: {outcomes:?}"));
        }
        if loaded.is_ok() {
            let listener = net.listen(Family::DualStack);
            let (client, accepted) = net.pair(&listener, Way::V4);
            if !failed {
                assert_eq!(accepted.name, accepted.family.name(client.address));
            }
            drop((client, accepted));
            module::unload();
        }
        assert_nothing_of_toa(&net);
        if !failed {
            note(&format!("{} allocations: {outcomes:?}", number - 1));
            assert_eq!(
                outcomes.keys().collect::<Vec<_>>(),
                ["ENOMEM: Out of memory", "loaded"]
            );
            return;
        }
    }
    panic!("a load allocates more than {ALLOCATIONS} times: {outcomes:?}");
}

const CONNECTIONS: u32 = 10_000;

/// Connections that live at the same time, with one rate of failures: more than there are idle records.
const BATCH: u32 = 200;

/// Batches between two lines of progress.
const NOTED_BATCHES: u32 = 5;

/// The seed of the rates.
const SEED: u32 = 17;

/// The module's code.
fn code_of_toa() -> Range<u64> {
    let text = fs::read_to_string("/proc/modules").expect("/proc/modules");
    let line = text
        .lines()
        .find(|line| line.starts_with("toa "))
        .expect("toa is loaded");
    let fields: Vec<&str> = line.split(' ').collect();
    let size: u64 = fields[1].parse().expect("a size");
    let start = fs::read_to_string("/sys/module/toa/sections/.text").expect("the section");
    let start =
        u64::from_str_radix(start.trim().trim_start_matches("0x"), 16).expect("hexadecimal");
    start..start + size
}

fn connections_live_on_while_records_cannot_be_allocated() {
    let mut failures = prepare();
    let net = Net::new();
    let listener = net.listen(Family::DualStack);
    module::load_with(PARAMETERS.to_str().expect("text"));
    let code = code_of_toa();
    let before = net.stats();
    let (mut failed, mut shown, mut hidden) = (0, 0, 0);
    let mut rate = SEED;
    for done in (0..CONNECTIONS).step_by(BATCH as usize) {
        // Between 2 and 12, by a linear congruence.
        rate = rate.wrapping_mul(1_103_515_245).wrapping_add(12_345);
        let each = 2 + (rate >> 16) % 11;
        let ((), more) = failures.in_code(code.clone(), each, || {
            let mut pairs = Vec::new();
            for number in 0..BATCH {
                let way = Way::ALL[number as usize % Way::ALL.len()];
                let (client, accepted) = net.pair(&listener, way);
                if accepted.name == accepted.family.name(client.address) {
                    shown += 1;
                } else {
                    assert_eq!(accepted.name, Name::of(net.balancer_of(&accepted)));
                    hidden += 1;
                }
                pairs.push((client, accepted));
            }
            for (client, accepted) in &mut pairs {
                sockets::exchange(client, accepted);
            }
        });
        failed += more;
        if (done / BATCH + 1) % NOTED_BATCHES == 0 {
            note(&format!(
                "{} connections; of each {each} allocations one fails if it is toa's",
                done + BATCH
            ));
        }
    }
    net.wait_for_no_records();
    let change = net.stats().since(&before);
    note(&format!("{failed} failures; {change:?}"));
    assert!(0 < hidden && 0 < shown);
    // The worker's allocations fail too, and cost no connection its client.
    assert!(hidden < failed, "{hidden}, {failed}");
    assert_eq!(shown + hidden, u64::from(CONNECTIONS));
    assert!(
        change.contains(&("record_alloc_failed", hidden as i64)),
        "{change:?}"
    );
    assert!(
        change.contains(&("option_taken", shown as i64)),
        "{change:?}"
    );
    module::unload();
}
