//! Who calls whom, and how often.

use fastrand::Rng;

use crate::costs::{MS, Time, US};

/// One more of the things that are simulated.
#[derive(Clone, Debug)]
pub(crate) struct Load {
    pub(crate) cpus: usize,
    /// A switch to a thread that has not run for long costs as much on a busy CPU as on one that was idle as long.
    pub(crate) cold_threads: bool,
    pub(crate) spaces: Vec<SpaceSpec>,
    /// Pairs of address spaces that are bound, the caller first.
    pub(crate) bound: Vec<(usize, usize)>,
    pub(crate) sources: Vec<Source>,
    pub(crate) duration: Time,
}

#[derive(Clone, Debug, Default)]
pub(crate) struct SpaceSpec {
    pub(crate) processors: u32,
    /// See [`Space::work`](crate::space::Space::work).
    pub(crate) work: Time,
    /// A handler calls each of these.
    pub(crate) then: Vec<usize>,
}

/// Something that makes calls.
#[derive(Clone, Debug)]
pub(crate) struct Source {
    pub(crate) space: usize,
    /// Each call goes to one of these.
    pub(crate) targets: Vec<usize>,
    pub(crate) rhythm: Rhythm,
    /// A call costs its caller so much, besides what any call does.
    pub(crate) work: Time,
}

#[derive(Clone, Copy, Debug)]
pub(crate) enum Rhythm {
    /// So many callers. Each makes its next call when it has the reply.
    Callers(usize),
    /// Bursts of one to so many calls, after pauses that are so long on average.
    Bursts { most: usize, pause: Time },
}

impl Source {
    /// After how long the next burst comes, and how many calls that has.
    pub(crate) fn burst(&self, rng: &mut Rng) -> (Time, usize) {
        match self.rhythm {
            Rhythm::Callers(_) => (0, 0),
            Rhythm::Bursts { most, pause } => (exponential(rng, pause), rng.usize(1..=most)),
        }
    }
}

/// With this mean.
pub(crate) fn exponential(rng: &mut Rng, mean: Time) -> Time {
    (-(1.0 - rng.f64()).ln() * mean as f64) as Time
}

/// So many callers of null calls in one client, and one server with so many processors.
pub(crate) fn pair(callers: usize, server: u32, cpus: usize, duration: Time) -> Load {
    Load {
        cpus,
        cold_threads: false,
        spaces: vec![space(1, 0), space(server, 0)],
        bound: vec![(0, 1)],
        sources: vec![Source {
            space: 0,
            targets: vec![1],
            rhythm: Rhythm::Callers(callers),
            work: 0,
        }],
        duration,
    }
}

/// Clients that call a few servers now and then, four times at once, say.
pub(crate) fn fan_in(
    clients: usize,
    servers: usize,
    processors: u32,
    cpus: usize,
    load: f64,
    duration: Time,
) -> Load {
    let mut all = vec![space(processors, 10 * US); servers];
    all.resize(servers + clients, space(1, 0));
    let targets: Vec<usize> = (0..servers).collect();
    let sources = (servers..servers + clients).map(|client| Source {
        space: client,
        targets: targets.clone(),
        rhythm: bursts(4, load, cpus, clients, 12 * US),
        work: 2 * US,
    });
    let pairs = (servers..servers + clients).flat_map(|c| targets.iter().map(move |&s| (c, s)));
    Load {
        cpus,
        cold_threads: false,
        bound: pairs.collect(),
        sources: sources.collect(),
        spaces: all,
        duration,
    }
}

/// Clients that call a sidecar, that calls a next one, and so on: A → B → C. With `fan` the last but one calls so
/// many of the last kind at once.
pub(crate) fn sidecars(
    chains: usize,
    fan: usize,
    processors: u32,
    callers: usize,
    cpus: usize,
    duration: Time,
) -> Load {
    let mut load = Load {
        cpus,
        cold_threads: false,
        spaces: Vec::new(),
        bound: Vec::new(),
        sources: Vec::new(),
        duration,
    };
    for _ in 0..chains {
        let a = load.spaces.len();
        let last: Vec<usize> = (a + 2..a + 2 + fan).collect();
        load.bound.push((a, a + 1));
        load.bound.extend(last.iter().map(|&c| (a + 1, c)));
        load.spaces.push(space(1, 0));
        load.spaces.push(SpaceSpec {
            then: last,
            ..space(processors, 2 * US)
        });
        load.spaces
            .extend((0..fan).map(|_| space(processors, 5 * US)));
        load.sources.push(Source {
            space: a,
            targets: vec![a + 1],
            rhythm: Rhythm::Callers(callers),
            work: US,
        });
    }
    load
}

/// What a call in [`everybody`] costs its caller, and on average its server.
const EVERYBODYS: [Time; 2] = [5 * US, 20 * US];

/// Address spaces that are bound to a few others each, and call them in bursts of up to `most`. All calls together have so much work
/// that it would keep this share of the CPUs busy, if calling cost nothing.
pub(crate) fn everybody(
    rng: &mut Rng,
    spaces: usize,
    cpus: usize,
    most: usize,
    load: f64,
    duration: Time,
) -> Load {
    let [caller, server] = EVERYBODYS;
    let mut bound = Vec::new();
    let sources = (0..spaces).map(|from| {
        let mut others: Vec<usize> = (0..4).map(|_| rng.usize(..spaces - 1)).collect();
        others.sort_unstable();
        others.dedup();
        others
            .iter_mut()
            .for_each(|to| *to += usize::from(*to >= from));
        bound.extend(others.iter().map(|&to| (from, to)));
        Source {
            space: from,
            targets: others,
            rhythm: bursts(most, load, cpus, spaces, caller + server),
            work: caller,
        }
    });
    Load {
        cpus,
        cold_threads: false,
        sources: sources.collect(),
        spaces: vec![space(1, server); spaces],
        bound,
        duration,
    }
}

/// The load as bursts of each of so many sources, whose calls have so much work.
fn bursts(most: usize, load: f64, cpus: usize, sources: usize, work: Time) -> Rhythm {
    let calls = load * cpus as f64 / work as f64;
    let mean = (1 + most) as f64 / 2.0;
    Rhythm::Bursts {
        most,
        pause: (mean * sources as f64 / calls) as Time,
    }
}

fn space(processors: u32, work: Time) -> SpaceSpec {
    SpaceSpec {
        processors,
        work,
        then: Vec::new(),
    }
}

/// A duration that fits a run on a developer's machine, or a tenth of it.
pub(crate) fn milliseconds(full: Time, quick: bool) -> Time {
    if quick { full * MS / 10 } else { full * MS }
}
