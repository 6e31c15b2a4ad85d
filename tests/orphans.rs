//! A landing whose donor has died, or does not ask for its processor, goes on for no longer than it may, however much
//! there is to do.
#[macro_use]
mod common;

use std::fs;
use std::future::pending;
use std::time::Duration;

use common::{Names, Process, for_each_line, say, until_told_to_end, wait_for, watchdog};
use urpc::policy::{Action, Here, Optimistic, PeerView, Policy};

fn is_landing() -> bool {
    std::thread::current().name() == Some("urpc-landing")
}

/// Keeps a processor for two seconds, unless it is asked for it.
fn server(name: &str) {
    let limit = Duration::from_secs(2);
    let rt = urpc::Runtime::builder().processors(0).grant_limit(limit);
    rt.build().unwrap().block_on(async {
        let server = urpc::serve(name)
            // From here on something is always ready.
            .method("churn", |()| async {
                // More of them than threads that could run them.
                for _ in 0..16 {
                    drop(urpc::spawn(async {
                        loop {
                            urpc::yield_now().await;
                        }
                    }));
                }
            })
            .method("keep", |()| async {
                if is_landing() {
                    say("inside", "");
                    pending::<()>().await;
                }
            });
        let _server = server.bind().unwrap();
        say("ready", "");
        urpc::unblock(until_told_to_end).await;
    });
}

/// A client that lends its processor and does not ask for it back. The argument is the server's name. Says how often it
/// was returned whenever it is asked.
fn donor(name: &str) {
    say("ready", "");
    let far = Duration::from_secs(600);
    let rt = urpc::Runtime::builder().processors(1).grant_limit(far);
    let rt = rt.build().unwrap();
    let name = name.to_owned();
    let _calls = rt.spawn(async move {
        let peer = urpc::connect(name).await.unwrap();
        while urpc::call::<()>(&peer, "keep", ()).await.is_ok() {}
    });
    for_each_line(|_| say("returned", rt.stats().donations_returned));
}

fn landings(pid: u32) -> usize {
    let threads = fs::read_dir(format!("/proc/{pid}/task")).unwrap();
    let name = |thread: fs::DirEntry| fs::read_to_string(thread.path().join("comm"));
    let names = threads.filter_map(|thread| name(thread.ok()?).ok());
    names.filter(|name| name.trim() == "urpc-landing").count()
}

/// Lends no processor, and so has one landing.
struct Miser;

impl Policy for Miser {
    fn decide(&self, here: &Here, peers: &[PeerView]) -> Action {
        let may_lend = false;
        Optimistic.decide(&Here { may_lend, ..*here }, peers)
    }
}

/// A server that always has something to do, its client, and a donor of which a landing is busy there.
struct Busy {
    server: Process,
    donor: Process,
    _client: (urpc::Peer, urpc::Runtime),
    _names: Names,
}

impl Busy {
    fn start() -> Self {
        let names = Names::new();
        let name = names.name("s");
        let mut server = Process::start("server", &name);
        let rt = urpc::Runtime::builder().processors(1).policy(Miser);
        let rt = rt.build().unwrap();
        let peer = rt.block_on(urpc::connect(&name)).unwrap();
        rt.block_on(urpc::call::<()>(&peer, "churn", ())).unwrap();
        wait_for("its client's landing", || landings(server.pid()) == 1);
        let donor = Process::start("donor", &name);
        server.expect("inside");
        assert!(landings(server.pid()) > 1);
        Self {
            server,
            donor,
            _client: (peer, rt),
            _names: names,
        }
    }
}

#[test]
fn a_processor_is_returned_although_its_donor_does_not_ask_for_it() {
    let _w = watchdog();
    let mut busy = Busy::start();
    let mut returned = || {
        busy.donor.tell("");
        busy.donor.expect("returned").parse::<u64>().unwrap()
    };
    // It may have been returned since the handler said where it is.
    let before = returned();
    wait_for("the processor to be back", || {
        returned() > before || before > 0
    });
    busy.donor.finish();
    busy.server.finish();
}

#[test]
fn a_landing_of_a_donor_that_was_killed_does_not_go_on_for_ever() {
    let _w = watchdog();
    let mut busy = Busy::start();
    busy.donor.kill();
    wait_for("its landing to end", || landings(busy.server.pid()) == 1);
    busy.server.finish();
}

roles! { "server" => server, "donor" => donor }
