//! A call crosses two processes.
#[macro_use]
mod common;
use common::{Names, Process, say, until_told_to_end, watchdog};

fn server(argument: &str) {
    let (name, processors) = argument.split_once(' ').unwrap();
    let rt = urpc::Runtime::builder()
        .processors(processors.parse().unwrap())
        .build()
        .unwrap();
    rt.block_on(async {
        let _server = urpc::serve(name)
            .method("mul", |(a, b): (i64, i64)| async move { a * b })
            .bind()
            .unwrap();
        say("ready", "");
        urpc::unblock(until_told_to_end).await;
    });
}

fn smoke(processors: u32) {
    let _w = watchdog();
    let names = Names::new();
    let name = names.name("s");
    let process = Process::start("server", &format!("{name} {processors}"));
    let rt = urpc::Runtime::builder().processors(1).build().unwrap();
    rt.block_on(async {
        let peer = urpc::connect(&name).await.unwrap();
        let t = std::time::Instant::now();
        for i in 0..10000i64 {
            let six: i64 = urpc::call(&peer, "mul", (i, 3i64)).await.unwrap();
            assert_eq!(six, 3 * i);
        }
        eprintln!("{:?} per call {:?}", t.elapsed() / 10000, peer.stats());
    });
    drop(rt);
    process.finish();
}

#[test]
fn smoke_one() {
    smoke(1)
}
#[test]
fn smoke_zero() {
    smoke(0)
}

roles! { "server" => server }
