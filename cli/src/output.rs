//! How results are printed: a table for people, JSON or YAML for programs.
//!
//! Every command returns rows that implement [`Table`]; [`print`] is the only place that writes them.

use std::io::{self, IsTerminal, Write};

use comfy_table::{Cell, Color, ContentArrangement, Table as Grid, presets};
use serde::Serialize;

/// `-o`: how to print.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, clap::ValueEnum)]
pub(crate) enum Format {
    /// Columns for people.
    #[default]
    Table,
    /// One JSON document.
    Json,
    /// One YAML document.
    Yaml,
}

/// Rows of a table.
pub(crate) trait Table {
    /// The columns' names, in capitals.
    const HEADER: &'static [&'static str];
    /// One text for each column.
    fn cells(&self) -> Vec<String>;
    /// Which colour a cell deserves, by its column.
    fn tone(&self, _column: usize) -> Tone {
        Tone::Plain
    }
}

/// The meaning of a colour.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Tone {
    /// Nothing special.
    Plain,
    /// As it should be.
    Good,
    /// Needs a look.
    Warning,
    /// Broken.
    Bad,
}

/// Prints rows in the format asked for. An empty table says so in words.
pub(crate) fn print<T: Table + Serialize>(
    format: Format,
    rows: &[T],
    nothing: &str,
) -> io::Result<()> {
    match format {
        Format::Table if rows.is_empty() => writeln!(io::stdout(), "{nothing}"),
        Format::Table => writeln!(io::stdout(), "{}", grid(rows, io::stdout().is_terminal())),
        Format::Json | Format::Yaml => document(format, rows),
    }
}

/// Prints one document as JSON or YAML; tables are the caller's business.
pub(crate) fn document<T: Serialize + ?Sized>(format: Format, value: &T) -> io::Result<()> {
    let text = match format {
        Format::Yaml => serde_yaml::to_string(value).map_err(io::Error::other)?,
        Format::Table | Format::Json => {
            serde_json::to_string_pretty(value).map_err(io::Error::other)? + "\n"
        }
    };
    io::stdout().write_all(text.as_bytes())
}

fn grid<T: Table>(rows: &[T], colours: bool) -> String {
    let mut grid = Grid::new();
    grid.load_preset(presets::NOTHING)
        .set_content_arrangement(ContentArrangement::Disabled);
    grid.set_header(T::HEADER);
    for row in rows {
        grid.add_row(row.cells().into_iter().enumerate().map(|(column, text)| {
            let cell = Cell::new(text);
            match row.tone(column) {
                Tone::Good if colours => cell.fg(Color::Green),
                Tone::Warning if colours => cell.fg(Color::Yellow),
                Tone::Bad if colours => cell.fg(Color::Red),
                _ => cell,
            }
        }));
    }
    for column in grid.column_iter_mut() {
        column.set_padding((0, 2));
    }
    grid.lines()
        .map(|line| line.trim_end().to_owned())
        .collect::<Vec<_>>()
        .join("\n")
}

/// How long ago, in the manner of kubectl: `5s`, `3m`, `2h`, `4d`.
pub(crate) fn age(seconds: u64) -> String {
    match seconds {
        0..120 => format!("{seconds}s"),
        120..7200 => format!("{}m", seconds / 60),
        7200..172_800 => format!("{}h", seconds / 3600),
        _ => format!("{}d", seconds / 86400),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Row(&'static str, &'static str);

    impl Table for Row {
        const HEADER: &'static [&'static str] = &["NAME", "AGE"];
        fn cells(&self) -> Vec<String> {
            vec![self.0.into(), self.1.into()]
        }
    }

    #[test]
    fn tables_are_aligned_and_bare() {
        assert_eq!(
            grid(&[Row("a", "1s"), Row("longer", "2m")], false),
            "NAME    AGE\na       1s\nlonger  2m"
        );
    }

    #[test]
    fn ages_read_like_kubectl() {
        for (seconds, text) in [
            (0, "0s"),
            (119, "119s"),
            (120, "2m"),
            (7200, "2h"),
            (200_000, "2d"),
        ] {
            assert_eq!(age(seconds), text);
        }
    }
}
