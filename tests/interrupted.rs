//! A client is stopped (SIGSTOP) where its handshake waits in the kernel, and goes on (SIGCONT). The kernel gives up
//! there what waits with a time limit, as for any signal that is handled; the client does not.
#[macro_use]
mod common;
#[path = "common/raw.rs"]
mod raw;

use std::fs::{read_dir, read_to_string};
use std::io::{Read, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::Path;
use std::process::Stdio;

use common::{Names, Process, runtime, say, wait_for, watchdog};
use raw::{HELLO, REFUSAL, VERSION, frame};

/// Says why it is not bound. The argument is a name; without one it is its standard input that it connects over.
fn client(name: &str) {
    say("ready", "");
    let connect = match name {
        "" => urpc::connect_fd(std::io::stdin().as_fd().try_clone_to_owned().unwrap()),
        name => urpc::connect(name),
    };
    say("refused", runtime(1).block_on(connect).unwrap_err());
}

/// Whether this thread makes a connection, and waits.
fn waits(thread: &Path) -> bool {
    let read = |what| read_to_string(thread.join(what)).unwrap_or_default();
    read("comm").trim() == "urpc-connect" && read("stat").contains(") S ")
}

/// Stops the client where it waits, and lets it go on.
fn interrupt(client: &Process) {
    let threads = format!("/proc/{}/task", client.pid());
    wait_for("the client to wait", || {
        let mut threads = read_dir(&threads).unwrap();
        threads.any(|thread| thread.is_ok_and(|thread| waits(&thread.path())))
    });
    client.stop();
    client.go_on();
}

/// Waits for the client's hello, and refuses it.
fn refuse(socket: &UnixStream, mut client: Process) {
    let (_, kind, ..) = raw::receive(socket).expect("a hello");
    assert_eq!(kind, HELLO);
    raw::send(socket, &frame(VERSION, REFUSAL, b"how patient"), &[]);
    let said = client.expect("refused");
    assert!(said.contains("how patient"), "{said}");
    client.finish();
}

#[test]
fn a_client_that_is_interrupted_goes_on_waiting_for_a_crowded_server() {
    let _watch = watchdog();
    let names = Names::new();
    let name = names.name("s");
    let listener = UnixListener::bind(&name).unwrap();
    rustix::net::listen(&listener, 0).unwrap();
    let _crowd = UnixStream::connect(&name).unwrap();
    let client = Process::start("client", &name);
    interrupt(&client);
    let [_, socket] = [(); 2].map(|()| listener.accept().unwrap().0);
    refuse(&socket, client);
}

#[test]
fn a_client_that_is_interrupted_goes_on_waiting_to_say_its_hello() {
    let _watch = watchdog();
    let (mut ours, theirs) = UnixStream::pair().unwrap();
    theirs.set_nonblocking(true).unwrap();
    let before = std::iter::from_fn(|| (&theirs).write(&[0; 4096]).ok()).sum();
    let client = Process::start_with("client", "", |command| {
        command.stdin(Stdio::from(OwnedFd::from(theirs)));
    });
    interrupt(&client);
    ours.read_exact(&mut vec![0; before]).unwrap();
    refuse(&ours, client);
}

roles! { "client" => client }
