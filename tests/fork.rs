//! A process that forks: its child inherits handles and no channel. Using them there is an error and no
//! crash, and whatever the child does, the parent's channels and servers go on.
//!
//! The only unsafe code of the tests is here.
#[macro_use]
mod common;

use std::panic::{AssertUnwindSafe, catch_unwind};

use common::{Names, Process, runtime, say, serve, until_told_to_end, watchdog};
use futures::executor::block_on;
use futures::future::poll_immediate;
use urpc::{Call, CallErrorKind, ErrorKind, Executed, Peer};

fn server(argument: &str) {
    serve(argument, |server, _| {
        server.method("len", |bytes: Vec<u8>| async move { bytes.len() })
    });
}

fn len(peer: &Peer, bytes: usize) -> Call<usize> {
    urpc::call(peer, "len", vec![7u8; bytes])
}

/// Runs `child` in a forked process. Its id.
fn fork(child: impl FnOnce()) -> libc::pid_t {
    // SAFETY: the role's process has no thread that holds a lock for long at this point (libtest's waits
    // for this one, urpc's rest), the child ends in `_exit`, and runs none of the parent's exit handlers.
    match unsafe { libc::fork() } {
        -1 => panic!("fork: {}", std::io::Error::last_os_error()),
        0 => {
            let fine = catch_unwind(AssertUnwindSafe(child)).is_ok();
            // SAFETY: as above.
            unsafe { libc::_exit(if fine { 7 } else { 1 }) }
        }
        pid => pid,
    }
}

/// The same, and says whether it ended well: without a panic or a signal.
fn in_a_child(child: impl FnOnce()) -> bool {
    let (pid, mut status) = (fork(child), 0);
    // SAFETY: `status` outlives the call, and `pid` is a child of ours.
    let waited = unsafe { libc::waitpid(pid, &mut status, 0) };
    waited == pid && libc::WIFEXITED(status) && libc::WEXITSTATUS(status) == 7
}

/// A small call and a large one.
fn calls_fail(peer: &Peer) {
    for bytes in [10, 100_000] {
        let error = block_on(len(peer, bytes)).unwrap_err();
        assert_eq!(error.kind(), CallErrorKind::Forked, "{error}");
        assert_eq!(error.executed(), Executed::No);
        let text = error.to_string();
        assert!(text.contains("forked") && text.contains("`len`"), "{text}");
    }
}

/// Calls a server, and forks in between.
fn client(name: &str) {
    say("ready", "");
    let rt = runtime(1);
    let (peer, begun, second) = rt.block_on(async {
        let peer = urpc::connect(name).await.unwrap();
        assert_eq!(len(&peer, 10).await.unwrap(), 10);
        let second = urpc::connect(name).await.unwrap();
        let mut begun = len(&peer, 20);
        assert!(poll_immediate(&mut begun).await.is_none());
        (peer, begun, second)
    });
    let mut kept = Some((rt, peer, begun, second));

    let left_alone = in_a_child(|| {
        let (_, peer, ..) = kept.as_ref().unwrap();
        calls_fail(peer);
    });
    say("left alone", left_alone);

    let dropped = in_a_child(|| {
        let (rt, peer, begun, second) = kept.take().unwrap();
        calls_fail(&peer);
        drop((begun, peer, second));
        drop(rt);
    });
    say("dropped", dropped);

    let (rt, peer, begun, second) = kept.take().unwrap();
    rt.block_on(async {
        assert_eq!(begun.await.unwrap(), 20, "it is the parent's call");
        for round in 0..10 {
            assert_eq!(len(&peer, round).await.unwrap(), round);
            assert_eq!(len(&second, 100_000).await.unwrap(), 100_000);
        }
    });
    say("goes on", true);
    until_told_to_end();
}

/// Serves a name, and forks children that drop the server.
fn forking_server(name: &str) {
    let rt = runtime(1);
    let server = rt.block_on(async {
        urpc::serve(name)
            .method("len", |bytes: Vec<u8>| async move { bytes.len() })
            .bind()
            .unwrap()
    });
    let mut kept = Some((rt, server));
    say("ready", "");
    common::hear();
    let dropped = in_a_child(|| {
        let (rt, server) = kept.take().unwrap();
        drop(server);
        drop(rt);
    });
    say("dropped", dropped);
    until_told_to_end();
    drop(kept);
}

/// Serves a name, and leaves its descriptors to a child, which waits for the end of their standard input.
fn orphaning_server(name: &str) {
    let rt = runtime(1);
    let _server = rt.block_on(async { urpc::serve(name).bind().unwrap() });
    let input = std::io::stdin();
    fork(|| while rustix::io::read(&input, &mut [0; 64]).is_ok_and(|n| n > 0) {});
    say("ready", "");
    until_told_to_end();
}

#[test]
fn a_killed_server_leaves_its_name_and_not_to_its_child() {
    let _watch = watchdog();
    let names = Names::new();
    let name = names.name("s");
    let mut server = Process::start("orphaning server", &name);
    let rt = runtime(1);
    let bind = || {
        let server = urpc::serve(&*name);
        server.method("len", |bytes: Vec<u8>| async move { bytes.len() })
    };
    rt.block_on(async {
        let error = bind().bind().unwrap_err();
        assert_eq!(error.kind(), ErrorKind::NameTaken, "{error}");
        server.kill();
        let _server = bind().bind().unwrap();
        let peer = urpc::connect(&name).await.unwrap();
        assert_eq!(len(&peer, 10).await.unwrap(), 10);
    });
}

#[test]
fn a_forked_child_gets_errors_and_its_parent_goes_on() {
    let _watch = watchdog();
    let names = Names::new();
    for processors in [1, 0] {
        let name = names.name(&format!("s{processors}"));
        let server = Process::start("server", &format!("{processors} {name}"));
        let mut client = Process::start("client", &name);
        assert_eq!(client.expect("left alone"), "true");
        assert_eq!(client.expect("dropped"), "true");
        assert_eq!(client.expect("goes on"), "true");
        client.finish();
        server.finish();
    }
}

#[test]
fn a_forked_child_that_drops_a_server_does_not_end_it() {
    let _watch = watchdog();
    let names = Names::new();
    let name = names.name("s");
    let mut server = Process::start("forking server", &name);
    runtime(1).block_on(async {
        let peer = urpc::connect(&name).await.unwrap();
        assert_eq!(len(&peer, 10).await.unwrap(), 10);
        server.tell("fork");
        assert_eq!(server.expect("dropped"), "true");
        assert_eq!(len(&peer, 100_000).await.unwrap(), 100_000);
        let second = urpc::connect(&name).await.unwrap();
        assert_eq!(len(&second, 10).await.unwrap(), 10);
    });
    server.finish();
}

roles! {
    "server" => server,
    "client" => client,
    "forking server" => forking_server,
    "orphaning server" => orphaning_server,
}
