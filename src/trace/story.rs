//! What a list of events tells: lanes, spans and hand-overs. Both pictures are drawn from this.
//!
//! Any list will do, merged or not: what has no counterpart in it is simply not drawn as an arrow, and what
//! has no end lasts to the end of the list.

use std::collections::{BTreeMap, HashMap, VecDeque};

use super::{Event, Processor, What};

/// A processor of a process.
pub(super) struct Lane {
    pub(super) pid: u32,
    pub(super) process: String,
    pub(super) processor: Processor,
}

impl Lane {
    /// What it is called in a picture.
    pub(super) fn label(&self) -> String {
        match self.processor {
            Processor::Worker(id) => format!("processor {id}"),
            Processor::Landing { peer, k } => format!("landing {k} for {peer}"),
            Processor::StandIn => "stand-in".into(),
            Processor::Outside => "outside".into(),
        }
    }
}

/// What a lane does for a while.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum State {
    /// It is lent to a peer.
    Lent,
    /// A peer's processor is here.
    Landed,
    /// It sleeps.
    Resting,
}

/// A state with its beginning and end. Both are indices of events, the end excluded.
pub(super) struct Span {
    pub(super) lane: usize,
    pub(super) state: State,
    pub(super) from: usize,
    pub(super) to: usize,
    pub(super) peer: Option<u32>,
}

/// What went from one lane to another.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Sent {
    Call,
    Reply,
    Donation,
    Return,
}

/// Something sent, from one event to another.
pub(super) struct Arrow {
    pub(super) sent: Sent,
    pub(super) from: usize,
    pub(super) to: usize,
}

/// A list of events, understood.
pub(super) struct Story<'a> {
    /// In the order of time.
    pub(super) events: Vec<&'a Event>,
    /// The lanes of a process stand side by side; the processes are in the order of their first event.
    pub(super) lanes: Vec<Lane>,
    /// Of each event.
    pub(super) lane_of: Vec<usize>,
    pub(super) spans: Vec<Span>,
    pub(super) arrows: Vec<Arrow>,
}

impl<'a> Story<'a> {
    pub(super) fn of(events: &'a [Event]) -> Self {
        let mut events: Vec<_> = events.iter().collect();
        events.sort_by_key(|event| event.at);
        let (lanes, lane_of) = lanes(&events);
        let spans = spans(&events, &lane_of);
        let arrows = arrows(&events);
        Self {
            events,
            lanes,
            lane_of,
            spans,
            arrows,
        }
    }

    /// When the first event happened.
    pub(super) fn begin(&self) -> u64 {
        self.events.first().map_or(0, |first| first.at)
    }

    /// When `event` happened, or the last one before it.
    pub(super) fn time(&self, event: usize) -> u64 {
        let last = self.events.len().saturating_sub(1);
        self.events.get(event.min(last)).map_or(0, |event| event.at)
    }
}

fn lanes(events: &[&Event]) -> (Vec<Lane>, Vec<usize>) {
    let mut names = HashMap::new();
    let mut order = HashMap::new();
    for event in events {
        let next = order.len();
        order.entry(event.pid).or_insert(next);
        if let What::Start { name } = &event.what {
            names.insert(event.pid, name.as_str());
        }
    }
    // Whoever only started recording, on a thread that has no processor, needs no lane for that.
    let matters = |event: &Event| {
        event.processor != Processor::Outside || !matches!(event.what, What::Start { .. })
    };
    let mut found = BTreeMap::new();
    for event in events.iter().filter(|event| matters(event)) {
        found.insert((order[&event.pid], event.processor), event.pid);
    }
    for (pid, place) in &order {
        // But each process has one lane at least.
        if !found.keys().any(|(of, _)| of == place) {
            found.insert((*place, Processor::Outside), *pid);
        }
    }
    let index: HashMap<_, _> = found.keys().copied().zip(0..).collect();
    let lane_of = events.iter().map(|event| {
        let place = order[&event.pid];
        let own = index.get(&(place, event.processor));
        let first = || found.keys().position(|(of, _)| *of == place);
        own.copied().or_else(first).unwrap_or(0)
    });
    let lane_of = lane_of.collect();
    let lanes = found.into_iter().map(|((_, processor), pid)| Lane {
        pid,
        process: names.get(&pid).map_or("process", |name| name).into(),
        processor,
    });
    (lanes.collect(), lane_of)
}

/// If this is a return: on a landing, and to its donor. What it had lent onwards comes back as to a worker.
fn leaves_landing(event: &Event) -> bool {
    matches!(event.processor, Processor::Landing { peer, .. } if event.peer == Some(peer))
}

fn spans(events: &[&Event], lane_of: &[usize]) -> Vec<Span> {
    let mut open: BTreeMap<(usize, u8), Span> = BTreeMap::new();
    let mut spans = Vec::new();
    for (i, event) in events.iter().enumerate() {
        let landing = leaves_landing(event);
        let (state, begins) = match event.what {
            What::Donate => (State::Lent, true),
            What::Return if !landing => (State::Lent, false),
            What::Reclaim => (State::Lent, false),
            What::Arrive => (State::Landed, true),
            What::Return => (State::Landed, false),
            What::Rest => (State::Resting, true),
            What::Wake => (State::Resting, false),
            _ => continue,
        };
        let lane = lane_of[i];
        let key = (lane, state as u8);
        // One whose end is missing ends where the next one begins.
        if let Some(mut span) = open.remove(&key) {
            span.to = i;
            spans.push(span);
        }
        if begins {
            let to = events.len();
            let peer = event.peer;
            let span = Span {
                lane,
                state,
                from: i,
                to,
                peer,
            };
            open.insert(key, span);
        }
    }
    spans.extend(open.into_values());
    spans.sort_by_key(|span| span.from);
    spans
}

fn arrows(events: &[&Event]) -> Vec<Arrow> {
    // By sender, receiver, call and kind: what is on its way.
    let mut on_the_way: HashMap<(u32, u32, Option<u32>, u8), VecDeque<usize>> = HashMap::new();
    let mut arrows = Vec::new();
    for (i, event) in events.iter().enumerate() {
        let landing = leaves_landing(event);
        let (sent, leaves) = match event.what {
            What::Call => (Sent::Call, true),
            What::Receive => (Sent::Call, false),
            What::Reply => (Sent::Reply, true),
            What::Resume => (Sent::Reply, false),
            What::Donate => (Sent::Donation, true),
            What::Arrive => (Sent::Donation, false),
            What::Return => (Sent::Return, landing),
            _ => continue,
        };
        let Some(peer) = event.peer else { continue };
        if leaves {
            let key = (event.pid, peer, event.call, sent as u8);
            let queue = on_the_way.entry(key).or_default();
            if event.call.is_some() {
                queue.clear(); // an id is used again only when its call is over
            }
            queue.push_back(i);
        } else {
            let key = (peer, event.pid, event.call, sent as u8);
            if let Some(from) = on_the_way.get_mut(&key).and_then(VecDeque::pop_front) {
                arrows.push(Arrow { sent, from, to: i });
            }
        }
    }
    arrows
}
