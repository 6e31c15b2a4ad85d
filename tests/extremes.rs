//! A builder takes any time for its limits, the longest there is too: then they are never reached.
#[macro_use]
mod common;

use std::time::Duration;

use common::{Names, Process, serve, watchdog};

fn server(argument: &str) {
    serve(argument, |server, _| {
        server.method("echo", |text: String| async move { text })
    });
}

#[test]
fn a_processor_that_never_rests_takes_large_messages() {
    let _w = watchdog();
    let names = Names::new();
    let name = names.name("s");
    let process = Process::start("server", &format!("1 {name}"));
    let rt = urpc::Runtime::builder().spin(Duration::MAX).build();
    let rt = rt.unwrap();
    let large = "x".repeat(100_000);
    rt.block_on(async {
        let peer = urpc::connect(&name).await.unwrap();
        for _ in 0..20 {
            let echo = urpc::call::<String>(&peer, "echo", &large);
            assert_eq!(echo.await.as_ref(), Ok(&large));
        }
    });
    drop(rt);
    process.finish();
}

#[test]
fn a_donor_whose_limit_is_for_ever_lends_and_gets_back() {
    let _w = watchdog();
    let names = Names::new();
    let name = names.name("s");
    let process = Process::start("server", &format!("0 {name}"));
    // Nothing is due before the processor has to be back.
    let builder = urpc::Runtime::builder().call_deadline(Duration::MAX);
    let rt = builder.grant_limit(Duration::MAX).build().unwrap();
    let peer = rt.block_on(urpc::connect(&name)).unwrap();
    while peer.stats().donations_returned == 0 {
        let echo = urpc::call::<String>(&peer, "echo", "here");
        assert_eq!(rt.block_on(echo).unwrap(), "here");
    }
    drop((peer, rt));
    process.finish();
}

roles! { "server" => server }
