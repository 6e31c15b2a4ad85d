//! ipc-channel: one channel for requests, one for replies, and one thread at each end.

use std::time::{Duration, Instant};

use ipc_channel::ipc::{self, IpcOneShotServer, IpcReceiver, IpcSender};

use crate::common::child::{Child, ready};
use crate::common::contest::{Contestant, Place, take_place};
use crate::common::report::median;

type Ends = (IpcSender<u64>, IpcReceiver<u64>);

/// The client's ends of the two channels.
pub struct IpcChannel {
    requests: IpcSender<u64>,
    replies: IpcReceiver<u64>,
    server: Child,
}

impl IpcChannel {
    pub fn start(place: Place) -> Self {
        let (meeting, name) = IpcOneShotServer::<Ends>::new().expect("a socket");
        let server = Child::start(&format!("ipc-channel {name} {}", place.of_server()));
        let (_, (requests, replies)) = meeting.accept().expect("the server is ready");
        Self {
            requests,
            replies,
            server,
        }
    }

    fn send(&self) {
        self.requests.send(1).expect("the server reads");
    }

    fn receive(&self) {
        assert_eq!(self.replies.recv().expect("the server answers"), 2);
    }
}

impl Contestant for IpcChannel {
    fn calls(&mut self, in_flight: u32, calls: u32) -> f64 {
        let calls = calls.max(in_flight);
        let begin = Instant::now();
        (0..in_flight).for_each(|_| self.send());
        for _ in in_flight..calls {
            self.receive();
            self.send();
        }
        (0..in_flight).for_each(|_| self.receive());
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
        self.server.id()
    }
}

/// The server's process.
pub fn server_child(name: &str, cpu: &str) {
    take_place(cpu);
    let (requests, served) = ipc::channel::<u64>().expect("a channel");
    let (answers, replies) = ipc::channel::<u64>().expect("a channel");
    let meeting = IpcSender::<Ends>::connect(name.to_owned()).expect("the parent listens");
    meeting
        .send((requests, replies))
        .expect("the parent listens");
    ready();
    while let Ok(request) = served.recv() {
        answers.send(request + 1).expect("the parent reads");
    }
}
