//! Binding: two processes agree on a channel, once, over a Unix socket (§3.2, R1, R4).
//!
//! Who the peer is comes from the kernel, and is decided before a byte or a descriptor of it is taken.
//! Then each side says one thing, the one that connects first: a hello with its two sealed regions, or a refusal
//! with its reason. Who connects also brings the wake page, which the other one seals before it answers.
//! What the peer says is a claim until it is checked here. Afterwards the socket carries doorbell bytes
//! only.

pub(crate) mod foreign;
pub(crate) mod frames;
mod speaker;

use std::io::{self, IoSlice};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::Instant;

use rustix::event::{PollFd, PollFlags, poll};
use rustix::io::Errno;
use rustix::net::{SendAncillaryBuffer, SendAncillaryMessage, SendFlags, sendmsg};
use urpc_channel::{
    Channel, Geometry, Inbox, Limits, Outbox, PeerPage, RegionError, UnsealedWakePage, WakePage,
};
use urpc_donate::PeerProcess;

use crate::allow::Allow;
use crate::bell;
use crate::binding::{Agreed, Binding, Parts};
use crate::error::{Error, ErrorKind, Result, lacks_resources};
use crate::limits::{self, LANDINGS};
use crate::names;
use crate::node::Node;
use crate::offered::Offered;
use crate::quota::Holding;
use crate::service::Offer;
use frames::{DESCRIPTORS, HELLO, Hello, OVERLOADED, REFUSAL, TOO_MANY, frame};

pub(crate) use frames::{Received, Said};

/// What this side says: its hello, and its two regions.
pub(crate) struct Greeting {
    bytes: Vec<u8>,
    outbox: OwnedFd,
}

/// This side of a channel in the making, and what to say about it.
pub(crate) fn greeting(node: &Node, offer: &Offer) -> Result<(Outbox, Greeting)> {
    let geometry = Geometry {
        slots: limits::RING_SLOTS,
        arena: limits::ARENA_BYTES,
    };
    let mut outbox = Outbox::create(&geometry)
        .map_err(|error| Error::scarce("make a channel's memory", error))?;
    let caps = &node.config.caps;
    let hello = Hello {
        slots: geometry.slots,
        arena: geometry.arena,
        calls: caps.calls,
        window: caps.window,
        max_payload: caps.payload,
        processors: node.config.processors as u32,
        offer: offer.offer(),
    };
    let body = postcard::to_allocvec(&hello).expect("a hello is plain data");
    if body.len() > limits::HELLO_BYTES {
        return Err(handshake(format!(
            "the names and signatures of its procedures take {} bytes, and no more than {} can be \
             offered",
            body.len(),
            limits::HELLO_BYTES
        )));
    }
    let greeting = Greeting {
        bytes: frame(HELLO, 0, &body),
        outbox: outbox.take_fd().expect("just made"),
    };
    Ok((outbox, greeting))
}

impl Greeting {
    /// Sends the hello and the regions, all at once and signed. Nobody reads from `socket` meanwhile.
    pub(crate) fn send(
        &self,
        node: &Node,
        wakes: Option<&UnsealedWakePage>,
        socket: impl AsFd,
        flags: SendFlags,
    ) -> Result<()> {
        let mut fds = vec![self.outbox.as_fd(), node.page.fd()];
        fds.extend(wakes.map(UnsealedWakePage::fd));
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(DESCRIPTORS))];
        let mut control = SendAncillaryBuffer::new(&mut space);
        control.push(SendAncillaryMessage::ScmRights(&fds));
        let flags = flags | SendFlags::NOSIGNAL;
        let bytes = [IoSlice::new(&self.bytes)];
        let until = Instant::now() + limits::HANDSHAKE;
        let sent = speaker::sign(&socket, || {
            loop {
                match sendmsg(&socket, &bytes, &mut control, flags) {
                    // The socket's time limit begins anew, and this one does not.
                    Err(Errno::INTR) if Instant::now() < until => {}
                    sent => break sent,
                }
            }
        });
        match sent.flatten() {
            Ok(sent) if sent == self.bytes.len() => Ok(()),
            Ok(_) => Err(handshake("it does not read its hello")),
            // So many descriptors of ours wait to be taken already, or it is memory that is missing.
            Err(error @ (Errno::TOOMANYREFS | Errno::NOBUFS | Errno::NOMEM)) => {
                let why = format!("nothing can be sent to it just now: {error}");
                Err(Error::new(ErrorKind::Overloaded, why))
            }
            Err(error) => Err(handshake(format!("it cannot be greeted: {error}"))),
        }
    }
}

