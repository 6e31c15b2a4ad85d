//! The trace as a picture, in the manner of the paper's Figure 1: a lane for each processor, time downwards,
//! one row an event.
//!
//! Rows are steps, not time: what a call costs and how long a rest takes differ by a factor of a million. The
//! times stand at the left, and in the tooltip of each event.

use std::fmt::Write;

use super::story::{Lane, Sent, State, Story};
use super::{Event, What};

/// Rows of one picture: a viewer shows some thousand shapes well, and a person reads fewer.
const ROWS: usize = 1000;

/// Width of a lane, height of a row, and where the lanes begin, in pixels.
const LANE: usize = 170;
const ROW: usize = 16;
const LEFT: usize = 90;
const TOP: usize = 64;

const STYLE: &str = "\
text{font:11px sans-serif;fill:#222;paint-order:stroke;stroke:#f6f6f2;stroke-width:3px}\
.process{font-weight:bold;font-size:13px}.time{fill:#888;text-anchor:end;stroke:none}.note{fill:#b00}\
.band{fill:#f6f6f2}.lane{stroke:#bbb}.dot{fill:#222}\
.resting{fill:#d8dce2}.lent{fill:none;stroke:#c60;stroke-dasharray:3 2}.landed{fill:#f4b56a}\
.call{stroke:#236;marker-end:url(#head)}.reply{stroke:#286;stroke-dasharray:5 3;marker-end:url(#head)}\
.donation{stroke:#c60;stroke-width:3;marker-end:url(#head)}\
.return{stroke:#c60;stroke-width:3;stroke-dasharray:6 3;marker-end:url(#head)}";

/// Draws `events` as SVG: calls and replies as arrows between lanes, donations as thick ones, and a bar
/// where a processor is lent, has landed, or rests. They need not be sorted, and may be of any number of
/// processes.
///
/// Of a longer list the first 1,000 events are drawn, and the picture says so.
pub fn svg(events: &[Event]) -> String {
    let story = Story::of(events);
    let rows = story.events.len().min(ROWS);
    let width = LEFT + LANE * story.lanes.len().max(1) + 20;
    let height = TOP + ROW * (rows + 3);
    let mut out = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" width=\"{width}\" height=\"{height}\" \
         viewBox=\"0 0 {width} {height}\">\n<style>{STYLE}</style>\n\
         <defs><marker id=\"head\" viewBox=\"0 0 8 8\" refX=\"8\" refY=\"4\" markerWidth=\"8\" \
         markerHeight=\"8\" markerUnits=\"userSpaceOnUse\" orient=\"auto\">\
         <path d=\"M0 0L8 4L0 8z\"/></marker></defs>\n"
    );
    // Writing to a String cannot fail.
    let _ = draw(&mut out, &story, rows);
    out.push_str("</svg>\n");
    out
}

fn draw(out: &mut String, story: &Story<'_>, rows: usize) -> std::fmt::Result {
    for (i, lane) in story.lanes.iter().enumerate() {
        draw_lane(out, story, i, lane, rows)?;
    }
    for span in story.spans.iter().filter(|span| span.from < rows) {
        let (class, half) = match span.state {
            State::Resting => ("resting", 3),
            State::Lent => ("lent", 5),
            State::Landed => ("landed", 5),
        };
        let (top, bottom) = (y(span.from), y(span.to.min(rows)));
        writeln!(
            out,
            "<rect class=\"{class}\" x=\"{}\" y=\"{top}\" width=\"{}\" height=\"{}\"/>",
            x(span.lane) - half,
            2 * half,
            bottom - top,
        )?;
    }
    for arrow in story.arrows.iter().filter(|arrow| arrow.to < rows) {
        let class = match arrow.sent {
            Sent::Call => "call",
            Sent::Reply => "reply",
            Sent::Donation => "donation",
            Sent::Return => "return",
        };
        writeln!(
            out,
            "<line class=\"{class}\" x1=\"{}\" y1=\"{}\" x2=\"{}\" y2=\"{}\"/>",
            x(story.lane_of[arrow.from]),
            y(arrow.from),
            x(story.lane_of[arrow.to]),
            y(arrow.to),
        )?;
    }
    for (i, event) in story.events.iter().enumerate().take(rows) {
        draw_event(out, story, i, event)?;
    }
    let more = story.events.len() - rows;
    if more > 0 {
        let y = y(rows + 1);
        writeln!(
            out,
            "<text class=\"note\" x=\"{LEFT}\" y=\"{y}\">{more} later events are not drawn</text>"
        )?;
    }
    Ok(())
}

