//! Randomness from a seed. Each decision has a stream of its own, so that leaving one out, as a shrunk
//! replay does, changes no other.

use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::{RngCore, SeedableRng};
use std::time::Duration;

pub struct Draw(ChaCha8Rng);

impl Draw {
    /// `stream`: 0 for the timeline as a whole, and from 1 on for its starts.
    pub fn new(seed: u64, stream: u64) -> Draw {
        // Written out: how a crate turns a number into a key may change with its version.
        let mut key = [0; 32];
        key[..8].copy_from_slice(&seed.to_le_bytes());
        key[8..16].copy_from_slice(&stream.to_le_bytes());
        Draw(ChaCha8Rng::from_seed(key))
    }

    /// Less than `bound`, which is at least 1.
    pub fn below(&mut self, bound: u64) -> u64 {
        // Slightly uneven, by less than bound / 2^64.
        ((u128::from(self.0.next_u64()) * u128::from(bound)) >> 64) as u64
    }

    pub fn one_in(&mut self, n: u64) -> bool {
        self.below(n) == 0
    }

    pub fn pick<T: Copy>(&mut self, from: &[T]) -> T {
        from[self.below(from.len() as u64) as usize]
    }

    /// The index of one of the weights, in proportion to them. At least one is not zero.
    pub fn weighted(&mut self, weights: &[u64]) -> usize {
        let mut rest = self.below(weights.iter().sum());
        for (index, weight) in weights.iter().enumerate() {
            if rest < *weight {
                return index;
            }
            rest -= weight;
        }
        unreachable!("less than the sum of the weights")
    }

    /// A time whose order of magnitude is drawn: short ones hit what is short.
    pub fn duration(&mut self, from: Duration, to: Duration) -> Duration {
        const STEPS: u64 = 1 << 20;
        let at = self.below(STEPS) as f64 / STEPS as f64;
        let (from, to) = (from.as_secs_f64().ln(), to.as_secs_f64().ln());
        Duration::from_secs_f64((from + at * (to - from)).exp())
    }
}

/// One number of the seed and a name, for what is drawn outside of the plan.
pub fn number(seed: u64, name: [u64; 2]) -> u64 {
    let mut key = [0; 32];
    // No stream of the plan has a third word.
    let words = [seed, name[1], name[0]];
    for (bytes, word) in key.chunks_exact_mut(8).zip(words) {
        bytes.copy_from_slice(&word.to_le_bytes());
    }
    ChaCha8Rng::from_seed(key).next_u64()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A replay line must mean the same tomorrow.
    #[test]
    fn draws_are_pinned() {
        let mut draw = Draw::new(7, 3);
        let drawn: Vec<u64> = (0..6).map(|_| draw.below(1000)).collect();
        assert_eq!(drawn, PINNED);
    }

    const PINNED: [u64; 6] = [224, 146, 121, 599, 85, 797];

    #[test]
    fn weights_are_kept() {
        let mut draw = Draw::new(1, 0);
        let mut hits = [0; 3];
        for _ in 0..4000 {
            hits[draw.weighted(&[3, 0, 1])] += 1;
        }
        assert_eq!(hits[1], 0);
        assert!((2800..3200).contains(&hits[0]), "{hits:?}");
    }
}
