//! A peer whose own processors are all busy, and read nothing, is as good as one that has none: idle peers lend it
//! theirs. Without that, nobody here would ever be released.
#[macro_use]
mod common;

use std::sync::{Condvar, Mutex};

use common::{Names, Process, runtime, say, until_told_to_end, watchdog};

/// How often all processors of the server are kept.
const TIMES: usize = 20;

/// How many handlers are to leave.
static RELEASED: (Mutex<usize>, Condvar) = (Mutex::new(0), Condvar::new());

/// The argument is `PROCESSORS NAME`.
fn server(argument: &str) {
    let (processors, name) = argument.split_once(' ').unwrap();
    let rt = runtime(processors.parse().unwrap());
    let _server = rt.block_on(async {
        urpc::serve(name)
            .method("hold", |()| async {
                say("inside", "");
                let released = RELEASED.0.lock().unwrap();
                let released = RELEASED.1.wait_while(released, |released| *released == 0);
                *released.unwrap() -= 1;
            })
            .method("release", |()| async {
                *RELEASED.0.lock().unwrap() += 1;
                RELEASED.1.notify_one();
            })
            .bind()
            .unwrap()
    });
    say("ready", "");
    until_told_to_end();
}

#[test]
fn a_peer_whose_processors_are_all_busy_is_lent_one() {
    let _watchdog = watchdog();
    for processors in [1, 2] {
        let names = Names::new();
        let name = names.name("s");
        let mut server = Process::start("server", &format!("{processors} {name}"));
        // One for each that is kept (its handler may run on what was lent), and one more.
        let rt = runtime(processors + 1);
        let peer = rt.block_on(urpc::connect(&name)).unwrap();
        for _ in 0..TIMES {
            let held: Vec<_> = (0..processors)
                .map(|_| {
                    let call = urpc::call::<()>(&peer, "hold", ());
                    let held = rt.spawn(call);
                    server.expect("inside");
                    held
                })
                .collect();
            for _ in &held {
                rt.block_on(urpc::call::<()>(&peer, "release", ())).unwrap();
            }
            for held in held {
                rt.block_on(held).unwrap().unwrap();
            }
        }
        drop((peer, rt));
        server.finish();
    }
}

roles! { "server" => server }
