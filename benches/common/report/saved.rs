//! The results of one bench, as they lie in the report's folder until its next run.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;
use std::{env, fs, io};

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::super::child::cpus;
use super::page;

/// The folder, in cargo's target directory.
const FOLDER: &str = "urpc-report";

/// The paper's order, then the alphabet's.
const ORDER: [&str; 7] = [
    "calls",
    "threads",
    "components",
    "donation",
    "instructions",
    "payload",
    "scale",
];

#[derive(Serialize, Deserialize)]
pub(super) struct Saved {
    pub bench: String,
    pub about: String,
    pub command: String,
    pub when: String,
    pub seconds: u64,
    pub machine: String,
    pub kernel: String,
    pub cpus: usize,
    pub notes: Vec<String>,
    pub pictures: Vec<Picture>,
    pub rows: Vec<Row>,
}

#[derive(Serialize, Deserialize)]
pub(super) struct Picture {
    pub caption: String,
    pub svg: String,
}

/// One line of the table; what a program reads with `--json`.
#[derive(Serialize, Deserialize)]
pub(super) struct Row {
    pub name: String,
    pub value: Option<f64>,
    pub unit: String,
    pub base: String,
    pub base_value: Option<f64>,
    pub ratio: Option<f64>,
    pub low: Option<f64>,
    pub high: Option<f64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub paper: Option<String>,
}

impl Saved {
    /// The results of a run of this bench on this machine that ends now.
    pub(super) fn now(
        took: Duration,
        notes: Vec<String>,
        pictures: Vec<Picture>,
        rows: Vec<Row>,
    ) -> Self {
        let bench = env!("CARGO_CRATE_NAME").to_owned();
        let mut command = format!("cargo bench --bench {bench}");
        let args: Vec<_> = env::args().skip(1).filter(|arg| arg != "--bench").collect();
        if !args.is_empty() {
            command += &format!(" -- {}", args.join(" "));
        }
        Self {
            about: about(&bench),
            bench,
            command,
            when: Timestamp::now().strftime("%F %R UTC").to_string(),
            seconds: took.as_secs(),
            machine: machine(),
            kernel: read("/proc/sys/kernel/osrelease"),
            cpus: cpus().len(),
            notes,
            pictures,
            rows,
        }
    }

    /// Takes the place of this bench's last results, and makes the page anew. Where that is.
    pub(super) fn save(&self) -> io::Result<PathBuf> {
        let folder = target()?.join(FOLDER);
        fs::create_dir_all(&folder)?;
        fs::write(
            folder.join(&self.bench).with_extension("json"),
            serde_json::to_string_pretty(self)? + "\n",
        )?;
        for (i, picture) in self.pictures.iter().enumerate() {
            fs::write(
                folder.join(format!("{}-{}.svg", self.bench, i + 1)),
                &picture.svg,
            )?;
        }
        let page = folder.join("index.html");
        fs::write(&page, page::html(&all(&folder)?))?;
        Ok(page)
    }
}

/// The results of all benches that were ever run here.
fn all(folder: &Path) -> io::Result<Vec<Saved>> {
    let mut all: Vec<Saved> = Vec::new();
    for entry in fs::read_dir(folder)? {
        let path = entry?.path();
        if path
            .extension()
            .is_some_and(|extension| extension == "json")
        {
            match serde_json::from_str(&fs::read_to_string(&path)?) {
                Ok(saved) => all.push(saved),
                // Of another version of these benches.
                Err(error) => println!("note: {} is left out: {error}", path.display()),
            }
        }
    }
    let rank = |name: &str| ORDER.iter().position(|&other| other == name);
    let rank = |name: &str| rank(name).unwrap_or(ORDER.len());
    all.sort_by(|a, b| (rank(&a.bench), &a.bench).cmp(&(rank(&b.bench), &b.bench)));
    Ok(all)
}

/// Cargo's target directory, which only cargo knows: variables and files of several places have a say.
fn target() -> io::Result<PathBuf> {
    #[derive(Deserialize)]
    struct Metadata {
        target_directory: PathBuf,
    }
    let cargo = env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let output = Command::new(cargo)
        .args(["metadata", "--no-deps", "--offline", "--format-version=1"])
        .args([
            "--manifest-path",
            concat!(env!("CARGO_MANIFEST_DIR"), "/Cargo.toml"),
        ])
        .output()?;
    let metadata: Metadata = serde_json::from_slice(&output.stdout)?;
    Ok(metadata.target_directory)
}

/// The first paragraph of what a bench says about itself.
fn about(bench: &str) -> String {
    let path = format!("{}/benches/{bench}.rs", env!("CARGO_MANIFEST_DIR"));
    let text = fs::read_to_string(path).unwrap_or_default();
    let lines = text.lines().map_while(|line| line.strip_prefix("//! "));
    lines.collect::<Vec<_>>().join(" ")
}

/// What the processor calls itself.
fn machine() -> String {
    let info = read("/proc/cpuinfo");
    let model = info
        .lines()
        .find_map(|line| line.strip_prefix("model name"));
    let model = model.map_or(env::consts::ARCH, |model| {
        model.trim_start_matches([' ', '\t', ':'])
    });
    model.to_owned()
}

/// A file of the kernel's, or nothing.
fn read(path: &str) -> String {
    fs::read_to_string(path)
        .unwrap_or_default()
        .trim()
        .to_owned()
}
