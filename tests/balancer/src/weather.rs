// SPDX-License-Identifier: GPL-2.0

//! A lossy network: it drops some packets, doubles some, and swaps some with the next.

use fastrand::Rng;

/// The share of packets for each event, in percent.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Rates {
    pub lost: u8,
    pub doubled: u8,
    pub held: u8,
}

/// One direction's weather, repeatable by its seed.
#[derive(Debug)]
pub struct Weather {
    rates: Rates,
    random: Rng,
    /// The packet that is sent after the next one.
    held: Option<Vec<u8>>,
}

impl Weather {
    pub fn new(rates: Rates, seed: u64) -> Self {
        Self {
            rates,
            random: Rng::with_seed(seed),
            held: None,
        }
    }

    /// Calls `send` for each packet that arrives now: this one, and the held one. Returns
    /// whether this packet is lost.
    pub fn carry(&mut self, packet: &[u8], mut send: impl FnMut(&[u8])) -> bool {
        let lost = self.happens(self.rates.lost);
        if !lost {
            if self.held.is_none() && self.happens(self.rates.held) {
                self.held = Some(packet.to_vec());
                return false;
            }
            send(packet);
            if self.happens(self.rates.doubled) {
                send(packet);
            }
        }
        self.release(send);
        lost
    }

    /// Returns whether a packet waits for the next one.
    pub fn holds(&self) -> bool {
        self.held.is_some()
    }

    /// Sends the held packet because no other arrived in time.
    pub fn release(&mut self, mut send: impl FnMut(&[u8])) {
        if let Some(held) = self.held.take() {
            send(&held);
        }
    }

    fn happens(&mut self, percent: u8) -> bool {
        percent > 0 && self.random.u8(..100) < percent
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Returns the packets that arrive out of `count` numbered ones, and the number lost.
    fn arrive(rates: Rates, seed: u64, count: u8) -> (Vec<u8>, usize) {
        let mut weather = Weather::new(rates, seed);
        let mut arrived = Vec::new();
        let mut lost = 0;
        for number in 0..count {
            let gone = weather.carry(&[number], |packet| arrived.extend(packet));
            lost += usize::from(gone);
        }
        weather.release(|packet| arrived.extend(packet));
        assert!(!weather.holds());
        (arrived, lost)
    }

    #[test]
    fn calm_weather_changes_nothing() {
        let (arrived, lost) = arrive(Rates::default(), 1, 100);
        assert!(arrived.into_iter().eq(0..100));
        assert_eq!(lost, 0);
    }

    #[test]
    fn lost_packets_do_not_arrive_and_are_counted() {
        let rates = Rates {
            lost: 20,
            ..Rates::default()
        };
        let (arrived, lost) = arrive(rates, 1, 200);
        assert_eq!(arrived.len() + lost, 200);
        assert!((20..60).contains(&lost), "{lost}");
        assert!(arrived.is_sorted());
    }

    #[test]
    fn doubled_packets_arrive_twice_in_a_row() {
        let rates = Rates {
            doubled: 100,
            ..Rates::default()
        };
        assert_eq!(arrive(rates, 1, 3).0, [0, 0, 1, 1, 2, 2]);
    }

    #[test]
    fn held_packets_change_places_with_the_next_one() {
        let rates = Rates {
            held: 100,
            ..Rates::default()
        };
        assert_eq!(arrive(rates, 1, 5).0, [1, 0, 3, 2, 4]);
    }

    #[test]
    fn same_seed_is_the_same_weather() {
        let rates = Rates {
            lost: 10,
            doubled: 10,
            held: 10,
        };
        assert_eq!(arrive(rates, 7, 200), arrive(rates, 7, 200));
        assert_ne!(arrive(rates, 7, 200), arrive(rates, 8, 200));
    }
}
