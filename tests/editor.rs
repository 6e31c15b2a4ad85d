//! The examples, run as a person runs them: what they print, how they end, and that no process is left.

mod common;
#[path = "../examples/editor/layout.rs"]
mod layout;

use std::fs;
use std::io::{BufRead, Read};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};

use common::{Names, program, wait_for, watchdog};
use layout::Page;

/// A variable that all processes of one run inherit, and by which they are found.
const MARK: &str = "URPC_TEST_RUN";

/// One run of an example.
struct Run {
    command: Command,
    mark: String,
}

impl Run {
    fn new(example: &str) -> Self {
        static RUNS: AtomicU32 = AtomicU32::new(0);
        let run = RUNS.fetch_add(1, Ordering::Relaxed);
        let mark = format!("{}-{run}", std::process::id());
        let mut command = Command::new(program(example));
        command
            .env(MARK, &mark)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        Self { command, mark }
    }

    fn editor(files: &[PathBuf]) -> Self {
        let mut run = Self::new("editor");
        run.command.arg("--").args(files);
        run
    }

    /// Runs it to its end.
    fn output(mut self) -> Seen {
        let Output {
            status,
            stdout,
            stderr,
        } = self.command.output().expect("it starts");
        self.nobody_is_left();
        Seen {
            code: status.code(),
            out: String::from_utf8(stdout).expect("text"),
            err: String::from_utf8(stderr).expect("text"),
        }
    }

    fn start(&mut self) -> Child {
        self.command.spawn().expect("it starts")
    }

    /// The processes of this run that live, with their command lines.
    fn processes(&self) -> Vec<(u32, String)> {
        let mark = format!("{MARK}={}", self.mark);
        let marked = |pid: &u32| {
            let environment = fs::read(format!("/proc/{pid}/environ")).unwrap_or_default();
            environment
                .split(|byte| *byte == 0)
                .any(|v| v == mark.as_bytes())
        };
        let all = fs::read_dir("/proc").expect("it is mounted").flatten();
        all.filter_map(|entry| entry.file_name().to_str()?.parse().ok())
            .filter(marked)
            .map(|pid| {
                let line = fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
                (pid, String::from_utf8_lossy(&line).replace('\0', " "))
            })
            .collect()
    }

    fn nobody_is_left(&self) {
        assert_eq!(self.processes(), [], "left behind");
    }
}

/// What a run left on the screen.
struct Seen {
    code: Option<i32>,
    out: String,
    err: String,
}

impl Seen {
    /// The only line of the output that begins with `name`.
    fn line(&self, name: &str) -> &str {
        let mut lines = self.out.lines().filter(|line| line.starts_with(name));
        let line = lines
            .next()
            .unwrap_or_else(|| panic!("no line on {name}: {self}"));
        assert_eq!(lines.next(), None, "two lines on {name}");
        line
    }

    fn complains(&self, path: &Path, why: &str) {
        let complaint = format!("editor: {}: {why}", path.display());
        assert!(self.err.contains(&complaint), "no `{complaint}`: {self}");
    }
}

impl std::fmt::Display for Seen {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "code {:?}\n{}\n{}", self.code, self.out, self.err)
    }
}

/// A directory with `files` in it.
fn folder(files: &[(&str, &[u8])]) -> (Names, Vec<PathBuf>) {
    let folder = Names::new();
    let write = |(name, bytes): &(&str, &[u8])| {
        let path = folder.path().join(name);
        fs::write(&path, bytes).expect("there is room");
        path
    };
    let paths = files.iter().map(write).collect();
    (folder, paths)
}

#[test]
fn without_arguments_the_editor_opens_the_sources_of_urpc() {
    let _w = watchdog();
    let seen = Run::editor(&[]).output();
    assert_eq!(seen.code, Some(0), "{seen}");
    assert_eq!(seen.err, "");
    assert!(seen.line("src/call.rs ").ends_with("as on disk"));
    for figure in ["calls ", "donations ", "kernel "] {
        seen.line(figure);
    }
}

