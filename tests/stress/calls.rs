//! The whole library under the same stress: tasks that call, pause and are woken in all ways, over
//! processors that never spin and so rest after every message.
//!
//! Donors and callers have limits so far away that a call which needs one is a wake-up that was lost.

use std::sync::Arc;
use std::time::{Duration, Instant};

use urpc::CallErrorKind;

use crate::common::{Names, Process, say, until_told_to_end, watchdog};
use crate::raw::Random;
use crate::{Fate, LONG, variable};

fn runtime(processors: usize) -> urpc::Runtime {
    let builder = urpc::Runtime::builder().processors(processors);
    // A donor comes back by a return or a wake, or not within a test.
    let builder = builder
        .spin(Duration::ZERO)
        .grant_limit(Duration::from_secs(600));
    builder.build().unwrap()
}

/// Serves at once, after a timer, and after a wake by a plain thread. The argument is `PROCESSORS PATH`.
pub(crate) fn server(argument: &str) {
    let (processors, path) = argument.split_once(' ').unwrap();
    runtime(processors.parse().unwrap()).block_on(async {
        let _server = urpc::serve(path)
            .method("at once", |n: u64| async move { n + 1 })
            .method("after a timer", |n: u64| async move {
                urpc::time::sleep(Duration::from_micros(n % 500)).await;
                n + 1
            })
            .method("by a thread", |n: u64| urpc::unblock(move || n + 1))
            .method("by a task", |n: u64| async move {
                urpc::spawn(async move {
                    urpc::yield_now().await;
                    n + 1
                })
                .await
                .unwrap()
            })
            .bind()
            .unwrap();
        say("ready", "");
        urpc::unblock(until_told_to_end).await;
    });
}

/// Calls servers that die, until the time is up.
pub(crate) fn stress(processors: usize) {
    let names = Names::new();
    let rt = runtime(1);
    let mut random = Random(variable("URPC_STRESS_SEED", 0x2545_F491_4F6C_DD1D));
    let end = Instant::now() + Duration::from_secs(variable("URPC_STRESS_SECONDS", 2));
    for round in 0.. {
        if Instant::now() >= end {
            break;
        }
        let _w = watchdog();
        let name = names.name(&format!("s{round}"));
        let process = Process::start("calls", &format!("{processors} {name}"));
        rt.block_on(async {
            let peer = urpc::connect(&name).await.unwrap();
            let fate = Arc::new(Fate::of(&process, &mut random));
            let tasks: Vec<_> = (0..1 + random.below(6))
                .map(|_| {
                    let (peer, fate, seed) = (peer.clone(), Arc::clone(&fate), random.next());
                    urpc::spawn(call_until_it_dies(peer, fate, Random(seed)))
                })
                .collect();
            for task in tasks {
                task.await.unwrap();
            }
        });
    }
}

async fn call_until_it_dies(peer: urpc::Peer, fate: Arc<Fate>, mut random: Random) {
    loop {
        let n = random.below(1 << 40);
        let how = ["at once", "after a timer", "by a thread", "by a task"];
        let how = how[random.below(4) as usize];
        let call = urpc::call::<u64>(&peer, how, n).timeout(LONG);
        let call = if random.below(16) == 0 {
            call.urgent()
        } else {
            call
        };
        let limit = match random.below(8) {
            0 => Duration::from_micros(random.below(200)), // given up, at whatever moment that is
            _ => Duration::MAX,
        };
        match urpc::time::timeout(limit, call).await {
            Ok(Ok(answer)) => assert_eq!(answer, n + 1),
            Ok(Err(error)) => {
                assert_eq!(error.kind(), CallErrorKind::Closed, "{error}");
                return;
            }
            Err(_) => {}
        }
        fate.step();
        match random.below(8) {
            0 => urpc::time::sleep(Duration::from_micros(random.below(300))).await,
            1 => urpc::unblock(|| ()).await,
            2 => urpc::yield_now().await,
            _ => {}
        }
    }
}
