//! What the benches share: two processes, the bases of every ratio, and the report.
// Each bench uses its part of it.
#![allow(dead_code, unreachable_pub)]

pub mod around;
pub mod base;
pub mod bulk;
pub mod callgrind;
pub mod child;
pub mod contest;
pub mod crowd;
pub mod curves;
pub mod oneself;
pub mod pair;
pub mod process;
pub mod report;
pub mod shared;
pub mod stopped;
pub mod storm;
pub mod table;
pub mod tokio;

/// Plays the role this process was started in. False if it was started by a person.
pub fn played_a_role() -> bool {
    let Some(role) = child::role() else {
        return false;
    };
    let words: Vec<&str> = role.iter().map(String::as_str).collect();
    match words[..] {
        ["bare", path, cpu] => bulk::bare_child(path, cpu),
        ["caller", name] => storm::caller_child(name),
        ["crowd", name, count] => crowd::crowd_child(name, count),
        ["echoes", name] => bulk::echo_child(name),
        ["raw", path, cpu] => base::raw_child(path, cpu),
        ["echo", name, cpu] => tokio::echo_child(name, cpu),
        ["handover", path, cpu, ping, socket] => base::handover_child(path, cpu, ping, socket),
        ["meter", path, time, ref processes @ ..] => contest::meter_child(path, time, processes),
        ["passer", name, next] => around::passer_child(name, next),
        ["server", name, processors] => pair::server_child(name, processors, false),
        ["polling-server", name, processors] => pair::server_child(name, processors, true),
        ["stepped", kind, calls] => callgrind::stepped_child(kind, calls),
        ["stopped", name, path] => stopped::stopped_child(name, path),
        ["worker", name] => storm::worker_child(name),
        _ => panic!("no role {role:?}"),
    }
    true
}
