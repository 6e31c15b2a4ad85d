//! Binding and what can go wrong with it: each refusal is a typed error whose text names what it is
//! about and says why, and no server is disturbed by who is refused.
#[macro_use]
mod common;
#[path = "common/raw.rs"]
mod raw;

use std::ffi::OsStr;
use std::io::Write;
use std::os::fd::AsFd;
use std::os::unix::net::{UnixListener, UnixStream};
use std::os::unix::process::CommandExt;
use std::process::{Command, Stdio};
use std::time::Duration;

use common::{Names, Process, hear, runtime, say, serve, until_told_to_end, wait_for, watchdog};
use raw::{Bound, HELLO, LIMITS, Shown, VERSION, frame, hello, refusal};
use urpc::{Error, ErrorKind, Executed, Peer};
use urpc_channel::UnsealedWakePage;

fn server(argument: &str) {
    serve(argument, |server, _| {
        server.method(
            "greet",
            |name: String| async move { format!("hello {name}") },
        )
    });
}

/// Says how its attempts to bind ended: first with a server of its own user, then with any.
fn client(name: &str) {
    say("ready", "");
    hear();
    let tell = |ended: Result<Peer, Error>| {
        let ended = ended.map(|_| ()).map_err(|error| (error.kind(), error));
        say("ended", format!("{ended:?}"));
    };
    urpc::block_on(async {
        tell(urpc::connect(name).await);
        tell(urpc::connect(name).allow(|_| true).await);
    });
    until_told_to_end();
}

fn start(names: &Names) -> (Process, String) {
    let name = names.name("s");
    (Process::start("server", &format!("1 {name}")), name)
}

fn connect(name: &str) -> Result<Peer, Error> {
    urpc::block_on(async { urpc::connect(name).await })
}

/// The error of a binding, whose text has all these words.
#[track_caller]
fn refused(bound: Result<Peer, Error>, kind: ErrorKind, words: &[&str]) {
    let error = bound.expect_err("it must not be bound");
    assert_eq!(error.kind(), kind, "{error}");
    assert_eq!(error.executed(), Executed::No);
    says(&error.to_string(), words);
}

#[track_caller]
fn says(text: &str, words: &[&str]) {
    for word in words {
        assert!(text.contains(word), "`{word}` is not in: {text}");
    }
}

async fn works(peer: &Peer) {
    let greeting: String = urpc::call(peer, "greet", "you").await.unwrap();
    assert_eq!(greeting, "hello you");
}

#[test]
fn a_name_that_nobody_serves_is_an_error_at_once() {
    let names = Names::new();
    let name = names.name("nobody");
    let words = ["nobody serves", name.as_str(), "is its server running"];
    refused(connect(&name), ErrorKind::NoServer, &words);
    // What a killed server leaves behind. (A child of another test may have it until it has been executed.)
    drop(UnixListener::bind(&name).unwrap());
    wait_for("nobody to have it", || UnixStream::connect(&name).is_err());
    refused(connect(&name), ErrorKind::NoServer, &words);
    let long = format!("{name}/{}", "x".repeat(100));
    refused(connect(&long), ErrorKind::BadName, &["bytes", "shorter"]);
    refused(connect(""), ErrorKind::BadName, &["empty"]);
}

#[test]
fn a_client_of_another_version_is_told_both_versions() {
    let _watch = watchdog();
    let names = Names::new();
    let (server, name) = start(&names);
    let socket = UnixStream::connect(&name).unwrap();
    // Whatever its body is: it is another protocol.
    assert!(raw::send(
        &socket,
        &frame(VERSION + 1, HELLO, b"from the future"),
        &[]
    ));
    let [theirs, ours] = [VERSION + 1, VERSION].map(|version| format!("version {version}"));
    says(&refusal(&socket), &[&theirs, &ours, "same urpc"]);
    urpc::block_on(async { works(&urpc::connect(&name).await.unwrap()).await });
    server.finish();
}

