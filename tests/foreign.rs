//! Descriptors that a peer sends and nobody asked for: one whose last close takes an hour holds up neither who is bound
//! nor who comes next.
#[macro_use]
mod common;
#[path = "common/raw.rs"]
mod raw;
#[path = "common/silent_fs.rs"]
mod silent_fs;

use std::fs::File;
use std::io::Write;
use std::net::{TcpListener, TcpStream};
use std::os::fd::AsFd;
use std::os::unix::fs::chown;
use std::os::unix::net::{UnixListener, UnixStream};
use std::os::unix::process::CommandExt;
use std::sync::mpsc;
use std::time::Duration;

use common::{Names, Process, runtime, say, serve, until_told_to_end, wait_for, watchdog};
use raw::Bound;
use rustix::net::SendFlags;
use rustix::net::sockopt::{set_socket_linger, set_socket_recv_buffer_size};
use rustix::process::{Resource, Rlimit, geteuid, getrlimit, setrlimit};
use urpc::ErrorKind;

fn server(argument: &str) {
    serve(argument, |server, _| server.method("one", |()| async { 1 }));
}

/// With no more descriptors than this.
fn poor_server(argument: &str) {
    let maximum = getrlimit(Resource::Nofile).maximum;
    let current = Some(64);
    setrlimit(Resource::Nofile, Rlimit { current, maximum }).unwrap();
    server(argument);
}

/// With no more threads than it is told.
fn limited_server(name: &str) {
    let rt = runtime(1);
    let _server = rt.block_on(async {
        let server = urpc::serve(name).method("one", |()| async { 1 });
        server.bind().unwrap()
    });
    say("ready", "");
    common::for_each_line(|line| {
        let maximum = getrlimit(Resource::Nproc).maximum;
        let current = Some(line.parse().unwrap()).min(maximum);
        setrlimit(Resource::Nproc, Rlimit { current, maximum }).unwrap();
        say("limited", "");
    });
}

/// The file system, on the file of this path.
fn silent(path: &str) {
    let mounted = silent_fs::mount(path);
    say("ready", "");
    say("mounted", if mounted.is_some() { "yes" } else { "no" });
    common::hear();
    drop(mounted);
    until_told_to_end();
}

/// Sends the file of this path to the server of this name, instead of memory and with a ring.
fn sender(argument: &str) {
    let (path, name) = argument.split_once(' ').unwrap();
    let file = File::open(path).unwrap();
    say("ready", "");
    for with_a_ring in [false, true].repeat(4) {
        if with_a_ring {
            let bound = Bound::connect(name).unwrap();
            assert!(raw::send(&bound.socket, b"\0", &[file.as_fd()]));
            wait_for("its channel to be closed", || {
                raw::is_hung_up(&bound.socket)
            });
        } else {
            let socket = UnixStream::connect(name).unwrap();
            assert!(raw::send(&socket, b"urpc", &[file.as_fd(); 3]));
            assert!(raw::refusal(&socket).contains("not a memfd"));
        }
        say("sent", "");
        common::hear();
    }
    until_told_to_end();
}

/// A socket of which the last close takes an hour while the other one lives, who does not read.
fn lingering() -> (TcpStream, TcpStream) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    set_socket_recv_buffer_size(&listener, 4096).unwrap();
    let lingering = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
    let (deaf, _) = listener.accept().unwrap();
    lingering.set_nonblocking(true).unwrap();
    set_socket_linger(&lingering, Some(Duration::from_hours(1))).unwrap();
    while (&lingering).write(&[0; 65536]).is_ok() {}
    (lingering, deaf)
}

fn send_lingering(to: &UnixStream, bytes: &[u8]) -> (TcpStream, bool) {
    send_lingering_behind(to, bytes, 0)
}

/// Sends such a socket, with these bytes and so many other descriptors before it. False, if nobody takes it.
fn send_lingering_behind(to: &UnixStream, bytes: &[u8], others: usize) -> (TcpStream, bool) {
    let (lingering, deaf) = lingering();
    let (to, bytes) = (to.try_clone().unwrap(), bytes.to_vec());
    let (tell, told) = mpsc::channel();
    // If the last close should be ours after all, this thread takes the hour.
    std::thread::spawn(move || {
        let null = File::open("/dev/null").unwrap();
        let mut fds = vec![null.as_fd(); others];
        fds.push(lingering.as_fd());
        let sent = raw::send(&to, &bytes, &fds);
        let _ = tell.send(sent);
        drop(lingering);
    });
    (deaf, told.recv().unwrap())
}

