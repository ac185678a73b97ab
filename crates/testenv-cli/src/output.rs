//! Tables, sizes and times for people.

use std::fmt::Display;
use std::io::{self, IsTerminal as _, Write as _};

/// Writes to standard output. That its reader has left (`testenv status | head -1`) is no error of ours.
pub(crate) fn say(text: impl Display) {
    let mut stdout = io::stdout().lock();
    let _ = write!(stdout, "{text}").and_then(|()| stdout.flush());
}

/// Whether standard output takes colours.
pub(crate) fn colours() -> bool {
    let no_color = std::env::var_os("NO_COLOR").is_some_and(|it| !it.is_empty());
    let dumb = std::env::var_os("TERM").is_some_and(|it| it == "dumb");
    io::stdout().is_terminal() && !no_color && !dumb
}

/// `1 lease`, `2 leases`.
pub(crate) fn plural(count: usize, word: &str) -> String {
    format!("{count} {word}{}", if count == 1 { "" } else { "s" })
}

/// Bytes as `12.3 MiB`.
pub(crate) fn size(bytes: u64) -> String {
    testenv_config::ByteSize::bytes(bytes).to_string()
}

/// Seconds as `42 s`, `12 min` or `3 h 05 min`.
pub(crate) fn seconds(seconds: u64) -> String {
    match seconds {
        0..120 => format!("{seconds} s"),
        120..7200 => format!("{} min", seconds / 60),
        7200..172_800 => format!("{} h {:02} min", seconds / 3600, seconds / 60 % 60),
        _ => format!("{} days", seconds / 86_400),
    }
}

/// Rows under a heading, in columns as wide as their widest cell; the last column is as long as it is.
/// Nothing at all where there are no rows.
pub(crate) fn table(title: &str, columns: &[&str], rows: &[Vec<String>], bold: (&str, &str)) -> String {
    if rows.is_empty() {
        return String::new();
    }
    let heading: Vec<String> = columns.iter().map(|column| (*column).to_owned()).collect();
    let width = |at: usize| {
        std::iter::once(&heading)
            .chain(rows)
            .filter_map(|row| row.get(at))
            .map(|cell| cell.chars().count())
            .max()
    };
    let widths: Vec<usize> = (0..columns.len()).map(|at| width(at).unwrap_or(0)).collect();
    let line = |row: &[String]| {
        let cells = row.iter().zip(&widths).map(|(cell, width)| format!("{cell:<width$}"));
        format!("  {}", cells.collect::<Vec<_>>().join("  ")).trim_end().to_owned()
    };
    let mut text = format!("\n{}{title}{}\n{}\n", bold.0, bold.1, line(&heading));
    rows.iter().for_each(|row| text.push_str(&format!("{}\n", line(row))));
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_line_up() {
        let rows = [vec!["a".into(), "1".into()], vec!["größer".into(), "22".into()]];
        assert_eq!(
            table("things", &["name", "n"], &rows, ("", "")),
            "\nthings\n  name    n\n  a       1\n  größer  22\n"
        );
        assert_eq!(table("things", &["name"], &[], ("", "")), "");
    }

    #[test]
    fn times_and_counts() {
        assert_eq!(
            [1, 119, 120, 7199, 7500, 200_000].map(seconds),
            ["1 s", "119 s", "2 min", "119 min", "2 h 05 min", "2 days"]
        );
        assert_eq!((plural(1, "lease"), plural(0, "lease")), ("1 lease".into(), "0 leases".into()));
    }
}
