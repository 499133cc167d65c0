//! A table that can be sorted by each column and filtered. Pure.

use std::cmp::Ordering;

/// One column.
#[derive(Clone, Copy, Debug)]
pub struct Column {
    /// Its heading.
    pub title: &'static str,
    /// Its width in characters; the widest of the `Wide` ones share what is left.
    pub width: Width,
}

/// How wide a column is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Width {
    /// A number, at the right.
    Number(u16),
    /// A text that takes so much of what is left.
    Wide(u16),
}

/// What a cell is sorted by.
#[derive(Clone, Debug, PartialEq)]
pub enum Key {
    /// A number; the largest come first.
    Number(f64),
    /// A text, in the order of the alphabet.
    Text(String),
}

/// One row.
#[derive(Clone, Debug)]
pub struct Row {
    /// What is shown, and by what it is sorted.
    pub cells: Vec<(String, Key)>,
    /// Something is wrong with it.
    pub alarm: bool,
}

/// All of it.
#[derive(Clone, Debug)]
pub struct Grid {
    /// The columns.
    pub columns: &'static [Column],
    /// The rows.
    pub rows: Vec<Row>,
}

/// In what order a grid is shown.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Sort {
    /// Index of the column.
    pub column: usize,
    /// Smallest first, or the end of the alphabet.
    pub reverse: bool,
}

impl Row {
    /// A row of cells.
    pub fn new(cells: impl IntoIterator<Item = (String, Key)>) -> Self {
        Self {
            cells: cells.into_iter().collect(),
            alarm: false,
        }
    }

    /// The same, marked if something is wrong.
    pub fn alarm(self, alarm: bool) -> Self {
        Self { alarm, ..self }
    }
}

/// A cell that is sorted as it is read.
pub fn text(shown: impl Into<String>) -> (String, Key) {
    let shown = shown.into();
    (shown.clone(), Key::Text(shown.to_lowercase()))
}

/// A cell that is sorted by a number.
pub fn number(shown: impl Into<String>, value: f64) -> (String, Key) {
    (shown.into(), Key::Number(value))
}

impl Grid {
    /// Rows that have `filter` in one of their cells, upper and lower case being the same, in order.
    pub fn arranged(mut self, filter: &str, sort: Sort) -> Self {
        let wanted = filter.to_lowercase();
        self.rows.retain(|row| {
            let mut cells = row.cells.iter();
            cells.any(|(shown, _)| shown.to_lowercase().contains(&wanted))
        });
        self.rows.sort_by(|a, b| {
            let key = |row: &Row| row.cells.get(sort.column).map(|(_, key)| key.clone());
            let order = match (key(a), key(b)) {
                (Some(Key::Number(a)), Some(Key::Number(b))) => b.total_cmp(&a),
                (Some(Key::Text(a)), Some(Key::Text(b))) => a.cmp(&b),
                _ => Ordering::Equal,
            };
            if sort.reverse { order.reverse() } else { order }
        });
        self
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shown(filter: &str, column: usize, reverse: bool) -> Vec<String> {
        let rows = [("Alpha", 3.0), ("beta", 20.0), ("alphabet", 1.0)];
        let grid = Grid {
            columns: &[],
            rows: rows
                .map(|(name, value)| Row::new([text(name), number(value.to_string(), value)]))
                .into(),
        };
        let arranged = grid.arranged(filter, Sort { column, reverse });
        let rows = arranged.rows.into_iter();
        rows.map(|row| row.cells[0].0.clone()).collect()
    }

    #[test]
    fn rows_are_sorted_and_filtered() {
        assert_eq!(shown("", 0, false), ["Alpha", "alphabet", "beta"]);
        assert_eq!(shown("", 1, false), ["beta", "Alpha", "alphabet"]);
        assert_eq!(shown("", 1, true), ["alphabet", "Alpha", "beta"]);
        assert_eq!(shown("ALPHA", 1, false), ["Alpha", "alphabet"]);
        assert_eq!(shown("20", 0, false), ["beta"]);
    }
}
