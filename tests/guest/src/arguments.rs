// SPDX-License-Identifier: GPL-2.0

//! The arguments of long runs.

use std::sync::OnceLock;
use std::time::Duration;

#[derive(Debug)]
pub struct Arguments {
    /// The function tracer runs during all cases.
    pub tracer: bool,
    /// The seed of what is random.
    pub seed: u64,
    /// The least number of steps of random scripts.
    pub steps: u64,
    /// A file with a script to run in place of random ones.
    pub script: Option<String>,
    /// The loads and unloads of each case about many.
    pub cycles: u64,
    /// The time of mixed traffic.
    pub time: Duration,
    /// The least number of hostile segments in that time.
    pub segments: u64,
}

impl Default for Arguments {
    fn default() -> Self {
        Self {
            tracer: false,
            seed: 1,
            steps: 100_000,
            script: None,
            cycles: 100,
            time: Duration::from_secs(3600),
            segments: 1_000_000,
        }
    }
}

static ARGUMENTS: OnceLock<Arguments> = OnceLock::new();

/// Sets the arguments, once.
pub fn set(arguments: Arguments) {
    ARGUMENTS.set(arguments).expect("they are set once");
}

/// Returns the arguments.
pub fn get() -> &'static Arguments {
    ARGUMENTS.get_or_init(Arguments::default)
}
