//! A warm call is two cache lines: no system call, and no allocation on the channel path.
//!
//! Two processes with one processor each that never rest. System calls are counted in three ways: by
//! the library itself; by the kernel's count of sleeps of each thread, everywhere; and by `strace`
//! where it is installed and may trace, which sees all of them. Allocations are counted on the calling
//! and the serving thread.
#[macro_use]
mod common;
#[path = "common/counting.rs"]
mod counting;

use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use common::{Names, Process, hear, say, until_told_to_end, watchdog};
use counting::{Counting, allocations};
use rustix::thread::{CpuSet, gettid, sched_getaffinity};

/// These tests measure, so they run one at a time.
static ALONE: Mutex<()> = Mutex::new(());

fn alone() -> MutexGuard<'static, ()> {
    ALONE.lock().unwrap_or_else(PoisonError::into_inner)
}

#[global_allocator]
static COUNTING: Counting = Counting;

/// Calls that are counted. Two processes that never rest are slow where others want the CPUs, too.
const CALLS: u64 = if cfg!(debug_assertions) {
    20_000
} else {
    1_000_000
};
/// The same on one CPU, where each takes two hand-overs.
const CALLS_ON_ONE_CPU: u64 = 2_000;
/// Calls before that: by then, what is allocated once has been.
const WARM_UP: u64 = 2_000;
/// Calls whose allocations are counted.
const COUNTED: u64 = if cfg!(debug_assertions) {
    20_000
} else {
    100_000
};

/// The CPUs this process may run on.
fn cpus() -> Vec<u32> {
    let set = sched_getaffinity(None).unwrap();
    let all = 0..CpuSet::MAX_CPU;
    all.filter(|&cpu| set.is_set(cpu))
        .map(|cpu| cpu as u32)
        .collect()
}

/// One processor that never rests, on the first or the second allowed CPU.
fn tireless(cpu: usize) -> urpc::Runtime {
    let cpus = cpus();
    let builder = urpc::Runtime::builder()
        .processors(1)
        .pin([cpus[cpu % cpus.len()]]);
    builder.spin(Duration::MAX).build().unwrap()
}

/// How often this thread has gone to sleep in the kernel.
fn sleeps() -> u64 {
    let status = std::fs::read_to_string("/proc/thread-self/status").unwrap();
    let line = status
        .lines()
        .find_map(|l| l.strip_prefix("voluntary_ctxt_switches:"));
    line.expect("the kernel counts them")
        .trim()
        .parse()
        .unwrap()
}

/// What the serving thread tells about itself: its id, sleeps, system calls of its process as the
/// library counts them, allocations.
type Count = (u32, u64, u64, u64);

fn count() -> Count {
    let id = gettid().as_raw_nonzero().get() as u32;
    (id, sleeps(), urpc::stats().system_calls, allocations())
}

fn server(name: &str) {
    tireless(1).block_on(async {
        let _server = urpc::serve(name)
            .method("null", |(): ()| async {})
            .method("echo", |text: String| async move { text })
            .method("count", |(): ()| async { count() })
            // A system call of the serving thread: a mark in its trace.
            .method("mark", |(): ()| async { say("mark", "") })
            .bind()
            .unwrap();
        say("ready", "");
        urpc::unblock(until_told_to_end).await;
    });
}

/// Makes `calls` null calls, marked in the traces of both processes, and says who called and who
/// served, how often each slept, and how many system calls the library counted.
fn client(argument: &str) {
    say("ready", "");
    let (name, calls) = argument.split_once(' ').unwrap();
    let calls: u64 = calls.parse().unwrap();
    let rt = tireless(0);
    let (before, theirs_before, after, theirs_after) = rt.block_on(async {
        let peer = urpc::connect(name).await.unwrap();
        let null = peer.procedure::<(), ()>("null");
        for _ in 0..WARM_UP {
            null.call(()).await.unwrap();
        }
        let theirs_before: Count = urpc::call(&peer, "count", ()).await.unwrap();
        let () = urpc::call(&peer, "mark", ()).await.unwrap();
        let before = count();
        say("mark", "");
        for _ in 0..calls {
            null.call(()).await.unwrap();
        }
        say("mark", "");
        let after = count();
        let () = urpc::call(&peer, "mark", ()).await.unwrap();
        let theirs_after: Count = urpc::call(&peer, "count", ()).await.unwrap();
        (before, theirs_before, after, theirs_after)
    });
    for (who, before, after) in [
        ("calling", before, after),
        ("serving", theirs_before, theirs_after),
    ] {
        assert_eq!(before.0, after.0, "one thread does it all");
        let (sleeps, counted) = (after.1 - before.1, after.2 - before.2);
        say(who, format!("{} {sleeps} {counted}", after.0));
    }
    hear();
}

/// Puts `strace` in front of a command: every system call of every thread goes to `file`.
fn traced(command: &mut Command, file: &Path) {
    let mut strace = Command::new("strace");
    strace.args(["-f", "-o"]).arg(file);
    strace.arg(command.get_program()).args(command.get_args());
    for (key, value) in command.get_envs() {
        strace.env(key, value.unwrap());
    }
    strace.stdin(Stdio::piped()).stdout(Stdio::piped());
    *command = strace;
}

/// True if there is a `strace` and it may trace.
fn can_trace() -> bool {
    let mut strace = Command::new("strace");
    strace.args(["-f", "-o", "/dev/null", "true"]);
    strace
        .stderr(Stdio::null())
        .status()
        .is_ok_and(|s| s.success())
}

