//! A peer that is none of ours: it speaks the handshake, or something like it, byte by byte.
//!
//! What is sent here is written down a second time, on purpose: a change of the protocol that nobody
//! meant makes these tests fail.
#![allow(dead_code, unreachable_pub)]

use std::io::{IoSlice, IoSliceMut, Read};
use std::mem::MaybeUninit;
use std::os::fd::{BorrowedFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::sync::atomic::AtomicU32;
use std::sync::atomic::Ordering::{Relaxed, Release};

use rustix::net::{
    RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendAncillaryBuffer,
    SendAncillaryMessage, SendFlags, recvmsg, sendmsg,
};
use rustix::thread::futex;
use urpc_channel::{
    Channel, Geometry, Inbox, Limits, Outbox, OwnPage, PeerPage, UnsealedWakePage, WakePage,
};

pub const VERSION: u16 = 5;
pub const HELLO: u8 = 1;
pub const REFUSAL: u8 = 2;

pub const GEOMETRY: Geometry = Geometry {
    slots: 256,
    arena: 64 * 1024,
};
pub const LIMITS: Limits = Limits {
    calls: 1024,
    window: 8 << 20,
    max_payload: 4 << 20,
};

/// A whole message of the handshake.
pub fn frame(version: u16, kind: u8, body: &[u8]) -> Vec<u8> {
    let mut bytes = b"urpc".to_vec();
    bytes.extend(version.to_le_bytes());
    bytes.extend([kind, 0]);
    bytes.extend((body.len() as u32).to_le_bytes());
    bytes.extend(body);
    bytes
}

/// What a hello says: limits, one processor, and the procedures it offers.
pub fn hello(offer: &[(&str, &str)]) -> Vec<u8> {
    hello_of(1, offer)
}

/// The same with so many processors.
pub fn hello_of(processors: u32, offer: &[(&str, &str)]) -> Vec<u8> {
    let Limits {
        calls,
        window,
        max_payload,
    } = LIMITS;
    let Geometry { slots, arena } = GEOMETRY;
    let said = (slots, arena, calls, window, max_payload, processors, offer);
    postcard::to_allocvec(&said).unwrap()
}

/// Sends `bytes`, and descriptors with them. False if the other side is gone.
pub fn send(socket: &UnixStream, bytes: &[u8], fds: &[BorrowedFd<'_>]) -> bool {
    send_with(socket, bytes, fds, SendFlags::empty())
}

/// The same with these flags.
pub fn send_with(
    socket: &UnixStream,
    bytes: &[u8],
    fds: &[BorrowedFd<'_>],
    flags: SendFlags,
) -> bool {
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(253))];
    let mut control = SendAncillaryBuffer::new(&mut space);
    if !fds.is_empty() {
        assert!(control.push(SendAncillaryMessage::ScmRights(fds)));
    }
    let bytes = [IoSlice::new(bytes)];
    sendmsg(socket, &bytes, &mut control, flags | SendFlags::NOSIGNAL).is_ok()
}

/// Reads one message of the handshake: its version, kind, body and descriptors. `None` at the end.
pub fn receive(socket: &UnixStream) -> Option<(u16, u8, Vec<u8>, Vec<OwnedFd>)> {
    let mut header = [0; 12];
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(8))];
    let mut control = RecvAncillaryBuffer::new(&mut space);
    let buffer = &mut [IoSliceMut::new(&mut header)];
    let read = recvmsg(socket, buffer, &mut control, RecvFlags::WAITALL).ok()?;
    let mut fds = Vec::new();
    for message in control.drain() {
        if let RecvAncillaryMessage::ScmRights(received) = message {
            fds.extend(received);
        }
    }
    if read.bytes < header.len() {
        return None;
    }
    assert_eq!(&header[..4], b"urpc");
    let version = u16::from_le_bytes(header[4..6].try_into().unwrap());
    let length = u32::from_le_bytes(header[8..12].try_into().unwrap());
    let mut body = vec![0; length as usize];
    (&*socket).read_exact(&mut body).ok()?;
    Some((version, header[6], body, fds))
}

/// The text of the refusal that comes.
pub fn refusal(socket: &UnixStream) -> String {
    let (_, kind, body, fds) = receive(socket).expect("a refusal, and not a closed connection");
    assert_eq!((kind, fds.len()), (REFUSAL, 0), "a refusal and no memory");
    String::from_utf8(body).expect("a text")
}

