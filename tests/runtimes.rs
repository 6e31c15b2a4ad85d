//! A runtime outlives each of its `block_on`s, and so do its channels. One that cannot be started leaves nothing behind.
#[macro_use]
mod common;
#[path = "common/state.rs"]
mod state;

use common::{Names, Process, say, until_told_to_end, watchdog};
use rustix::process::{Resource, Rlimit, setrlimit};
use state::Held;

fn server(name: &str) {
    let rt = urpc::Runtime::builder().processors(1).build().unwrap();
    rt.block_on(async {
        let _server = urpc::serve(name)
            .method("double", |n: u64| async move { 2 * n })
            .bind()
            .unwrap();
        say("ready", "");
        urpc::unblock(until_told_to_end).await;
    });
}

/// Has no memory left for a thread, and says what it holds before and after it has tried to start runtimes.
fn cramped(_: &str) {
    let held = || {
        let held = Held::by(std::process::id()).unwrap();
        format!("{:?}", (held.descriptors, held.threads, held.mappings))
    };
    say("ready", "");
    let before = held();
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let size = status.lines().find_map(|line| line.strip_prefix("VmSize:"));
    let kib: u64 = size
        .unwrap()
        .trim()
        .trim_end_matches(" kB")
        .parse()
        .unwrap();
    let current = Some((kib + 1024) * 1024);
    let maximum = None;
    setrlimit(Resource::As, Rlimit { current, maximum }).unwrap();
    for processors in [0, 1, 0, 1] {
        let error = urpc::Runtime::builder().processors(processors).build();
        let error = error.unwrap_err().to_string();
        assert!(error.contains("start a runtime"), "{error}");
    }
    say("held", format!("{before} {}", held()));
}

#[test]
fn a_runtime_that_cannot_be_started_leaves_nothing_behind() {
    let _w = watchdog();
    let mut process = Process::start("cramped", "");
    let held = process.expect("held");
    let (before, after) = held.split_at(held.len() / 2);
    assert_eq!(before.trim(), after.trim());
    process.finish();
}

#[test]
fn a_thread_that_blocks_again_still_sees_its_channels() {
    let _w = watchdog();
    let names = Names::new();
    let name = names.name("runtimes");
    let process = Process::start("server", &name);
    let rt = urpc::Runtime::builder().processors(1).build().unwrap();
    let peer = rt.block_on(async { urpc::connect(&name).await }).unwrap();
    for n in 0..10u64 {
        let twice: u64 = rt
            .block_on(async { urpc::call(&peer, "double", n).await })
            .unwrap();
        assert_eq!(twice, 2 * n);
    }
    drop((peer, rt));
    process.finish();
}

#[test]
fn a_task_and_two_threads_that_block_share_a_channel() {
    let _w = watchdog();
    let names = Names::new();
    let name = names.name("runtimes");
    let process = Process::start("server", &name);
    let rt = urpc::Runtime::builder().processors(1).build().unwrap();
    let peer = rt.block_on(async { urpc::connect(&name).await }).unwrap();
    let double = async |n: u64| urpc::call::<u64>(&peer, "double", n).await.unwrap();
    let task = rt.spawn({
        let peer = peer.clone();
        async move { urpc::call::<u64>(&peer, "double", 5u64).await }
    });
    std::thread::scope(|scope| {
        for first in [10, 20] {
            let (rt, double) = (&rt, &double);
            scope.spawn(move || {
                for n in first..first + 10 {
                    assert_eq!(rt.block_on(double(n)), 2 * n);
                }
            });
        }
    });
    assert_eq!(rt.block_on(task).unwrap().unwrap(), 10);
    drop((peer, rt));
    process.finish();
}

roles! { "server" => server, "cramped" => cramped }
