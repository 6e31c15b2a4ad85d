//! What clients may make this process hold: so much in all, and any one of them a share of that, so that
//! there is always something left for the others.
//!
//! A client is a process, by the kernel's word; of another user, all processes together, since making one
//! more costs it nothing. Where a limit is reached, the answer is a refusal at once, never a wait.

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, Weak};

use urpc_channel::ANNEX;
use urpc_donate::Credentials;

use crate::error::{Error, ErrorKind, Result};
use crate::limits::Caps;
use crate::node::lock;

/// As many channels as there may be keep together one part in so many of all bytes, for calls to come.
const SPARE: u64 = 8;

/// All annexes take together one part in so many of all bytes.
const ANNEXED: u64 = 8;
/// Bytes of the annexes of a channel.
const ANNEXES: u64 = 2 * ANNEX as u64;

/// Who shares a share.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Client {
    /// Of our own user: this process.
    Process(i32),
    /// Any process of this user.
    User(u32),
}

impl Client {
    pub(crate) fn of(credentials: Credentials) -> Self {
        let own = rustix::process::geteuid().as_raw();
        if credentials.uid == own {
            Self::Process(credentials.pid)
        } else {
            Self::User(credentials.uid)
        }
    }
}

/// What is held for a client, or for all of them.
#[derive(Debug, Default)]
struct Held {
    channels: AtomicUsize,
    serving: AtomicUsize,
    bytes: AtomicU64,
    /// Bytes of annexes, in both directions.
    annexed: AtomicU64,
}

/// All that is held, and how much it may be.
#[derive(Debug)]
pub(crate) struct Quota {
    caps: Caps,
    all: Held,
    clients: Mutex<HashMap<Client, Weak<Held>>>,
}

/// `of` as far as it is for one client.
pub(crate) fn share(of: u64, percent: u8) -> u64 {
    (u128::from(of) * u128::from(percent) / 100).max(1) as u64
}

impl Quota {
    pub(crate) fn new(caps: Caps) -> Self {
        Self {
            caps,
            all: Held::default(),
            clients: Mutex::default(),
        }
    }

    /// What one channel with a client holds, from here on. `accepted`: it came to us, so it counts as a channel.
    ///
    /// # Errors
    /// `Overloaded`, if there are enough.
    pub(crate) fn channel(
        self: &Arc<Self>,
        credentials: Credentials,
        accepted: bool,
    ) -> Result<Holding> {
        let client = Client::of(credentials);
        let mut clients = lock(&self.clients);
        let of_client = clients.get(&client).and_then(Weak::upgrade);
        let of_client = of_client.unwrap_or_else(|| {
            clients.retain(|_, held| held.strong_count() > 0);
            let held = Arc::default();
            clients.insert(client, Arc::downgrade(&held));
            held
        });
        let mut place = None;
        let Caps { clients: cap, .. } = self.caps;
        let each = share(cap as u64, self.caps.share) as usize;
        if accepted {
            // Nobody else adds to these while the list is locked.
            let all = self.all.channels.load(Ordering::Relaxed);
            let of_it = of_client.channels.load(Ordering::Relaxed);
            if all >= cap || of_it >= each {
                return Err(Error::new(
                    ErrorKind::Overloaded,
                    format!(
                        "it has {all} channels, {of_it} of them with this client, and no more than {cap} \
                         and {each} (`Builder::max_clients`, or the descriptors that it may open)"
                    ),
                ));
            }
            self.all.channels.fetch_add(1, Ordering::Relaxed);
            of_client.channels.fetch_add(1, Ordering::Relaxed);
            place = Some(Place {
                all: Arc::clone(self),
                client: Arc::clone(&of_client),
            });
        }
        Ok(Holding {
            serving: share(self.caps.serving as u64, self.caps.share) as usize,
            bytes_each: share(self.caps.bytes, self.caps.share),
            all: Arc::clone(self),
            client: of_client,
            place: Mutex::new(place),
            bytes: AtomicU64::new(0),
            annexed: AtomicBool::new(false),
            spare: AtomicU64::new(0),
            most_spare: self.caps.bytes / (SPARE * cap.max(1) as u64),
        })
    }
}

/// A channel's place among those of its client and among all. Given back when this goes.
#[derive(Debug)]
pub(crate) struct Place {
    all: Arc<Quota>,
    client: Arc<Held>,
}

impl Drop for Place {
    fn drop(&mut self) {
        self.client.channels.fetch_sub(1, Ordering::Relaxed);
        self.all.all.channels.fetch_sub(1, Ordering::Relaxed);
    }
}

