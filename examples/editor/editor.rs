//! The editor: opens every file, has it laid out, and says what it got.
//!
//! Files go through at once, and so do the ranges of each; only the parts that one window shows are sent
//! one after the other, for their order matters.

use std::fmt::{self, Display};
use std::io::{self, ErrorKind, Write};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;
use std::time::{Duration, Instant};

use serde_bytes::ByteBuf;
use urpc::{CallError, JoinError, Peer};

use crate::ahead::Ahead;
use crate::check::check;
use crate::meter::Meter;
use crate::process::Started;
use crate::protocol::{FileCacheClient, FileError, Layout, Opened, ReportClient, WindowsClient};
use crate::{Options, Role, record};

/// The process: starts the two others, opens all files, and waits for their end.
pub(crate) fn run(options: Options) -> urpc::Result<ExitCode> {
    let runtime = urpc::Runtime::builder().processors(1).build()?;
    let records = options.records();
    let (started, outcome, events) = runtime.block_on(async {
        let (cache, files) = Started::new(Role::Files, records).await?;
        let (screen, windows) = Started::new(Role::Windows, records).await?;
        let editor = Arc::new(Editor::new(&files, &windows, options.clone())?);
        let others = [(cache.role(), files), (screen.role(), windows)];
        let outcome = editor.open_all(&others).await;
        let events = match records {
            true => record::collect(&others).await,
            false => Vec::new(),
        };
        Ok::<_, urpc::Error>(([cache, screen], outcome, events))
    })?;
    drop(runtime); // and with it the channels: that is what the others wait for
    let mut code = match outcome {
        Ok(outcome) => outcome.code(),
        // Whoever reads our output has seen enough.
        Err(error) if error.kind() == ErrorKind::BrokenPipe => ExitCode::SUCCESS,
        Err(error) => return Err(error.into()),
    };
    if let Err(error) = record::write(&options, &events) {
        eprintln!("editor: {error}");
        code = ExitCode::FAILURE;
    }
    for process in started {
        if let Err(error) = process.finish() {
            eprintln!("editor: {error}");
            code = ExitCode::FAILURE;
        }
    }
    Ok(code)
}

struct Editor {
    files: FileCacheClient,
    windows: WindowsClient,
    meter: Meter,
    options: Options,
}

/// A file that came through.
struct Seen {
    bytes: u64,
    layout: Layout,
}

/// Why a file did not come through.
enum Trouble {
    /// It cannot be read: the file's fault.
    File(FileError),
    /// What came through is not what is on disk.
    Differs(String),
    /// A call failed.
    Call(String),
}

impl From<CallError> for Trouble {
    fn from(error: CallError) -> Self {
        Self::Call(error.to_string())
    }
}

impl From<JoinError> for Trouble {
    fn from(error: JoinError) -> Self {
        Self::Call(error.to_string())
    }
}

impl From<FileError> for Trouble {
    fn from(error: FileError) -> Self {
        Self::File(error)
    }
}

impl Display for Trouble {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::File(error) => error.fmt(f),
            Self::Differs(how) => write!(f, "DIFFERS FROM THE FILE: {how}"),
            Self::Call(error) => error.fmt(f),
        }
    }
}

/// What became of all files.
#[derive(Default)]
struct Outcome {
    same: u64,
    unread: u64,
    failed: u64,
    bytes: u64,
    lines: u64,
    words: u64,
}

impl Outcome {
    fn count(&mut self, seen: &Result<Seen, Trouble>) {
        match seen {
            Ok(Seen { bytes, layout }) => {
                self.same += 1;
                self.bytes += bytes;
                self.lines += layout.lines;
                self.words += layout.words;
            }
            Err(Trouble::File(_)) => self.unread += 1,
            Err(_) => self.failed += 1,
        }
    }

    fn code(&self) -> ExitCode {
        match (self.failed, self.unread) {
            (0, 0) => ExitCode::SUCCESS,
            (0, _) => ExitCode::from(2),
            _ => ExitCode::FAILURE,
        }
    }
}

impl Editor {
    fn new(files: &Peer, windows: &Peer, options: Options) -> urpc::Result<Self> {
        let editor = Self {
            files: FileCacheClient::on(files),
            windows: WindowsClient::on(windows),
            meter: Meter::new(),
            options,
        };
        editor.files.check()?;
        editor.windows.check()?;
        Ok(editor)
    }

    /// Opens all files, prints a line for each in their order, and a summary.
    async fn open_all(self: &Arc<Self>, others: &[(&str, Peer)]) -> io::Result<Outcome> {
        let mut out = io::stdout();
        let names: Vec<String> = self.options.files.iter().map(|path| shown(path)).collect();
        let column = names.iter().map(|name| name.chars().count()).max();
        let column = column.unwrap_or(0).min(48);
        let begin = Instant::now();
        let work = self.options.files.clone().into_iter().map(|path| {
            let editor = Arc::clone(self);
            async move { editor.view(path).await }
        });
        let mut seen = Ahead::new(self.options.open, work);
        let mut outcome = Outcome::default();
        for name in &names {
            let result = seen.next().await.expect("one for each name");
            let result = result.map_err(Trouble::from).and_then(|result| result);
            outcome.count(&result);
            match &result {
                Ok(seen) => seen.print(name, column, &mut out)?,
                Err(trouble) => eprintln!("editor: {name}: {trouble}"),
            }
        }
        let took = begin.elapsed();
        self.summarize(&outcome, took, others, &mut out).await?;
        Ok(outcome)
    }

