//! A landing whose donor has died ends with its channel, however much there is to do.
#[macro_use]
mod common;

use std::fs;
use std::future::pending;
use std::time::Duration;

use common::{Names, Process, runtime, say, serve, until_told_to_end, wait_for, watchdog};

fn is_landing() -> bool {
    std::thread::current().name() == Some("urpc-landing")
}

fn server(argument: &str) {
    serve(argument, |server, _| {
        server
            // From here on something is always ready.
            .method("churn", |()| async {
                drop(urpc::spawn(async {
                    loop {
                        urpc::yield_now().await;
                    }
                }));
            })
            .method("keep", |()| async {
                if is_landing() {
                    say("inside", "");
                    pending::<()>().await;
                }
            })
    });
}

/// A client that lends its processor and does not ask for it back. The argument is the server's name.
fn donor(name: &str) {
    say("ready", "");
    let far = Duration::from_secs(600);
    let rt = urpc::Runtime::builder().grant_limit(far).build().unwrap();
    rt.block_on(async {
        let peer = urpc::connect(name).await.unwrap();
        loop {
            urpc::call::<()>(&peer, "keep", ()).await.unwrap();
        }
    });
    until_told_to_end();
}

fn landings(pid: u32) -> usize {
    let threads = fs::read_dir(format!("/proc/{pid}/task")).unwrap();
    let name = |thread: fs::DirEntry| fs::read_to_string(thread.path().join("comm"));
    let names = threads.filter_map(|thread| name(thread.ok()?).ok());
    names.filter(|name| name.trim() == "urpc-landing").count()
}

#[test]
fn a_landing_of_a_donor_that_was_killed_does_not_go_on_for_ever() {
    let _w = watchdog();
    let names = Names::new();
    let name = names.name("s");
    let mut server = Process::start("server", &format!("0 {name}"));
    let rt = runtime(1);
    let peer = rt.block_on(urpc::connect(&name)).unwrap();
    rt.block_on(urpc::call::<()>(&peer, "churn", ())).unwrap();
    let before = landings(server.pid());
    let mut donor = Process::start("donor", &name);
    server.expect("inside");
    assert!(landings(server.pid()) > before);
    donor.kill();
    wait_for("its landing to end", || landings(server.pid()) == before);
    drop((peer, rt));
    server.finish();
}

roles! { "server" => server, "donor" => donor }