/// What is held for one channel. All of it is given back when this goes.
#[derive(Debug)]
pub(crate) struct Holding {
    all: Arc<Quota>,
    client: Arc<Held>,
    /// Handlers for one client.
    serving: usize,
    /// Bytes for one client.
    bytes_each: u64,
    /// If it counts as a channel.
    place: Mutex<Option<Place>>,
    /// Bytes that are counted, here as for the client and for all.
    bytes: AtomicU64,
    /// The same for the channel's annexes.
    annexed: AtomicBool,
    /// Of these, bytes that were given back: the next call has them without any counting.
    spare: AtomicU64,
    most_spare: u64,
}

impl Holding {
    /// Whether one more call has to be turned away.
    #[inline]
    pub(crate) fn is_full(&self) -> bool {
        // A few too many, begun at one moment on several processors, do not matter.
        self.client.serving.load(Ordering::Relaxed) >= self.serving
            || self.all.all.serving.load(Ordering::Relaxed) >= self.all.caps.serving
    }

    /// A handler was not done at once.
    pub(crate) fn begin(&self) {
        self.client.serving.fetch_add(1, Ordering::Relaxed);
        self.all.all.serving.fetch_add(1, Ordering::Relaxed);
    }

    /// It is done.
    pub(crate) fn end(&self) {
        self.client.serving.fetch_sub(1, Ordering::Relaxed);
        self.all.all.serving.fetch_sub(1, Ordering::Relaxed);
    }

    /// Takes room for the bytes of a large call, if there is any.
    pub(crate) fn take(&self, bytes: u32) -> bool {
        let bytes = u64::from(bytes);
        let is_spare = |spare: u64| spare.checked_sub(bytes);
        let spare = &self.spare;
        let from_spare = spare.fetch_update(Ordering::Relaxed, Ordering::Relaxed, is_spare);
        from_spare.is_ok() || self.count(bytes)
    }

    fn count(&self, bytes: u64) -> bool {
        let (client, all) = (&self.client.bytes, &self.all.all.bytes);
        let taken = take(bytes, (client, self.bytes_each), (all, self.all.caps.bytes));
        if taken {
            self.bytes.fetch_add(bytes, Ordering::Relaxed);
        }
        taken
    }

    /// Takes room for the channel's two annexes, if there is any and it has none yet.
    pub(crate) fn take_annexes(&self) -> bool {
        if self.annexed.swap(true, Ordering::Relaxed) {
            return false;
        }
        let (client, all) = (&self.client.annexed, &self.all.all.annexed);
        let [each, cap] = [self.bytes_each, self.all.caps.bytes].map(|bytes| bytes / ANNEXED);
        let taken = take(ANNEXES, (client, each), (all, cap));
        self.annexed.store(taken, Ordering::Relaxed);
        taken
    }

    /// Gives it back.
    pub(crate) fn give(&self, bytes: u64) {
        let spare = self.spare.fetch_add(bytes, Ordering::Relaxed) + bytes;
        if spare > self.most_spare {
            self.spare_nothing();
        }
    }

    /// Lets others have what is spare here. Part of going to rest.
    pub(crate) fn spare_nothing(&self) {
        if self.spare.load(Ordering::Relaxed) > 0 {
            let spare = self.spare.swap(0, Ordering::Relaxed);
            self.bytes.fetch_sub(spare, Ordering::Relaxed);
            self.give_back(spare);
        }
    }

    fn give_back(&self, bytes: u64) {
        self.client.bytes.fetch_sub(bytes, Ordering::Relaxed);
        self.all.all.bytes.fetch_sub(bytes, Ordering::Relaxed);
    }

    /// The channel is closed: there is room for another one as soon as its place is dropped.
    pub(crate) fn close(&self) -> Option<Place> {
        lock(&self.place).take()
    }
}

/// Adds `bytes` to what is held for a client and for all, if neither is beyond its cap then.
fn take(bytes: u64, client: (&AtomicU64, u64), all: (&AtomicU64, u64)) -> bool {
    let add = |(held, cap): (&AtomicU64, u64)| {
        let held = held.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |held| {
            held.checked_add(bytes).filter(|&held| held <= cap)
        });
        held.is_ok()
    };
    if !add(client) {
        return false;
    }
    let taken = add(all);
    if !taken {
        client.0.fetch_sub(bytes, Ordering::Relaxed);
    }
    taken
}