/// A server in this role, its name, and a client of it.
fn start(role: &str) -> (Names, String, Process, Process) {
    let names = Names::new();
    let name = names.name("s");
    let server = Process::start(role, &format!("1 {name}"));
    let client = Process::start("client", &name);
    (names, name, server, client)
}

/// Whether another process is served, by one that is bound by now and by one that comes now.
fn is_served(client: &mut Process) {
    client.tell("");
    client.expect("served");
}

/// Sends such a socket out of band, and then something plain.
fn send_lingering_ahead(to: &UnixStream, bytes: &[u8]) -> TcpStream {
    let (lingering, deaf) = lingering();
    let (to, bytes) = (to.try_clone().unwrap(), bytes.to_vec());
    let (tell, told) = mpsc::channel();
    std::thread::spawn(move || {
        raw::send_with(&to, b"!", &[lingering.as_fd()], SendFlags::OOB);
        raw::send(&to, &bytes, &[]);
        let _ = tell.send(());
        drop(lingering);
    });
    told.recv().unwrap();
    deaf
}

fn client(name: &str) {
    let rt = runtime(1);
    let first = rt.block_on(urpc::connect(name)).unwrap();
    common::say("ready", "");
    common::for_each_line(|_| {
        rt.block_on(async {
            let second = urpc::connect(name).await.unwrap();
            for peer in [&first, &second] {
                assert_eq!(urpc::call::<i32>(peer, "one", ()).await, Ok(1));
            }
        });
        common::say("served", "");
    });
}

#[test]
fn a_server_is_held_up_by_no_descriptor_of_a_connection_or_of_a_ring() {
    let _watch = watchdog();
    let (_names, name, server, mut client) = start("server");

    let socket = UnixStream::connect(&name).unwrap();
    let (_deaf, sent) = send_lingering(&socket, b"GET / HTTP/1.1\r\n\r\n");
    assert!(sent);
    is_served(&mut client);
    // Behind what is read: it is left in the socket, if that is not closed by then.
    let socket = UnixStream::connect(&name).unwrap();
    let bytes = [b"GET / HTTP/1.1\r\n\r\n".as_slice(), &[0; 10_000]].concat();
    assert!(raw::send(&socket, &bytes, &[]));
    let _deaf = send_lingering(&socket, b"and more");
    is_served(&mut client);

    let bound = Bound::connect(&name).unwrap();
    let (_deaf, sent) = send_lingering(&bound.socket, b"\0");
    assert!(sent);
    wait_for("its channel to be closed", || {
        raw::is_hung_up(&bound.socket)
    });
    is_served(&mut client);
    client.finish();
    server.finish();
}

#[test]
fn a_server_is_held_up_by_no_descriptor_of_who_has_to_wait_and_hangs_up() {
    let _watch = watchdog();
    let (_names, name, server, mut client) = start("server");
    let connect = || UnixStream::connect(&name).unwrap();
    // The longer the more often.
    for _ in 0..10 {
        let offence = connect();
        assert!(raw::send(&offence, b"GET / HTTP/1.1\r\n\r\n", &[]));
        wait_for("it to be refused", || raw::is_hung_up(&offence));
    }
    let _deaf = send_lingering(&connect(), b"urpc");
    is_served(&mut client);
    client.finish();
    server.finish();
}

#[test]
fn a_server_is_held_up_by_no_descriptor_that_comes_out_of_band() {
    let _watch = watchdog();
    let (_names, name, server, mut client) = start("server");
    let socket = UnixStream::connect(&name).unwrap();
    let _deaf = send_lingering_ahead(&socket, b"GET / HTTP/1.1\r\n\r\n");
    is_served(&mut client);
    let bound = Bound::connect(&name).unwrap();
    let _deaf = send_lingering_ahead(&bound.socket, b"\0");
    is_served(&mut client);
    client.finish();
    server.finish();
}

