//! The recording of a run: what all three processes did, merged into the files that were asked for.

use std::io;

use urpc::trace::{self, Event, What};
use urpc::{CallError, Peer};

use crate::Options;
use crate::editor::number;
use crate::protocol::ReportClient;

/// The events of this process and of the others, in the order of time. Recording ends with this, and what the
/// others do in order to tell is left out.
///
/// A process that is gone has nothing to say any more; standard error is told.
pub(crate) async fn collect(others: &[(&str, Peer)]) -> Vec<Event> {
    trace::stop();
    let mut events = trace::take();
    let end = events.last().map_or(0, |last| last.at);
    for (role, peer) in others {
        match events_of(peer).await {
            Ok(theirs) => events.extend(theirs.into_iter().filter(|event| event.at <= end)),
            Err(error) => eprintln!("editor: the {role} is missing in the recording: {error}"),
        }
    }
    events.sort_by_key(|event| event.at);
    events
}

async fn events_of(peer: &Peer) -> Result<Vec<Event>, CallError> {
    let report = ReportClient::on(peer);
    let mut all = Vec::new();
    loop {
        let piece = report.events().await?;
        if piece.is_empty() {
            return Ok(all);
        }
        all.extend(piece);
    }
}

/// Writes what was asked for. If events are missing, standard error is told.
///
/// # Errors
/// The first file that cannot be written, by name.
pub(crate) fn write(options: &Options, events: &[Event]) -> io::Result<()> {
    for (path, picture) in [
        (&options.trace, trace::chrome_json as fn(&[Event]) -> String),
        (&options.svg, trace::svg),
    ] {
        let Some(path) = path else { continue };
        std::fs::write(path, picture(events)).map_err(|error| {
            let why = format!("cannot write {}: {error}", path.display());
            io::Error::new(error.kind(), why)
        })?;
    }
    let dropped = events.iter().map(|event| match event.what {
        What::Dropped { events } => events,
        _ => 0,
    });
    let dropped: u64 = dropped.sum();
    if dropped > 0 {
        let kept = number(events.len() as u64);
        let dropped = number(dropped);
        eprintln!("editor: the recording has {kept} events; {dropped} later ones had no room");
    }
    Ok(())
}
