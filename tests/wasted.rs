//! More processors lent than may run: the grants that find no place are wasted, and the calls are served
//! all the same.
#[macro_use]
mod common;

use std::sync::{Condvar, Mutex};
use std::time::Duration;

use common::{Names, Process, runtime, serve, watchdog};

static RELEASED: (Mutex<bool>, Condvar) = (Mutex::new(false), Condvar::new());

fn server(argument: &str) {
    serve(argument, |server, _| {
        server
            .method("block", |()| async {
                let released = RELEASED.0.lock().unwrap();
                drop(RELEASED.1.wait_while(released, |released| !*released));
            })
            .method("release", |()| async {
                *RELEASED.0.lock().unwrap() = true;
                RELEASED.1.notify_all();
            })
            .method("id", |n: u64| async move { n })
    });
}

/// Each of the server's landings that may run at once is stuck in a handler.
#[test]
fn a_call_is_served_when_every_landing_that_may_run_is_stuck() {
    let _w = watchdog();
    let names = Names::new();
    let name = names.name("s");
    let process = Process::start("server", &format!("0 {name}"));
    let rt = runtime(1);
    rt.block_on(async {
        let mut stuck = Vec::new();
        for _ in 0..urpc_donate::allowed_cpus() {
            let peer = urpc::connect(&name).await.unwrap();
            let before = peer.stats();
            let call = urpc::call::<()>(&peer, "block", ());
            stuck.push(urpc::spawn(call));
            while peer.stats().donations_given == before.donations_given {
                urpc::time::sleep(Duration::from_millis(1)).await;
            }
        }
        let peer = urpc::connect(&name).await.unwrap();
        for n in 0..100 {
            let call = urpc::call::<u64>(&peer, "id", n).timeout(Duration::from_secs(10));
            assert_eq!(call.await, Ok(n));
        }
        assert_eq!(
            peer.stats().donations_returned,
            peer.stats().donations_given
        );
        urpc::call::<()>(&peer, "release", ()).await.unwrap();
        for call in stuck {
            call.await.unwrap().unwrap();
        }
    });
    drop(rt);
    process.finish();
}

roles! {
    "server" => server,
}