#[test]
fn a_server_of_another_version_is_an_error_of_that_kind() {
    let _watch = watchdog();
    let names = Names::new();
    let name = names.name("old");
    let listener = UnixListener::bind(&name).unwrap();
    let answers = [
        frame(VERSION + 1, HELLO, b"from the future"),
        frame(VERSION + 1, raw::REFUSAL, b"you speak version 1"),
    ];
    let old = std::thread::spawn(move || {
        for answer in answers {
            let (mut socket, _) = listener.accept().unwrap();
            let (version, kind, ..) = raw::receive(&socket).unwrap();
            assert_eq!((version, kind), (VERSION, HELLO));
            socket.write_all(&answer).unwrap();
        }
    });
    refused(
        connect(&name),
        ErrorKind::Version,
        &[&name, "this side version 5", "same urpc"],
    );
    refused(
        connect(&name),
        ErrorKind::Version,
        &[&name, "you speak version 1"],
    );
    old.join().unwrap();
}

#[test]
fn what_is_no_hello_is_refused_with_a_reason() {
    let _watch = watchdog();
    let names = Names::new();
    let (server, name) = start(&names);
    let shown = Shown::new();
    let (outbox, page) = (shown.outbox.fd().unwrap(), shown.page.fd());
    let wakes = UnsealedWakePage::create().unwrap();
    let wakes = wakes.fd();
    let whole = frame(VERSION, HELLO, &hello(&[]));
    let huge = [b"urpc\x01\0\x01\0".as_slice(), &u32::MAX.to_le_bytes()].concat();
    let crowd = vec![("p", ""); 70_000];
    let vast = [LIMITS.calls, 8 << 20, 4 << 20, 1].map(u64::from);
    let vast = postcard::to_allocvec(&((4096u32, 1u32 << 28), vast, [0u8; 0].as_slice())).unwrap();
    let short = std::fs::File::open("/dev/null").unwrap();
    let cases: [(&[u8], Vec<_>, &str); 12] = [
        (b"GET / HTTP/1.1\r\n\r\n", vec![], "not this protocol"),
        (&huge, vec![], "claims 4294967295 bytes"),
        (&frame(VERSION, 9, b""), vec![], "kind 9"),
        (&frame(VERSION, HELLO, b"\xff\xff"), vec![], "not one"),
        (
            &frame(VERSION, HELLO, &hello(&crowd)),
            vec![outbox, page, wakes],
            "bytes",
        ),
        (&frame(VERSION, HELLO, &vast), vec![], "4096 slots"),
        (&whole, vec![], "without its regions"),
        (&whole, vec![outbox], "without its regions"),
        (&whole, vec![outbox, page], "without its regions"),
        (&whole, vec![outbox, page, wakes, page], "more descriptors"),
        (&whole, vec![short.as_fd(), page, wakes], "not a memfd"),
        // Sealed already, so that only its maker could write it.
        (&whole, vec![outbox, page, page], "wake page"),
    ];
    for (bytes, fds, why) in cases {
        let socket = UnixStream::connect(&name).unwrap();
        raw::send(&socket, bytes, &fds);
        says(&refusal(&socket), &[why]);
    }
    // Swapped, they are memory of the wrong size.
    let socket = UnixStream::connect(&name).unwrap();
    assert!(raw::send(&socket, &whole, &[page, outbox, wakes]));
    says(&refusal(&socket), &["outbox", "bytes instead of"]);

    assert!(Bound::connect(&name).is_some(), "a good hello is taken");
    urpc::block_on(async { works(&urpc::connect(&name).await.unwrap()).await });
    server.finish();
}

