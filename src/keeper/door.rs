//! The door: connections on their way to a binding, of which some will never say anything.
//!
//! Who it is comes first, by the kernel's word. Whoever says its hello at once is bound at once, and waits for
//! nobody else. The others may wait for a while, so many in all and so many of each client; one more of a client
//! that has its share is refused, and one more than there may be in all takes the place of the oldest of the
//! client that has most. Where the system has no descriptor left, connections are turned away by means of
//! a spare one; if that is gone, too, they are left in the queue for a moment: nothing spins. Whoever broke the
//! protocol and comes again waits, the longer the more often that was.

use std::collections::HashMap;
use std::collections::btree_map::{BTreeMap, Entry};
use std::io;
use std::os::fd::OwnedFd;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Instant;

use rustix::event::epoll::{self, EventFlags};
use urpc_donate::{Credentials, Patience, PeerProcess};

use super::Token;
use crate::bind::{self, Greeting, Received, With, foreign};
use crate::binding::Binding;
use crate::error::{Error, ErrorKind, Result};
use crate::limits::{self, Caps};
use crate::node::{Node, lock};
use crate::quota::{self, Client};
use crate::serve::Listener;

/// A connection whose handshake is not finished.
struct Unbound {
    socket: Arc<OwnedFd>,
    process: PeerProcess,
    received: Received,
    until: Instant,
    /// Nothing of it is read before this.
    not_before: Option<Instant>,
    listener: Arc<Listener>,
}

impl Unbound {
    fn new(
        socket: Arc<OwnedFd>,
        process: PeerProcess,
        received: Received,
        listener: &Arc<Listener>,
    ) -> Self {
        Self {
            socket,
            process,
            received,
            until: Instant::now() + limits::HANDSHAKE,
            not_before: None,
            listener: Arc::clone(listener),
        }
    }

    fn client(&self) -> Client {
        Client::of(self.process.credentials())
    }

    /// Reads what is there. True if that was all of its hello.
    fn advance(&mut self) -> Result<bool> {
        self.received.advance(&self.socket)
    }

    /// Not to be bound any more: its peer is told why, and its server, which may wait for nobody else. Not under the
    /// lock, since whoever waits for that server is woken.
    fn give_up(self, epoll: &OwnedFd, why: &Error) {
        // A forked child may keep the socket open, and so its place in the epoll.
        let _ = epoll::delete(epoll, &self.socket);
        bind::refuse(self.socket, why);
        self.listener.refused(why);
    }
}

/// By a key that is never used again: an event that comes late names nobody else.
type Waiting = BTreeMap<u64, Unbound>;

/// See the [module's documentation](self).
pub(super) struct Door {
    unbound: Mutex<Waiting>,
    next_key: AtomicU64,
    most: usize,
    most_of_one: usize,
    /// Clients that broke the protocol, and until when those wait that come again.
    offenders: Mutex<HashMap<Client, (Patience, Instant)>>,
    /// To be closed when there is no other descriptor.
    spare: Mutex<Option<OwnedFd>>,
    /// Nobody is accepted before this.
    shut_until: Mutex<Option<Instant>>,
}

fn overloaded(why: &str) -> Error {
    Error::new(ErrorKind::Overloaded, why)
}

impl Door {
    pub(super) fn new(caps: Caps, spare: OwnedFd) -> Self {
        Self {
            unbound: Mutex::default(),
            next_key: AtomicU64::new(0),
            most: caps.unbound,
            most_of_one: quota::share(caps.unbound as u64, caps.share) as usize,
            offenders: Mutex::default(),
            spare: Mutex::new(Some(spare)),
            shut_until: Mutex::new(None),
        }
    }

    /// A client broke the protocol. Making a channel takes time of ours, which is not to be had without end.
    pub(super) fn offended(&self, client: Client) {
        let now = Instant::now();
        let mut all = lock(&self.offenders);
        if all.len() >= limits::OFFENDERS {
            all.retain(|_, (_, until)| *until > now);
        }
        let fresh = || (Patience::new(0, limits::LONGEST_WAIT), now);
        let (patience, until) = all.entry(client).or_insert_with(fresh);
        *until = now + patience.in_vain(now).unwrap_or_default();
    }

    /// Until when this client has to wait.
    fn sentence(&self, client: Client) -> Option<Instant> {
        let all = lock(&self.offenders);
        let (_, until) = all.get(&client)?;
        (*until > Instant::now()).then_some(*until)
    }

    /// Takes a connection that this process has made itself, or was given. Who is there will be said with the hello.
    pub(super) fn greet(
        &self,
        epoll: &OwnedFd,
        socket: OwnedFd,
        listener: &Arc<Listener>,
    ) -> io::Result<()> {
        foreign::in_line(&socket)?;
        let maker = PeerProcess::of(Credentials::of(&socket)?);
        let unbound = Unbound::new(Arc::new(socket), maker, Received::signed(), listener);
        self.add(&mut lock(&self.unbound), epoll, unbound)
    }

