//! Who has the other end of a pair of sockets: not who made it, but who says the hello.
#[macro_use]
mod common;
#[path = "common/raw.rs"]
mod raw;

use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::os::unix::process::CommandExt;
use std::process::Stdio;

use common::{Process, runtime, say, watchdog};
use raw::{HELLO, Shown, VERSION, frame};
use rustix::net::sockopt::set_socket_passcred;
use rustix::net::{AddressFamily, SocketFlags, SocketType, socketpair};
use rustix::process::geteuid;
use urpc::{Caller, Credentials, ErrorKind, Server, caller};
use urpc_channel::UnsealedWakePage;

/// Another user, with no rights.
const NOBODY: u32 = 65_534;

fn inherited() -> OwnedFd {
    std::io::stdin().as_fd().try_clone_to_owned().unwrap()
}

fn serve_who(socket: impl Into<OwnedFd>) -> urpc::ServerBuilder {
    urpc::serve_fd(socket).method("who", |()| async {
        let Credentials { pid, uid, gid } = caller().as_ref().map(Caller::credentials).unwrap();
        (pid, uid, gid)
    })
}

/// Serves its parent, whoever that is.
fn server(_: &str) {
    runtime(1).block_on(async {
        let server = serve_who(inherited()).allow(|_| true).bind().unwrap();
        say("ready", "");
        let _ = server.run().await;
    });
}

/// Serves its parent if that is the same user.
fn strict_server(_: &str) {
    runtime(1).block_on(async {
        let server = serve_who(inherited()).bind().unwrap();
        say("ready", "");
        say("refused", server.run().await.unwrap_err());
    });
}

/// Asks its parent who calls.
fn client(_: &str) {
    say("ready", "");
    runtime(1).block_on(async {
        match urpc::connect_fd(inherited()).allow(|_| true).await {
            Err(error) => say("refused", error),
            Ok(peer) => {
                let (pid, uid, gid): (i32, u32, u32) = urpc::call(&peer, "who", ()).await.unwrap();
                say("caller", format!("{pid} {uid} {gid}"));
            }
        }
    });
}

/// A child in this role that has the other end, as this user.
fn start(role: &str, user: u32) -> (UnixStream, Process) {
    let (ours, theirs) = UnixStream::pair().unwrap();
    let child = Process::start_with(role, "", |command| {
        command.stdin(Stdio::from(OwnedFd::from(theirs)));
        if user != geteuid().as_raw() {
            command.uid(user).gid(user);
        }
    });
    (ours, child)
}

/// This user, and another one if processes of theirs can be started.
fn users() -> Vec<u32> {
    let own = geteuid();
    let other = own.is_root().then_some(NOBODY);
    [own.as_raw()].into_iter().chain(other).collect()
}

#[test]
fn each_side_knows_the_process_and_the_user_of_the_other_one() {
    let _watch = watchdog();
    let own = std::process::id().cast_signed();
    for user in users() {
        let rt = runtime(1);
        rt.block_on(async {
            let (ours, child) = start("server", user);
            let peer = urpc::connect_fd(ours).allow_uids([user]).await.unwrap();
            let Credentials { pid, uid, gid } = peer.credentials();
            assert_eq!((pid, uid, gid), (child.pid().cast_signed(), user, user));
            let who: (i32, u32, u32) = urpc::call(&peer, "who", ()).await.unwrap();
            assert_eq!((who.0, who.1), (own, geteuid().as_raw()));
            drop(peer);
            child.finish();
        });

        let (ours, mut child) = start("client", user);
        let server = rt.block_on(async { serve_who(ours).allow_uids([user]).bind().unwrap() });
        let expected = format!("{} {user} {user}", child.pid());
        assert_eq!(child.expect("caller"), expected);
        child.finish();
        rt.block_on(server.run()).unwrap();
    }
}