/// The error of connecting to a server that says its hello with this page, if any, after it has got three descriptors.
fn greeted_with(wakes: Option<UnsealedWakePage>, words: &[&str]) {
    let _watch = watchdog();
    let names = Names::new();
    let name = names.name("s");
    let listener = UnixListener::bind(&name).unwrap();
    let server = std::thread::spawn(move || {
        let (socket, _) = listener.accept().unwrap();
        let (.., fds) = raw::receive(&socket).unwrap();
        assert_eq!(fds.len(), 3);
        let shown = Shown::new();
        assert!(shown.say_hello(wakes.as_ref(), &socket, &[]));
        (fds, shown) // kept until the client has looked
    });
    let words = [&[&*name, "wake page"], words].concat();
    refused(connect(&name), ErrorKind::Handshake, &words);
    drop(server.join().unwrap());
}

#[test]
fn a_server_that_leaves_the_wake_page_unsealed_is_refused() {
    greeted_with(None, &["seals"]);
}

#[test]
fn two_that_connect_to_one_another_are_told_so() {
    greeted_with(Some(UnsealedWakePage::create().unwrap()), &["`serve_fd`"]);
}

#[test]
fn a_peer_that_says_too_little_is_given_up() {
    let _watch = watchdog();
    let names = Names::new();
    let (server, name) = start(&names);
    let silent = UnixStream::connect(&name).unwrap();
    let mut halting = UnixStream::connect(&name).unwrap();
    halting.write_all(b"urpc").unwrap();

    let mute = names.name("mute");
    let _accepts_nothing = UnixListener::bind(&mute).unwrap();
    let drip = names.name("drip");
    let dripping = UnixListener::bind(&drip).unwrap();
    std::thread::scope(|s| {
        s.spawn(|| refused(connect(&mute), ErrorKind::Handshake, &[&mute, "within 5s"]));
        s.spawn(|| {
            // A byte now and then is not enough, either.
            let (mut socket, _) = dripping.accept().unwrap();
            let frame = frame(VERSION, HELLO, &[0; 10_000]);
            for byte in frame {
                if socket.write_all(&[byte]).is_err() {
                    return;
                }
                std::thread::sleep(Duration::from_millis(20));
            }
            panic!("the client waited for all of it");
        });
        s.spawn(|| refused(connect(&drip), ErrorKind::Handshake, &[&drip, "within 5s"]));
        // Meanwhile the server is there for others, and then it has waited long enough.
        urpc::block_on(async { works(&urpc::connect(&name).await.unwrap()).await });
        for socket in [&silent, &halting] {
            says(&refusal(socket), &["within 5s"]);
        }
    });
    server.finish();
}

#[test]
fn a_name_belongs_to_one_server_until_that_ends() {
    let _watch = watchdog();
    let names = Names::new();
    let name = names.name("s");
    let path = names.path().join("s.sock");
    drop(UnixListener::bind(&name).unwrap());
    assert!(path.exists(), "a stale file");
    runtime(1).block_on(async {
        let serve = || {
            urpc::serve(&*name)
                .method("f", |n: u8| async move { n })
                .bind()
        };
        // A child that another test has forked, and that is not executed yet, holds the stale socket, too.
        let mut first = None;
        wait_for("a stale file to be replaced", || {
            first = serve().ok();
            first.is_some()
        });
        let error = serve().unwrap_err();
        assert_eq!(error.kind(), ErrorKind::NameTaken);
        says(&error.to_string(), &[&name, "serves it already"]);
        let peer = urpc::connect(&name).await.unwrap();
        assert_eq!(urpc::call::<u8>(&peer, "f", 7u8).await.unwrap(), 7);
        drop(first);
        assert!(!path.exists(), "its file goes with the server");
        peer.closed().await;
        serve()
            .unwrap()
            .shutdown(Duration::from_secs(5))
            .await
            .unwrap();
        assert!(!path.exists());
        let error = urpc::serve("").bind().unwrap_err();
        assert_eq!(error.kind(), ErrorKind::BadName);
    });
}