#[test]
fn a_server_is_held_up_by_no_descriptor_that_it_has_no_room_for() {
    let _watch = watchdog();
    let (_names, name, server, mut client) = start("poor server");
    let bound = Bound::connect(&name).unwrap();
    let (_deaf, sent) = send_lingering_behind(&bound.socket, b"\0", 252);
    assert!(sent);
    wait_for("its channel to be closed", || {
        raw::is_hung_up(&bound.socket)
    });
    is_served(&mut client);
    // Nor by as many connections as would take all of its own.
    let mut deaf = Vec::new();
    for _ in 0..40 {
        let socket = UnixStream::connect(&name).unwrap();
        deaf.push(send_lingering_behind(
            &socket,
            b"GET / HTTP/1.1\r\n\r\n",
            252,
        ));
        wait_for("it to be refused", || raw::is_hung_up(&socket));
    }
    is_served(&mut client);
    client.finish();
    server.finish();
}

#[test]
fn a_server_is_held_up_by_no_file_whose_file_system_does_not_answer() {
    let _watch = watchdog();
    let names = Names::new();
    let (path, name) = (names.name("silent"), names.name("s"));
    File::create(&path).unwrap();
    let mut silent = Process::start("silent", &path);
    if silent.expect("mounted") == "no" {
        println!("skipped: no file system can be mounted");
        return;
    }
    let server = Process::start("server", &format!("1 {name}"));
    let mut client = Process::start("client", &name);
    let mut sender = Process::start("sender", &format!("{path} {name}"));
    silent.tell("it is opened");
    for _ in 0..8 {
        sender.expect("sent");
        is_served(&mut client);
        sender.tell("more");
    }
    // With its end everybody has the answer.
    for process in [silent, sender, client, server] {
        process.finish();
    }
}

/// A user who may have only so many threads, as root may not.
const NOBODY: u32 = 65_534;

#[test]
fn what_could_not_be_closed_for_want_of_a_thread_keeps_nobody_out_for_ever() {
    let _watch = watchdog();
    if !geteuid().is_root() {
        println!("skipped: only root can start a process of another user");
        return;
    }
    let names = Names::new();
    chown(names.path(), Some(NOBODY), Some(NOBODY)).unwrap();
    let name = names.name("s");
    let start = |role, argument: &str| {
        Process::start_with(role, argument, |command| {
            command.uid(NOBODY).gid(NOBODY);
        })
    };
    let mut server = start("limited server", &name);
    let mut client = start("client", &name);
    let limit = |server: &mut Process, to| {
        server.tell(to);
        server.expect("limited");
    };
    limit(&mut server, "0");
    server.stop();
    let null = File::open("/dev/null").unwrap();
    // Of a user who is not allowed: each is refused, and its descriptor stays in the socket.
    let refused: Vec<_> = (0..16)
        .map(|_| {
            let socket = UnixStream::connect(&name).unwrap();
            assert!(raw::send(&socket, b"urpc", &[null.as_fd()]));
            socket
        })
        .collect();
    server.go_on();
    for socket in &refused[..8] {
        assert!(raw::refusal(socket).contains("not allowed"));
    }
    limit(&mut server, "1000000");
    is_served(&mut client);
    client.finish();
    server.finish();
}

#[test]
fn a_client_is_told_at_once() {
    let _watch = watchdog();
    let names = Names::new();
    let name = names.name("s");
    let listener = UnixListener::bind(&name).unwrap();
    let hostile = std::thread::spawn(move || {
        let accept = || listener.accept().unwrap().0;
        let bytes = b"GET / HTTP/1.1\r\n\r\n";
        let (deaf, _) = send_lingering(&accept(), bytes);
        [deaf, send_lingering_ahead(&accept(), bytes)]
    });
    for _ in 0..2 {
        let connected = runtime(1).block_on(async { urpc::connect(&name).await });
        assert_eq!(connected.unwrap_err().kind(), ErrorKind::Handshake);
    }
    drop(hostile.join().unwrap());
}

roles! { "server" => server, "poor server" => poor_server, "limited server" => limited_server, "silent" => silent, "sender" => sender, "client" => client }
