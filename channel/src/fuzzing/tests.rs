//! Bytes from a seed: nearly right ones, since those get furthest.

use std::time::{Duration, Instant};

use super::*;

/// How many mutated inputs there are, and which; `.ci/fuzz` chooses more.
fn chosen() -> (u64, u64) {
    let number = |name: &str, default| {
        let said = std::env::var(name).ok();
        said.map_or(default, |said| said.parse().expect("a number"))
    };
    let (count, seed) = (number("URPC_FUZZ", 200_000), number("URPC_SEED", 1991));
    println!(
        "URPC_FUZZ={count} URPC_SEED={seed} cargo test --release -p urpc-channel --lib fuzzing -- --nocapture"
    );
    (count, seed)
}

struct Random(u64);

impl Random {
    fn new(seed: u64) -> Self {
        Self(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1)
    }

    fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0.wrapping_mul(0x2545_f491_4f6c_dd1d)
    }

    fn below(&mut self, end: u64) -> u64 {
        (self.next() >> 16) % end
    }

    /// A number that means something here, or one beside it.
    fn near(&mut self, numbers: &[u64]) -> u64 {
        let number = numbers[self.below(numbers.len() as u64) as usize];
        match self.below(8) {
            0 => number.wrapping_add(1),
            1 => number.wrapping_sub(1),
            _ => number,
        }
    }
}

/// The half-sent messages of a peer that mostly keeps to the rules.
#[derive(Default)]
struct Author {
    partials: Vec<(u64, u64, u64, u64)>,
}

impl Author {
    fn slot(&mut self, random: &mut Random) -> ([u8; LINE], bool) {
        let mut words = [0u64; 8];
        let (kind, len, id) = (random.below(10), random.below(49), random.below(8));
        let (tag, share) = match kind {
            0..4 => (
                (1 + random.below(5)) | (len << 8),
                [random.next(), random.next()],
            ),
            4..6 => {
                let total = random.near(&[49, 64, 8192, 10_000]);
                let (of, len) = (1 + random.below(2), random.near(&[1, 48, 64, total / 2]));
                self.partials.push((of, id, total, len));
                (0x80 | of, [len << 32, total])
            }
            6..9 if !self.partials.is_empty() => {
                let at = random.below(self.partials.len() as u64) as usize;
                let (of, id, total, come) = self.partials.swap_remove(at);
                let len = random.near(&[total.wrapping_sub(come).min(8192), 64]);
                if come.wrapping_add(len) < total {
                    self.partials.push((of, id, total, come.wrapping_add(len)));
                }
                words[1] = id;
                (
                    0x40 | of,
                    [(len << 32) | (random.below(4) * 64), total | (come << 32)],
                )
            }
            _ => (0xc1, [0, 0]),
        };
        words[0] = tag << 32;
        words[1] |= id;
        (words[2], words[3]) = (share[0], share[1]);
        // Every other one is as it should be: it sets the scene.
        let mutated = random.below(2) == 0;
        if mutated {
            for _ in 0..1 + random.below(3) {
                let bit = 32 + random.below(256 - 32);
                words[bit as usize / 64] ^= 1 << (bit % 64);
            }
        }
        let mut slot = [0; LINE];
        for (place, word) in slot.chunks_exact_mut(8).zip(words) {
            place.copy_from_slice(&word.to_le_bytes());
        }
        (slot, mutated)
    }
}

/// How long the longest of all took.
struct Longest(Duration);

impl Longest {
    fn of<R>(&mut self, f: impl FnOnce() -> R) -> R {
        let begun = Instant::now();
        let result = f();
        self.0 = self.0.max(begun.elapsed());
        result
    }
}

#[test]
fn slots_of_any_content_are_messages_or_a_violation() {
    let (count, seed) = chosen();
    let mut random = Random::new(seed);
    let (mut mutated, mut slots, mut messages, mut violations) = (0, 0, 0, 0);
    let mut longest = Longest(Duration::ZERO);
    while mutated < count {
        let mut author = Author::default();
        let lap: Vec<_> = (0..20).map(|_| author.slot(&mut random)).collect();
        let bytes: Vec<u8> = lap.iter().flat_map(|(slot, _)| *slot).collect();
        let (taken, whole) = longest.of(|| super::slots(&bytes));
        mutated += lap[..taken].iter().filter(|(_, mutated)| *mutated).count() as u64;
        slots += taken;
        messages += whole;
        violations += usize::from(taken < lap.len());
    }
    println!(
        "{slots} slots, {mutated} of them mutated: {messages} messages, {violations} violations; \
         20 took {:?} at most",
        longest.0
    );
    assert!(messages > 1000 && violations > 100);
}

#[test]
fn claims_about_our_own_ring_are_believed_or_a_violation() {
    let (count, seed) = chosen();
    let mut random = Random::new(seed);
    let rounds = (count / 1000).max(100);
    let mut violations = 0;
    let mut longest = Longest(Duration::ZERO);
    for _ in 0..rounds {
        let steps: Vec<u8> = (0..9 * 50).map(|_| random.next() as u8).collect();
        violations += u64::from(longest.of(|| claims(&steps)));
    }
    println!(
        "{rounds} rounds of claims, {violations} violations; one took {:?} at most",
        longest.0
    );
    assert!(violations > 0);
}

#[test]
fn descriptors_of_any_kind_are_taken_only_if_all_of_them_can_be_read_for_ever() {
    let (count, seed) = chosen();
    let mut random = Random::new(seed);
    let rounds = (count / 200).max(500);
    let mut taken = 0;
    let mut longest = Longest(Duration::ZERO);
    for _ in 0..rounds {
        let bytes = random.next().to_le_bytes();
        taken += u64::from(longest.of(|| descriptor(bytes)));
    }
    println!(
        "{rounds} descriptors, {taken} taken; one took {:?} at most",
        longest.0
    );
    assert!(taken > 10 && taken < rounds);
}
