//! What is simulated: the four kinds of loads.

use fastrand::Rng;

use crate::load::{Load, everybody, fan_in, milliseconds, pair, sidecars};

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    /// One client, one server: what can be compared with measurements.
    Pair,
    FanIn,
    Sidecars,
    /// Single calls: who is called has slept, as a rule.
    Singles,
    Bursts,
}

impl Kind {
    pub(crate) const ALL: [Self; 5] = [
        Self::Pair,
        Self::FanIn,
        Self::Sidecars,
        Self::Singles,
        Self::Bursts,
    ];

    pub(crate) fn title(self) -> &'static str {
        match self {
            Self::Pair => "T callers of null calls in one client, and a server with S processors",
            Self::FanIn => {
                "64 clients call 4 servers of 2 processors, in bursts of up to 4, on 16 CPUs"
            }
            Self::Sidecars => {
                "A calls B, and B calls C: T callers in each A, S processors in each B and C"
            }
            Self::Singles => "1,000 address spaces make single calls to 4 others each, on 64 CPUs",
            Self::Bursts => {
                "1,000 address spaces call 4 others each, in bursts of up to 8, on 64 CPUs"
            }
        }
    }
}

pub(crate) struct Scenario {
    pub(crate) kind: Kind,
    pub(crate) name: String,
    /// Its place on the axis of a plot: callers, or load.
    pub(crate) x: f64,
    /// In the table, which would be too long else.
    pub(crate) listed: bool,
    pub(crate) load: Load,
}

const CALLERS: [usize; 7] = [1, 2, 4, 8, 16, 32, 64];

/// All of them, a tenth as long if `quick`.
pub(crate) fn all(seed: u64, quick: bool) -> Vec<Scenario> {
    let mut all = Vec::new();
    let mut add = |kind, name, x, listed, load| {
        all.push(Scenario {
            kind,
            name,
            x,
            listed,
            load,
        });
    };
    for cpus in [1, 2, 8] {
        for s in [0, 1] {
            for t in CALLERS {
                let load = pair(t, s, cpus, milliseconds(50, quick));
                let name = format!("S={s}, {cpus} CPUs, T={t}");
                add(Kind::Pair, name, t as f64, [1, 64].contains(&t), load);
            }
        }
    }
    for percent in [25, 50, 75, 90] {
        let share = f64::from(percent) / 100.0;
        let load = fan_in(64, 4, 2, 16, share, milliseconds(200, quick));
        add(Kind::FanIn, format!("{percent} % load"), share, true, load);
    }
    for (chains, fan, cpus) in [(1, 1, 2), (16, 1, 16), (16, 4, 16)] {
        for s in [0, 1] {
            for t in [1, 8] {
                let load = sidecars(chains, fan, s, t, cpus, milliseconds(100, quick));
                let name = format!("{chains} chains, {fan} C, S={s}, T={t}, {cpus} CPUs");
                add(Kind::Sidecars, name, t as f64, true, load);
            }
        }
    }
    for (kind, most) in [(Kind::Singles, 1), (Kind::Bursts, 8)] {
        for percent in [10, 25, 50, 75, 90, 95] {
            let share = f64::from(percent) / 100.0;
            let mut rng = Rng::with_seed(seed);
            let load = everybody(&mut rng, 1_000, 64, most, share, milliseconds(200, quick));
            add(kind, format!("{percent} % load"), share, true, load);
        }
    }
    all
}
