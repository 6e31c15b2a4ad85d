//! Threads that a runtime starts while it is bound to a CPU that is lent are not bound there themselves.
#[macro_use]
mod common;

use std::fs;
use std::sync::{Arc, Barrier};

use common::{Names, Process, runtime, say, until_told_to_end, wait_for, watchdog};

/// A server with one processor, which no thread holds to begin with. The argument is its name.
fn server(name: &str) {
    let rt = runtime(1);
    let _server = rt.block_on(async {
        urpc::serve(name)
            .method("double", |n: u64| async move { 2 * n })
            .bind()
            .unwrap()
    });
    say("ready", "");
    until_told_to_end();
}

/// What a thread's status says of its CPUs.
fn cpus_in(status: &str) -> Option<String> {
    let mut lines = status.lines();
    let cpus = lines.find_map(|line| line.strip_prefix("Cpus_allowed_list:"));
    cpus.map(|cpus| cpus.trim().to_owned())
}

/// Those of a thread that is not bound.
fn free() -> String {
    cpus_in(&fs::read_to_string("/proc/self/status").unwrap()).unwrap()
}

/// A server, its name, and the CPUs of a thread that is not bound.
fn start() -> (Names, String, Process, String) {
    let names = Names::new();
    let name = names.name("s");
    let process = Process::start("server", &name);
    (names, name, process, free())
}

/// Those of each thread of a process that has this name.
fn cpus_of(pid: u32, name: &str) -> Vec<String> {
    let mut all = Vec::new();
    for thread in fs::read_dir(format!("/proc/{pid}/task")).unwrap() {
        let thread = thread.unwrap().path();
        // It may have ended meanwhile.
        let read = |what| fs::read_to_string(thread.join(what)).unwrap_or_default();
        if read("comm").trim() == name {
            all.extend(cpus_in(&read("status")));
        }
    }
    all
}

#[test]
fn what_is_started_from_a_landing_is_not_bound_to_the_cpu_that_was_lent() {
    let _w = watchdog();
    if urpc_donate::allowed_cpus() < 2 {
        return;
    }
    let (_names, name, process, free) = start();
    // Two, so that a second landing is opened.
    let rt = runtime(2);
    let peer = rt.block_on(urpc::connect(&name)).unwrap();
    let threads = |name: &str| cpus_of(process.pid(), name);
    wait_for("a second landing, which is not bound", || {
        let double = urpc::call::<u64>(&peer, "double", 21u64);
        assert_eq!(rt.block_on(double), Ok(42));
        let landings = threads("urpc-landing");
        landings.len() == 2 && landings.contains(&free)
    });
    drop((peer, rt));
    process.finish();
}

#[test]
fn a_worker_that_a_donor_starts_is_not_bound_to_the_cpu_that_was_lent() {
    let _w = watchdog();
    if urpc_donate::allowed_cpus() < 2 {
        return;
    }
    let (_names, name, process, free) = start();
    let rt = runtime(2);
    rt.block_on(async {
        let peer = urpc::connect(&name).await.unwrap();
        while peer.stats().donations_given == 0 {
            let double = urpc::call::<u64>(&peer, "double", 21u64);
            assert_eq!(double.await, Ok(42));
        }
        // Neither ends before the other has a thread, too.
        let both = Arc::new(Barrier::new(2));
        let tasks = [both.clone(), both].map(|both| urpc::spawn(async move { both.wait() }));
        for task in tasks {
            task.await.unwrap();
        }
    });
    let workers = || cpus_of(std::process::id(), "urpc-w0");
    assert_ne!(workers().len(), 0);
    wait_for("it to be let go", || workers().iter().all(|w| *w == free));
    drop(rt);
    process.finish();
}

#[test]
fn blocking_work_of_a_donor_is_not_bound_to_the_cpu_that_was_lent() {
    let _w = watchdog();
    let (_names, name, process, free) = start();
    runtime(1).block_on(async {
        let peer = urpc::connect(&name).await.unwrap();
        // More than one, so that new threads are started for them.
        for _ in 0..20 {
            let before = peer.stats().donations_given;
            while peer.stats().donations_given == before {
                let double = urpc::call::<u64>(&peer, "double", 21u64);
                assert_eq!(double.await, Ok(42));
            }
            let status = || fs::read_to_string("/proc/thread-self/status").unwrap();
            let works: Vec<_> = (0..3).map(|_| urpc::spawn(urpc::unblock(status))).collect();
            for work in works {
                assert_eq!(cpus_in(&work.await.unwrap()).as_ref(), Some(&free));
            }
        }
    });
    process.finish();
}

roles! { "server" => server }