/// The memory that this side shows.
pub struct Shown {
    pub outbox: Outbox,
    pub page: OwnPage,
    /// How many it says that it has.
    pub processors: u32,
}

impl Shown {
    pub fn new() -> Self {
        Self {
            outbox: Outbox::create(&GEOMETRY).unwrap(),
            page: OwnPage::create().unwrap(),
            processors: 1,
        }
    }

    /// Who connects brings the wake page.
    pub fn say_hello(
        &self,
        wakes: Option<&UnsealedWakePage>,
        socket: &UnixStream,
        offer: &[(&str, &str)],
    ) -> bool {
        let mut fds = vec![self.outbox.fd().unwrap(), self.page.fd()];
        fds.extend(wakes.map(UnsealedWakePage::fd));
        let hello = hello_of(self.processors, offer);
        send(socket, &frame(VERSION, HELLO, &hello), &fds)
    }
}

/// A channel whose other side is honest, and this one need not be.
pub struct Bound {
    pub socket: UnixStream,
    pub shown: Shown,
    pub wakes: WakePage,
    pub inbox: Inbox,
    /// Kept mapped, as an honest peer does.
    pub peer_page: PeerPage,
}

impl Bound {
    /// Binds to the server at `path`, as a client that offers nothing. `None` if it is not let in.
    pub fn connect(path: &str) -> Option<Self> {
        Self::connect_as(path, Shown::new())
    }

    /// The same, and shows this.
    pub fn connect_as(path: &str, shown: Shown) -> Option<Self> {
        let socket = UnixStream::connect(path).ok()?;
        let wakes = UnsealedWakePage::create().unwrap();
        shown.say_hello(Some(&wakes), &socket, &[]).then_some(())?;
        let (outbox, page, _) = Self::hear(&socket)?;
        Some(Self::new(
            socket,
            shown,
            wakes.sealed().unwrap(),
            outbox,
            page,
        ))
    }

    /// Accepts a client, as a server that offers `offer`.
    pub fn accept(socket: UnixStream, offer: &[(&str, &str)]) -> Option<Self> {
        let shown = Shown::new();
        let (outbox, page, wakes) = Self::hear(&socket)?;
        let wakes = WakePage::accept(wakes.expect("a wake page")).unwrap();
        shown.say_hello(None, &socket, offer).then_some(())?;
        Some(Self::new(socket, shown, wakes, outbox, page))
    }

    /// What the other side says in its hello: its outbox and its presence page, and maybe a wake page.
    fn hear(socket: &UnixStream) -> Option<(OwnedFd, OwnedFd, Option<OwnedFd>)> {
        let (_, kind, _, fds) = receive(socket)?;
        let mut fds = fds.into_iter();
        let mut next = || fds.next();
        (kind == HELLO).then(|| {
            let two = [next(), next()].map(|fd| fd.expect("two descriptors"));
            let [outbox, page] = two;
            (outbox, page, next())
        })
    }

    fn new(
        socket: UnixStream,
        shown: Shown,
        wakes: WakePage,
        outbox: OwnedFd,
        page: OwnedFd,
    ) -> Self {
        Self {
            inbox: Inbox::accept(outbox, &GEOMETRY).unwrap(),
            peer_page: PeerPage::accept(page).unwrap(),
            socket,
            shown,
            wakes,
        }
    }

    /// The channel itself, to break the protocol in good grammar.
    pub fn speak(self) -> (Channel, UnixStream, (OwnPage, PeerPage, WakePage)) {
        let channel = Channel::new(self.shown.outbox, self.inbox, LIMITS);
        let pages = (self.shown.page, self.peer_page, self.wakes);
        (channel, self.socket, pages)
    }
}

/// Says `value`, and wakes who sleeps until something is said.
pub fn say(says: &AtomicU32, wake: &AtomicU32, value: u32) {
    says.store(value, Release);
    wake.store(value, Release);
    let _ = futex::wake(wake, futex::Flags::empty(), i32::MAX as u32);
}