#[test]
fn a_plain_name_is_a_socket_in_urpc_dir() {
    let _watch = watchdog();
    let names = Names::new();
    let dir = names.path().join("made");
    let set = |command: &mut std::process::Command| {
        command.env("URPC_DIR", &dir);
    };
    let server = Process::start_with("server", "1 calc", set);
    assert!(dir.join("calc.sock").exists());
    for (name, ended) in [("calc", "Ok(())"), ("calk", "NoServer")] {
        let mut client = Process::start_with("client", name, set);
        client.tell("now");
        says(&client.expect("ended"), &[ended]);
        says(&client.expect("ended"), &[ended]);
        client.finish();
    }
    server.finish();
    assert!(!dir.join("calc.sock").exists());
}

#[test]
fn who_is_not_allowed_is_told_so_and_gets_nothing() {
    let _watch = watchdog();
    let names = Names::new();
    let name = names.name("s");
    runtime(1).block_on(async {
        let refusing = || urpc::serve(&*name).allow(|_| false);
        let server = refusing().bind().unwrap();
        for _ in 0..20 {
            let bound = urpc::connect(&name).await;
            refused(
                bound,
                ErrorKind::Handshake,
                &[&name, "refused", "not allowed", "user"],
            );
        }
        assert!(server.clients().is_empty());
        let choosy = urpc::connect(&name).allow(|_| false).await;
        refused(choosy, ErrorKind::NotAllowed, &[&name, "not allowed"]);

        let (ours, theirs) = UnixStream::pair().unwrap();
        let server = urpc::serve_fd(ours).allow(|_| false).bind().unwrap();
        let bound = urpc::connect_fd(theirs).await;
        refused(bound, ErrorKind::Handshake, &["refused", "not allowed"]);
        let error = server.run().await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::NotAllowed);
    });
}

/// The same in another program, which may be one that starts this one.
fn run_by(program: impl AsRef<OsStr>, before: &[&OsStr], command: &mut Command) {
    let mut changed = Command::new(program);
    changed.args(before).args(command.get_args());
    for (key, value) in command.get_envs() {
        changed.env(key, value.unwrap());
    }
    changed.stdin(Stdio::piped()).stdout(Stdio::piped());
    *command = changed;
}

/// A client of another user is refused by a server that is started like this.
fn refuses_another_user(start: impl FnOnce(&str) -> Process) {
    let names = Names::new();
    let name = names.name("s");
    let server = start(&name);
    // Whoever asks, the file permissions are not what refuses them.
    let open = |path: &std::path::Path| {
        let all = std::os::unix::fs::PermissionsExt::from_mode(0o777);
        std::fs::set_permissions(path, all).unwrap();
    };
    open(names.path());
    open(name.as_ref());
    let exe = std::env::current_exe().unwrap();
    let copy = names.path().join("client");
    std::fs::copy(exe, &copy).unwrap();
    open(&copy);
    let mut client = Process::start_with("client", &name, |command| {
        run_by(&copy, &[], command);
        command.current_dir("/").uid(65534).gid(65534);
    });
    client.tell("now");
    let own = client.expect("ended");
    says(&own, &["NotAllowed", "of user 0", "not allowed"]);
    let servers = client.expect("ended");
    says(&servers, &["refused", "of user 65534", "not allowed"]);
    client.finish();
    server.finish();
}

#[test]
fn another_user_is_refused_before_anything_is_accepted() {
    let _watch = watchdog();
    if !rustix::process::geteuid().is_root() {
        println!("skipped: only root can start a process of another user");
        return;
    }
    refuses_another_user(|name| Process::start("server", &format!("1 {name}")));
}

#[test]
fn where_no_user_has_a_number_another_one_is_not_taken_for_our_own() {
    let _watch = watchdog();
    let unshared = Command::new("unshare").args(["-U", "true"]).status();
    if !rustix::process::geteuid().is_root() || !unshared.is_ok_and(|status| status.success()) {
        println!("skipped: no process of another user, or in another namespace, can be started");
        return;
    }
    refuses_another_user(|name| {
        Process::start_with("server", &format!("1 {name}"), |command| {
            let exe = std::env::current_exe().unwrap();
            run_by("unshare", &["-U".as_ref(), exe.as_ref()], command);
        })
    });
}

roles! { "server" => server, "client" => client }
