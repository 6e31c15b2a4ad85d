//! A table with one line for each thing and one column for each who does it: for people.

use std::fmt;

use super::report::short;

/// See the [module's documentation](self). Shown with `{}`.
pub struct Table {
    lines: Vec<Vec<String>>,
}

impl Table {
    /// An empty table: what its numbers are, and its columns.
    pub fn new<'a>(corner: &str, columns: impl IntoIterator<Item = &'a str>) -> Self {
        let columns = columns.into_iter().map(str::to_owned);
        let head = std::iter::once(corner.to_owned()).chain(columns);
        Self {
            lines: vec![head.collect()],
        }
    }

    /// Another line; `None` where there is nothing to say.
    pub fn row(&mut self, name: &str, values: impl IntoIterator<Item = Option<f64>>) {
        let shown = |value: Option<f64>| value.map_or_else(|| "-".to_owned(), short);
        let values = values.into_iter().map(shown);
        let line = std::iter::once(name.to_owned()).chain(values);
        self.lines.push(line.collect());
    }
}

impl fmt::Display for Table {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let longest = |column: usize| {
            let cells = self.lines.iter().filter_map(|line| line.get(column));
            cells.map(|cell| cell.chars().count()).max().unwrap_or(0)
        };
        let widths: Vec<_> = (0..self.lines[0].len()).map(longest).collect();
        for line in &self.lines {
            write!(f, "{:<1$}", line[0], widths[0])?;
            for (cell, width) in line.iter().zip(&widths).skip(1) {
                write!(f, "  {cell:>width$}")?;
            }
            writeln!(f)?;
        }
        Ok(())
    }
}
