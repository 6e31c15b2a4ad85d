//! Figure 1 of the paper as three processes on real files: an *editor*, a *file cache manager* without a
//! processor of its own, and a *window manager*.
//!
//! The editor (this file's process) starts the other two and is bound to each by a socket pair. It asks
//! for the ranges of all files with many calls in flight, has them laid out in order, and compares what
//! came through with the files themselves. Whatever happens, it leaves no process behind: both others
//! end when their channel closes, also when the editor is killed.
//!
//! ```text
//! cargo run --release --example editor -- FILE...
//! cargo run --release --example editor -- --trace out.json --svg out.svg
//! ```
//!
//! The second form records what the three processes do: a trace for a viewer such as Perfetto, and a picture.

mod ahead;
mod cache;
mod check;
mod editor;
mod layout;
mod meter;
mod process;
mod protocol;
mod record;
mod screen;

use std::ffi::OsStr;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::{Parser, ValueEnum};

/// Opens files through a file cache manager, and lays them out in a window manager: three processes
/// that call one another through shared memory.
///
/// Ends with 0 if every file came through as it is on disk, with 1 if one did not or a process failed,
/// with 2 if some file could not be read.
#[derive(Clone, Debug, Parser)]
#[command(name = "editor", version)]
pub(crate) struct Options {
    /// The files to open; without any, the sources of urpc itself
    files: Vec<PathBuf>,

    /// Columns of a window: longer lines are wrapped
    #[arg(long, value_name = "COLUMNS", default_value_t = 80, value_parser = clap::value_parser!(u32).range(1..=10_000))]
    width: u32,

    /// Bytes that one call asks of a file
    #[arg(long, value_name = "BYTES", default_value_t = 4096, value_parser = clap::value_parser!(u32).range(1..=1 << 20))]
    range: u32,

    /// Ranges of one file asked for at once
    #[arg(long, value_name = "CALLS", default_value_t = 8, value_parser = clap::value_parser!(u32).range(1..=1024))]
    in_flight: u32,

    /// Files open at once
    #[arg(long, value_name = "FILES", default_value_t = 16, value_parser = clap::value_parser!(u32).range(1..=1024))]
    open: u32,

    /// Shows the first rows of each window
    #[arg(long, value_name = "ROWS", default_value_t = 0, value_parser = clap::value_parser!(u32).range(0..=1000))]
    preview: u32,

    /// Records what the three processes do, as JSON for a trace viewer such as Perfetto
    #[arg(long, value_name = "FILE")]
    trace: Option<PathBuf>,

    /// Records what the three processes do, as a picture of its beginning
    #[arg(long, value_name = "FILE")]
    svg: Option<PathBuf>,

    /// A process started by the editor is recorded
    #[arg(long, hide = true)]
    recorded: bool,

    /// What a process started by the editor is to be
    #[arg(long, hide = true)]
    role: Option<Role>,
}

/// The processes that the editor starts.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Role {
    /// The file cache manager.
    Files,
    /// The window manager.
    Windows,
}

impl Options {
    /// Whether this process is to record what it does.
    pub(crate) fn records(&self) -> bool {
        self.recorded || self.trace.is_some() || self.svg.is_some()
    }
}

impl Role {
    /// What the process is called.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Files => "file cache manager",
            Self::Windows => "window manager",
        }
    }
}

fn main() -> ExitCode {
    let mut options = Options::parse();
    if options.records() {
        urpc::trace::start(options.role.map_or("editor", Role::name));
    }
    let result = match options.role {
        Some(Role::Files) => cache::run().map(|()| ExitCode::SUCCESS),
        Some(Role::Windows) => screen::run().map(|()| ExitCode::SUCCESS),
        None => {
            if options.files.is_empty() {
                options.files = own_sources();
            }
            editor::run(options)
        }
    };
    result.unwrap_or_else(|error| {
        eprintln!("editor: {error}");
        ExitCode::FAILURE
    })
}

/// The sources of this repository, by name; as seen from here, if they are below.
fn own_sources() -> Vec<PathBuf> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let here = std::env::current_dir().unwrap_or_default();
    let mut found = Vec::new();
    let mut folders = vec![root.to_owned()];
    while let Some(folder) = folders.pop() {
        let Ok(entries) = std::fs::read_dir(&folder) else {
            found.push(folder); // opening it will say why
            continue;
        };
        for entry in entries.flatten() {
            let path = entry.path();
            let name = entry.file_name();
            let hidden = name.as_encoded_bytes().starts_with(b".");
            match entry.file_type() {
                Ok(kind) if kind.is_dir() && !hidden && name != "target" => folders.push(path),
                Ok(kind) if kind.is_file() && is_source(&path) => found.push(path),
                _ => {}
            }
        }
    }
    for path in &mut found {
        if let Ok(below) = path.strip_prefix(&here) {
            *path = below.to_owned();
        }
    }
    found.sort();
    found
}

fn is_source(path: &Path) -> bool {
    let kinds = ["rs", "md", "toml"].map(OsStr::new);
    path.extension().is_some_and(|kind| kinds.contains(&kind))
}
