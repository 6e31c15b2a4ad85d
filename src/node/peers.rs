//! The peers of a node: the channels that are open, and what each thread remembers of them.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, Weak};

use super::{Node, lock};
use crate::binding::Binding;
use crate::caller;
use crate::idle::{FEW, Round};
use crate::landing;
use crate::spare;

/// The open channels.
pub(super) struct Peers {
    /// By a key that is never used again: an event that comes late names nobody else.
    bindings: Mutex<BTreeMap<u64, Arc<Binding>>>,
    /// The same as a list, made anew with each change, so that it costs little to look at and to forget.
    list: Mutex<List>,
    next_key: AtomicU64,
    /// Changes with the list of bindings.
    version: AtomicU64,
    crowded: AtomicBool,
}

impl Peers {
    pub(super) fn new() -> Self {
        Self {
            bindings: Mutex::default(),
            list: Mutex::default(),
            next_key: AtomicU64::new(0),
            version: AtomicU64::new(1),
            crowded: AtomicBool::new(false),
        }
    }
}

/// All open bindings at one moment.
pub(crate) type List = Arc<Vec<Arc<Binding>>>;

/// What a thread keeps for itself between two scans. It forgets the bindings before it sleeps for long: a closed
/// channel must not stay mapped, nor its descriptors open, for its sake.
#[derive(Default)]
struct Local {
    of: Weak<Node>,
    version: u64,
    round: Round,
}

thread_local! {
    static LOCAL: RefCell<Local> = RefCell::new(Local::default());
}

impl Node {
    /// Adds an open binding: from here on it is scanned. One that could not be watched is to be closed.
    pub(crate) fn add(self: &Arc<Self>, binding: &Arc<Binding>) -> std::io::Result<()> {
        let key = self.peers.next_key.fetch_add(1, Ordering::Relaxed);
        binding.key.store(key, Ordering::Relaxed);
        self.change(|bindings| bindings.insert(key, Arc::clone(binding)));
        self.bell.add(&binding.socket, key)?;
        self.keeper.watch_peer(binding)?;
        if self.stopping.load(Ordering::Acquire) {
            // `stop` may have closed all it found before this one was there.
            binding.close("its runtime has ended");
        }
        if binding.is_closed() {
            // Who closed it took it out of the epolls before it was there; its socket would ring for ever.
            self.bell.remove(&binding.socket);
            self.keeper.unwatch_peer(binding);
            return Ok(());
        }
        self.open_landing(binding, 0);
        // Something may have been sent before anybody looked.
        self.look();
        Ok(())
    }

    /// Opens landing `k` of a channel, if it is to have so many.
    pub(crate) fn open_landing(self: &Arc<Self>, binding: &Arc<Binding>, k: usize) {
        if self.lends && k < binding.landings.len() && !binding.is_closed() {
            let binding = Arc::clone(binding);
            // Without its landing a channel still works: its peer rings.
            let _ = self.thread("urpc-landing", move |node| landing::run(node, &binding, k));
        }
    }

    /// Forgets a closed binding.
    pub(crate) fn remove(&self, binding: &Arc<Binding>) {
        let key = binding.key.load(Ordering::Relaxed);
        if self.change(|bindings| bindings.remove(&key)).is_none() {
            return; // it was never added
        }
        *lock(&self.past) += binding.stats();
        self.bell.remove(&binding.socket);
        self.keeper.unwatch_peer(binding);
    }

    /// Changes the list of bindings.
    fn change<R>(&self, change: impl FnOnce(&mut BTreeMap<u64, Arc<Binding>>) -> R) -> R {
        let mut bindings = lock(&self.peers.bindings);
        let result = change(&mut bindings);
        self.peers
            .crowded
            .store(bindings.len() > FEW, Ordering::Relaxed);
        let list = Arc::new(bindings.values().cloned().collect());
        // Dropped when nothing is locked any more: a binding may go with it.
        let _before = std::mem::replace(&mut *lock(&self.peers.list), list);
        self.peers.version.fetch_add(1, Ordering::Release);
        drop(bindings);
        result
    }

    /// All open bindings.
    pub(crate) fn bindings(&self) -> Vec<Arc<Binding>> {
        let bindings = lock(&self.peers.bindings);
        bindings.values().cloned().collect()
    }

    /// The binding of this key, if it is still open.
    pub(crate) fn binding(&self, key: u64) -> Option<Arc<Binding>> {
        lock(&self.peers.bindings).get(&key).cloned()
    }

    /// The same, shared by whoever looks.
    pub(crate) fn list(&self) -> List {
        Arc::clone(&lock(&self.peers.list))
    }

    /// This thread's copy of the list.
    pub(crate) fn local_bindings(&self) -> List {
        self.with_round(|round| Arc::clone(round.all()))
    }

    /// Runs `f` with what this thread knows of the channels.
    #[inline]
    pub(crate) fn with_round<R>(&self, f: impl FnOnce(&mut Round) -> R) -> R {
        LOCAL.with_borrow_mut(|local| {
            let version = self.peers.version.load(Ordering::Acquire);
            if local.version != version || !std::ptr::eq(local.of.as_ptr(), self) {
                self.renew(local, version);
            }
            f(&mut local.round)
        })
    }

    #[cold]
    fn renew(&self, local: &mut Local, version: u64) {
        if !std::ptr::eq(local.of.as_ptr(), self) {
            local.round = Round::default();
            local.of = self.me.clone();
        }
        local.round.renew(self.list());
        local.version = version;
        // A closed channel must not stay mapped for this thread's sake.
        caller::forget();
    }

    /// Whether there are more channels than a thread looks at each time.
    #[inline]
    pub(crate) fn is_crowded(&self) -> bool {
        self.peers.crowded.load(Ordering::Relaxed)
    }

    /// Lets go of all channels this thread still knows of.
    pub(crate) fn forget_bindings() {
        spare::let_go();
        Self::forget_list();
    }

    /// The same, but for what calls have left to those that follow.
    pub(crate) fn forget_list() {
        LOCAL.with_borrow_mut(|local| {
            local.round.forget();
            local.version = 0; // no list has this one: the next look makes a new copy
        });
        caller::forget();
    }
}
