//! Ids, deadlines and answers of the calls of one channel.

use std::sync::{Arc, Mutex};
use std::task::Wake;
use std::time::Duration;

use super::*;

fn pending(calls: u32) -> Pending {
    Pending::new(calls)
}

#[test]
fn there_are_as_many_ids_as_credit() {
    for calls in [1, 63, 64, 65, 1024] {
        let pending = pending(calls);
        let ids: Vec<_> = (0..calls)
            .map(|_| {
                pending
                    .begin(None, Some(Waker::noop()), Nanos::NEVER)
                    .unwrap()
            })
            .collect();
        assert!(
            pending
                .begin(None, Some(Waker::noop()), Nanos::NEVER)
                .is_none()
        );
        for id in ids {
            pending.undo(id);
        }
        assert!(!pending.outstanding());
        assert_eq!(pending.count(), u64::from(calls));
    }
}

#[test]
fn an_index_beyond_the_table_is_unknown() {
    let pending = pending(2);
    assert!(matches!(pending.deliver(2, |_| ()), Delivery::Unknown));
}

#[test]
fn deadlines_are_found_in_order() {
    let pending = pending(4);
    let late = pending.begin(None, Some(Waker::noop()), Nanos(50)).unwrap();
    let early = pending.begin(None, Some(Waker::noop()), Nanos(20)).unwrap();
    assert_eq!(pending.next_deadline(), Nanos(20));
    pending.undo(early);
    pending.expire(Nanos(30));
    assert_eq!(pending.next_deadline(), Nanos(50));
    pending.undo(late);
    pending.expire(Nanos(60));
    assert_eq!(pending.next_deadline(), Nanos::NEVER);
}

#[test]
fn who_looks_for_the_next_deadline_while_others_expire_is_not_told_that_there_is_none() {
    /// Looks when it is woken, from within `expire`.
    struct Looks(Pending, Mutex<Vec<Nanos>>);
    impl Wake for Looks {
        fn wake(self: Arc<Self>) {
            self.0.expire(Nanos::NEVER); // not twice at a time
            self.1.lock().unwrap().push(self.0.next_deadline());
        }
    }
    let looks = Arc::new(Looks(pending(2), Mutex::default()));
    let (waker, pending) = (Waker::from(Arc::clone(&looks)), &looks.0);
    let now = Nanos::now();
    let (late, due) = (now.after(Duration::from_secs(9)), Nanos(now.0 - 1));
    pending.begin(None, Some(&waker), due).unwrap();
    pending.begin(None, Some(Waker::noop()), late).unwrap();
    pending.expire(now);
    let seen = std::mem::take(&mut *looks.1.lock().unwrap());
    assert!(seen.len() == 1 && seen[0] < late, "{seen:?}");
    assert_eq!(pending.next_deadline(), late);
}

#[test]
fn an_id_that_is_kept_is_settled() {
    let pending = pending(2);
    let id = pending
        .begin(None, Some(Waker::noop()), Nanos::NEVER)
        .unwrap();
    pending.deliver(id, |answer| *answer = Ok(Body::EMPTY));
    let (.., kept, _) = pending.take(id, |_| ()).unwrap();
    assert!(!pending.unsettled() && pending.outstanding());
    let begun = pending.begin(Some(kept), Some(Waker::noop()), Nanos::NEVER);
    assert!(begun.is_some() && pending.unsettled());
}

#[test]
fn all_callers_are_answered_when_the_channel_closes() {
    let pending = pending(3);
    let a = pending
        .begin(None, Some(Waker::noop()), Nanos::NEVER)
        .unwrap();
    let b = pending
        .begin(None, Some(Waker::noop()), Nanos::NEVER)
        .unwrap();
    assert_eq!(pending.abandon(b), Ok(()));
    assert!(pending.unsettled());
    pending.fail_all(CallError::forked);
    assert!(!pending.unsettled() && pending.outstanding());
    let (is_error, kept, _) = pending.take(a, |answer| answer.is_err()).unwrap();
    assert!(is_error);
    assert!(pending.outstanding());
    pending.give_back(kept);
    assert!(!pending.outstanding());
}
