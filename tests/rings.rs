//! Rings that the kernel has no memory for are repeated: no caller waits because a ring was lost.
#[macro_use]
mod common;
#[path = "common/inject.rs"]
mod inject;

use std::time::Duration;

use common::{Names, Process, for_each_line, runtime, say, serve, watchdog};
use inject::Injected;

fn server(argument: &str) {
    serve(argument, |server, _| {
        server.method("double", |n: u32| async move { 2 * n })
    });
}

/// Calls from a thread that lends nothing: its peer is rung.
fn client(name: &str) {
    let rt = runtime(1);
    let peer = rt.block_on(async { urpc::connect(name).await.unwrap() });
    say("ready", "");
    for_each_line(|_| {
        let call = urpc::call::<u32>(&peer, "double", 21u32).timeout(Duration::from_secs(30));
        say("ended", format!("{:?}", futures::executor::block_on(call)));
    });
}

#[test]
fn a_ring_that_fails_is_repeated() {
    let _watch = watchdog();
    if !inject::is_there() {
        println!("skipped: there is no strace");
        return;
    }
    let names = Names::new();
    let name = names.name("s");
    let server = Process::start("server", &format!("1 {name}"));
    let mut client = Process::start("client", &name);
    let pid = client.pid();
    let mut call = || {
        client.tell("call");
        assert_eq!(client.expect("ended"), "Ok(42)");
    };
    call();
    for error in ["ENOBUFS", "ENOMEM"] {
        let log = names.path().join(error);
        let injected = Injected::into(pid, ("sendto", error), 1, &log);
        let failed = || std::fs::read_to_string(&log).unwrap().contains(error);
        // Until one has found the server asleep.
        while !failed() {
            call();
        }
        injected.end();
    }
    client.finish();
    server.finish();
}

roles! { "server" => server, "client" => client }
