//! iceoryx2: requests and responses in shared memory. Both sides poll; or, with events, each tells the other that
//! something came, and sleeps until it is told.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use iceoryx2::pending_response::PendingResponse;
use iceoryx2::port::client::Client;
use iceoryx2::port::listener::Listener;
use iceoryx2::port::notifier::Notifier;
use iceoryx2::port::server::Server;
use iceoryx2::prelude::*;

use crate::common::child::{Child, ready};
use crate::common::contest::{Contestant, Place, take_place};
use crate::common::report::median;

type Service = ipc::Service;
type Pending = PendingResponse<Service, u64, (), u64, ()>;

/// Requests under way at most.
const IN_FLIGHT: usize = 64;
/// A request that ends the server: one that is killed leaves its files.
const END: u64 = u64::MAX;

/// What each side has: a node, and how it tells and is told.
struct Side {
    node: Node<Service>,
    events: Option<(Notifier<Service>, Listener<Service>)>,
}

impl Side {
    /// This side listens to the event `own`, the other one to `other`.
    fn new(events: bool, own: &str, other: &str) -> Self {
        set_log_level(LogLevel::Error);
        let node = NodeBuilder::new().create::<Service>().expect("a node");
        let event = |name: &str| {
            let name = ServiceName::new(name).expect("a name");
            let event = node.service_builder(&name).event().open_or_create();
            event.expect("an event")
        };
        let events = events.then(|| {
            let notifier = event(other).notifier_builder().create();
            let listener = event(own).listener_builder().create();
            (notifier.expect("a port"), listener.expect("a port"))
        });
        Self { node, events }
    }

    fn tell(&self) {
        if let Some((notifier, _)) = &self.events {
            notifier.notify().expect("the other side is there");
        }
    }

    fn wait(&mut self) {
        match &mut self.events {
            Some((_, listener)) => {
                listener.blocking_wait(|_| {}).expect("it waits");
            }
            None => std::hint::spin_loop(),
        }
    }
}

macro_rules! service {
    ($node:expr, $name:expr) => {
        $node
            .service_builder(&ServiceName::new($name).expect("a name"))
            .request_response::<u64, u64>()
            .max_active_requests_per_client(IN_FLIGHT)
            .max_loaned_requests(IN_FLIGHT)
            .open_or_create()
            .expect("a service")
    };
}

/// The client.
pub struct Iceoryx {
    side: Side,
    client: Client<Service, u64, (), u64, ()>,
    server: Option<Child>,
}

impl Iceoryx {
    pub fn start(events: bool, place: Place) -> Self {
        let directory = tempfile::tempdir().expect("a directory");
        let name = directory.path().display().to_string(); // nobody else has it
        let side = Side::new(events, &format!("{name}/back"), &format!("{name}/there"));
        let service = service!(side.node, &name);
        let client = service.client_builder().create().expect("a port");
        let server = Child::start(&format!("iceoryx {name} {events} {}", place.of_server()));
        Self {
            side,
            client,
            server: Some(server),
        }
    }

    fn wait_for(&mut self, pending: &Pending) {
        loop {
            if let Some(response) = pending.receive().expect("the server answers") {
                assert_eq!(*response, 2);
                return;
            }
            self.side.wait();
        }
    }
}

impl Contestant for Iceoryx {
    fn calls(&mut self, in_flight: u32, calls: u32) -> f64 {
        let begin = Instant::now();
        let mut pending = VecDeque::new();
        let mut left = calls;
        while left > 0 || !pending.is_empty() {
            let room = (in_flight - pending.len() as u32).min(left);
            for _ in 0..room {
                pending.push_back(self.client.send_copy(1).expect("the server reads"));
            }
            left -= room;
            if room > 0 {
                self.side.tell();
            }
            let first = pending.pop_front().expect("one is under way");
            self.wait_for(&first);
            while pending
                .front()
                .is_some_and(|next: &Pending| next.has_response())
            {
                let next = pending.pop_front().expect("it was there");
                self.wait_for(&next);
            }
        }
        begin.elapsed().as_nanos() as f64 / f64::from(calls)
    }

    fn first_after(&mut self, pause: Duration, samples: u32) -> f64 {
        median((0..samples).map(|_| {
            std::thread::sleep(pause);
            self.calls(1, 1)
        }))
    }

    fn idle(&mut self, time: Duration) {
        std::thread::sleep(time);
    }

    fn server(&self) -> u32 {
        self.server.as_ref().expect("it runs").id()
    }
}

impl Drop for Iceoryx {
    fn drop(&mut self) {
        let _end = self.client.send_copy(END).expect("the server reads");
        self.side.tell();
        self.server.take().expect("it runs").wait();
    }
}

/// The server's process.
pub fn server_child(name: &str, events: &str, cpu: &str) {
    take_place(cpu);
    let mut side = Side::new(
        events == "true",
        &format!("{name}/there"),
        &format!("{name}/back"),
    );
    let service = service!(side.node, name);
    let server: Server<Service, u64, (), u64, ()> =
        service.server_builder().create().expect("a port");
    ready();
    loop {
        let mut served = false;
        while let Some(request) = server.receive().expect("the client is there") {
            if *request == END {
                return;
            }
            request
                .send_copy(*request + 1)
                .expect("the client is there");
            served = true;
        }
        if served {
            side.tell();
        }
        side.wait();
    }
}
