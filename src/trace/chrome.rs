//! The trace as JSON for a trace viewer, in the format that Chrome introduced and Perfetto opens.
//!
//! A process for each pid, a track for each processor. Donations, landings' stays and rests are spans, calls
//! are spans of their own from sending to going on, and everything else is an instant.

use serde_json::{Value, json};

use super::story::{State, Story};
use super::{Event, What};

/// Writes `events` as Chrome trace JSON. They need not be sorted, and may be of any number of processes.
///
/// Times are in microseconds since the first event.
pub fn chrome_json(events: &[Event]) -> String {
    let story = Story::of(events);
    let mut out = Vec::new();
    for (tid, lane) in story.lanes.iter().enumerate() {
        let named = |what: &str, name: String| json!({"ph": "M", "name": what, "pid": lane.pid, "tid": tid, "args": {"name": name}});
        out.push(named("process_name", lane.process.clone()));
        out.push(named("thread_name", lane.label()));
    }
    for span in &story.spans {
        let begin = story.time(span.from);
        let name = match span.state {
            State::Lent => "lent",
            State::Landed => "landed",
            State::Resting => "rest",
        };
        out.push(json!({
            "ph": "X",
            "name": name,
            "cat": "processor",
            "ts": microseconds(begin - story.begin()),
            "dur": microseconds(story.time(span.to) - begin),
            "pid": story.lanes[span.lane].pid,
            "tid": span.lane,
            "args": {"peer": span.peer},
        }));
    }
    for (i, event) in story.events.iter().enumerate() {
        out.extend(instant(&story, i, event));
        out.extend(end_of_call(&story, i, event));
    }
    json!({"traceEvents": out, "displayTimeUnit": "ns"}).to_string()
}

fn instant(story: &Story<'_>, i: usize, event: &Event) -> Option<Value> {
    let name = match &event.what {
        What::Call => "call",
        What::Receive => "receive",
        What::Dispatch => "dispatch",
        What::Reply => "reply",
        What::Resume => "resume",
        What::Scan => "scan",
        What::Donate => "donate",
        What::Arrive => "arrive",
        What::Return => "return",
        What::Reclaim => "reclaim",
        What::Ring => "ring",
        What::Dropped { .. } => "dropped",
        // The ends of spans, and names.
        What::Rest | What::Wake | What::Start { .. } => return None,
    };
    let mut args = json!({"peer": event.peer, "call": event.call});
    if let What::Dropped { events } = event.what {
        args = json!({"events": events});
    }
    Some(json!({
        "ph": "i",
        "s": "t",
        "name": name,
        "ts": microseconds(event.at - story.begin()),
        "pid": event.pid,
        "tid": story.lane_of[i],
        "args": args,
    }))
}

/// A call is a span that no track owns: its caller may go on elsewhere.
fn end_of_call(story: &Story<'_>, i: usize, event: &Event) -> Option<Value> {
    let phase = match event.what {
        What::Call => "b",
        What::Resume => "e",
        _ => return None,
    };
    let (peer, call) = (event.peer?, event.call?);
    Some(json!({
        "ph": phase,
        "cat": "call",
        "name": format!("call of {peer}"),
        "id": format!("{}-{peer}-{call:#x}", event.pid),
        "ts": microseconds(event.at - story.begin()),
        "pid": event.pid,
        "tid": story.lane_of[i],
    }))
}

fn microseconds(nanoseconds: u64) -> f64 {
    nanoseconds as f64 / 1e3
}
