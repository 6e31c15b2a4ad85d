//! A call crosses two processes: typed and free-form, several services, who calls, and calls within
//! calls.
#[macro_use]
mod common;

use std::sync::Mutex;

use common::{Names, Process, runtime, say, serve, until_told_to_end, watchdog};
use urpc::{CallErrorKind, Executed, Peer};

#[urpc::service]
trait Calc {
    async fn add(&self, a: i64, b: i64) -> i64;
    async fn div(&self, a: i64, b: i64) -> Result<i64, String>;
    async fn name(&self) -> String;
    async fn caller(&self) -> (i32, u32);
}

struct Sums;

impl Calc for Sums {
    async fn add(&self, a: i64, b: i64) -> i64 {
        a + b
    }
    async fn div(&self, a: i64, b: i64) -> Result<i64, String> {
        a.checked_div(b).ok_or_else(|| format!("{a} by {b}"))
    }
    async fn name(&self) -> String {
        urpc::yield_now().await;
        "sums".into()
    }
    async fn caller(&self) -> (i32, u32) {
        let before = urpc::caller().expect("this is a handler").credentials();
        urpc::yield_now().await;
        let after = urpc::caller().expect("it still is").credentials();
        assert_eq!(before, after);
        (after.pid, after.uid)
    }
}

#[urpc::service]
trait Notes {
    async fn keep(&self, note: String) -> usize;
    async fn all(&self) -> Vec<String>;
}

#[derive(Default)]
struct Book(Mutex<Vec<String>>);

impl Notes for Book {
    async fn keep(&self, note: String) -> usize {
        let mut notes = self.0.lock().unwrap();
        notes.push(note);
        notes.len()
    }
    async fn all(&self) -> Vec<String> {
        self.0.lock().unwrap().clone()
    }
}

/// Serves both services and a handful of free-form procedures.
fn calc(argument: &str) {
    serve(argument, |server, _| {
        server
            .add(CalcServer::new(Sums))
            .add(NotesServer::new(Book::default()))
            .method("mul", |(a, b): (i64, i64)| async move { a * b })
            .method("negate", |n: i64| async move { -n })
            .method("panic", |at_once: bool| async move {
                if !at_once {
                    urpc::yield_now().await;
                }
                if at_once || urpc::caller().is_some() {
                    panic!("no more of this");
                }
            })
            .method("count down", |n: u32| async move {
                let caller = urpc::caller().expect("this is a handler").peer();
                match n {
                    0 => 0,
                    n => {
                        1 + urpc::call::<u32>(&caller, "count down", n - 1)
                            .await
                            .unwrap()
                    }
                }
            })
            .method("unknown there", |()| async move {
                let caller = urpc::caller().expect("this is a handler").peer();
                let error = urpc::call::<()>(&caller, "nothing", ()).await.unwrap_err();
                (
                    error.kind() == CallErrorKind::UnknownProcedure,
                    error.to_string(),
                )
            })
            .method("served", |()| async move {
                urpc::caller()
                    .expect("this is a handler")
                    .peer()
                    .stats()
                    .served
            })
    });
}

/// Passes calls on to a third process: its name is the third word.
fn relay(argument: &str) {
    let mut words = argument.split(' ');
    let rt = runtime(words.next().unwrap().parse().unwrap());
    let (name, third) = (words.next().unwrap(), words.next().unwrap());
    rt.block_on(async {
        let third = urpc::connect(third).await.unwrap();
        let _server = urpc::serve(name)
            .method("negate", move |n: i64| {
                let third = third.clone();
                async move {
                    let caller = urpc::caller().expect("this is a handler").peer();
                    let negative: i64 = urpc::call(&third, "negate", n).await.unwrap();
                    // And back to the caller, which serves it on the same channel.
                    urpc::call::<i64>(&caller, "triple", negative)
                        .await
                        .unwrap()
                }
            })
            .bind()
            .unwrap();
        say("ready", "");
        urpc::unblock(until_told_to_end).await;
    });
}

/// A server of `calc`, and what a client does with it; with processors of its own and without.
fn with_calc<F: Future<Output = ()>>(test: impl Fn(Peer, String, u32) -> F) {
    let _watchdog = watchdog();
    for processors in [1, 0] {
        let names = Names::new();
        let name = names.name("calc");
        let server = Process::start("calc", &format!("{processors} {name}"));
        runtime(1).block_on(async {
            let peer = urpc::connect(&name).await.unwrap();
            test(peer, name, server.pid()).await;
        });
        server.finish();
    }
}