    fn add(&self, all: &mut Waiting, epoll: &OwnedFd, unbound: Unbound) -> io::Result<()> {
        let key = self.next_key.fetch_add(1, Ordering::Relaxed);
        let flags = match unbound.not_before {
            None => EventFlags::IN,
            Some(_) => EventFlags::empty(),
        };
        epoll::add(epoll, &unbound.socket, Token::Unbound(key).pack(), flags)?;
        all.insert(key, unbound);
        Ok(())
    }

    /// Lets one wait that has not said its hello yet, if it may.
    fn wait_for(&self, epoll: &OwnedFd, unbound: Unbound) -> Result<(), (Arc<OwnedFd>, Error)> {
        let mut all = lock(&self.unbound);
        let mut counts = HashMap::new();
        for other in all.values() {
            *counts.entry(other.client()).or_insert(0) += 1;
        }
        if counts.get(&unbound.client()) >= Some(&self.most_of_one) {
            let why = "too many connections of this client have not said their hello yet";
            return Err((unbound.socket, overloaded(why)));
        }
        let mut late = None;
        if all.len() >= self.most {
            let waits = all
                .iter()
                .map(|(key, other)| (*key, other.client(), other.until));
            let victim =
                waits.max_by_key(|(_, client, until)| (counts[client], std::cmp::Reverse(*until)));
            late = victim.and_then(|(key, ..)| all.remove(&key));
        }
        let kept = Arc::clone(&unbound.socket);
        let added = self.add(&mut all, epoll, unbound);
        drop(all);
        if let Some(late) = late {
            let why = "it had not said its hello when too many others came";
            late.give_up(epoll, &overloaded(why));
        }
        added
            .map_err(|error| Error::scarce("watch one more connection", error))
            .map_err(|error| (kept, error))
    }

    /// Drops the connections that are for this listener.
    pub(super) fn forget(&self, epoll: &OwnedFd, listener: &Arc<Listener>) {
        let is_for_it = |_: &u64, unbound: &mut Unbound| Arc::ptr_eq(&unbound.listener, listener);
        let dropped: Vec<_> = lock(&self.unbound).extract_if(.., is_for_it).collect();
        for (_, unbound) in dropped {
            // A forked child may keep the socket open, and so its place in the epoll.
            let _ = epoll::delete(epoll, &unbound.socket);
            foreign::leave(unbound.socket);
        }
    }

    /// Accepts nobody for a moment.
    pub(super) fn shut(&self) {
        *lock(&self.shut_until) = Some(Instant::now() + limits::RESPITE);
    }

    /// Gives up all connections: the runtime has ended.
    pub(super) fn clear(&self, epoll: &OwnedFd) {
        let all = std::mem::take(&mut *lock(&self.unbound));
        for unbound in all.into_values() {
            let why = "its runtime has ended";
            unbound.give_up(epoll, &Error::new(ErrorKind::Shutdown, why));
        }
    }

    /// Gives up the connections whose time is over. Says when to look again, and whether the door is to be opened.
    pub(super) fn see_to_time(&self, epoll: &OwnedFd, now: Instant) -> (Option<Instant>, bool) {
        let mut next: Option<Instant> = None;
        let late = |&key: &u64, unbound: &mut Unbound| {
            if unbound.until <= now {
                return true;
            }
            if unbound.not_before.take_if(|at| *at <= now).is_some() {
                let token = Token::Unbound(key).pack();
                let _ = epoll::modify(epoll, &unbound.socket, token, EventFlags::IN);
            }
            let at = unbound.not_before.unwrap_or(unbound.until);
            next = Some(next.map_or(at, |other| other.min(at)));
            false
        };
        let late: Vec<_> = lock(&self.unbound).extract_if(.., late).collect();
        for (_, unbound) in late {
            let why = format!("it did not say its hello within {:?}", limits::HANDSHAKE);
            unbound.give_up(epoll, &Error::new(ErrorKind::Handshake, why));
        }
        let mut shut_until = lock(&self.shut_until);
        let opens = shut_until.take_if(|until| *until <= now).is_some();
        (next.into_iter().chain(*shut_until).min(), opens)
    }

    /// There is no descriptor for a connection: closes the spare one, accepts, and says so. False if not even that
    /// was possible.
    fn turn_away(
        &self,
        listener: &Listener,
        another_spare: impl FnOnce() -> Option<OwnedFd>,
    ) -> bool {
        let mut spare = lock(&self.spare);
        if spare.take().is_none() {
            *spare = another_spare();
            return false;
        }
        let accepted = listener.accept();
        let turned_away = matches!(accepted, Some(Ok(_)));
        if let Some(Ok(socket)) = accepted {
            let why = "it has no descriptors left for another client";
            bind::refuse(Arc::new(socket), &overloaded(why));
        }
        *spare = another_spare();
        turned_away
    }
}

