//! What callgrind counts of a call whose both ends are one thread.
//!
//! The counts are those of single instructions. Whose an instruction is, the debug information of the binary says: the
//! innermost function that was inlined there and is not the standard library's. A *locked* instruction is what callgrind
//! counts as an event of the bus. A *fence* is told by its bytes: `mfence`, `lfence`, `sfence`, or a locked `or` of zero
//! to the stack, which is one of the locked ones, too.

use std::collections::{BTreeMap, HashMap};
use std::path::Path;
use std::process::{Command, Stdio};

use addr2line::Loader;
use object::{Object, ObjectSegment};
use urpc::Runtime;

use super::child::ROLE;
use super::pair::{CalcClient, CalcServer, Sums};

/// Calls before those that count.
const WARM_UP: u32 = 2_000;

/// What memory is asked for with.
const ALLOCATORS: [&str; 5] = [
    "malloc",
    "calloc",
    "realloc",
    "posix_memalign",
    "aligned_alloc",
];

/// Whether there is something to count with.
pub fn is_there() -> bool {
    let valgrind = Command::new("valgrind")
        .arg("--version")
        .stdout(Stdio::null())
        .status();
    cfg!(target_arch = "x86_64") && valgrind.is_ok_and(|status| status.success())
}

/// Makes calls from this process to itself, with one processor.
pub fn stepped_child(kind: &str, calls: &str) {
    let calls: u32 = calls.parse().expect("a number");
    let directory = tempfile::tempdir().expect("a directory");
    let name = directory.path().join("bench.sock").display().to_string();
    let runtime = Runtime::builder().processors(1).build().expect("a runtime");
    runtime.block_on(async {
        let server = urpc::serve(&name)
            .method("null", |(): ()| async {})
            .add(CalcServer::new(Sums))
            .bind();
        let _server = server.expect("a free name");
        let peer = urpc::connect(&name).await.expect("it is served here");
        let (null, calc) = (peer.procedure::<(), ()>("null"), CalcClient::on(&peer));
        let typed = kind == "typed";
        let caller = urpc::spawn(async move {
            for _ in 0..WARM_UP + calls {
                if typed {
                    assert_eq!(calc.add(2, 3).await.expect("it is served here"), 5);
                } else {
                    null.call(()).await.expect("it is served here");
                }
            }
        });
        caller.await.expect("a caller does not panic");
    });
}

/// One instruction, and how often a call executes it.
pub struct Site {
    pub instructions: f64,
    pub locked: f64,
    pub is_fence: bool,
    /// The crate or library that it comes from.
    pub owner: String,
    /// Its function and file.
    pub place: String,
    pub line: u32,
}

/// What a call does, on average.
pub struct Profile {
    pub sites: Vec<Site>,
    pub allocations: f64,
    /// Looks at the clock, which are system calls under valgrind and else are none.
    pub clocks: f64,
    pub system_calls: f64,
}

impl Profile {
    /// Of the calls that a run with `few + more` makes and one with `few` does not.
    pub fn of(kind: &str, few: u32, more: u32) -> Self {
        let (short, long) = (Counts::of(kind, few), Counts::of(kind, few + more));
        let each = |long: u64, short: u64| (long as f64 - short as f64) / f64::from(more);
        let mut images = HashMap::new();
        let mut sites = Vec::new();
        for (at, &(instructions, locked)) in &long.instructions {
            let before = short.instructions.get(at).copied().unwrap_or_default();
            let instructions = each(instructions, before.0);
            if instructions == 0.0 {
                continue;
            }
            let (object, address) = at;
            let image = images
                .entry(object.clone())
                .or_insert_with(|| Image::open(object));
            let (owner, place, line) = image.place(*address);
            sites.push(Site {
                instructions,
                locked: each(locked, before.1),
                is_fence: image.is_fence(*address),
                owner,
                place,
                line,
            });
        }
        Self {
            sites,
            allocations: each(long.allocations, short.allocations),
            clocks: each(long.clocks, short.clocks),
            system_calls: each(long.system_calls, short.system_calls),
        }
    }

    /// How many of the instructions each has to whom `what` says that they belong, the greatest number first.
    pub fn by(&self, what: impl Fn(&Site) -> &String) -> Vec<(&str, f64)> {
        let mut sums: BTreeMap<&str, f64> = BTreeMap::new();
        for site in &self.sites {
            *sums.entry(what(site)).or_default() += site.instructions;
        }
        let mut sums: Vec<_> = sums.into_iter().collect();
        sums.sort_by(|a, b| b.1.total_cmp(&a.1));
        sums
    }
}

/// What callgrind counted in one run.
#[derive(Default)]
struct Counts {
    /// By file and address: instructions, and locked ones.
    instructions: BTreeMap<(String, u64), (u64, u64)>,
    allocations: u64,
    clocks: u64,
    system_calls: u64,
}

impl Counts {
    fn of(kind: &str, calls: u32) -> Self {
        let directory = tempfile::tempdir().expect("a directory");
        let out = directory.path().join("out");
        let output = Command::new("valgrind")
            .args(["--tool=callgrind", "--dump-instr=yes", "-q"])
            .args(["--collect-bus=yes", "--collect-systime=yes"])
            .args(["--compress-strings=no", "--compress-pos=no"])
            .arg(format!("--callgrind-out-file={}", out.display()))
            .arg(std::env::current_exe().expect("this binary has a path"))
            .env(ROLE, format!("stepped {kind} {calls}"))
            .output()
            .expect("valgrind starts");
        let said = String::from_utf8_lossy(&output.stderr);
        assert!(
            output.status.success(),
            "valgrind ended with {}: {said}",
            output.status
        );
        let this = Self::read(&std::fs::read_to_string(&out).expect("valgrind wrote its results"));
        // Else a zero would say nothing: each process begins with some of both.
        assert!(
            this.allocations > 0 && this.system_calls > 0,
            "callgrind is blind"
        );
        this
    }

