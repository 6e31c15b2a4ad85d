//! A client that lets go of its channel: the server learns of it at once, whatever the client does next.

#[macro_use]
mod common;

use common::{Names, Process, runtime, say, until_told_to_end, watchdog};

/// Says when its caller is gone.
fn server(name: &str) {
    runtime(1).block_on(async {
        let _server = urpc::serve(name)
            .method("hello", |()| async {
                let caller = urpc::caller().expect("a call").peer();
                drop(urpc::spawn(async move {
                    caller.closed().await;
                    say("gone", "");
                }));
            })
            .bind()
            .unwrap();
        say("ready", "");
        urpc::unblock(until_told_to_end).await;
    });
}

#[test]
fn a_channel_is_closed_although_its_client_blocks_its_processor_afterwards() {
    let _w = watchdog();
    let names = Names::new();
    let name = names.name("s");
    let mut process = Process::start("server", &name);
    runtime(1).block_on(async {
        let peer = urpc::connect(&name).await.unwrap();
        urpc::call::<()>(&peer, "hello", ()).await.unwrap();
        drop(peer);
        process.expect("gone"); // blocks, so that this thread does not look at its channels again
    });
    process.finish();
}

roles! { "server" => server }