/// The lane's line and head; with the first of a process, its name over a band behind all of its lanes.
fn draw_lane(
    out: &mut String,
    story: &Story<'_>,
    i: usize,
    lane: &Lane,
    rows: usize,
) -> std::fmt::Result {
    let bottom = y(rows);
    if i == 0 || story.lanes[i - 1].pid != lane.pid {
        let lanes = story.lanes.iter().filter(|other| other.pid == lane.pid);
        let left = LEFT + i * LANE + 4;
        writeln!(
            out,
            "<rect class=\"band\" x=\"{left}\" y=\"4\" width=\"{}\" height=\"{}\"/>\n\
             <text class=\"process\" x=\"{}\" y=\"22\">{} ({})</text>",
            lanes.count() * LANE - 8,
            bottom + 4,
            left + 8,
            escaped(&lane.process),
            lane.pid,
        )?;
    }
    let x = x(i);
    writeln!(
        out,
        "<text class=\"head\" x=\"{x}\" y=\"40\" text-anchor=\"middle\">{}</text>\n\
         <line class=\"lane\" x1=\"{x}\" y1=\"46\" x2=\"{x}\" y2=\"{bottom}\"/>",
        lane.label(),
    )
}

fn draw_event(out: &mut String, story: &Story<'_>, i: usize, event: &Event) -> std::fmt::Result {
    let text = told(event);
    let (x, y) = (x(story.lane_of[i]), y(i));
    let micros = (event.at - story.begin()) as f64 / 1e3;
    writeln!(
        out,
        "<text class=\"time\" x=\"{}\" y=\"{}\">{micros:.1} µs</text>\
         <g><title>{text}, {micros:.3} µs</title><circle class=\"dot\" cx=\"{x}\" cy=\"{y}\" r=\"2.5\"/>\
         <text x=\"{}\" y=\"{}\">{text}</text></g>",
        LEFT - 8,
        y + 4,
        x + 9,
        y + 4,
    )
}

/// An event in words.
fn told(event: &Event) -> String {
    let peer = event.peer.map_or(String::new(), |pid| format!(" {pid}"));
    let call = event.call.map_or(String::new(), |id| format!(" {id:x}"));
    match &event.what {
        What::Start { name } => format!("{} starts", escaped(name)),
        What::Call => format!("call{call}"),
        What::Receive => format!("receive{call}"),
        What::Dispatch => format!("dispatch{call}"),
        What::Reply => format!("reply{call}"),
        What::Resume => format!("resume{call}"),
        What::Scan => "scan".into(),
        What::Donate => format!("donate to{peer}"),
        What::Arrive => "arrive".into(),
        What::Return => "return".into(),
        What::Reclaim => "reclaim".into(),
        What::Rest => "rest".into(),
        What::Wake => "wake".into(),
        What::Ring => format!("ring{peer}"),
        What::Dropped { events } => format!("{events} events dropped"),
    }
}

fn x(lane: usize) -> usize {
    LEFT + lane * LANE + 40
}

fn y(row: usize) -> usize {
    TOP + row * ROW
}

/// A name as it may stand in XML: without markup, and without characters that XML has not.
fn escaped(name: &str) -> String {
    let mut out = String::new();
    for c in name.chars() {
        match c {
            '&' => out.push_str("&amp;"),
            '<' => out.push_str("&lt;"),
            '>' => out.push_str("&gt;"),
            '"' => out.push_str("&quot;"),
            c if c.is_control() || matches!(c, '\u{FFFE}' | '\u{FFFF}') => {
                out.push(char::REPLACEMENT_CHARACTER);
            }
            c => out.push(c),
        }
    }
    out
}
