//! System calls of another process that fail, by `strace`.

use std::fs::read_to_string;
use std::path::Path;
use std::process::{Child, Command, Stdio};

use rustix::process::{Pid, Signal, kill_process};

use crate::common::wait_for;

/// Of a channel's memory only: without any other, no program lives.
pub(crate) const MMAP: &str = "mmap";

/// Whether there is a `strace`.
pub(crate) fn is_there() -> bool {
    let mut strace = Command::new("strace");
    let status = strace.arg("-V").stdout(Stdio::null()).status();
    status.is_ok_and(|status| status.success())
}

/// Until this has ended, some calls of a process fail.
pub(crate) struct Injected {
    strace: Child,
    pid: u32,
}

impl Injected {
    /// Has the `nth` of these calls fail, in each thread of a process, from now on.
    pub(crate) fn into(pid: u32, (call, error): (&str, &str), nth: u32, log: &Path) -> Self {
        let mut strace = Command::new("strace");
        strace
            .args(["-f", "-qq", "-e", &format!("trace={call}"), "-e"])
            .arg(format!("inject={call}:error={error}:when={nth}"));
        if call == MMAP {
            strace.args(["-P", "/memfd:urpc"]);
        }
        let strace = strace
            .args(["-o", log.to_str().unwrap(), "-p", &pid.to_string()])
            .stderr(Stdio::null())
            .spawn()
            .expect("strace");
        wait_for("strace", || is_traced(pid));
        Self { strace, pid }
    }

    /// The process goes on alone.
    pub(crate) fn end(mut self) {
        kill_process(Pid::from_child(&self.strace), Signal::TERM).unwrap();
        self.strace.wait().unwrap();
        wait_for("strace to let go", || {
            let status = read_to_string(format!("/proc/{}/status", self.pid)).expect("it lives");
            status.contains("TracerPid:\t0\n")
        });
    }
}

fn is_traced(pid: u32) -> bool {
    let tasks = std::fs::read_dir(format!("/proc/{pid}/task")).expect("it lives");
    tasks.flatten().all(|task| {
        let status = read_to_string(task.path().join("status"));
        status.is_ok_and(|status| !status.contains("TracerPid:\t0\n"))
    })
}
