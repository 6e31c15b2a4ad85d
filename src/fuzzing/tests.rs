//! Bytes from a seed: what an honest peer would say, with some of it changed.

use std::time::{Duration, Instant};

use super::*;

/// How many mutated inputs there are, and which; `.ci/fuzz` chooses more.
fn chosen() -> (u64, fastrand::Rng) {
    let number = |name: &str, default| {
        let said = std::env::var(name).ok();
        said.map_or(default, |said| said.parse().expect("a number"))
    };
    let (count, seed) = (number("URPC_FUZZ", 20_000), number("URPC_SEED", 1991));
    println!(
        "URPC_FUZZ={count} URPC_SEED={seed} cargo test --release -p urpc --lib fuzzing -- --nocapture"
    );
    (count, fastrand::Rng::with_seed(seed))
}

/// Changes a few bits, bytes or the length; a number becomes a very large one now and then.
fn mutate(bytes: &mut Vec<u8>, random: &mut fastrand::Rng) {
    for _ in 0..random.usize(1..4) {
        let at = random.usize(0..bytes.len().max(1));
        match random.u8(0..8) {
            0 => bytes.truncate(at),
            1 => bytes.insert(at.min(bytes.len()), random.u8(..)),
            2 => {
                let huge =
                    postcard::to_allocvec(&(u64::MAX >> random.u32(0..64))).expect("a number");
                let end = (at + random.usize(0..3)).min(bytes.len());
                bytes.splice(at.min(end)..end, huge);
            }
            _ => {
                if let Some(byte) = bytes.get_mut(at) {
                    *byte ^= 1 << random.u8(0..8);
                }
            }
        }
    }
}

fn value(random: &mut fastrand::Rng, depth: u32) -> Value {
    if depth > 4 {
        return Value::Number(7);
    }
    let kind = random.u8(0..8);
    let mut inner = || Box::new(value(random, depth + 1));
    match kind {
        0 => Value::Nothing,
        1 => Value::Unit(()),
        2 => Value::Number(random.i64(..)),
        3 => Value::Text("some text".repeat(random.usize(0..9))),
        4 => Value::Pair(inner(), Some(inner())),
        5 => Value::Many((0..3).map(|_| *inner()).collect()),
        6 => Value::Named {
            name: 'ü',
            values: (0..3).map(|n| (n, *inner())).collect(),
        },
        _ => Value::Empty(vec![(); random.usize(0..100)]),
    }
}

#[test]
fn handshakes_of_any_content_are_hellos_or_refused() {
    let (count, mut random) = chosen();
    let (mut hellos, mut longest) = (0, Duration::ZERO);
    for _ in 0..count {
        let offer: Vec<_> = (0..random.usize(0..4))
            .map(|n| (format!("procedure {n}"), "(i64) -> i64".to_owned()))
            .collect();
        let said = (
            256u32,
            65536u32,
            1024u32,
            8u64 << 20,
            4u32 << 20,
            1u32,
            offer,
        );
        let body = postcard::to_allocvec(&said).expect("plain");
        let mut message = b"urpc".to_vec();
        message.extend(crate::bind::frames::VERSION.to_le_bytes());
        message.extend([random.u8(1..3), 0]);
        message.extend((body.len() as u32).to_le_bytes());
        message.extend(body);
        // Some are as they should be, or there would be no telling what is wrong with the others.
        if random.u8(0..16) > 0 {
            mutate(&mut message, &mut random);
        }
        let piece = if random.bool() { 0 } else { random.u8(..) };
        let descriptors = random.choice([0, 1, 2, 2, 2, 3, 3, 4, 200]).expect("some");
        let begun = Instant::now();
        hellos += u64::from(handshake(&message, piece, descriptors));
        longest = longest.max(begun.elapsed());
    }
    println!("{count} handshakes, {hellos} of them hellos; one took {longest:?} at most");
    assert!(hellos > 0 && hellos < count);
}

#[test]
fn arguments_of_any_content_are_values_or_errors() {
    let (count, mut random) = chosen();
    let (mut values, mut longest) = (0, Duration::ZERO);
    for n in 0..count {
        let mut bytes = match n % 4 {
            0 => {
                postcard::to_allocvec(&(7u8, -1i128, 0.5f64, Some(true), [1u16; 4])).expect("plain")
            }
            1 => vec![random.u8(..); random.usize(0..200)],
            _ => postcard::to_allocvec(&value(&mut random, 0)).expect("plain"),
        };
        mutate(&mut bytes, &mut random);
        let begun = Instant::now();
        values += arguments(&bytes);
        longest = longest.max(begun.elapsed());
    }
    println!("{count} arguments were {values} values; one took {longest:?} at most");
    assert!(values > 0);
}