impl Drop for Holding {
    fn drop(&mut self) {
        self.give_back(self.bytes.load(Ordering::Relaxed));
        if self.annexed.load(Ordering::Relaxed) {
            self.client.annexed.fetch_sub(ANNEXES, Ordering::Relaxed);
            self.all.all.annexed.fetch_sub(ANNEXES, Ordering::Relaxed);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const CAPS: Caps = Caps {
        calls: 1,
        payload: 1,
        window: 1,
        nesting: 1,
        clients: 4,
        unbound: 1,
        serving: 4,
        bytes: 100,
        share: 50,
    };

    fn process(pid: i32) -> Credentials {
        let uid = rustix::process::geteuid().as_raw();
        Credentials { pid, uid, gid: 0 }
    }

    #[test]
    fn one_client_leaves_a_half_to_the_others_and_what_ends_makes_room() {
        let quota = Arc::new(Quota::new(CAPS));
        let bind = |pid| quota.channel(process(pid), true);
        let (first, second) = (bind(1).unwrap(), bind(1).unwrap());
        assert_eq!(bind(1).unwrap_err().kind(), ErrorKind::Overloaded);
        let (third, _fourth) = (bind(2).unwrap(), bind(3).unwrap());
        assert_eq!(bind(4).unwrap_err().kind(), ErrorKind::Overloaded);
        let _ours = quota.channel(process(4), false).unwrap();
        drop(third.close());
        assert!(third.close().is_none());
        let fifth = bind(4).unwrap();

        assert!(first.take(30) && !second.take(30) && second.take(20));
        assert!(third.take(50) && !fifth.take(1));
        drop(first);
        assert!(second.take(30) && !second.take(1), "what it held is back");
        third.give(50);
        assert!(third.take(50));

        let is_full = || (second.is_full(), third.is_full());
        second.begin();
        assert_eq!(is_full(), (false, false));
        second.begin();
        assert_eq!(is_full(), (true, false));
        third.begin();
        third.begin();
        second.end();
        assert_eq!(is_full(), (false, true));
    }

    #[test]
    fn a_channel_keeps_little_for_its_next_call_and_nothing_while_it_rests() {
        let bytes = 3200; // of which each of four channels may keep 100
        let quota = Arc::new(Quota::new(Caps { bytes, ..CAPS }));
        let [one, other] = [1, 2].map(|pid| quota.channel(process(pid), true).unwrap());
        assert!(one.take(100) && one.take(1500) && !one.take(1));
        one.give(100);
        assert!(one.take(60) && one.take(40) && !one.take(1));
        one.give(100);
        let all = || quota.all.bytes.load(Ordering::Relaxed);
        assert_eq!(all(), 1600);
        one.spare_nothing();
        assert_eq!(all(), 1500);
        one.give(1500);
        assert_eq!(all(), 0);
        assert!(other.take(50));
        other.give(50);
        assert_eq!(all(), 50);
        drop(other);
        assert_eq!(all(), 0);
    }

    #[test]
    fn annexes_take_a_part_of_all_and_leave_a_half_of_it_to_others() {
        let bytes = 8 * 4 * ANNEXES; // for four channels
        let quota = Arc::new(Quota::new(Caps {
            bytes,
            clients: 8,
            ..CAPS
        }));
        let bind = |pid| quota.channel(process(pid), true).unwrap();
        let (first, second, third) = (bind(1), bind(1), bind(1));
        assert!(first.take_annexes() && second.take_annexes());
        assert!(!first.take_annexes(), "it has them");
        assert!(!third.take_annexes());
        let others = [2, 3, 4].map(bind);
        let have = others.each_ref().map(Holding::take_annexes);
        assert_eq!(have, [true, true, false]);
        drop(first);
        assert!(third.take_annexes(), "there is room again");
    }

    #[test]
    fn all_processes_of_another_user_are_one_client() {
        let quota = Arc::new(Quota::new(CAPS));
        let uid = rustix::process::geteuid().as_raw() + 1;
        let bind = |pid| quota.channel(Credentials { pid, uid, gid: 0 }, true);
        let _two = (bind(1).unwrap(), bind(2).unwrap());
        assert_eq!(bind(3).unwrap_err().kind(), ErrorKind::Overloaded);
    }

    #[test]
    fn few_descriptors_are_few_clients_and_never_none() {
        let caps = Caps::default();
        assert_eq!(caps.within(20_000).clients, caps.clients);
        let few = caps.within(64);
        assert_eq!((few.clients, few.unbound), (8, 4));
        let none = caps.within(3);
        assert_eq!((none.clients, none.unbound), (1, 1));
    }
}