#[test]
fn every_file_comes_through_as_it_is_whatever_is_in_it() {
    let _w = watchdog();
    let large: Vec<u8> = (0..3_000_000u64)
        .map(|i| b"abc \n"[(i * i % 5) as usize])
        .collect();
    let (_folder, paths) = folder(&[
        ("empty", b""),
        ("plain", b"one two\nthree\n"),
        ("open", b"no newline"),
        ("large", &large),
        ("mixed", b"a\xFFb \xE2\x82"),
    ]);
    let seen = Run::editor(&paths).output();
    assert_eq!(seen.code, Some(0), "{seen}");
    let figures = |path: &Path| {
        let line = seen.line(&format!("{} ", path.display()));
        line.split_whitespace()
            .skip(1)
            .collect::<Vec<_>>()
            .join(" ")
    };
    assert_eq!(
        figures(&paths[0]),
        "0 bytes 0 lines 0 words 0 rows as on disk"
    );
    assert_eq!(
        figures(&paths[1]),
        "14 bytes 2 lines 3 words 2 rows as on disk"
    );
    assert_eq!(
        figures(&paths[2]),
        "10 bytes 1 lines 2 words 1 rows as on disk"
    );
    assert!(figures(&paths[3]).starts_with("3,000,000 bytes"), "{seen}");
    assert_eq!(
        figures(&paths[4]),
        "6 bytes 1 lines 2 words 1 rows as on disk; not UTF-8 from byte 1 on"
    );
}

#[test]
fn a_file_that_cannot_be_read_is_named_and_the_others_come_through() {
    let _w = watchdog();
    let (folder, mut paths) = folder(&[("good", b"text\n")]);
    let missing = folder.path().join("missing");
    let pipe = folder.path().join("pipe");
    let made = Command::new("mkfifo").arg(&pipe).status();
    assert!(made.expect("coreutils").success());
    let unreadable = PathBuf::from("/proc/self/mem");
    paths.extend([
        missing.clone(),
        folder.path().to_owned(),
        pipe.clone(),
        unreadable.clone(),
    ]);
    let secret = folder.path().join("secret");
    fs::write(&secret, "text").expect("there is room");
    fs::set_permissions(&secret, fs::Permissions::from_mode(0o000)).expect("it is ours");
    let denied = fs::read(&secret).is_err(); // root may read everything
    paths.push(secret.clone());

    let seen = Run::editor(&paths).output();
    assert_eq!(seen.code, Some(2), "{seen}");
    let good = seen.line(&format!("{} ", paths[0].display()));
    assert!(
        good.contains(" 5 bytes ") && good.ends_with("as on disk"),
        "{good}"
    );
    seen.complains(&missing, "there is no such file");
    seen.complains(folder.path(), "this is a directory");
    seen.complains(&pipe, "this is no regular file");
    seen.complains(&unreadable, "it cannot be read: ");
    if denied {
        seen.complains(&secret, "permission to read it is denied");
    }
}

#[test]
fn a_path_need_not_be_text() {
    let _w = watchdog();
    let folder = Names::new();
    let path = folder
        .path()
        .join(std::ffi::OsStr::from_bytes(b"\xFF\x1b[2J"));
    fs::write(&path, "text").expect("there is room");
    let seen = Run::editor(&[path]).output();
    assert_eq!(seen.code, Some(0), "{seen}");
    assert!(!seen.out.contains('\x1b'), "it commands the terminal");
}

#[test]
fn a_window_wraps_at_its_width() {
    let _w = watchdog();
    let (_folder, paths) = folder(&[("text", b"one two three\n")]);
    let mut run = Run::new("editor");
    run.command
        .args(["--width", "8", "--preview", "5"])
        .arg(&paths[0]);
    let seen = run.output();
    assert!(seen.out.contains("\n  | one two\n  | three\n"), "{seen}");
}

#[test]
fn a_killed_editor_leaves_no_process_behind() {
    let _w = watchdog();
    let mut run = Run::editor(&crowd());
    let mut editor = run.start();
    // Nobody reads its output, so it cannot come to its end before.
    wait_for("three processes", || run.processes().len() == 3);
    editor.kill().expect("it lives");
    editor.wait().expect("it is ours");
    wait_for("the others' end", || run.processes().is_empty());
}

