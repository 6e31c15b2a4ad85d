//! The proof that calls carry what they should: the file itself, read and counted another way.

use std::path::Path;

use crate::protocol::Layout;

/// Compares what came through two channels with the file on disk.
///
/// # Errors
/// What differs, in words.
pub(crate) fn check(path: &Path, text: &[u8], layout: &Layout) -> Result<(), String> {
    let disk = std::fs::read(path).map_err(|error| format!("cannot be read again: {error}"))?;
    if disk != text {
        let same = disk.iter().zip(text).take_while(|(a, b)| a == b).count();
        return Err(format!(
            "{} bytes came through and {} are on disk; they differ from byte {same} on",
            text.len(),
            disk.len()
        ));
    }
    let text = String::from_utf8_lossy(&disk);
    let lines = text.lines().count() as u64;
    let words = text.split_whitespace().count() as u64;
    if (layout.lines, layout.words) != (lines, words) {
        return Err(format!(
            "the window manager counted {} lines and {} words, and there are {lines} and {words}",
            layout.lines, layout.words
        ));
    }
    Ok(())
}
