//! The keeper: one thread that waits for what only the kernel can tell.
//!
//! It holds no processor and runs no task, so that a handler which blocks cannot stop it. It sleeps in
//! one epoll on the listening sockets, on connections whose handshake is not finished, on the peers'
//! hang-ups and pidfds, on the bell while no worker sits there, and on the next timer while no
//! processor would see to it.

mod door;
mod unread;

use std::os::fd::OwnedFd;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use rustix::event::epoll::{self, CreateFlags, EventData, EventFlags};
use rustix::event::{EventfdFlags, eventfd};
use slab::Slab;

use crate::bell::{Bell, timeout};
use crate::binding::Binding;
use crate::limits::{self, Caps};
use crate::node::{Node, lock};
use crate::quota::{Client, Place};
use crate::serve::Listener;
use crate::stats::add;
use crate::wire::Nanos;
use door::Door;
use unread::Unread;

/// What a token of the epoll stands for: the kind in the highest byte, a key below.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Token {
    Poke,
    Bell,
    Peer(u64),
    Pidfd(u64),
    Listener(u64),
    Unbound(u64),
    Unread(u64),
}

impl Token {
    fn pack(self) -> EventData {
        let (kind, key) = match self {
            Self::Poke => (0, 0),
            Self::Bell => (1, 0),
            Self::Peer(key) => (2, key),
            Self::Pidfd(key) => (3, key),
            Self::Listener(key) => (4, key),
            Self::Unbound(key) => (5, key),
            Self::Unread(key) => (6, key),
        };
        EventData::new_u64(kind << 56 | key)
    }

    fn unpack(data: EventData) -> Self {
        let word = data.u64();
        let key = word & (u64::MAX >> 8);
        match word >> 56 {
            0 => Self::Poke,
            1 => Self::Bell,
            2 => Self::Peer(key),
            3 => Self::Pidfd(key),
            4 => Self::Listener(key),
            5 => Self::Unbound(key),
            _ => Self::Unread(key),
        }
    }
}

/// See the [module's documentation](self).
pub(crate) struct Keeper {
    epoll: OwnedFd,
    poke: OwnedFd,
    poked: AtomicBool,
    listeners: Mutex<Slab<Arc<Listener>>>,
    door: Door,
    unread: Unread,
    /// Peers that are not heard until then.
    unheard: Mutex<Vec<(Instant, u64)>>,
    /// Peers that could not be rung, and are to be then.
    unrung: Mutex<Vec<(Instant, u64)>>,
    /// Closed, but some call may have been begun at that very moment.
    closing: Mutex<Vec<Arc<Binding>>>,
}

