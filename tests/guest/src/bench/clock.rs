// SPDX-License-Identifier: GPL-2.0

//! A clock that counts instructions.
//!
//! With QEMU's `-icount shift=0` the machine's time advances by one nanosecond for
//! each instruction of its only processor, in user space and in the kernel. For a
//! program that never waits, elapsed time is then the number of instructions.

use std::fmt;
use std::hint::black_box;
use std::time::Instant;

/// Number of measurements of the clock itself.
const TRIALS: usize = 1001;

/// Turns of the loop that calibrates the clock.
const TURNS: u64 = 10_000;

/// The clock, calibrated by the cost of reading it.
pub struct Clock {
    look: u64,
    turn: f64,
}

impl Clock {
    /// Measures the clock's own cost.
    ///
    /// # Panics
    ///
    /// Panics if this machine's clock counts real time instead of instructions.
    pub fn calibrate() -> Self {
        let mut clock = Self { look: 0, turn: 0.0 };
        let trial = |_| clock.count(|| ()).0;
        let look = median((0..TRIALS).map(trial).collect()) as u64;
        clock.look = look;
        let cost = |turns| {
            let trial = |_| clock.count(|| spin(turns)).0;
            median((0..TRIALS).map(trial).collect())
        };
        clock.turn = (cost(2 * TURNS) - cost(TURNS)) / TURNS as f64;
        let whole = clock.turn.round();
        assert!(
            (1.0..=8.0).contains(&whole) && (clock.turn - whole).abs() < 0.002,
            "a turn of a loop takes {} ns, not a whole number of instructions: \
             is the machine's option --icount missing?",
            clock.turn
        );
        clock
    }

    /// Runs `work` and returns its number of instructions.
    pub fn count<T>(&self, work: impl FnOnce() -> T) -> (u64, T) {
        let start = Instant::now();
        let value = work();
        let passed = start.elapsed().as_nanos() as u64;
        (passed.saturating_sub(self.look), value)
    }
}

impl fmt::Display for Clock {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "The clock counts {:.4} instructions for a turn of a loop; reading it takes {}.",
            self.turn, self.look
        )
    }
}

/// Runs a loop of few instructions, which the compiler neither unrolls nor drops.
#[inline(never)]
fn spin(turns: u64) {
    for turn in 0..turns {
        black_box(turn);
    }
}

/// Returns the median: a timer interrupt in a few of the counts does not change it.
pub fn median(mut counts: Vec<u64>) -> f64 {
    counts.sort_unstable();
    counts[counts.len() / 2] as f64
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn interrupts_do_not_count() {
        assert_eq!(median(vec![780, 12_345, 781, 780, 780]), 780.0);
    }
}