    /// The format is described in valgrind's manual: lines that say where, and lines of an address, a line number
    /// and the events there. What follows a line of calls are the events within them, counted elsewhere, too.
    fn read(text: &str) -> Self {
        let mut this = Self::default();
        let (mut events, mut of_calls) = (Vec::new(), false);
        let (mut object, mut function, mut callee) = ("", "", "");
        for line in text.lines() {
            if let Some(names) = line.strip_prefix("events: ") {
                events = names.split_whitespace().collect();
            } else if let Some(name) = line.strip_prefix("ob=") {
                object = name;
            } else if let Some(name) = line.strip_prefix("fn=") {
                function = name;
            } else if let Some(name) = line.strip_prefix("cfn=") {
                callee = name;
            } else if let Some(calls) = line.strip_prefix("calls=") {
                of_calls = true;
                if ALLOCATORS.contains(&callee) {
                    let count = calls
                        .split_whitespace()
                        .next()
                        .and_then(|count| count.parse::<u64>().ok());
                    this.allocations += count.expect("a number of calls");
                }
            } else if let Some(rest) = line.strip_prefix("0x")
                && !std::mem::take(&mut of_calls)
            {
                let mut words = rest.split_whitespace();
                let address =
                    u64::from_str_radix(words.next().unwrap_or_default(), 16).expect("an address");
                let counts: Vec<u64> = words
                    .skip(1)
                    .map(|count| count.parse().expect("a count"))
                    .collect();
                let count = |event: &str| {
                    let at = events.iter().position(|&other| other == event);
                    counts
                        .get(at.expect("callgrind counts it"))
                        .copied()
                        .unwrap_or(0)
                };
                let sum = this
                    .instructions
                    .entry((object.to_owned(), address))
                    .or_default();
                sum.0 += count("Ir");
                sum.1 += count("Ge");
                if function.contains("clock_gettime") {
                    this.clocks += count("sysCount");
                } else {
                    this.system_calls += count("sysCount");
                }
            }
        }
        this
    }
}

/// A binary or a library.
struct Image {
    name: String,
    lines: Option<Loader>,
    /// Addresses, and what lies there.
    segments: Vec<(u64, Vec<u8>)>,
}

impl Image {
    fn open(path: &str) -> Self {
        let bytes = std::fs::read(path).unwrap_or_default();
        let segments = object::File::parse(&*bytes).map_or_else(
            |_| Vec::new(),
            |file| {
                let segment = |segment: object::Segment<'_, '_>| {
                    Some((segment.address(), segment.data().ok()?.to_vec()))
                };
                file.segments().filter_map(segment).collect()
            },
        );
        // What is linked into the binary and of no crate is the standard library's.
        let own = std::env::current_exe().is_ok_and(|exe| exe == Path::new(path));
        let name = if own {
            "std"
        } else {
            path.rsplit('/').next().unwrap_or(path)
        }
        .to_owned();
        Self {
            name,
            lines: Loader::new(path).ok(),
            segments,
        }
    }

    fn is_fence(&self, address: u64) -> bool {
        let here = self.segments.iter().find_map(|(begin, bytes)| {
            bytes.get(usize::try_from(address.checked_sub(*begin)?).ok()?..)
        });
        matches!(
            here,
            Some(
                [0x0f, 0xae, 0xe8 | 0xf0 | 0xf8, ..]
                    | [0xf0, 0x83, 0x0c, 0x24, 0, ..]
                    | [0xf0, 0x83, 0x4c, 0x24, _, 0, ..]
            )
        )
    }

    /// Whose instruction it is, and where: the file with the function, and the line.
    fn place(&self, address: u64) -> (String, String, u32) {
        let mut place = (self.name.clone(), String::new(), 0);
        let frames = self.lines.as_ref().map(|lines| lines.find_frames(address));
        if let Some(Ok(mut frames)) = frames {
            while let Ok(Some(frame)) = frames.next() {
                let name = frame
                    .function
                    .as_ref()
                    .and_then(|name| name.demangle().ok());
                let name = name.as_deref().unwrap_or("?");
                let at = frame.location.as_ref();
                let file = at.and_then(|at| at.file).unwrap_or("?");
                let name = name.split('<').next().unwrap_or(name);
                place.1 = format!("{name} in {}", short(file));
                place.2 = at.and_then(|at| at.line).unwrap_or(0);
                if let Some(owner) = owner(file) {
                    place.0 = owner;
                    break;
                }
            }
        }
        place
    }
}

/// The crate with this file, unless that is the standard library.
fn owner(file: &str) -> Option<String> {
    if file.contains("/registry/src/") {
        let name = short(file).split('/').next()?;
        return Some(
            name.rsplit_once('-')
                .map_or(name, |(name, _)| name)
                .to_owned(),
        );
    }
    let path = short(file);
    let first = path.split('/').next()?;
    match first {
        "src" => Some("urpc".to_owned()),
        "channel" | "executor" | "donate" => Some(format!("urpc-{first}")),
        "benches" => Some(first.to_owned()),
        _ => None,
    }
}

/// A path without what is the same for all of a kind.
fn short(file: &str) -> &str {
    let after = |part| file.split_once(part).map(|(_, rest)| rest);
    let registry = after("/registry/src/").and_then(|path| Some(path.split_once('/')?.1));
    let here = || file.strip_prefix(concat!(env!("CARGO_MANIFEST_DIR"), "/"));
    registry
        .or_else(here)
        .or_else(|| after("/library/"))
        .unwrap_or(file)
}