impl Keeper {
    pub(crate) fn new(caps: Caps) -> std::io::Result<Self> {
        let epoll = epoll::create(CreateFlags::CLOEXEC)?;
        let poke = eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)?;
        let flags = EventFlags::IN | EventFlags::ET;
        epoll::add(&epoll, &poke, Token::Poke.pack(), flags)?;
        Ok(Self {
            epoll,
            door: Door::new(caps, poke.try_clone()?),
            unread: Unread::default(),
            poke,
            poked: AtomicBool::new(false),
            listeners: Mutex::default(),
            unheard: Mutex::default(),
            unrung: Mutex::default(),
            closing: Mutex::default(),
        })
    }

    /// A bell that this keeper hears while nobody sits at it.
    pub(crate) fn new_bell(&self) -> std::io::Result<Bell> {
        let outer = self.epoll.try_clone()?;
        Bell::new(outer, Token::Bell.pack().u64())
    }

    /// Has the keeper look at everything once more.
    pub(crate) fn poke(&self) {
        self.poked.store(true, Ordering::Release);
        let _ = rustix::io::write(&self.poke, &1u64.to_ne_bytes());
    }

    /// Watches for a peer's end.
    pub(crate) fn watch_peer(&self, binding: &Binding) -> std::io::Result<()> {
        let key = binding.key.load(Ordering::Relaxed);
        let token = Token::Peer(key).pack();
        epoll::add(&self.epoll, &binding.socket, token, EventFlags::RDHUP)?;
        if let Some(pidfd) = binding.process.pidfd() {
            epoll::add(&self.epoll, pidfd, Token::Pidfd(key).pack(), EventFlags::IN)?;
        }
        Ok(())
    }

    /// Stops watching a closed binding, and sees to what may still wait for it.
    pub(crate) fn unwatch_peer(&self, binding: &Arc<Binding>) {
        let _ = epoll::delete(&self.epoll, &binding.socket);
        if let Some(pidfd) = binding.process.pidfd() {
            let _ = epoll::delete(&self.epoll, pidfd);
        }
        lock(&self.closing).push(Arc::clone(binding));
        self.poke();
    }

    /// Keeps the place of a closed channel until its peer has read all that was sent to it.
    pub(crate) fn until_read(&self, socket: &Arc<OwnedFd>, place: Place) {
        self.unread.keep(&self.epoll, socket, place);
    }

    /// Has the bell listen to a peer again, from then on.
    pub(crate) fn listen_again(&self, key: u64, at: Instant) {
        lock(&self.unheard).push((at, key));
        self.poke();
    }

    /// Rings a peer again for which the kernel had no memory.
    pub(crate) fn ring_again(&self, key: u64) {
        let mut unrung = lock(&self.unrung);
        if unrung.iter().all(|&(_, other)| other != key) {
            unrung.push((Instant::now() + limits::RESPITE, key));
            self.poke();
        }
    }

    /// Accepts bindings for a server.
    pub(crate) fn listen(&self, listener: &Arc<Listener>) -> std::io::Result<()> {
        let key = lock(&self.listeners).insert(Arc::clone(listener)) as u64;
        listener.key.store(key, Ordering::Relaxed);
        let token = Token::Listener(key).pack();
        let added =
            listener.with_socket(|socket| epoll::add(&self.epoll, socket, token, EventFlags::IN));
        if let Some(Err(error)) = added {
            lock(&self.listeners).try_remove(key as usize);
            return Err(error.into());
        }
        Ok(())
    }

    /// Accepts no more for it; connections that are not bound yet are dropped.
    pub(crate) fn unlisten(&self, listener: &Arc<Listener>) {
        listener.with_socket(|socket| epoll::delete(&self.epoll, socket));
        let key = listener.key.load(Ordering::Relaxed);
        lock(&self.listeners).try_remove(key as usize);
        self.door.forget(&self.epoll, listener);
    }

    /// Takes a connection that is not bound yet, and that this process has made itself.
    pub(crate) fn greet(&self, socket: OwnedFd, listener: &Arc<Listener>) -> std::io::Result<()> {
        self.door.greet(&self.epoll, socket, listener)?;
        self.poke(); // for its time limit
        Ok(())
    }

    /// This client broke the protocol.
    pub(crate) fn offended(&self, client: Client) {
        self.door.offended(client);
    }

    /// Looks away from a listener for a moment.
    fn shut(&self, listener: &Listener, key: u64) {
        self.watch(listener, key, EventFlags::empty());
        self.door.shut();
    }

    fn watch(&self, listener: &Listener, key: u64, flags: EventFlags) {
        let token = Token::Listener(key).pack();
        listener.with_socket(|socket| epoll::modify(&self.epoll, socket, token, flags));
    }

    /// Nothing is watched any more: who listened here, or waited at the door, is told so.
    pub(crate) fn clear(&self) {
        let listeners = std::mem::take(&mut *lock(&self.listeners));
        for (_, listener) in listeners {
            listener.stop();
            listener.end();
        }
        self.door.clear(&self.epoll);
        self.unread.clear();
        lock(&self.unheard).clear();
        lock(&self.unrung).clear();
        lock(&self.closing).clear();
    }
}