#[test]
fn another_user_at_the_other_end_of_a_pair_of_ours_is_refused() {
    let _watch = watchdog();
    if !geteuid().is_root() {
        println!("skipped: only root can start a process of another user");
        return;
    }
    let not_allowed = |error: urpc::Error| {
        assert_eq!(error.kind(), ErrorKind::NotAllowed, "{error}");
        assert!(error.to_string().contains("user 65534"), "{error}");
    };
    runtime(1).block_on(async {
        let (ours, child) = start("server", NOBODY);
        not_allowed(urpc::connect_fd(ours).await.unwrap_err());
        child.finish();

        let (ours, mut child) = start("client", NOBODY);
        let server = serve_who(ours).bind().unwrap();
        not_allowed(server.run().await.unwrap_err());
        assert!(child.expect("refused").contains("user 65534"));
        child.finish();

        let (ours, mut child) = start("strict server", NOBODY);
        let error = urpc::connect_fd(ours).allow(|_| true).await.unwrap_err();
        assert!(error.to_string().contains("refused: process"), "{error}");
        assert!(child.expect("refused").contains("user 0"));
        child.finish();
    });
}

/// A server of one end, and who says at the other one what `say` says.
fn told(
    allow: impl Fn(Credentials) -> bool + Send + Sync + 'static,
    say: impl FnOnce(&UnixStream, &UnsealedWakePage),
) -> (UnixStream, Server) {
    let (ours, theirs) = UnixStream::pair().unwrap();
    say(&theirs, &UnsealedWakePage::create().unwrap());
    (theirs, serve_who(ours).allow(allow).bind().unwrap())
}

#[test]
fn what_several_have_said_is_no_hello() {
    let _watch = watchdog();
    runtime(1).block_on(async {
        let (peer, server) = told(
            |_| true,
            |socket, wakes| {
                // The kernel signs the first part only.
                let hello = frame(VERSION, HELLO, &raw::hello(&[]));
                let shown = Shown::new();
                let fds = [shown.outbox.fd().unwrap(), shown.page.fd(), wakes.fd()];
                set_socket_passcred(socket, true).unwrap();
                assert!(raw::send(socket, &hello[..20], &[]));
                set_socket_passcred(socket, false).unwrap();
                assert!(raw::send(socket, &hello[20..], &fds));
            },
        );
        let error = server.run().await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Handshake, "{error}");
        assert!(error.to_string().contains("several processes"), "{error}");
        assert!(raw::refusal(&peer).contains("several processes"));
    });
}

#[test]
fn who_does_not_say_who_it_is_is_bound_only_by_a_rule_that_allows_anybody() {
    let _watch = watchdog();
    let unsigned = |socket: &UnixStream, wakes: &UnsealedWakePage| {
        assert!(Shown::new().say_hello(Some(wakes), socket, &[]));
    };
    runtime(1).block_on(async {
        let (peer, server) = told(|who| who.pid != 0, unsigned);
        let error = server.run().await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::NotAllowed, "{error}");
        assert!(raw::refusal(&peer).contains("process 0"));

        let (peer, server) = told(|who| who.pid == 0, unsigned);
        let (_, kind, ..) = raw::receive(&peer).unwrap();
        assert_eq!(kind, HELLO);
        assert_eq!(server.clients()[0].credentials().uid, NOBODY);
    });
}

#[test]
fn what_is_no_stream_is_an_error_at_once() {
    let _watch = watchdog();
    let (kind, flags) = (SocketType::SEQPACKET, SocketFlags::CLOEXEC);
    let (ours, theirs) = socketpair(AddressFamily::UNIX, kind, flags, None).unwrap();
    runtime(1).block_on(async {
        let errors = [
            serve_who(ours).bind().unwrap_err(),
            urpc::connect_fd(theirs).await.unwrap_err(),
        ];
        for error in errors {
            assert_eq!(error.kind(), ErrorKind::System, "{error}");
            assert!(error.to_string().contains("an inherited socket"), "{error}");
        }
    });
}

roles! { "server" => server, "strict server" => strict_server, "client" => client }
