//! Figure 1 of the paper, as its events: an editor with a processor, a window manager with one, and a file
//! cache manager without. Two tasks of the editor wait for the file cache manager, one donation serves both.
//!
//! What is asserted is the order of events in the merged trace of three real processes, never a time. Each
//! step begins when all three are asleep: nothing is on its way then, so what follows has one cause.
#[macro_use]
mod common;

use std::collections::{BTreeMap, HashSet};
use std::sync::Arc;
use std::time::Duration;

use common::{Names, Process, hear, say, serve, wait_for, watchdog};
use event_listener::Event as Signal;
use urpc::Peer;
use urpc::trace::{self, Event, Processor, What};

/// Calls of the second scenario, and how many steps of its own work each caller does first.
const STEPS: [u64; 3] = [0, 3, 5];

/// A server that records. The argument is `PROCESSORS NAME TITLE`.
fn server(argument: &str) {
    let title = argument.split(' ').nth(2).unwrap();
    trace::start(title);
    serve(argument, |builder, _| {
        builder
            .method("open", |()| async {})
            .method("show", |text: u64| async move { text })
            .method("read", |block: u64| async move { 10 * block })
            .method("events", |()| async {
                trace::stop();
                trace::take()
            })
    });
}

/// The editor of the figure. The argument is the names of the file cache manager and the window manager.
fn editor(argument: &str) {
    let (files, windows) = argument.split_once(' ').unwrap();
    let rt = patient();
    let files = rt.block_on(urpc::connect(files)).unwrap();
    let windows = rt.block_on(urpc::connect(windows)).unwrap();
    say("ready", "");
    until("open");
    rt.block_on(urpc::call::<()>(&files, "open", ())).unwrap();
    say("done", "");

    until("draw");
    trace::start("editor");
    let (drawn, both) = (Arc::new(Signal::new()), Arc::new(Signal::new()));
    let (t1, t2) = rt.block_on(async {
        let until_drawn = drawn.listen();
        let (first, second) = (both.listen(), both.listen());
        let cache = files.clone();
        let t1 = urpc::spawn(async move {
            first.await;
            urpc::call::<u64>(&cache, "read", 1u64).await.unwrap()
        });
        let (cache, drawn, windows) = (files.clone(), Arc::clone(&drawn), windows.clone());
        let t2 = urpc::spawn(async move {
            let shown: u64 = urpc::call(&windows, "show", 7u64).await.unwrap();
            assert_eq!(shown, 7);
            drawn.notify(usize::MAX);
            second.await;
            urpc::call::<u64>(&cache, "read", 2u64).await.unwrap()
        });
        until_drawn.await;
        (t1, t2)
    });
    say("done", "");

    until("read");
    let read = rt.block_on(async {
        both.notify(usize::MAX);
        (t1.await.unwrap(), t2.await.unwrap())
    });
    assert_eq!(read, (10, 20));
    say("events", told(&rt, &[&files, &windows]));
    hear();
}

/// An editor with tasks that work before they call. The argument is the file cache manager's name.
fn typist(argument: &str) {
    let rt = patient();
    let files = rt.block_on(urpc::connect(argument)).unwrap();
    say("ready", "");
    until("open");
    rt.block_on(urpc::call::<()>(&files, "open", ())).unwrap();
    say("done", "");

    until("work");
    trace::start("typist");
    rt.block_on(async {
        let tasks = STEPS.map(|steps| {
            let files = files.clone();
            urpc::spawn(async move {
                for _ in 0..steps {
                    urpc::yield_now().await;
                }
                urpc::call::<u64>(&files, "read", steps).await.unwrap()
            })
        });
        for (task, steps) in tasks.into_iter().zip(STEPS) {
            assert_eq!(task.await.unwrap(), 10 * steps);
        }
    });
    say("events", told(&rt, &[&files]));
    hear();
}

/// One processor, and a grant limit that ends no donation here.
fn patient() -> urpc::Runtime {
    let builder = urpc::Runtime::builder().processors(1);
    let limit = Duration::from_secs(1000);
    builder.grant_limit(limit).build().unwrap()
}

fn until(word: &str) {
    assert_eq!(hear(), word);
}

/// This process's events and those of its peers meanwhile, merged; as a line of JSON.
fn told(rt: &urpc::Runtime, peers: &[&Peer]) -> String {
    trace::stop();
    let mut events = trace::take();
    let (begin, end) = (events[0].at, events[events.len() - 1].at);
    for peer in peers {
        let theirs: Vec<Event> = rt.block_on(urpc::call(peer, "events", ())).unwrap();
        let meanwhile = theirs.into_iter().filter(|event| {
            (begin..=end).contains(&event.at) || matches!(event.what, What::Start { .. })
        });
        events.extend(meanwhile);
    }
    events.sort_by_key(|event| event.at);
    serde_json::to_string(&events).unwrap()
}