#[test]
fn typed_calls_bring_back_results_and_the_services_own_errors() {
    with_calc(|_, name, _| async move {
        let calc = CalcClient::connect(&name).await.unwrap();
        assert_eq!(calc.add(2, 3).await.unwrap(), 5);
        assert_eq!(calc.add(i64::MIN, i64::MAX).await.unwrap(), -1);
        assert_eq!(calc.div(7, 2).await.unwrap(), Ok(3));
        assert_eq!(calc.div(1, 0).await.unwrap(), Err("1 by 0".to_string()));
        assert_eq!(calc.name().await.unwrap(), "sums");
    });
}

#[test]
fn free_form_calls_take_a_tuple_or_one_argument() {
    with_calc(|peer, _, _| async move {
        let six: i64 = urpc::call(&peer, "mul", (2i64, 3i64)).await.unwrap();
        assert_eq!(six, 6);
        assert_eq!(urpc::call::<i64>(&peer, "negate", 6i64).await.unwrap(), -6);
        let mul = peer.procedure::<(i64, i64), i64>("mul");
        let again = mul.clone();
        for n in 0..100 {
            assert_eq!(mul.call((n, n)).await.unwrap(), n * n);
            assert_eq!(again.call((n, -1)).await.unwrap(), -n);
        }
    });
}

#[test]
fn typed_and_free_form_calls_reach_the_same_procedure() {
    with_calc(|peer, _, _| async move {
        let notes = NotesClient::on(&peer);
        assert_eq!(notes.keep("typed".into()).await.unwrap(), 1);
        let free = urpc::call::<usize>(&peer, "Notes.keep", "free-form".to_string());
        assert_eq!(free.await.unwrap(), 2);
        let all = peer.procedure::<(), Vec<String>>("Notes.all");
        assert_eq!(all.call(()).await.unwrap(), ["typed", "free-form"]);
        assert_eq!(notes.all().await.unwrap(), ["typed", "free-form"]);
        let (sum, free): (_, i64) = futures::join!(
            async { CalcClient::on(&peer).add(20, 22).await.unwrap() },
            async { urpc::call(&peer, "Calc.add", (20i64, 22i64)).await.unwrap() },
        );
        assert_eq!((sum, free), (42, 42));
    });
}

#[test]
fn several_services_share_one_name_and_one_channel() {
    with_calc(|peer, name, _| async move {
        let first = CalcClient::connect(&name).await.unwrap();
        let second = NotesClient::on(first.peer());
        second.check().unwrap();
        let before = first.peer().stats().calls;
        assert_eq!(second.keep("two services".into()).await.unwrap(), 1);
        assert_eq!(first.add(1, 1).await.unwrap(), 2);
        assert_eq!(first.peer().stats().calls, before + 2, "one channel");
        assert_eq!(peer.stats().calls, 0, "and no other");
        let offered: Vec<_> = peer.procedures().collect();
        assert!(offered.contains(&("Calc.add", "Calc.add(i64, i64) -> i64")));
        assert!(offered.contains(&("Notes.all", "Notes.all() -> Vec<String>")));
        assert!(offered.contains(&("mul", "")));
    });
}

#[test]
fn a_service_that_the_peer_has_not_is_missed_by_name() {
    #[urpc::service]
    trait Weather {
        async fn tomorrow(&self) -> String;
    }
    with_calc(|peer, name, _| async move {
        let weather = WeatherClient::on(&peer);
        assert!(
            weather
                .check()
                .unwrap_err()
                .to_string()
                .contains("Weather.tomorrow")
        );
        let error = weather.tomorrow().await.unwrap_err();
        assert_eq!(error.kind(), CallErrorKind::UnknownProcedure);
        assert_eq!(error.executed(), Executed::No);
        let error = WeatherClient::connect(&name).await.unwrap_err();
        assert!(error.to_string().contains("Weather.tomorrow"), "{error}");
    });
}

#[test]
fn both_sides_know_the_others_credentials() {
    with_calc(|peer, _, pid| async move {
        let uid = rustix::process::getuid().as_raw();
        let calc = CalcClient::on(&peer);
        let me = calc.caller().await.unwrap();
        assert_eq!(me, (std::process::id() as i32, uid));
        assert_eq!(peer.credentials().pid, pid as i32);
        assert_eq!(peer.credentials().uid, uid);
    });
}

#[test]
fn a_handler_that_panics_fails_its_call_and_no_other() {
    with_calc(|peer, _, _| async move {
        for at_once in [true, false] {
            let bystander = urpc::call::<String>(&peer, "Calc.name", ());
            let panic = urpc::call::<()>(&peer, "panic", at_once);
            let (bystander, panic) = futures::join!(bystander, panic);
            assert_eq!(bystander.unwrap(), "sums");
            let error = panic.unwrap_err();
            assert_eq!(error.kind(), CallErrorKind::Panicked);
            assert_eq!(error.executed(), Executed::Yes);
            assert_eq!(error.procedure(), "panic");
            assert!(error.to_string().contains("no more of this"), "{error}");
        }
        assert_eq!(CalcClient::on(&peer).add(1, 2).await.unwrap(), 3);
    });
}

