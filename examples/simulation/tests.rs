//! That the simulation can be believed: it repeats itself, loses nothing, and agrees with what was measured.

use fastrand::Rng;

use crate::contenders::{self, Contender};
use crate::costs::{MS, US};
use crate::load::{Load, everybody, fan_in, pair, sidecars};
use crate::scenarios::{Kind, Scenario};
use crate::tally::Tally;
use crate::world::World;
use crate::{plot, report};

const SEED: u64 = 7;

fn run<'a>(load: &Load, contender: &'a Contender) -> World<'a> {
    let mut world = World::new(load, contender, SEED);
    world.run();
    world
}

fn urpc(load: &Load) -> Tally {
    run(load, &contenders::ALL[0]).tally
}

/// One of each kind, and small.
fn some() -> Vec<(Kind, Load)> {
    let mut rng = Rng::with_seed(SEED);
    vec![
        (Kind::Pair, pair(5, 0, 1, 2 * MS)),
        (Kind::Pair, pair(5, 1, 2, 2 * MS)),
        (Kind::FanIn, fan_in(12, 2, 2, 4, 0.7, 5 * MS)),
        (Kind::Sidecars, sidecars(2, 1, 0, 3, 2, 5 * MS)),
        (Kind::Sidecars, sidecars(3, 4, 1, 3, 2, 5 * MS)),
        (Kind::Singles, everybody(&mut rng, 60, 8, 1, 0.3, 5 * MS)),
        (Kind::Bursts, everybody(&mut rng, 60, 4, 8, 1.2, 5 * MS)),
    ]
}

#[test]
fn the_same_seed_gives_the_same_numbers() {
    for (kind, load) in some() {
        for contender in &contenders::ALL {
            let [one, other] = [(); 2].map(|()| run(&load, contender).tally.json());
            assert_eq!(one, other, "{kind:?} {}", contender.name);
        }
    }
    let (_, load) = &some()[5];
    let mut world = World::new(load, &contenders::ALL[0], SEED + 1);
    world.run();
    assert_ne!(
        world.tally.json(),
        urpc(load).json(),
        "the seed is of no effect"
    );
}

#[test]
fn every_call_is_answered_once_and_every_grant_ends() {
    for (kind, load) in some() {
        for contender in &contenders::ALL {
            let world = run(&load, contender);
            let (books, name) = (world.books, contender.name);
            assert!(world.tally.calls() > 0, "{kind:?} {name}");
            assert_eq!(books.called, books.served, "{kind:?} {name}");
            assert_eq!(books.called, books.answered, "{kind:?} {name}");
            assert_eq!(
                books.granted,
                books.returned + books.reclaimed,
                "{kind:?} {name}"
            );
            world.rests();
        }
    }
}

#[test]
fn what_all_cpus_do_adds_up_to_their_time() {
    for (kind, load) in some() {
        for contender in &contenders::ALL {
            let tally = run(&load, contender).tally;
            assert_eq!(tally.time, load.duration - load.duration / 10);
            let all: u64 = tally.spent.iter().sum();
            assert_eq!(
                all,
                tally.time * tally.cpus as u64,
                "{kind:?} {}",
                contender.name
            );
            let lazy = tally.spent[2] + tally.spent[3];
            assert!(
                tally.wasted <= u128::from(lazy),
                "{kind:?} {}",
                contender.name
            );
        }
    }
}

#[test]
fn without_a_processor_of_the_server_a_donation_serves_all_callers() {
    for cpus in [1, 2] {
        for callers in [1, 2, 4, 8, 16, 32, 64] {
            let tally = urpc(&pair(callers, 0, cpus, 10 * MS));
            let crossings = tally.per_call(tally.crossings);
            let two_in_all = 2.0 / callers as f64;
            assert!(
                crossings < 1.1 * two_in_all,
                "{crossings} with {callers} callers"
            );
        }
    }
}

#[test]
fn what_was_measured_comes_out() {
    // `cargo bench --bench donation`: 6.9 µs with one caller, 1.6 times a hand-over there and back; 0.27 µs a call
    // with 64; 25 µs after 10 ms of silence.
    let one = urpc(&pair(1, 0, 2, 5 * MS)).mean_us();
    assert!((5.8..8.0).contains(&one), "{one} µs");
    let many = urpc(&pair(64, 0, 1, 5 * MS)).rate();
    assert!((2_500.0..5_000.0).contains(&many), "{many} calls/ms");
    // Between processors that spin: well below a hand-over.
    let spinning = urpc(&pair(1, 1, 2, 5 * MS)).mean_us();
    assert!((0.3..1.2).contains(&spinning), "{spinning} µs");
}

#[test]
fn a_hand_off_per_call_crosses_twice_per_call() {
    let hand_off = contenders::ALL.iter().find(|c| c.name == "hand-off");
    let tally = run(&pair(8, 0, 2, 5 * MS), hand_off.unwrap()).tally;
    let crossings = tally.per_call(tally.crossings);
    assert!((1.9..2.1).contains(&crossings), "{crossings}");
}

#[test]
fn an_idle_world_uses_no_cpu() {
    let mut load = pair(1, 1, 2, 5 * MS);
    load.sources.clear();
    let tally = urpc(&load);
    assert_eq!(tally.spent, [0, 0, 0, 2 * tally.time]);
    assert!(tally.time > 1_000 * US && tally.wasted == 0);
}

#[test]
fn the_picture_is_well_formed_and_has_a_line_for_each_policy() {
    let scenarios: Vec<Scenario> = crate::scenarios::all(SEED, true)
        .into_iter()
        .filter(|s| matches!(s.kind, Kind::Pair | Kind::Singles | Kind::Bursts))
        .map(|s| Scenario {
            load: pair(2, 1, 2, MS),
            ..s
        })
        .collect();
    let tallies: Vec<Tally> = (contenders::ALL.iter())
        .map(|contender| run(&scenarios[0].load, contender).tally)
        .collect();
    let results: Vec<_> = scenarios.iter().map(|s| (s, tallies.clone())).collect();
    let svg = plot::svg(&results).unwrap();
    let document = roxmltree::Document::parse(&svg).unwrap();
    let texts: Vec<&str> = document
        .descendants()
        .filter(|node| node.has_tag_name("text"))
        .filter_map(|node| node.text())
        .map(str::trim)
        .collect();
    for contender in &contenders::ALL {
        let named = texts.iter().filter(|&&text| text == contender.name).count();
        assert_eq!(named, 1, "{} is not in the legend", contender.name);
    }
    assert!(report::table(&results).contains(Kind::Bursts.title()));
}