/// Each thread of a process, with how often it has gone off a CPU; `None` unless all of them sleep.
fn asleep(pid: u32) -> Option<BTreeMap<String, String>> {
    let mut threads = BTreeMap::new();
    for thread in std::fs::read_dir(format!("/proc/{pid}/task")).ok()? {
        let path = thread.ok()?.path();
        let status = std::fs::read_to_string(path.join("status")).ok()?;
        let of = |field: &'static str| status.lines().filter(move |line| line.contains(field));
        of("State:")
            .all(|line| line.contains("S ("))
            .then_some(())?;
        let switches: String = of("ctxt_switches").collect();
        threads.insert(path.to_str()?.to_owned(), switches);
    }
    Some(threads)
}

/// Waits until all threads of all these processes sleep at once: two looks in a row find each of them
/// asleep, and none has run between.
fn until_quiet(processes: &[&Process]) {
    let look = || -> Option<Vec<_>> { processes.iter().map(|p| asleep(p.pid())).collect() };
    wait_for("all processes to sleep", || {
        let before = look();
        before.is_some() && before == look()
    });
}

/// What three processes did, and who they are.
struct Figure {
    events: Vec<Event>,
    editor: u32,
    files: u32,
    windows: u32,
}

impl Figure {
    fn play() -> Self {
        let names = Names::new();
        let (files, windows) = (names.name("files"), names.name("windows"));
        let cache = Process::start("server", &format!("0 {files} files"));
        let screen = Process::start("server", &format!("1 {windows} windows"));
        let mut editor = Process::start("editor", &format!("{files} {windows}"));
        for step in ["open", "draw"] {
            until_quiet(&[&editor, &cache, &screen]);
            editor.tell(step);
            editor.expect("done");
        }
        until_quiet(&[&editor, &cache, &screen]);
        editor.tell("read");
        let figure = Self {
            events: serde_json::from_str(&editor.expect("events")).unwrap(),
            editor: editor.pid(),
            files: cache.pid(),
            windows: screen.pid(),
        };
        editor.finish();
        cache.finish();
        screen.finish();
        figure
    }
}

/// The places of the events of a process that are so, in the order of time.
fn places(events: &[Event], pid: u32, what: What, peer: u32) -> Vec<usize> {
    let so = |event: &Event| event.pid == pid && event.what == what && event.peer == Some(peer);
    let all = events.iter().enumerate();
    all.filter(|(_, event)| so(event)).map(|(i, _)| i).collect()
}

/// Asserts that one donation served `calls` calls, all sent before it and all resumed after it.
fn assert_one_donation(events: &[Event], donor: u32, server: u32, calls: usize) {
    let of_donor = |what| places(events, donor, what, server);
    let of_server = |what| places(events, server, what, donor);
    // In this order, and so often.
    let steps = [
        ("call", of_donor(What::Call), calls),
        ("donate", of_donor(What::Donate), 1),
        ("arrive", of_server(What::Arrive), 1),
        ("receive", of_server(What::Receive), calls),
        ("dispatch", of_server(What::Dispatch), calls),
        ("reply", of_server(What::Reply), calls),
        ("return", of_server(What::Return), 1),
        ("is back", of_donor(What::Return), 1),
        ("resume", of_donor(What::Resume), calls),
    ];
    for (step, found, count) in &steps {
        assert_eq!(found.len(), *count, "{step}: {events:#?}");
    }
    for pair in steps.windows(2) {
        let ((before, first, _), (after, second, _)) = (&pair[0], &pair[1]);
        // Each call is taken, dispatched and answered in turn; but none before the step before has begun.
        let in_turn = matches!(*after, "dispatch" | "reply");
        let last = if in_turn { first.first() } else { first.last() };
        assert!(last < second.first(), "{before} … {after}: {events:#?}");
    }
    for never in [What::Reclaim, What::Ring] {
        assert!(of_donor(never).is_empty(), "{events:#?}");
    }
    // The same calls at every step, served on the donor's processor.
    let ids = |what| {
        let of = |places: Vec<usize>| places.into_iter().map(|i| events[i].call).collect();
        let at_donor = matches!(what, What::Call | What::Resume);
        let ids: HashSet<_> = of(if at_donor {
            of_donor(what)
        } else {
            of_server(what)
        });
        ids
    };
    let sent = ids(What::Call);
    assert_eq!(sent.len(), calls);
    for what in [What::Receive, What::Dispatch, What::Reply, What::Resume] {
        assert_eq!(ids(what), sent);
    }
    for what in [What::Arrive, What::Dispatch, What::Reply, What::Return] {
        for i in of_server(what) {
            let landing = Processor::Landing { peer: donor, k: 0 };
            assert_eq!(events[i].processor, landing, "{:?}", events[i]);
        }
    }
}

