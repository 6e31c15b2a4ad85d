//! The layout of a text that comes in parts: the result is the same however it was cut.
//!
//! A line is wrapped after its last blank that fits, or, where there is none, in the middle of a word. A
//! character is one column, a tab goes to the next multiple of [`TAB`]; characters that would command a
//! terminal, and bytes that are not UTF-8, are shown as U+FFFD.

use std::str;

/// Columns from one tab stop to the next.
const TAB: usize = 8;

const REPLACEMENT: char = '\u{FFFD}';

/// A text being laid out; at the end, what it became.
#[derive(Debug, Default)]
pub(crate) struct Page {
    pub(crate) lines: u64,
    pub(crate) words: u64,
    /// Lines after wrapping.
    pub(crate) rows: u64,
    /// The first byte that is not UTF-8.
    pub(crate) invalid_at: Option<u64>,
    /// The first rows.
    pub(crate) preview: Vec<String>,

    width: usize,
    /// Rows to remember.
    keep: usize,
    /// The bytes before `cut`, ever.
    taken: u64,
    /// The beginning of a character whose end has not come yet.
    cut: Vec<u8>,
    in_word: bool,
    /// Something has come since the last line's end.
    in_line: bool,
    row: String,
    columns: usize,
    /// Where the row could end, in bytes: after a blank that follows a word.
    blank: Option<usize>,
    /// The row holds more than blanks.
    inked: bool,
}

impl Page {
    /// An empty page that remembers its first `keep` rows.
    pub(crate) fn new(width: usize, keep: usize) -> Self {
        Self {
            width: width.max(1),
            keep,
            ..Self::default()
        }
    }

    /// Adds the next bytes of the text.
    pub(crate) fn show(&mut self, part: &[u8]) {
        let mut bytes = std::mem::take(&mut self.cut);
        bytes.extend_from_slice(part);
        let mut rest = &bytes[..];
        loop {
            let (good, bad, cut) = match str::from_utf8(rest) {
                Ok(text) => (text, 0, false),
                Err(error) => {
                    let good = str::from_utf8(&rest[..error.valid_up_to()]);
                    let good = good.expect("valid up to here");
                    (
                        good,
                        error.error_len().unwrap_or(0),
                        error.error_len().is_none(),
                    )
                }
            };
            good.chars().for_each(|c| self.put(c));
            self.taken += good.len() as u64;
            rest = &rest[good.len()..];
            if cut || rest.is_empty() {
                self.cut = rest.to_vec();
                return;
            }
            self.invalid(bad);
            rest = &rest[bad..];
        }
    }

    /// The text has no more parts.
    pub(crate) fn finish(mut self) -> Self {
        if !self.cut.is_empty() {
            let bytes = self.cut.len();
            self.invalid(bytes);
        }
        if self.in_line {
            self.end_line();
        }
        self
    }

    fn invalid(&mut self, bytes: usize) {
        self.invalid_at.get_or_insert(self.taken);
        self.taken += bytes as u64;
        self.put(REPLACEMENT);
    }

    fn put(&mut self, c: char) {
        let in_word = !c.is_whitespace();
        if in_word && !self.in_word {
            self.words += 1;
        }
        self.in_word = in_word;
        self.in_line = true;
        match c {
            '\n' => self.end_line(),
            '\r' => {}
            '\t' => {
                for _ in 0..TAB - self.columns % TAB {
                    self.place(' ');
                }
            }
            c if c.is_control() => self.place(REPLACEMENT),
            c => self.place(c),
        }
    }

    fn place(&mut self, c: char) {
        if self.columns == self.width {
            let begin = self.blank.take().unwrap_or(self.row.len());
            let next = self.row.split_off(begin);
            self.end_row();
            self.columns = next.chars().count();
            self.inked = !next.is_empty(); // after the last blank there are none
            self.row = next;
        }
        self.row.push(c);
        self.columns += 1;
        if !c.is_whitespace() {
            self.inked = true;
        } else if self.inked {
            self.blank = Some(self.row.len());
        }
    }

    fn end_line(&mut self) {
        self.lines += 1;
        self.in_line = false;
        self.end_row();
    }

    fn end_row(&mut self) {
        self.rows += 1;
        if self.preview.len() < self.keep {
            self.preview.push(self.row.trim_end().to_owned());
        }
        self.row.clear();
        self.columns = 0;
        self.blank = None;
        self.inked = false;
    }
}
