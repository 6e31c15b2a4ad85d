//! Arguments and replies of every size up to the largest, exactly at the bounds, and one byte beyond.
#[macro_use]
mod common;

use std::hash::{DefaultHasher, Hasher};
use std::sync::atomic::{AtomicU64, Ordering};

use common::{Names, Process, runtime, serve, watchdog};
use urpc::{CallErrorKind, Executed, Peer};

/// The largest encoded arguments or reply.
const MAX: usize = 4 << 20;

/// A text that is encoded in exactly `bytes` bytes: a length of 7 bits a byte, then the text.
fn text(bytes: usize) -> String {
    let fits = |prefix: &usize| {
        let len = bytes - prefix;
        let bits = usize::BITS - len.leading_zeros();
        bits.div_ceil(7).max(1) as usize == *prefix
    };
    let prefix = (1..=4).find(fits).expect("some sizes no text has");
    pattern(bytes - prefix)
}

/// A text of this length. No two parts of it that could be mixed up are alike.
fn pattern(len: usize) -> String {
    let filler: String = ('!'..='~').cycle().take(1000).collect();
    let mut text = String::with_capacity(len + 1024);
    while text.len() < len {
        text += &format!("<{} of {len}>", text.len());
        text += &filler;
    }
    text.truncate(len);
    text
}

fn sum(text: &str) -> u64 {
    let mut hasher = DefaultHasher::new();
    hasher.write(text.as_bytes());
    hasher.finish()
}

static SEEN: AtomicU64 = AtomicU64::new(0);

fn server(argument: &str) {
    serve(argument, |server, _| {
        server
            .method("nothing", |()| async {
                SEEN.fetch_add(1, Ordering::Relaxed);
            })
            .method("sum", |text: String| async move {
                SEEN.fetch_add(1, Ordering::Relaxed);
                sum(&text)
            })
            .method("echo", |text: String| async move { text })
            .method("echo later", |text: String| async move {
                urpc::yield_now().await;
                text
            })
            .method("make", |len: usize| async move { pattern(len) })
            .method("seen", |()| async { SEEN.load(Ordering::Relaxed) })
    });
}

/// Runs `test` against a server with a processor of its own, and against one without.
fn with_server<F: Future<Output = ()>>(test: impl Fn(Peer) -> F) {
    let _watchdog = watchdog();
    for processors in [1, 0] {
        let names = Names::new();
        let name = names.name("server");
        let server = Process::start("server", &format!("{processors} {name}"));
        runtime(1).block_on(async { test(urpc::connect(&name).await.unwrap()).await });
        server.finish();
    }
}

/// Around the slot's 48 bytes, the pieces' 16 KiB, the arena's 64 KiB, and up to the largest.
const SIZES: [usize; 16] = [
    1,
    2,
    47,
    48,
    49,
    50,
    127,
    4095,
    4096,
    16_383,
    16_384,
    16_387,
    65_536,
    65_600,
    1 << 20,
    MAX,
];

#[test]
fn arguments_of_every_size_arrive_as_they_were() {
    with_server(|peer| async move {
        urpc::call::<()>(&peer, "nothing", ()).await.unwrap();
        for size in SIZES {
            let text = text(size);
            let expected = sum(&text);
            let got: u64 = urpc::call(&peer, "sum", text).await.unwrap();
            assert_eq!(got, expected, "{size} bytes");
        }
    });
}

#[test]
fn replies_of_every_size_arrive_as_they_were() {
    with_server(|peer| async move {
        for size in SIZES {
            let text = text(size);
            for echo in ["echo", "echo later"] {
                let back: String = urpc::call(&peer, echo, &text).await.unwrap();
                assert!(back == text, "{size} bytes of {echo}");
            }
        }
    });
}

#[test]
fn all_sizes_at_once_do_not_mix() {
    with_server(|peer| async move {
        let texts: Vec<String> = SIZES.iter().cycle().take(48).map(|&n| text(n)).collect();
        let calls = texts
            .iter()
            .map(|text| urpc::call::<String>(&peer, "echo later", text));
        let back = futures::future::join_all(calls).await;
        for (text, back) in texts.iter().zip(back) {
            assert!(back.unwrap() == *text, "{} bytes", text.len());
        }
    });
}

#[test]
fn a_large_reply_that_nobody_takes_makes_room_for_others() {
    with_server(async |peer| {
        // More than the window of both sides holds.
        for round in 0..20 {
            let mut unwanted = urpc::call::<String>(&peer, "make", MAX / 2);
            assert!(futures::poll!(&mut unwanted).is_pending());
            // Dropped when it has come, while it comes, and before.
            if round % 4 > 0 {
                let len = if round % 4 == 1 { MAX / 2 } else { 1000 };
                let other = urpc::call::<String>(&peer, "make", len).await;
                assert_eq!(other.map(|text| text.len()), Ok(len));
            }
        }
    });
}

#[test]
fn one_byte_more_than_the_largest_is_not_sent() {
    with_server(|peer| async move {
        let before = peer.stats();
        let error = urpc::call::<u64>(&peer, "sum", text(MAX + 1))
            .await
            .unwrap_err();
        assert_eq!(error.kind(), CallErrorKind::TooLarge);
        assert_eq!(error.executed(), Executed::No);
        let said = error.to_string();
        assert!(
            said.contains("4194305") && said.contains("4194304"),
            "{said}"
        );
        assert_eq!(peer.stats().calls, before.calls, "nothing was sent");
        let seen: u64 = urpc::call(&peer, "seen", ()).await.unwrap();
        assert_eq!(seen, 0, "nothing came");
        // The largest itself goes, and is seen.
        urpc::call::<u64>(&peer, "sum", text(MAX)).await.unwrap();
        assert_eq!(urpc::call::<u64>(&peer, "seen", ()).await.unwrap(), 1);
    });
}

#[test]
fn a_reply_that_is_too_large_says_that_the_call_ran() {
    with_server(|peer| async move {
        let largest = text(MAX).len();
        let back: String = urpc::call(&peer, "make", largest).await.unwrap();
        assert!(back == pattern(largest));
        for _ in 0..3 {
            let error = urpc::call::<String>(&peer, "make", largest + 1)
                .await
                .unwrap_err();
            assert_eq!(error.kind(), CallErrorKind::ReplyTooLarge);
            assert_eq!(error.executed(), Executed::Yes);
            assert!(error.to_string().contains("4194305"), "{error}");
        }
        // Nothing of it is left in the way of others.
        let back: String = urpc::call(&peer, "make", largest).await.unwrap();
        assert_eq!(back.len(), largest);
    });
}

roles! { "server" => server }