/// Both sides have spoken: checks what the peer said, and makes the binding.
pub(crate) fn bind(outbox: Outbox, peer: Said, with: With<'_>) -> Result<Arc<Binding>> {
    let Said { hello, fds, .. } = peer;
    let geometry = Geometry {
        slots: hello.slots,
        arena: hello.arena,
    };
    geometry
        .check()
        .map_err(|error| handshake(error.to_string()))?;
    // All of it is mapped, and one memfd may be sent for many channels.
    if geometry.slots > limits::RING_SLOTS || geometry.arena > limits::ARENA_BYTES {
        return Err(handshake(format!(
            "its channel would have {} slots and {} bytes, and no more than {} and {} are of use",
            geometry.slots,
            geometry.arena,
            limits::RING_SLOTS,
            limits::ARENA_BYTES
        )));
    }
    let caps = &with.node.config.caps;
    let calls = hello.calls.min(caps.calls);
    let max_payload = hello.max_payload.min(caps.payload);
    let window = hello.window.min(caps.window);
    if calls == 0 || u64::from(max_payload) > window {
        return Err(handshake("its limits leave no room for a call"));
    }
    let refused = |what: &str, error: RegionError| match error {
        RegionError::Os(error) if lacks_resources(&error) => {
            Error::scarce(format!("take its {what}"), error)
        }
        error => handshake(format!("its {what} is not what it must be: {error}")),
    };
    let brought = fds.len();
    let mut fds = fds.into_iter();
    let mut region = || {
        let fd = fds.next();
        fd.ok_or_else(|| handshake("its hello came without its regions"))
    };
    let inbox = Inbox::accept(region()?, &geometry).map_err(|e| refused("outbox", e))?;
    let page = PeerPage::accept(region()?).map_err(|e| refused("presence page", e))?;
    let accepting = with.wakes.is_none();
    let wakes = match with.wakes {
        Some(_) if brought > 2 => {
            let why = "it brings a wake page, as one who connects: one of the two has to serve (`serve_fd`)";
            return Err(handshake(why));
        }
        Some(ours) => ours.sealed(),
        None => WakePage::accept(region()?),
    };
    let wakes = wakes.map_err(|e| refused("wake page", e))?;
    if fds.next().is_some() {
        return Err(handshake(TOO_MANY));
    }
    let limits = Limits {
        calls,
        window,
        max_payload,
    };
    let offered =
        Offered::new(hello.offer).ok_or_else(|| handshake("it offers too many procedures"))?;
    // A client is underpowered like any other (R23) if its peer's messages may find no processor there: it has
    // none of its own, or it offers procedures, and a call may come when they are all lent. Whoever merely
    // waits for replies is woken where it waits, by a ring; a thread for each such channel would be too many.
    let useful = accepting || with.node.config.processors == 0 || !with.offer.is_empty();
    let landings = if useful {
        hello.processors.clamp(1, LANDINGS)
    } else {
        0
    };
    Ok(Binding::new(Parts {
        node: Arc::clone(with.node),
        name: with.name,
        channel: Channel::new(outbox, inbox, limits),
        page,
        wakes,
        process: with.process,
        socket: with.socket,
        limits: Agreed { calls, max_payload },
        holding: with.holding,
        offer: Arc::clone(with.offer),
        offered,
        landings,
        draining: with.draining,
    }))
}

/// What else a binding needs.
pub(crate) struct With<'a> {
    pub(crate) node: &'a Arc<Node>,
    pub(crate) name: String,
    pub(crate) process: PeerProcess,
    pub(crate) socket: Arc<OwnedFd>,
    pub(crate) holding: Holding,
    pub(crate) offer: &'a Offer,
    /// What this side brought. Who accepts brings none.
    pub(crate) wakes: Option<UnsealedWakePage>,
    pub(crate) draining: Arc<AtomicBool>,
}

fn handshake(why: impl Into<String>) -> Error {
    Error::new(ErrorKind::Handshake, why)
}