#[test]
fn one_donation_serves_both_calls_that_wait() {
    let _watchdog = watchdog();
    let Figure {
        events,
        editor,
        files,
        windows,
    } = Figure::play();
    assert_one_donation(&events, editor, files, 2);
    // The window manager had its call, and its answer was used, before anybody asked for the file.
    let drawn = places(&events, editor, What::Resume, windows);
    let called = places(&events, editor, What::Call, files);
    assert_eq!(drawn.len(), 1, "{events:#?}");
    assert!(drawn[0] < called[0], "{events:#?}");
}

#[test]
fn a_processor_is_not_lent_while_local_tasks_are_ready() {
    let _watchdog = watchdog();
    let names = Names::new();
    let files = names.name("files");
    let cache = Process::start("server", &format!("0 {files} files"));
    let mut typist = Process::start("typist", &files);
    until_quiet(&[&typist, &cache]);
    typist.tell("open");
    typist.expect("done");
    until_quiet(&[&typist, &cache]);
    typist.tell("work");
    let events: Vec<Event> = serde_json::from_str(&typist.expect("events")).unwrap();
    // The first call waits from its task's first poll on. The others are sent by tasks that were ready
    // and had work to do: the processor has stayed for that.
    assert_one_donation(&events, typist.pid(), cache.pid(), STEPS.len());
    typist.finish();
    cache.finish();
}

/// The text of a picture, if its elements are closed in their order.
fn texts(svg: &str) -> Vec<String> {
    let mut open = Vec::new();
    let mut texts = Vec::new();
    let mut rest = svg;
    while let Some((text, tail)) = rest.split_once('<') {
        if !text.trim().is_empty() {
            assert!(!open.is_empty(), "{text} is outside");
            texts.push(text.to_owned());
        }
        let (tag, after) = tail.split_once('>').expect("a tag ends");
        assert_eq!(tag.matches('"').count() % 2, 0, "{tag}");
        if let Some(name) = tag.strip_prefix('/') {
            assert_eq!(open.pop(), Some(name));
        } else if !tag.ends_with('/') {
            open.push(tag.split(' ').next().expect("a name"));
        }
        rest = after;
    }
    assert!(open.is_empty() && rest.trim().is_empty(), "{open:?} {rest}");
    texts
}

#[test]
fn the_pictures_show_every_process_and_the_donation() {
    let _watchdog = watchdog();
    let figure = Figure::play();
    let named = [
        ("editor", figure.editor),
        ("files", figure.files),
        ("windows", figure.windows),
    ];

    let svg = trace::svg(&figure.events);
    assert!(svg.starts_with("<svg xmlns=\"http://www.w3.org/2000/svg\""));
    let texts = texts(&svg);
    for (name, pid) in named {
        assert!(texts.contains(&format!("{name} ({pid})")), "{texts:?}");
    }
    for text in ["processor 0", &format!("landing 0 for {}", figure.editor)] {
        assert!(texts.iter().any(|t| t == text), "{text}: {texts:?}");
    }
    let donations = places(&figure.events, figure.editor, What::Donate, figure.files).len();
    let donated = format!("donate to {}", figure.files);
    let drawn = texts.iter().filter(|text| **text == donated).count();
    assert_eq!((donations, drawn), (1, 1));
    // With what may have been lent to the window manager.
    let all = figure.events.iter().filter(|e| e.what == What::Donate);
    let all = all.count();
    assert_eq!(svg.matches("<line class=\"donation\"").count(), all);
    assert_eq!(svg.matches("<line class=\"return\"").count(), all);
    assert_eq!(svg.matches("<line class=\"call\"").count(), 3);
    assert_eq!(svg.matches("<line class=\"reply\"").count(), 3);

    let json: serde_json::Value =
        serde_json::from_str(&trace::chrome_json(&figure.events)).unwrap();
    let entries = json["traceEvents"].as_array().unwrap();
    for (name, pid) in named {
        let names = |e: &&serde_json::Value| {
            e["name"] == "process_name" && e["pid"] == pid && e["args"]["name"] == name
        };
        assert!(entries.iter().any(|e| names(&e)), "{name}");
    }
    let lent = |peer: u32| {
        let is = |e: &&serde_json::Value| {
            e["ph"] == "X" && e["name"] == "lent" && e["args"]["peer"] == peer
        };
        let spans: Vec<_> = entries.iter().filter(is).collect();
        spans
    };
    let spans = lent(figure.files);
    assert_eq!(spans.len(), 1);
    assert_eq!(spans[0]["pid"], figure.editor);
    assert!(spans[0]["dur"].as_f64().unwrap() > 0.0);
}

roles! { "server" => server, "editor" => editor, "typist" => typist }
