//! What calls that have ended leave to those that follow: memory, the handle of their peer, and their id.
//!
//! So a call allocates nothing; and calls to one peer, one after the other or so many at a time, count no
//! references and take no id from the common list, which would be four locked instructions for each. Handles
//! and ids are kept by threads that work for a runtime, and all of one peer: the one called last. A thread lets
//! go of these before it rests, and at its next look around where they are in somebody's way: where the
//! channel is closed, or a caller waits for an id, or nobody else holds the channel open.

// A call is moved from its spare and back as a pointer; that is what the boxes are for.
#![allow(clippy::vec_box)]

use std::cell::RefCell;

use crate::call::RawCall;
use crate::cell;
use crate::node::Node;
use crate::peer::Peer;
use crate::pending::Kept;
use crate::woken;

/// Spares of one thread at most: as many calls at a time as a ring is ever well filled by.
const MOST: usize = 64;

/// How many a thread may keep of the ids of a channel that has `calls` of them, in a runtime of so many
/// `processors`: all threads together a quarter. So a caller that waits for an id waits for calls to end, which
/// then leave none.
pub(crate) fn limit(calls: u32, processors: usize) -> usize {
    MOST.min(calls as usize / (4 * processors.max(1)))
}

thread_local! {
    /// At the bottom those that are only memory, above them those of one peer.
    static SPARES: RefCell<Vec<Box<RawCall>>> = const { RefCell::new(Vec::new()) };
}

/// What a call to `peer` begins with.
#[inline]
pub(crate) fn take(peer: &Peer) -> Box<RawCall> {
    let last = SPARES.try_with(|spares| spares.borrow_mut().pop());
    match last.ok().flatten() {
        Some(spare) if spare.is_of(peer) => spare,
        spare => renew(peer, spare),
    }
}

#[cold]
fn renew(peer: &Peer, spare: Option<Box<RawCall>>) -> Box<RawCall> {
    let mut spare = spare.unwrap_or_default();
    drop(spare.handle.replace(Handle::new(peer.clone())));
    spare
}

/// Takes what a call leaves that has ended.
#[inline]
pub(crate) fn keep(spare: Box<RawCall>) {
    let push = |spares: &RefCell<Vec<Box<RawCall>>>| {
        let mut spares = spares.borrow_mut();
        let fits = spare.handle.as_ref().is_some_and(|handle| {
            let binding = handle.peer.binding();
            let of_one_peer = spares
                .last()
                .is_none_or(|last| last.is_of_no_other_than(&handle.peer));
            of_one_peer && spares.len() < binding.spares && !binding.pending.is_awaited()
        });
        if !fits || !Node::works() || spares.len() == spares.capacity() {
            return Some(spare);
        }
        spares.push(spare);
        None
    };
    // There is no place any more at the end of a thread: then it is dropped.
    if let Ok(Some(spare)) = SPARES.try_with(push) {
        keep_some_of(spare);
    }
}

/// Keeps the memory in any case, and what else may be kept.
#[cold]
fn keep_some_of(mut spare: Box<RawCall>) {
    if let Some(handle) = &mut spare.handle
        && Node::works()
    {
        let others = |spares: &Vec<Box<RawCall>>| match spares.last() {
            Some(last) if !last.is_of_no_other_than(&handle.peer) => None,
            _ => Some(spares.len()),
        };
        let binding = handle.peer.binding();
        match SPARES.with_borrow(others) {
            None => {
                let_go();
            }
            Some(others) if others < binding.spares && !binding.pending.is_awaited() => {}
            Some(_) => handle.give_back_id(),
        }
    } else {
        spare.handle = None;
    }
    let surplus = SPARES.with_borrow_mut(|spares| {
        if spares.len() < MOST {
            spares.push(spare);
            return None;
        }
        Some(spare)
    });
    drop(surplus);
}

/// Lets go of all handles and ids of this thread, of its buffers, services and wakers. True if there were any handles.
pub(crate) fn let_go() -> bool {
    urpc_channel::let_go_of_buffers();
    cell::let_go();
    woken::let_go();
    // One at a time, and dropped when they are no longer borrowed: what the last handle of a channel does as it
    // goes may come here again.
    let (mut i, mut any) = (0, false);
    while let Some(handle) = SPARES.with_borrow_mut(|spares| Some(spares.get_mut(i)?.handle.take()))
    {
        any |= handle.is_some();
        drop(handle);
        i += 1;
    }
    any
}

/// Lets go of handles and ids that are in somebody's way.
pub(crate) fn let_go_if_in_the_way() {
    let in_the_way = |spares: &Vec<Box<RawCall>>| {
        let last = spares.last().and_then(|spare| spare.handle.as_ref());
        last.is_some_and(|Handle { peer, .. }| {
            let binding = peer.binding();
            binding.is_closed()
                || binding.pending.is_awaited()
                || peer.handles() == handles_of(peer, spares)
        })
    };
    if SPARES.with_borrow(in_the_way) {
        let_go();
    }
}

/// A handle of `peer` is being dropped. If all the others are spares of this thread, they go, too.
#[inline]
pub(crate) fn follow(peer: &Peer) {
    let others = peer.handles() - 1;
    if (1..=MOST).contains(&others) {
        // There are none at the end of a thread, and while they are borrowed none goes.
        let all = |spares: &RefCell<Vec<Box<RawCall>>>| {
            let spares = spares.try_borrow();
            spares.is_ok_and(|spares| handles_of(peer, &spares) == others)
        };
        if SPARES.try_with(all).unwrap_or(false) {
            let_go();
        }
    }
}

fn handles_of(peer: &Peer, spares: &[Box<RawCall>]) -> usize {
    let handles = spares.iter().filter_map(|spare| spare.handle.as_ref());
    handles.filter(|handle| handle.peer.is(peer)).count()
}

/// What a call has of its peer: a handle, and perhaps an id that is kept for it.
pub(crate) struct Handle {
    pub(crate) peer: Peer,
    pub(crate) id: Option<Kept>,
}

impl Handle {
    fn new(peer: Peer) -> Self {
        Self { peer, id: None }
    }

    fn give_back_id(&mut self) {
        if let Some(id) = self.id.take() {
            self.peer.binding().pending.give_back(id);
        }
    }
}

impl Drop for Handle {
    fn drop(&mut self) {
        self.give_back_id();
    }
}