/// The keeper's thread.
pub(crate) fn run(node: &Arc<Node>) {
    let keeper = &node.keeper;
    let mut events = Vec::with_capacity(64);
    let mut again = None;
    while !node.stopping.load(Ordering::Acquire) {
        let until = timeout(again);
        events.clear();
        let buffer = rustix::buffer::spare_capacity(&mut events);
        match epoll::wait(&keeper.epoll, buffer, until.as_ref()) {
            Ok(_) | Err(rustix::io::Errno::INTR) => {}
            // Whatever the system lacks: nothing would go on without this thread.
            Err(_) => std::thread::sleep(limits::RESPITE),
        }
        for event in &events {
            let data = event.data;
            match Token::unpack(data) {
                Token::Poke => {}
                Token::Bell => hear(node),
                Token::Peer(key) | Token::Pidfd(key) => {
                    if let Some(binding) = node.binding(key) {
                        binding.hang_up();
                    }
                }
                Token::Listener(key) => door::accept(node, key),
                Token::Unbound(key) => door::advance(node, key),
                Token::Unread(key) => keeper.unread.look(&keeper.epoll, key),
            }
        }
        again = see_to_time(node, again);
    }
    Node::forget_bindings();
}

/// The bell rang and nobody sits there: somebody has to scan.
fn hear(node: &Arc<Node>) {
    add(&node.counters.system_calls, 1);
    node.bell.heard(|key| node.answer(key));
    node.look();
}

/// Timers, deadlines and what is left of closed channels. Says when to look again.
fn see_to_time(node: &Arc<Node>, before: Option<Instant>) -> Option<Instant> {
    let keeper = &node.keeper;
    let poked = keeper.poked.swap(false, Ordering::AcqRel);
    let now = Instant::now();
    let mut again: Option<Instant> = None;
    let mut sooner = |at: Instant| again = Some(again.map_or(at, |other| other.min(at)));

    // Outside of the lock: a waker can run anything.
    let mut closing = std::mem::take(&mut *lock(&keeper.closing));
    closing.retain(|binding| {
        binding.fail_pending();
        binding.pending.unsettled()
    });
    if !closing.is_empty() {
        lock(&keeper.closing).append(&mut closing);
        sooner(now + Duration::from_millis(5));
    }
    let (next, opens) = keeper.door.see_to_time(&keeper.epoll, now);
    next.into_iter().for_each(&mut sooner);
    if opens {
        for (key, listener) in &*lock(&keeper.listeners) {
            keeper.watch(listener, key as u64, EventFlags::IN);
        }
    }
    lock(&keeper.unheard).retain(|&(at, key)| {
        let stays = at > now;
        if stays {
            sooner(at);
        } else if let Some(binding) = node.binding(key) {
            node.bell.listen(&binding.socket, key, true);
        }
        stays
    });
    // Outside of the lock: what fails again is put there again.
    let due = |&mut (at, _): &mut (Instant, u64)| at <= now;
    let unrung: Vec<_> = lock(&keeper.unrung).extract_if(.., due).collect();
    for (_, key) in unrung {
        if let Some(binding) = node.binding(key) {
            binding.ring();
        }
    }
    lock(&keeper.unrung).iter().for_each(|&(at, _)| sooner(at));
    let Some(executor) = node.executor() else {
        return again;
    };
    // While some processor is held, its worker sees to timers and deadlines, unless this thread was
    // told of one.
    let alone = executor.unheld() == executor.processors();
    if alone || poked || before.is_some_and(|at| at <= now) {
        executor.timers().fire_due(now);
        node.expire(Nanos::now());
    }
    if alone || poked {
        executor.timers().next().into_iter().for_each(&mut sooner);
        let deadline = node.next_deadline().to_instant();
        deadline.into_iter().for_each(&mut sooner);
    }
    again
}