#[test]
fn a_handler_calls_its_caller_back_on_the_same_channel() {
    with_calc(|_, name, _| async move {
        let peer = urpc::connect(&name)
            .method("count down", |n: u32| async move {
                let server = urpc::caller().expect("this is a handler").peer();
                match n {
                    0 => 0,
                    n => {
                        1 + urpc::call::<u32>(&server, "count down", n - 1)
                            .await
                            .unwrap()
                    }
                }
            })
            .await
            .unwrap();
        let depth: u32 = urpc::call(&peer, "count down", 100u32).await.unwrap();
        assert_eq!(depth, 100);
        let stats = peer.stats();
        assert_eq!((stats.calls, stats.served), (51, 50));
        let (unknown, text): (bool, String) = urpc::call(&peer, "unknown there", ()).await.unwrap();
        assert!(unknown, "{text}");
        assert!(text.contains("`nothing`"), "{text}");
    });
}

#[test]
fn a_handler_awaits_a_third_process_and_then_its_caller() {
    let _watchdog = watchdog();
    let names = Names::new();
    for (relays, thirds) in [(1, 1), (1, 0), (0, 1), (0, 0)] {
        let (name, third) = (names.name("relay"), names.name("third"));
        let server = Process::start("calc", &format!("{thirds} {third}"));
        let between = Process::start("relay", &format!("{relays} {name} {third}"));
        runtime(1).block_on(async {
            let peer = urpc::connect(&name)
                .method("triple", |n: i64| async move { 3 * n })
                .await
                .unwrap();
            let all = (0..200i64).map(|n| urpc::call::<i64>(&peer, "negate", n));
            let all = futures::future::join_all(all).await;
            for (n, answer) in (0..).zip(all) {
                assert_eq!(answer.unwrap(), -3 * n);
            }
            for n in 0..20i64 {
                let answer: i64 = urpc::call(&peer, "negate", n).await.unwrap();
                assert_eq!(answer, -3 * n);
            }
        });
        between.finish();
        server.finish();
    }
}

#[test]
fn both_sides_count_the_same_calls() {
    with_calc(|peer, _, _| async move {
        assert_eq!(peer.stats().calls, 0);
        for _ in 0..500 {
            urpc::call::<i64>(&peer, "negate", 1i64).await.unwrap();
        }
        let served: u64 = urpc::call(&peer, "served", ()).await.unwrap();
        assert_eq!((peer.stats().calls, served), (501, 501));
        // The runtime's counts hold those of its channels.
        assert!(urpc::stats().calls >= 501);
        let stats = peer.stats();
        let ended = stats.donations_returned + stats.donations_reclaimed;
        assert!(ended >= stats.donations_given.saturating_sub(1) && ended <= stats.donations_given);
    });
}

#[test]
fn calls_work_whatever_the_task_that_makes_them() {
    with_calc(|peer, _, _| async move {
        let tasks: Vec<_> = (0..50i64)
            .map(|n| {
                let calc = CalcClient::on(&peer);
                urpc::spawn(async move { calc.add(n, n).await })
            })
            .collect();
        for (n, task) in (0..).zip(tasks) {
            assert_eq!(task.await.unwrap().unwrap(), 2 * n);
        }
        // From a thread that is none of the runtime's.
        let outside = peer.clone();
        let sum = urpc::unblock(move || {
            futures::executor::block_on(urpc::call::<i64>(&outside, "mul", (6i64, 7i64)))
        });
        assert_eq!(sum.await.unwrap(), 42);
    });
}

#[urpc::test(processors = 2)]
async fn a_test_is_an_async_function_on_a_runtime() -> urpc::Result<()> {
    let _watchdog = watchdog();
    let names = Names::new();
    let name = names.name("calc");
    let server = Process::start("main", &name);
    let calc = CalcClient::connect(&name).await?;
    let sum = urpc::spawn({
        let calc = calc.clone();
        async move { calc.add(2, 3).await }
    });
    assert_eq!(sum.await??, 5);
    drop(calc);
    server.finish();
    Ok(())
}

/// As a `main` is written; only its name comes from the environment.
#[urpc::main(processors = 0)]
async fn like_main() -> urpc::Result<()> {
    let name = std::env::var(common::ARGUMENT).unwrap();
    let server = urpc::serve(name).add(CalcServer::new(Sums)).bind()?;
    say("ready", "");
    let _ends = urpc::spawn({
        let server = server.clone();
        async move {
            urpc::unblock(until_told_to_end).await;
            server.shutdown(std::time::Duration::from_secs(1)).await
        }
    });
    server.run().await
}

fn main_role(_: &str) {
    like_main().unwrap();
}

roles! { "calc" => calc, "relay" => relay, "main" => main_role }