/// Rings the peer's doorbell. False if there was no room for it.
pub fn ring(socket: &UnixStream) -> bool {
    let flags = SendFlags::DONTWAIT | SendFlags::NOSIGNAL;
    rustix::net::send(socket, &[1], flags).is_ok()
}

/// True once the other side has closed the socket.
pub fn is_hung_up(socket: &UnixStream) -> bool {
    let mut bytes = [0u8; 64];
    loop {
        match rustix::net::recv(socket, &mut bytes, RecvFlags::DONTWAIT) {
            Ok((_, 0)) => return true,
            Ok(_) => {}
            Err(error) => return error != rustix::io::Errno::AGAIN,
        }
    }
}

/// Numbers that look random and are the same in every run.
pub struct Random(pub u64);

impl Random {
    pub fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0
    }

    pub fn below(&mut self, end: u64) -> u64 {
        self.next() % end
    }
}

/// Spoils an outbox, a presence page and a wake page: words at random, and slots that are nearly right.
pub struct Vandal {
    pub random: Random,
    /// Slots written so far that look like the next one.
    slots: u64,
}

impl Vandal {
    pub fn new(seed: u64) -> Self {
        let random = Random(seed);
        Self { random, slots: 0 }
    }

    /// For a fresh outbox.
    pub fn begin(&mut self) {
        self.slots = 0;
    }

    /// Writes something somewhere.
    pub fn strike(&mut self, bound: &Bound) {
        let Shown { outbox, page, .. } = &bound.shown;
        let random = &mut self.random;
        match random.below(9) {
            // Anywhere: header, indices, grants, slots, payload.
            0 => {
                let words = GEOMETRY.size().unwrap() as u64 / 8;
                let at = random.below(words) as usize * 8;
                outbox.word(at).store(random.next(), Relaxed);
            }
            // What this side says of the peer's ring, and of the processors it lends and returns.
            1 => {
                let lines = [64, 128, 192, 256, 264, 320, 768, 832];
                let at = lines[random.below(8) as usize];
                let value = random.next() >> random.below(64);
                outbox.word(at).store(value, Relaxed);
            }
            2 => {
                let word = page.word(random.below(3) as usize);
                word.store((random.next() >> random.below(64)) as u32, Relaxed);
            }
            3 => self.scribble(&bound.wakes),
            _ => self.publish(outbox),
        }
    }

    /// Writes a wake word, the peer's or its own, and wakes who sleeps there, or does not.
    pub fn scribble(&mut self, wakes: &WakePage) {
        let random = &mut self.random;
        let k = random.below(8) as usize;
        let ours = [wakes.lent_to_us(k), wakes.lent_to_peer(k)][random.below(2) as usize];
        let word = [ours.grant, ours.returned][random.below(2) as usize];
        word.store((random.next() >> random.below(64)) as u32, Relaxed);
        if random.below(4) == 0 {
            let _ = futex::wake(word, futex::Flags::empty(), i32::MAX as u32);
        }
    }

    /// The next slot: its number is right, its kind mostly, and the rest is in range or nearly so.
    fn publish(&mut self, outbox: &Outbox) {
        let random = &mut self.random;
        let at = 4096 + (self.slots % u64::from(GEOMETRY.slots)) as usize * 64;
        let kinds = [0x01, 0x01, 0x02, 0x03, 0x04, 0x81, 0x41, 0xc1, 0x82, 0x05];
        let kind = match random.below(50) {
            0 => random.below(256),
            _ => kinds[random.below(10) as usize],
        };
        let length = if kind < 0x40 { random.below(49) } else { 0 };
        let procedure = random.below(6);
        let id = (random.below(3) << 16) | random.below(70);
        let deadline = if random.below(4) == 0 {
            random.next() << 32
        } else {
            0
        };
        outbox.word(at + 8).store(id | deadline, Relaxed);
        let (place, share) = match random.below(10) {
            0 => (random.next(), random.next()),
            _ => (
                (random.below(1024) * 64) | (64 << 32),
                64 + random.below(200),
            ),
        };
        for word in 2..8 {
            let value = [place, share, random.next() >> random.below(64)][word.min(4) - 2];
            outbox.word(at + 8 * word).store(value, Relaxed);
        }
        self.slots += 1;
        let header = self.slots | kind << 32 | length << 40 | procedure << 48;
        outbox.word(at).store(header, Release);
    }
}