/// The system calls of thread `id` between its two marks.
fn between_marks(trace: &Path, id: &str) -> Vec<String> {
    let trace = std::fs::read_to_string(trace).unwrap();
    let own = |line: &str| {
        let (thread, call) = line.split_once(' ')?;
        (thread == id).then(|| call.trim().to_owned())
    };
    let calls: Vec<String> = trace.lines().filter_map(own).collect();
    let mark = |call: &String| call.starts_with("write(1, \"@mark:");
    let marks: Vec<usize> = (0..calls.len()).filter(|&i| mark(&calls[i])).collect();
    let [first, last] = marks[..] else {
        panic!(
            "thread {id} left {} marks in its trace, not two",
            marks.len()
        );
    };
    calls[first + 1..last].to_vec()
}

/// Lets a client call a server. What each of the two threads says: who it is, its sleeps, its counts.
fn one_run(calls: u64, traces: Option<[&Path; 2]>) -> [Vec<String>; 2] {
    let names = Names::new();
    let name = names.name("warm");
    let wrap = |command: &mut Command, which: usize| {
        if let Some(traces) = traces {
            traced(command, traces[which]);
        }
    };
    let server = Process::start_with("server", &name, |c| wrap(c, 1));
    let argument = format!("{name} {calls}");
    let mut client = Process::start_with("client", &argument, |c| wrap(c, 0));
    let said = ["calling", "serving"].map(|who| {
        let line = client.expect(who);
        line.split(' ').map(str::to_owned).collect()
    });
    client.finish();
    server.finish();
    said
}

#[test]
fn warm_calls_between_two_processors_make_no_system_call() {
    let _alone = alone();
    let _w = watchdog();
    if cpus().len() < 2 {
        println!("one CPU: a call needs hand-overs here, so only its success is checked");
        one_run(CALLS_ON_ONE_CPU, None);
        return;
    }
    let [calling, serving] = one_run(CALLS, None);
    println!("{CALLS} calls: thread, sleeps, counted system calls");
    println!("calling: {calling:?}; serving: {serving:?}");
    assert_eq!(
        calling[1..],
        ["0", "0"],
        "the calling thread slept or called"
    );
    assert_eq!(
        serving[1..],
        ["0", "0"],
        "the serving thread slept or called"
    );
}

#[test]
fn a_tracer_sees_no_system_call_between_two_processors() {
    let _alone = alone();
    let _w = watchdog();
    if cpus().len() < 2 || !can_trace() {
        println!("not here: it takes two CPUs, and an strace that may trace");
        return;
    }
    let directory = tempfile::tempdir().unwrap();
    let traces = ["calling", "serving"].map(|who| directory.path().join(who));
    let said = one_run(CALLS, Some([&traces[0], &traces[1]]));
    for ((who, trace), said) in ["calling", "serving"].iter().zip(&traces).zip(&said) {
        let calls = between_marks(trace, &said[0]);
        println!(
            "{who} thread {}: {} system calls in {CALLS} calls",
            said[0],
            calls.len()
        );
        assert!(
            calls.is_empty(),
            "the {who} thread made system calls: {calls:#?}"
        );
    }
}

#[test]
fn a_warm_call_allocates_nothing_on_the_channel_path() {
    let _alone = alone();
    let _w = watchdog();
    let names = Names::new();
    let name = names.name("warm");
    let process = Process::start("server", &name);
    let counted = if cpus().len() < 2 {
        CALLS_ON_ONE_CPU
    } else {
        COUNTED
    };
    tireless(0).block_on(async {
        let peer = urpc::connect(&name).await.unwrap();
        let null = peer.procedure::<(), ()>("null");
        let echo = peer.procedure::<&str, String>("echo");
        // What is allocated once, the first time that a processor is lent, say, is not there in every round.
        for (what, calls) in [("null", counted), ("echo", counted)] {
            let clean = async |calls| {
                let theirs: Count = urpc::call(&peer, "count", ()).await.unwrap();
                let donated = peer.stats().donations_given;
                let ours = allocations();
                for _ in 0..calls {
                    match what {
                        "null" => null.call(()).await.unwrap(),
                        _ => drop(echo.call("some text").await.unwrap()),
                    }
                }
                let ours = allocations() - ours;
                let after: Count = urpc::call(&peer, "count", ()).await.unwrap();
                // The file that tells the sleeps takes a few; the same each time.
                let itself: Count = urpc::call(&peer, "count", ()).await.unwrap();
                if (theirs.0, after.0) != (after.0, itself.0) {
                    return false; // counted by several threads: processors were lent in between
                }
                let theirs = (after.3 - theirs.3).checked_sub(itself.3 - after.3);
                let donated = peer.stats().donations_given - donated;
                println!("{calls} calls of {what}: {ours} allocations here, {theirs:?} there");
                // A String is the user's: the caller gets one, the handler was given one, on whichever thread. And a
                // lent processor, which is what a call takes on one CPU, needs a worker to hold it.
                let expected = if what == "null" { 0 } else { calls };
                ours == expected && theirs.is_some_and(|theirs| theirs <= expected + donated)
            };
            clean(WARM_UP).await;
            let mut rounds = 0;
            while !clean(calls).await {
                rounds += 1;
                assert!(rounds < 20, "calls of {what} allocate");
            }
        }
    });
    process.finish();
}

roles! { "server" => server, "client" => client }
