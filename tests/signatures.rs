//! Two sides that were built for different types: what differs is named, only the calls it is about
//! fail, and each says whether it can have run.
#[macro_use]
mod common;

use common::{Names, Process, runtime, serve, watchdog};
use urpc::{CallError, CallErrorKind, ErrorKind, Executed, Peer};

#[urpc::service]
trait Calc {
    async fn add(&self, a: i64, b: i64) -> i64;
    async fn negate(&self, a: i64) -> i64;
}

struct Sums;

impl Calc for Sums {
    async fn add(&self, a: i64, b: i64) -> i64 {
        a + b
    }
    async fn negate(&self, a: i64) -> i64 {
        -a
    }
}

/// The same service a version later: `add` takes other types, `negate` does not.
mod newer {
    #[urpc::service]
    pub(crate) trait Calc {
        async fn add(&self, a: i32, b: i32) -> i32;
        async fn negate(&self, a: i64) -> i64;
    }
}

/// And one that it never was.
mod other {
    #[urpc::service]
    pub(crate) trait Calc {
        async fn negate(&self, a: i64) -> i64;
        async fn root(&self, a: i64) -> i64;
    }
}

fn server(argument: &str) {
    serve(argument, |server, _| {
        server
            .add(CalcServer::new(Sums))
            .method(
                "greet",
                |name: String| async move { format!("hello {name}") },
            )
            .method("pair", |(): ()| async { (1u8, 300u64) })
    });
}

fn start(names: &Names) -> (Process, String) {
    let name = names.name("s");
    (Process::start("server", &format!("1 {name}")), name)
}

/// The error of a call, whose text has all these words, and the procedure's and the server's name.
#[track_caller]
fn failed(error: CallError, kind: CallErrorKind, executed: Executed, words: &[&str]) {
    assert_eq!(error.kind(), kind, "{error}");
    assert_eq!(error.executed(), executed, "{error}");
    let text = error.to_string();
    says(&text, words);
    says(&text, &[&format!("`{}`", error.procedure()), error.peer()]);
}

#[track_caller]
fn says(text: &str, words: &[&str]) {
    for word in words {
        assert!(text.contains(word), "`{word}` is not in: {text}");
    }
}

async fn works(peer: &Peer) {
    let greeting: String = urpc::call(peer, "greet", "you").await.unwrap();
    assert_eq!(greeting, "hello you");
}

#[test]
fn differing_signatures_are_named_method_by_method() {
    let _watch = watchdog();
    let names = Names::new();
    let (server, name) = start(&names);
    runtime(1).block_on(async {
        let error = newer::CalcClient::connect(&name).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::SignatureMismatch);
        assert_eq!(error.executed(), Executed::No);
        let text = error.to_string();
        says(&text, &[&name, "Calc.add", "i32", "i64"]);
        assert!(!text.contains("negate"), "it is the same: {text}");
        let error = other::CalcClient::connect(&name).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::SignatureMismatch);
        says(&error.to_string(), &["no `Calc.root`"]);

        // On a channel that is there, only what differs fails.
        let peer = urpc::connect(&name).await.unwrap();
        let newer = newer::CalcClient::on(&peer);
        let error = newer.add(1, 2).await.unwrap_err();
        let words = ["built for", "i32", "i64"];
        failed(
            error,
            CallErrorKind::SignatureMismatch,
            Executed::No,
            &words,
        );
        assert_eq!(newer.negate(3).await.unwrap(), -3);
        let other = other::CalcClient::on(&peer);
        let error = other.root(4).await.unwrap_err();
        failed(
            error,
            CallErrorKind::UnknownProcedure,
            Executed::No,
            &["no procedure"],
        );
        assert_eq!(CalcClient::on(&peer).add(1, 2).await.unwrap(), 3);
    });
    server.finish();
}

#[test]
fn calls_with_other_types_fail_and_say_on_which_side() {
    let _watch = watchdog();
    let names = Names::new();
    let (server, name) = start(&names);
    runtime(1).block_on(async {
        let peer = urpc::connect(&name).await.unwrap();
        let unknown = urpc::call::<()>(&peer, "gret", "you").await.unwrap_err();
        failed(
            unknown,
            CallErrorKind::UnknownProcedure,
            Executed::No,
            &["no procedure"],
        );
        let malformed = urpc::call::<String>(&peer, "greet", 200u64)
            .await
            .unwrap_err();
        let words = ["arguments could not be decoded"];
        failed(
            malformed,
            CallErrorKind::UndecodableArguments,
            Executed::No,
            &words,
        );
        let surplus = urpc::call::<String>(&peer, "greet", ("you", 7u8))
            .await
            .unwrap_err();
        let words = ["1 bytes", "left over", "other types"];
        failed(surplus, CallErrorKind::SurplusBytes, Executed::No, &words);
        let reply = urpc::call::<String>(&peer, "pair", ()).await.unwrap_err();
        let words = ["reply", "expected type"];
        failed(
            reply,
            CallErrorKind::UndecodableReply,
            Executed::Yes,
            &words,
        );
        let reply = urpc::call::<u8>(&peer, "pair", ()).await.unwrap_err();
        let words = ["2 bytes more", "another type"];
        failed(
            reply,
            CallErrorKind::UndecodableReply,
            Executed::Yes,
            &words,
        );
        works(&peer).await;
    });
    server.finish();
}

roles! { "server" => server }
