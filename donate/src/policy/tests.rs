//! Each row of the table once. Its properties over all states are in `tests/policy.rs`.

use super::*;

const HERE: Here = Here {
    ready: false,
    lent: None,
    may_lend: true,
    cpus: 2,
    may_spin: true,
    due_in: None,
};

fn decide(here: Here, peers: &[PeerView]) -> Action {
    Optimistic.decide(&here, peers)
}

fn peer(processors: u32, resting: u32) -> PeerView {
    PeerView {
        unread: true,
        outstanding: true,
        presence: View {
            processors,
            resting,
        },
        landing_free: true,
        ..PeerView::default()
    }
}

fn donate(to: usize) -> Action {
    Action::Donate { to, ring: false }
}

#[test]
fn a_peer_without_a_processor_is_given_one() {
    for view in [peer(0, 0), peer(2, 2)] {
        assert_eq!(decide(HERE, &[view]), donate(0));
    }
}

#[test]
fn the_peer_that_has_waited_longest_is_served_first() {
    let waits = |us| PeerView {
        unserved: Duration::from_micros(us),
        ..peer(0, 0)
    };
    assert_eq!(decide(HERE, &[waits(1), waits(3), waits(2)]), donate(1));
    let stuck = PeerView {
        landing_free: false,
        ..waits(9)
    };
    let peers = [waits(1), waits(3), stuck];
    assert_eq!(decide(HERE, &peers), Action::Ring(2), "it is rung first");
}

#[test]
fn a_task_that_is_ready_comes_before_a_peer_unless_a_call_is_urgent() {
    let busy = Here {
        ready: true,
        ..HERE
    };
    assert_eq!(decide(busy, &[peer(0, 0)]), Action::Run);
    let urgent = PeerView {
        urgent: true,
        ..peer(0, 0)
    };
    assert_eq!(decide(busy, &[peer(0, 0), urgent]), donate(1));
    let stuck = PeerView {
        landing_free: false,
        ..urgent
    };
    assert_eq!(decide(busy, &[peer(0, 0), stuck]), Action::Ring(1));
    let rung = PeerView {
        rung: true,
        ..stuck
    };
    assert_eq!(decide(busy, &[rung]), Action::Run);
    let awake = PeerView {
        urgent: true,
        ..peer(1, 0)
    };
    assert_eq!(decide(busy, &[awake]), Action::Run);
}

#[test]
fn a_processor_that_was_lent_goes_back_when_all_is_served_or_nothing_is_ready() {
    let landing = |served, ready| Here {
        ready,
        lent: Some(Lent {
            served,
            wanted: false,
        }),
        may_lend: false,
        may_spin: false,
        ..HERE
    };
    assert_eq!(decide(landing(true, true), &[]), Action::Return);
    assert_eq!(decide(landing(false, true), &[]), Action::Run);
    assert_eq!(decide(landing(false, false), &[]), Action::Return);
    let sleeps = [peer(0, 0)];
    assert_eq!(decide(landing(false, false), &sleeps), Action::Ring(0));
}

#[test]
fn a_processor_that_was_lent_goes_onwards_unless_its_owner_wants_it() {
    let landing = |ready, wanted| Here {
        ready,
        lent: Some(Lent {
            served: false,
            wanted,
        }),
        may_spin: false,
        due_in: Some(WORTH),
        ..HERE
    };
    let peers = [peer(0, 0)];
    assert_eq!(decide(landing(false, false), &peers), donate(0));
    assert_eq!(decide(landing(true, false), &peers), Action::Run);
    assert_eq!(decide(landing(false, true), &peers), Action::Return);
    assert_eq!(decide(landing(true, true), &peers), Action::Run);
    let late = Here {
        due_in: Some(WORTH / 2),
        ..landing(false, false)
    };
    assert_eq!(
        decide(late, &peers),
        Action::Ring(0),
        "it would hardly arrive"
    );
}

#[test]
fn a_peer_that_is_awake_is_left_to_it_while_we_may_spin() {
    assert_eq!(decide(HERE, &[peer(2, 1)]), Action::Scan);
    let tired = Here {
        may_spin: false,
        ..HERE
    };
    assert_eq!(decide(tired, &[peer(2, 1)]), Action::Ring(0));
    assert_eq!(decide(tired, &[peer(2, 0)]), Action::Rest(Some(STUCK)));
}

#[test]
fn a_peer_that_is_awake_and_reads_nothing_is_lent_a_processor_too() {
    let waits = |unserved| PeerView {
        unserved,
        ..peer(2, 0)
    };
    let tired = Here {
        may_spin: false,
        ..HERE
    };
    let part = STUCK / 5;
    assert_eq!(
        decide(tired, &[waits(part)]),
        Action::Rest(Some(STUCK - part))
    );
    assert_eq!(decide(tired, &[waits(STUCK)]), donate(0));
    let gone = PeerView {
        landing_free: false,
        ..waits(STUCK)
    };
    assert_eq!(
        decide(tired, &[gone]),
        Action::Rest(None),
        "a ring wakes nobody"
    );
}

#[test]
fn work_that_stays_wakes_a_processor_that_stays() {
    let often = PeerView {
        streak: PATIENCE,
        ..peer(1, 1)
    };
    let both = Action::Donate { to: 0, ring: true };
    assert_eq!(decide(HERE, &[often]), both);
    let single = Here { cpus: 1, ..HERE };
    assert_eq!(decide(single, &[often]), donate(0));
}

#[test]
fn who_cannot_donate_rings_once() {
    let guest = Here {
        may_lend: false,
        ..HERE
    };
    let soon = Here {
        due_in: Some(WORTH / 2),
        ..HERE
    };
    let barred = PeerView {
        barred: STUCK,
        ..peer(0, 0)
    };
    for (here, view) in [(guest, peer(0, 0)), (soon, peer(0, 0)), (HERE, barred)] {
        assert_eq!(decide(here, &[view]), Action::Ring(0));
        let rung = PeerView { rung: true, ..view };
        assert_eq!(decide(here, &[rung]), Action::Scan);
    }
}

#[test]
fn with_nothing_outstanding_a_processor_rests_until_something_is_due() {
    assert_eq!(decide(HERE, &[]), Action::Rest(None));
    assert_eq!(decide(HERE, &[PeerView::default()]), Action::Rest(None));
    let due_in = Some(Duration::from_millis(3));
    let waits = Here { due_in, ..HERE };
    assert_eq!(decide(waits, &[]), Action::Rest(due_in));
}
