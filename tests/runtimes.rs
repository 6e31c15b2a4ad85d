//! A runtime outlives each of its `block_on`s, and so do its channels.
#[macro_use]
mod common;
use common::{Names, Process, say, until_told_to_end, watchdog};

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

roles! { "server" => server }
