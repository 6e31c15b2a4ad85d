//! Clients that are there before their server: they wait for it if they said so, whatever is missing yet, and for no
//! longer than they said or than somebody wants them to.
#[macro_use]
mod common;

use std::os::unix::net::UnixListener;
use std::time::{Duration, Instant};

use common::{Names, Process, hear, runtime, say, serve, until_told_to_end, wait_for, watchdog};
use urpc::{Error, ErrorKind};

const LONG: Duration = Duration::from_secs(3600);

fn server(argument: &str) {
    serve(argument, |server, _| {
        server.method("double", |n: u32| async move { 2 * n })
    });
}

/// Says how its call ends: it connects, and waits for its server, once it is told to.
fn client(name: &str) {
    say("ready", "");
    hear();
    let ended = runtime(1).block_on(async {
        let connecting = urpc::connect(name).wait_for_server(LONG);
        say("waits", "");
        let peer = connecting.await?;
        Ok::<u32, Error>(urpc::call(&peer, "double", 21u32).await?)
    });
    say("ended", format!("{ended:?}"));
    until_told_to_end();
}

/// A client whose server is started a while later.
fn is_served(name: &str, before: impl FnOnce()) {
    let mut client = Process::start("client", name);
    client.tell("connect");
    client.expect("waits");
    wait_for("the client to look for its server", || {
        connecting(client.pid()) == 1
    });
    before();
    let server = Process::start("server", &format!("0 {name}"));
    assert_eq!(client.expect("ended"), "Ok(42)");
    client.finish();
    server.finish();
}

/// How many connections a process is just making.
fn connecting(pid: u32) -> usize {
    let tasks = std::fs::read_dir(format!("/proc/{pid}/task")).expect("it lives");
    let named = |task: &std::fs::DirEntry| {
        let comm = std::fs::read_to_string(task.path().join("comm"));
        comm.is_ok_and(|comm| comm.trim() == "urpc-connect")
    };
    tasks.flatten().filter(named).count()
}

#[test]
fn a_client_waits_for_a_server_that_is_started_later() {
    let _watch = watchdog();
    is_served(&Names::new().name("late"), || {});
}

#[test]
fn a_client_waits_for_a_server_whose_directory_is_not_there_yet() {
    let _watch = watchdog();
    let names = Names::new();
    let directory = names.path().join("later");
    let name = directory.join("s.sock").display().to_string();
    is_served(&name, || std::fs::create_dir(&directory).unwrap());
}

#[test]
fn a_client_waits_for_the_server_after_one_that_was_killed() {
    let _watch = watchdog();
    let names = Names::new();
    let name = names.name("killed");
    drop(UnixListener::bind(&name).unwrap()); // its file is left
    is_served(&name, || {});
}

#[test]
fn a_client_waits_no_longer_than_it_said() {
    let _watch = watchdog();
    let names = Names::new();
    let name = names.name("never");
    let (patience, began) = (Duration::from_millis(50), Instant::now());
    let ended = urpc::block_on(async { urpc::connect(&name).wait_for_server(patience).await });
    assert_eq!(ended.unwrap_err().kind(), ErrorKind::NoServer);
    assert!(began.elapsed() >= patience);
}

#[test]
fn a_server_that_is_not_allowed_is_an_error_at_once() {
    let _watch = watchdog();
    let names = Names::new();
    let name = names.name("s");
    let server = Process::start("server", &format!("0 {name}"));
    let connecting = urpc::connect(&name).allow(|_| false);
    let ended = urpc::block_on(async { connecting.wait_for_server(LONG).await });
    assert_eq!(ended.unwrap_err().kind(), ErrorKind::NotAllowed);
    server.finish();
}

#[test]
fn a_wait_that_nobody_wants_any_more_ends() {
    let _watch = watchdog();
    let names = Names::new();
    let name = names.name("unwanted");
    let mut client = Process::start("impatient", &name);
    client.expect("left");
    wait_for("its thread to end", || connecting(client.pid()) == 0);
    client.finish();
}

/// Waits for its server for as long as a poll takes.
fn impatient(name: &str) {
    let runtime = runtime(1);
    runtime.block_on(async {
        let mut waits = urpc::connect(name).wait_for_server(LONG);
        assert!(futures::poll!(&mut waits).is_pending());
    });
    say("ready", "");
    say("left", "");
    until_told_to_end();
}

roles! { "server" => server, "client" => client, "impatient" => impatient }