/// Somebody connects.
pub(super) fn accept(node: &Arc<Node>, key: u64) {
    let keeper = &node.keeper;
    let listener = lock(&keeper.listeners).get(key as usize).cloned();
    let Some(listener) = listener else { return };
    // Bounded, so that a crowd cannot keep the keeper from everything else; the rest is reported again.
    for _ in 0..16 {
        if foreign::is_crowded() {
            return keeper.shut(&listener, key);
        }
        match listener.accept() {
            None => return,
            Some(Ok(socket)) => receive(node, socket, &listener),
            Some(Err(error)) => match error.kind() {
                // Nobody is there (any more).
                io::ErrorKind::WouldBlock
                | io::ErrorKind::Interrupted
                | io::ErrorKind::ConnectionAborted => return,
                _ => {
                    let another_spare = || keeper.poke.try_clone().ok();
                    if !keeper.door.turn_away(&listener, another_spare) {
                        return keeper.shut(&listener, key);
                    }
                }
            },
        }
    }
}

/// Somebody is there.
fn receive(node: &Arc<Node>, socket: OwnedFd, listener: &Arc<Listener>) {
    let socket = Arc::new(socket);
    let process = match listener.allow.check(&socket) {
        Ok(process) => process,
        Err(error) => return bind::refuse(socket, &error),
    };
    let mut unbound = Unbound::new(socket, process, Received::default(), listener);
    let keeper = &node.keeper;
    unbound.not_before = keeper.door.sentence(unbound.client());
    let said = match unbound.not_before {
        None => unbound.advance(),
        Some(_) => Ok(false),
    };
    match said {
        Ok(false) => {
            if let Err((socket, error)) = keeper.door.wait_for(&keeper.epoll, unbound) {
                bind::refuse(socket, &error);
            }
        }
        said => conclude(node, unbound, said),
    }
}

/// A connection that was waited for has something to say.
pub(super) fn advance(node: &Arc<Node>, key: u64) {
    let keeper = &node.keeper;
    let (unbound, said) = {
        let mut all = lock(&keeper.door.unbound);
        let Entry::Occupied(mut entry) = all.entry(key) else {
            return;
        };
        let unbound = entry.get_mut();
        let said = if unbound.not_before.is_some() {
            None // it has hung up
        } else {
            match unbound.advance() {
                Ok(false) => return,
                said => Some(said),
            }
        };
        (entry.remove(), said)
    };
    let _ = epoll::delete(&keeper.epoll, &unbound.socket);
    let Some(said) = said else {
        return foreign::leave(unbound.socket);
    };
    conclude(node, unbound, said);
}

/// A connection has said its hello, or something else: it is bound, or told why not.
fn conclude(node: &Arc<Node>, unbound: Unbound, said: Result<bool>) {
    let socket = Arc::clone(&unbound.socket);
    let (listener, client) = (Arc::clone(&unbound.listener), unbound.client());
    let bound = match said.and_then(|_| make(node, unbound)) {
        Ok((binding, greeting)) => {
            greet(node, &listener, &binding, &greeting).inspect_err(|error| {
                // While there is a socket to say it on.
                bind::tell(&socket, error);
                binding.close("it could not be greeted");
            })
        }
        Err(error) => {
            bind::refuse(socket, &error);
            Err(error)
        }
    };
    if let Err(error) = bound {
        if error.kind() == ErrorKind::Handshake {
            node.keeper.door.offended(client);
        }
        listener.refused(&error);
    }
}

/// The peer has said its hello: checked before it is greeted, so that one that is refused gets a reason and no memory of
/// ours.
fn make(node: &Arc<Node>, unbound: Unbound) -> Result<(Arc<Binding>, Greeting)> {
    let listener = unbound.listener;
    let said = unbound.received.said()?;
    let process = match said.speaker {
        Some(speaker) => listener.allow.admit(speaker)?,
        None => unbound.process,
    };
    // Before anything is made for it.
    let holding = node.quota.channel(process.credentials(), true)?;
    let (outbox, greeting) = bind::greeting(node, &listener.offer)?;
    let with = With {
        node,
        name: format!("process {}", process.credentials().pid),
        process,
        socket: unbound.socket,
        holding,
        offer: &listener.offer,
        wakes: None,
        draining: Arc::clone(&listener.draining),
    };
    Ok((bind::bind(outbox, said, with)?, greeting))
}

/// Says our hello, and the channel is open.
fn greet(
    node: &Arc<Node>,
    listener: &Listener,
    binding: &Arc<Binding>,
    greeting: &Greeting,
) -> Result<()> {
    node.add(binding)
        .map_err(|error| Error::scarce("watch one more channel", error))?;
    // In the server's list before the client can know: a client that is bound is there to be shut down.
    listener.bound(binding);
    binding.greet(greeting)
}
