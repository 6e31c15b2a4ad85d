//! Pairing, repetition, and the forms of the result: a table for people, JSON for programs, and a page
//! with the results of all benches.
//!
//! The machine changes its mind about how fast it is. So each measurement has a base measurement just
//! before it and one just after, and what is reported is the median and the spread of the *ratio*.
//!
//! A run of a whole bench leaves its results in `urpc-report/` in cargo's target directory, beside those
//! of the others, and `index.html` there is made anew from all of them.

#[path = "report/page.rs"]
mod page;
#[path = "report/saved.rs"]
mod saved;

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Instant;

use clap::Parser;
use indicatif::{ProgressBar, ProgressStyle};

use saved::{Picture, Row, Saved};

/// What these benches are told on the command line: `cargo bench --bench NAME -- --quick`.
#[derive(Parser)]
pub struct Args {
    /// Only measurements with this in their name.
    filter: Option<String>,
    /// Fewer calls and rounds: less than a minute in all.
    #[arg(long)]
    pub quick: bool,
    /// Also write the results to this file, as JSON.
    #[arg(long, value_name = "FILE")]
    pub json: Option<PathBuf>,
    /// What cargo says to every bench.
    #[arg(long, hide = true)]
    bench: bool,
}

impl Args {
    pub fn rounds(&self) -> usize {
        if self.quick { 3 } else { 5 }
    }

    /// Whether this measurement was asked for.
    pub fn wants(&self, name: &str) -> bool {
        self.filter
            .as_ref()
            .is_none_or(|part| name.contains(part.as_str()))
    }

    /// Whether all measurements were asked for.
    pub fn wants_all(&self) -> bool {
        self.filter.is_none()
    }

    /// So many, or a tenth of it.
    pub fn count(&self, full: u32) -> u32 {
        if self.quick { full / 10 } else { full }
    }
}

/// What a measurement's ratio is to.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Base {
    Raw,
    Handover,
    /// What this names, measured in the same round.
    Other(&'static str),
}

impl Base {
    fn name(self) -> &'static str {
        match self {
            Self::Raw => "raw",
            Self::Handover => "handover",
            Self::Other(name) => name,
        }
    }
}

/// One figure of one round: what was measured, and the base in the same unit.
#[derive(Clone, Copy)]
pub struct Figure {
    pub value: f64,
    pub base: f64,
}

/// All results of a run.
pub struct Report {
    rows: Vec<Row>,
    notes: RefCell<Vec<String>>,
    pictures: Vec<Picture>,
    /// What the paper has, by the names of rows.
    paper: BTreeMap<String, String>,
    began: Instant,
    bar: ProgressBar,
}

impl Report {
    /// A report of about `measurements` measurements.
    pub fn new(measurements: usize) -> Self {
        let bar = ProgressBar::new(measurements as u64);
        let style = "{bar:40} {pos}/{len} {msg}";
        bar.set_style(ProgressStyle::with_template(style).expect("a template"));
        let head = [
            "name",
            "value",
            "unit",
            "base",
            "base value",
            "ratio",
            "low-high",
            "",
        ];
        bar.suspend(|| println!("{}", line(head.map(str::to_owned))));
        Self {
            rows: Vec::new(),
            notes: RefCell::default(),
            pictures: Vec::new(),
            paper: BTreeMap::new(),
            began: Instant::now(),
            bar,
        }
    }

    /// Something a reader has to know.
    pub fn note(&self, text: &str) {
        self.bar.suspend(|| println!("note: {text}"));
        self.notes.borrow_mut().push(text.to_owned());
    }

    /// What is being measured now.
    pub fn begin(&self, name: &str) {
        self.bar.set_message(name.to_owned());
    }

    /// A measurement is done.
    pub fn step(&self) {
        self.bar.inc(1);
    }

    /// The row of this name, which is still to be added, has this in the paper; with its unit.
    pub fn paper(&mut self, name: &str, text: &str) {
        self.paper.insert(name.to_owned(), text.to_owned());
    }

    /// A picture for the page, as SVG, and what it shows.
    pub fn picture(&mut self, caption: &str, svg: String) {
        let caption = caption.to_owned();
        self.pictures.push(Picture { caption, svg });
    }

    /// Adds the figures of all rounds under one name.
    pub fn add(&mut self, name: &str, unit: &str, base: Base, figures: &[Figure]) {
        let value = median(figures.iter().map(|f| f.value));
        let base_value = median(figures.iter().map(|f| f.base));
        let ratios = || figures.iter().map(|f| f.value / f.base);
        let (low, high) = ratios().fold((f64::INFINITY, 0.0), |(low, high): (f64, f64), r| {
            (low.min(r), high.max(r))
        });
        let ratio = median(ratios());
        let paper = self.paper.remove(name);
        let shown = [
            name.to_owned(),
            short(value),
            unit.to_owned(),
            base.name().to_owned(),
            short(base_value),
            format!("{ratio:.2}"),
            format!("{low:.2}-{high:.2}"),
            paper
                .as_ref()
                .map_or_else(String::new, |paper| format!("paper: {paper}")),
        ];
        self.bar.suspend(|| println!("{}", line(shown)));
        // What was divided by nothing is no number, in JSON neither.
        let number = |value: f64| value.is_finite().then_some(value);
        self.rows.push(Row {
            name: name.to_owned(),
            value: number(value),
            unit: unit.to_owned(),
            base: base.name().to_owned(),
            base_value: number(base_value),
            ratio: number(ratio),
            low: number(low),
            high: number(high),
            paper,
        });
    }

    /// Ends the table, writes the file if one was asked for, and the page if this was all of the bench.
    pub fn end(self, args: &Args) {
        self.bar.finish_and_clear();
        if let Some(path) = &args.json {
            let text = serde_json::to_string_pretty(&self.rows).expect("numbers and names");
            let written = std::fs::write(path, text + "\n");
            written.unwrap_or_else(|error| panic!("cannot write {}: {error}", path.display()));
        }
        if args.wants_all() {
            let notes = self.notes.into_inner();
            let saved = Saved::now(self.began.elapsed(), notes, self.pictures, self.rows);
            match saved.save() {
                Ok(page) => println!("report: {}", page.display()),
                Err(error) => println!("note: no report was written: {error}"),
            }
        }
    }
}

fn line(columns: [String; 8]) -> String {
    let [name, value, unit, base, base_value, ratio, spread, paper] = columns;
    let line = format!(
        "{name:<44} {value:>11} {unit:<15} {base:<8} {base_value:>11} {ratio:>7} {spread:>13} {paper}"
    );
    line.trim_end().to_owned()
}

/// Three digits say more than the machine can repeat.
pub fn short(value: f64) -> String {
    match value {
        v if v >= 100.0 => format!("{v:.0}"),
        v if v >= 10.0 => format!("{v:.1}"),
        v => format!("{v:.3}"),
    }
}

/// The value in the middle.
pub fn median(values: impl IntoIterator<Item = f64>) -> f64 {
    let mut values: Vec<f64> = values.into_iter().collect();
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}
