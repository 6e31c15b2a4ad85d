//! System calls that fail: the n-th of each kind in each thread of a server, by `strace`, while a client binds,
//! calls, waits and leaves. The client gets what it asked for or an error with a kind; the server lives, serves the
//! next one, and holds no more than before.

use std::fs::read_to_string;
use std::process::{Command, Stdio};
use std::time::Duration;

use urpc::ErrorKind;

use crate::common::{Names, Process, runtime, wait_for};
use crate::state::{Held, until_back_at};

/// What binding, resting and donating ask the kernel for, and how that fails.
const CALLS: [(&str, &str); 24] = [
    ("accept4", "EMFILE"),
    ("accept4", "ENOMEM"),
    ("getsockopt", "ENOBUFS"),
    ("pidfd_open", "EMFILE"),
    ("recvmsg", "EINTR"),
    ("recvmsg", "ENOMEM"),
    ("memfd_create", "EMFILE"),
    ("memfd_create", "ENOMEM"),
    ("ftruncate", "ENOSPC"),
    ("fallocate", "ENOSPC"),
    ("fcntl", "ENOMEM"),
    ("fstatfs", "ENOMEM"),
    ("lseek", "ENOMEM"),
    ("epoll_ctl", "ENOSPC"),
    ("epoll_ctl", "ENOMEM"),
    ("epoll_wait", "EINTR"),
    ("epoll_wait", "ENOMEM"),
    ("clone3", "EAGAIN"),
    ("sendmsg", "ENOMEM"),
    ("sendto", "ENOMEM"),
    ("futex", "EINTR"),
    ("futex_waitv", "EINTR"),
    ("futex_waitv", "ENOMEM"),
    ("sched_setaffinity", "EINVAL"),
];

/// Beyond this many of one kind it is the same again.
const MOST: u32 = 12;

fn is_there(program: &str) -> bool {
    let mut command = Command::new(program);
    let status = command.arg("-V").stdout(Stdio::null()).status();
    status.is_ok_and(|status| status.success())
}

fn is_traced(pid: u32) -> bool {
    let tasks = std::fs::read_dir(format!("/proc/{pid}/task")).expect("it lives");
    tasks.flatten().all(|task| {
        let status = read_to_string(task.path().join("status"));
        status.is_ok_and(|status| !status.contains("TracerPid:\t0\n"))
    })
}

fn is_let_go(pid: u32) -> bool {
    let status = read_to_string(format!("/proc/{pid}/status")).expect("it lives");
    status.contains("TracerPid:\t0\n")
}

/// All of them, or only the first of each.
pub(crate) fn everywhere(processors: usize, all: bool) {
    if !is_there("strace") {
        println!("skipped: there is no strace");
        return;
    }
    let names = Names::new();
    let name = names.name("s");
    let server = Process::start("server", &format!("{processors} {name}"));
    let pid = server.pid();
    for _ in 0..3 {
        assert_eq!(visit(&name), Ok(()));
    }
    until_alone(pid);
    let before = Held::by(pid).unwrap();
    let (mut faults, mut refused) = (0, 0);
    for (call, error) in CALLS {
        for nth in 1..=if all { MOST } else { 1 } {
            let log = names.path().join("log");
            let mut strace = Command::new("strace")
                .args(["-f", "-qq", "-e", &format!("trace={call}"), "-e"])
                .arg(format!("inject={call}:error={error}:when={nth}"))
                .args(["-o", log.to_str().unwrap(), "-p", &pid.to_string()])
                .stderr(Stdio::null())
                .spawn()
                .expect("strace");
            wait_for("strace", || is_traced(pid));
            if let Err(kind) = visit(&name) {
                refused += 1;
                let typed = [
                    ErrorKind::Handshake,
                    ErrorKind::Overloaded,
                    ErrorKind::System,
                    ErrorKind::Call,
                    ErrorKind::NotAllowed,
                ];
                assert!(typed.contains(&kind), "{call} {error}: {kind:?}");
            }
            let strace_pid = rustix::process::Pid::from_child(&strace);
            rustix::process::kill_process(strace_pid, rustix::process::Signal::TERM).unwrap();
            strace.wait().unwrap();
            wait_for("strace to let go", || is_let_go(pid));
            // Whatever failed, the next one is served.
            let again = visit(&name);
            assert_eq!(again, Ok(()), "after {call} failed with {error}, {nth}");
            let happened = read_to_string(&log).unwrap().contains("(INJECTED)");
            faults += u32::from(happened);
            if !happened {
                break;
            }
        }
    }
    println!("{processors} processors: {faults} faults, {refused} clients were told of one");
    assert!(faults > 5);
    until_back_at(pid, before, 4 << 20);
    server.finish();
}

/// Waits until the server has let go of its last client.
fn until_alone(pid: u32) {
    wait_for("the last client to be gone", || {
        Held::by(pid).is_some_and(|held| held.mappings <= 1)
    });
}

/// Binds, calls, waits a moment, calls again, leaves.
fn visit(name: &str) -> Result<(), ErrorKind> {
    let rt = runtime(1);
    let visit = rt.block_on(async {
        let peer = urpc::connect(name).await?;
        for bytes in [10, 5000] {
            let call = urpc::call::<usize>(&peer, "later", vec![7u8; bytes]);
            assert_eq!(call.timeout(Duration::from_secs(1)).await?, bytes);
            urpc::time::sleep(Duration::from_millis(2)).await;
        }
        Ok::<_, urpc::Error>(())
    });
    visit.map_err(|error| error.kind())
}