    /// One file, from its path to its layout.
    async fn view(self: Arc<Self>, path: PathBuf) -> Result<Seen, Trouble> {
        let name = ByteBuf::from(path.as_os_str().as_bytes());
        let Opened { file, size } = self.meter.time(self.files.open(name)).await??;
        let (width, preview) = (self.options.width, self.options.preview);
        let window = self.meter.time(self.windows.open(width, preview)).await?;
        let shown = self.show(file, size, window).await;
        // Closed in any case: the other processes need not remember them.
        self.meter.time(self.files.close(file)).await?;
        let layout = self.meter.time(self.windows.close(window)).await?;
        let text = shown?;
        let layout = layout.ok_or_else(|| Trouble::Call("its window is gone".into()))?;
        let bytes = text.len() as u64;
        let (checked, layout) = urpc::unblock(move || (check(&path, &text, &layout), layout)).await;
        checked.map_err(Trouble::Differs)?;
        Ok(Seen { bytes, layout })
    }

    /// Fetches the ranges of a file and shows them in order. Returns the text.
    async fn show(self: &Arc<Self>, file: u32, size: u64, window: u32) -> Result<Vec<u8>, Trouble> {
        let length = self.options.range;
        let ranges = (0..size).step_by(length as usize).map(|offset| {
            let editor = Arc::clone(self);
            async move {
                let call = editor.files.read(file, offset, length);
                editor.meter.time(call).await
            }
        });
        let mut ranges = Ahead::new(self.options.in_flight, ranges);
        let mut text = Vec::with_capacity(size as usize);
        while let Some(range) = ranges.next().await {
            let range = range???; // its task, its call, its file
            text.extend_from_slice(&range);
            if !self.meter.time(self.windows.show(window, range)).await? {
                return Err(Trouble::Call("its window is gone".into()));
            }
        }
        Ok(text)
    }

    async fn summarize(
        &self,
        outcome: &Outcome,
        took: Duration,
        others: &[(&str, Peer)],
        out: &mut impl Write,
    ) -> io::Result<()> {
        let calls = self.meter.calls();
        let stats = urpc::stats();
        let each = |n: u64| n as f64 / calls.max(1) as f64;
        writeln!(out)?;
        writeln!(
            out,
            "files      {} as on disk: {} bytes, {} lines, {} words",
            number(outcome.same),
            number(outcome.bytes),
            number(outcome.lines),
            number(outcome.words),
        )?;
        for (count, what) in [
            (outcome.unread, "could not be read"),
            (outcome.failed, "FAILED"),
        ] {
            if count > 0 {
                writeln!(out, "           {} {what}", number(count))?;
            }
        }
        writeln!(
            out,
            "calls      {} in {took:.1?}; median {:.1?}, p99 {:.1?}",
            number(calls),
            self.meter.quantile(0.5),
            self.meter.quantile(0.99),
        )?;
        writeln!(
            out,
            "donations  {} given, {} returned, {} reclaimed",
            number(stats.donations_given),
            number(stats.donations_returned),
            number(stats.donations_reclaimed),
        )?;
        writeln!(
            out,
            "kernel     {:.3} crossings and {:.3} system calls a call",
            each(stats.crossings),
            each(stats.system_calls),
        )?;
        for (role, peer) in others {
            match ReportClient::on(peer).counts().await {
                Ok(counts) => writeln!(
                    out,
                    "{role}: {} calls served, {} processors received, {} rings, {} system calls",
                    number(counts.served),
                    number(counts.donations_received),
                    number(counts.rings),
                    number(counts.system_calls),
                )?,
                Err(error) => writeln!(out, "{role}: {error}")?,
            }
        }
        out.flush()
    }
}

impl Seen {
    fn print(&self, name: &str, column: usize, out: &mut impl Write) -> io::Result<()> {
        let Self { bytes, layout } = self;
        write!(
            out,
            "{name:column$} {:>11} bytes {:>9} lines {:>10} words {:>9} rows",
            number(*bytes),
            number(layout.lines),
            number(layout.words),
            number(layout.rows),
        )?;
        match layout.invalid_at {
            Some(byte) => writeln!(out, "  as on disk; not UTF-8 from byte {byte} on")?,
            None => writeln!(out, "  as on disk")?,
        }
        for row in &layout.preview {
            writeln!(out, "  | {row}")?;
        }
        out.flush()
    }
}

/// A path for a terminal: nothing in it can command one.
fn shown(path: &Path) -> String {
    let name = path.to_string_lossy();
    let control = |c: char| {
        if c.is_control() {
            char::REPLACEMENT_CHARACTER
        } else {
            c
        }
    };
    name.chars().map(control).collect()
}

/// A number as people write it: 1,234,567.
pub(crate) fn number(n: u64) -> String {
    let digits = n.to_string();
    let mut out = String::new();
    for (i, digit) in digits.chars().enumerate() {
        if i > 0 && (digits.len() - i).is_multiple_of(3) {
            out.push(',');
        }
        out.push(digit);
    }
    out
}