#[test]
fn a_killed_window_manager_fails_the_files_that_are_left() {
    let _w = watchdog();
    let mut run = Run::editor(&crowd());
    let mut editor = run.start();
    // Its first line: all three are bound by then, and most of the files are yet to come.
    let mut output = std::io::BufReader::new(editor.stdout.take().expect("piped"));
    output.read_line(&mut String::new()).expect("text");
    let processes = run.processes();
    let (pid, _) = processes
        .iter()
        .find(|(_, line)| line.contains("--role windows"))
        .expect("it is one of the three");
    let pid = rustix::process::Pid::from_raw(*pid as i32).expect("a process");
    rustix::process::kill_process(pid, rustix::process::Signal::KILL).expect("it lives");
    // Both pipes have to be read until it ends.
    let mut errors = editor.stderr.take().expect("piped");
    let errors = std::thread::spawn(move || {
        let mut text = String::new();
        errors.read_to_string(&mut text).map(|_| text)
    });
    std::io::copy(&mut output, &mut std::io::sink()).expect("it ends");
    let status = editor.wait().expect("it is ours");
    let errors = errors.join().expect("no panic").expect("text");
    assert_eq!(status.code(), Some(1), "{errors}");
    assert!(
        errors.contains("editor: the window manager failed"),
        "{errors}"
    );
    run.nobody_is_left();
}

#[test]
fn an_editor_whose_output_is_closed_ends_in_order() {
    let _w = watchdog();
    let mut run = Run::editor(&crowd());
    let mut editor = run.start();
    drop(editor.stdout.take());
    let output = editor.wait_with_output().expect("it is ours");
    assert_eq!(String::from_utf8_lossy(&output.stderr), "");
    assert_eq!(output.status.code(), Some(0));
    run.nobody_is_left();
}

/// More files than fit into a pipe, one line each.
fn crowd() -> Vec<PathBuf> {
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("Cargo.toml");
    vec![file; 2000]
}

#[test]
fn the_calculator_runs_to_its_end() {
    let _w = watchdog();
    let seen = Run::new("calculator").output();
    assert_eq!(seen.code, Some(0), "{seen}");
    let lines: Vec<_> = seen.out.lines().collect();
    assert_eq!(
        lines[..2],
        ["1 / 0: Err(\"1 / 0 is no number\")", "2 + 3: 5"]
    );
    assert!(seen.out.contains("(it has not run)"), "{seen}");
}

fn laid_out(width: usize, parts: &[&[u8]]) -> Page {
    let mut page = Page::new(width, 100);
    for part in parts {
        page.show(part);
    }
    page.finish()
}

#[test]
fn a_layout_is_the_same_however_the_text_is_cut() {
    let text = "\tOne  two\r\nthrée fourfivesix € \u{1F980}\n\n end".as_bytes();
    let broken = b"a\xE2\x82b \xFF\xF0\x9F\xA6 c\n\xE2\x82";
    for (text, width) in [(text, 1), (text, 5), (text, 80), (&broken[..], 3)] {
        let whole = laid_out(width, &[text]);
        let lossy = String::from_utf8_lossy(text);
        assert_eq!(whole.lines, lossy.lines().count() as u64);
        assert_eq!(whole.words, lossy.split_whitespace().count() as u64);
        for i in 0..=text.len() {
            for j in i..=text.len() {
                let cut = laid_out(width, &[&text[..i], &text[i..j], &text[j..]]);
                assert_eq!(cut.preview, whole.preview, "cut at {i} and {j}");
                assert_eq!((cut.lines, cut.words), (whole.lines, whole.words));
                assert_eq!(cut.invalid_at, whole.invalid_at);
            }
        }
    }
}

#[test]
fn no_row_is_wider_than_its_window_and_no_word_is_lost() {
    let text = "a bb ccc dddd eeeee ffffff ggggggg, and\tmore    blanks\n   indented";
    for width in 1..40 {
        let page = laid_out(width, &[text.as_bytes()]);
        assert!(page.preview.iter().all(|row| row.chars().count() <= width));
        assert_eq!(page.rows, page.preview.len() as u64);
        let inked = |text: &str| text.split_whitespace().collect::<String>();
        assert_eq!(inked(&page.preview.concat()), inked(text));
    }
}

#[test]
fn a_line_is_wrapped_after_a_blank_where_there_is_one() {
    let rows = |width, text: &str| laid_out(width, &[text.as_bytes()]).preview;
    assert_eq!(rows(8, "one two three"), ["one two", "three"]);
    assert_eq!(rows(4, "abcdefghij"), ["abcd", "efgh", "ij"]);
    assert_eq!(rows(10, "\tword"), ["        wo", "rd"]);
    assert_eq!(rows(80, "a\x1b[2Jb"), ["a\u{FFFD}[2Jb"]);
}
