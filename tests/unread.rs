//! A peer that calls and never reads the answers costs a server a bounded amount of memory.
#[macro_use]
mod common;
#[path = "common/raw.rs"]
mod raw;

use common::{Names, Process, serve, wait_for, watchdog};
use raw::{Bound, LIMITS, is_hung_up, ring};
use urpc_channel::{Body, Kind, Message};

fn server(argument: &str) {
    serve(argument, |server, _| {
        server.method("id", |n: u64| async move { n })
    });
}

#[test]
fn a_peer_that_never_reads_its_answers_is_cut_off() {
    let _w = watchdog();
    for processors in [0, 1] {
        let names = Names::new();
        let name = names.name("s");
        let process = Process::start("server", &format!("{processors} {name}"));
        let (channel, socket, _pages) = Bound::connect(&name).expect("it binds").speak();
        // Each id again once all others have been: its answer is on its way by then.
        let calls = u64::from(LIMITS.calls);
        let mut sent = 0;
        while sent < 50 * calls && !is_hung_up(&socket) {
            let message = Message {
                kind: Kind::Call,
                id: (sent % calls) as u32,
                procedure: 0,
                deadline_ms: 0,
                body: Body::from_slice(&[7]),
            };
            channel.send(message).expect("open at this side");
            if sent % 64 == 63 {
                ring(&socket);
                wait_for("the server to take them", || {
                    channel.flush();
                    !channel.unread_by_peer() && !channel.staged() || is_hung_up(&socket)
                });
            }
            sent += 1;
        }
        assert!(is_hung_up(&socket), "it took {sent} calls");
        assert!(
            sent > 4 * calls,
            "the credit alone did not do it, after {sent}"
        );
        process.finish();
    }
}

roles! {
    "server" => server,
}