/// Tells the peer why it is not bound, and takes nothing more of it.
pub(crate) fn refuse(socket: Arc<OwnedFd>, why: &Error) {
    tell(&socket, why);
    foreign::leave(socket);
}

/// Tells the peer why it is not bound. Best effort: it may be gone, or not listen.
pub(crate) fn tell(socket: impl AsFd, why: &Error) {
    let text = why.to_string();
    let reason = match why.kind() {
        ErrorKind::Overloaded => OVERLOADED,
        _ => 0,
    };
    let bytes = frame(REFUSAL, reason, text.as_bytes());
    let flags = SendFlags::DONTWAIT | SendFlags::NOSIGNAL;
    let _ = rustix::net::send(&socket, &bytes, flags);
}

/// Waits for the peer's whole message, but no longer than a handshake may take, however slowly it comes.
fn hear(socket: &OwnedFd, mut received: Received) -> Result<Received> {
    let limit = limits::HANDSHAKE;
    let until = Instant::now() + limit;
    while !received.advance(socket)? {
        let mut fds = [PollFd::new(socket, PollFlags::IN)];
        match poll(&mut fds, bell::timeout(Some(until)).as_ref()) {
            Ok(0) => {
                return Err(handshake(format!(
                    "it did not say its hello within {limit:?}"
                )));
            }
            Ok(_) | Err(Errno::INTR) => {}
            Err(error) => return Err(handshake(format!("its connection failed: {error}"))),
        }
    }
    Ok(received)
}

/// The client's side, from an open socket to a binding. Without a name, it is not known who will speak. Blocks, but no
/// longer than the time limit of a handshake; to be run where blocking is allowed.
pub(crate) fn connect(
    node: &Arc<Node>,
    name: Option<String>,
    socket: OwnedFd,
    offer: &Offer,
    allow: &Allow,
) -> Result<Arc<Binding>> {
    let socket = Arc::new(socket);
    connect_by(node, name, Arc::clone(&socket), offer, allow)
        .inspect_err(|_| foreign::leave(socket))
}

fn connect_by(
    node: &Arc<Node>,
    name: Option<String>,
    socket: Arc<OwnedFd>,
    offer: &Offer,
    allow: &Allow,
) -> Result<Arc<Binding>> {
    let is_named = name.is_some();
    let name = name.unwrap_or_else(|| names::INHERITED.to_owned());
    let named = |error: Error| error.about(&name);
    let prepare = |socket: &OwnedFd| -> io::Result<()> {
        use rustix::net::sockopt::{Timeout, set_socket_timeout};
        foreign::in_line(socket)?;
        rustix::io::ioctl_fionbio(socket, false)?;
        set_socket_timeout(socket, Timeout::Send, Some(limits::HANDSHAKE))?;
        Ok(())
    };
    prepare(&socket).map_err(|error| Error::system(format!("bind to `{name}`"), error))?;
    let server = is_named.then(|| allow.check(&socket));
    let server = server.transpose().map_err(named)?;
    let (outbox, greeting) = greeting(node, offer).map_err(named)?;
    let wakes = UnsealedWakePage::create()
        .map_err(|error| named(Error::scarce("make a channel's memory", error)))?;
    let greeted = greeting.send(node, Some(&wakes), &socket, SendFlags::empty());
    let expected = match server {
        Some(_) => Received::default(),
        None => Received::signed(),
    };
    let said = match (hear(&socket, expected), greeted) {
        // A peer that hung up may have said why before.
        (Ok(received), greeted) => received.said().and_then(|said| greeted.map(|()| said)),
        (Err(_), Err(error)) | (Err(error), Ok(())) => Err(error),
    };
    let said = said.map_err(named)?;
    let process = match (server, said.speaker) {
        (_, Some(speaker)) => allow.admit(speaker).map_err(named)?,
        (server, None) => server.expect("it is signed without a name"),
    };
    let holding = node.quota.channel(process.credentials(), false);
    let holding = holding.map_err(named)?;
    let with = With {
        node,
        name: name.clone(),
        process,
        socket,
        holding,
        offer,
        wakes: Some(wakes),
        draining: Arc::default(),
    };
    let binding = bind(outbox, said, with).map_err(named)?;
    node.add(&binding)
        .inspect_err(|_| binding.close("it could not be watched"))
        .map_err(|error| Error::scarce(format!("watch the channel to `{name}`"), error))?;
    Ok(binding)
}
