//! The editor records itself: the two files of `--trace` and `--svg`, as a person gets them.

mod common;

use std::collections::{HashMap, HashSet};
use std::fs;
use std::path::Path;
use std::process::Command;

use common::{Names, program, watchdog};
use serde_json::Value;

const PROCESSES: [&str; 3] = ["editor", "file cache manager", "window manager"];

/// Runs the editor on this repository's sources, and ends it with code 0.
fn editor(arguments: &[&str]) -> (String, String) {
    let mut command = Command::new(program("editor"));
    let output = command.args(arguments).output().expect("it starts");
    let text = |bytes| String::from_utf8(bytes).expect("text");
    let (out, err) = (text(output.stdout), text(output.stderr));
    assert_eq!(output.status.code(), Some(0), "{out}\n{err}");
    (out, err)
}

#[test]
fn the_editor_writes_what_all_three_processes_did() {
    let _watchdog = watchdog();
    let folder = Names::new();
    let [json, svg] = ["out.json", "out.svg"].map(|name| folder.path().join(name));
    let paths = [&json, &svg].map(|path| path.to_str().expect("text"));
    let (_, err) = editor(&["--trace", paths[0], "--svg", paths[1]]);
    assert_eq!(err, "", "nothing is missing");

    let json = fs::read_to_string(json).expect("it is there");
    let json: Value = serde_json::from_str(&json).expect("it is JSON");
    let entries = json["traceEvents"].as_array().expect("a list");
    let mut pids = HashMap::new();
    for entry in entries.iter().filter(|e| e["name"] == "process_name") {
        let name = entry["args"]["name"].as_str().expect("a name");
        pids.insert(name, entry["pid"].as_u64().expect("a number"));
    }
    let named: HashSet<_> = pids.keys().copied().collect();
    assert_eq!(named, HashSet::from(PROCESSES));
    // Each donation names its peer, although the sockets were made by the editor itself.
    let lent = |to: &str| {
        let mut spans = entries.iter().filter(|e| e["name"] == "lent");
        spans.any(|e| e["pid"] == pids["editor"] && e["args"]["peer"] == pids[to])
    };
    assert!(lent("file cache manager"));
    // Every call that was begun has come to its end.
    let calls = |phase: &str| {
        let all = entries.iter().filter(|e| e["ph"] == phase);
        all.count()
    };
    assert!(calls("b") > 100);
    assert_eq!(calls("b"), calls("e"));

    let svg = fs::read_to_string(svg).expect("it is there");
    for name in PROCESSES {
        assert!(
            svg.contains(&format!(">{name} (")),
            "no lanes of the {name}"
        );
    }
    assert!(svg.contains("<line class=\"call\"") && svg.contains("<line class=\"reply\""));
    assert!(svg.contains("later events are not drawn</text>"));
}

#[test]
fn a_recording_that_cannot_be_written_is_an_error() {
    let _watchdog = watchdog();
    let folder = Names::new();
    let nowhere = folder.path().join("missing/out.json");
    let sources = Path::new(env!("CARGO_MANIFEST_DIR")).join("Cargo.toml");
    let mut command = Command::new(program("editor"));
    let output = command.arg("--trace").arg(&nowhere).arg(sources).output();
    let output = output.expect("it starts");
    assert_eq!(output.status.code(), Some(1));
    let err = String::from_utf8_lossy(&output.stderr);
    let complaint = format!("cannot write {}", nowhere.display());
    assert!(err.contains(&complaint), "{err}");
}
