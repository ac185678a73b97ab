//! Splits a file into statements, as `clickhouse-client` does it.

/// The statements of a file, one after the other.
#[derive(Debug)]
pub(super) struct Script<'a> {
    text: &'a [u8],
    /// How far it was read, and the number of the line that this is in.
    at: usize,
    line: usize,
}

/// A statement and the line that it begins in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Statement<'a> {
    pub(super) sql: &'a [u8],
    pub(super) line: usize,
}

/// What in a file is opened and never closed, and the line that it is in.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Unclosed {
    pub(super) what: String,
    pub(super) line: usize,
}

impl<'a> Script<'a> {
    pub(super) fn new(text: &'a [u8]) -> Self {
        const BYTE_ORDER_MARK: &[u8] = b"\xef\xbb\xbf";
        Self { text: text.strip_prefix(BYTE_ORDER_MARK).unwrap_or(text), at: 0, line: 1 }
    }

    /// The next statement, without comments before it. One that inserts data in a format has its data with it:
    /// up to the next empty line.
    pub(super) fn next(&mut self) -> Result<Option<Statement<'a>>, Unclosed> {
        let mut begun: Option<(usize, usize)> = None;
        let mut words = Words::default();
        while let Some(&byte) = self.text.get(self.at) {
            if byte == b'\n' && words.announce_data() {
                self.skip(empty_line(&self.text[self.at..]));
                break;
            }
            if byte == b';' {
                let end = self.at;
                self.skip(1);
                match begun {
                    Some((start, line)) => return Ok(Some(self.statement(start, end, line))),
                    None => continue,
                }
            }
            let comment = self.comment()?;
            if comment == 0 && !byte.is_ascii_whitespace() {
                begun.get_or_insert((self.at, self.line));
            }
            let length = if comment > 0 { comment } else { self.token()? };
            if comment == 0 {
                words.take(&self.text[self.at..self.at + length]);
            }
            self.skip(length);
        }
        Ok(begun.map(|(start, line)| self.statement(start, self.at, line)))
    }

    fn statement(&self, start: usize, end: usize, line: usize) -> Statement<'a> {
        Statement { sql: self.text[start..end].trim_ascii_end(), line }
    }

    fn skip(&mut self, count: usize) {
        let end = self.text.len().min(self.at + count);
        self.line += self.text[self.at..end].iter().filter(|byte| **byte == b'\n').count();
        self.at = end;
    }

    /// Length of the comment that begins here, 0 if none does. The line's end after it is left.
    fn comment(&self) -> Result<usize, Unclosed> {
        let rest = &self.text[self.at..];
        match rest {
            [b'-', b'-', ..] | [b'#', b' ' | b'!', ..] => {
                Ok(rest.iter().position(|byte| *byte == b'\n').unwrap_or(rest.len()))
            }
            [b'/', b'*', inside @ ..] => match inside.windows(2).position(|end| end == b"*/") {
                Some(end) => Ok(end + 4),
                None => Err(self.unclosed("/*")),
            },
            _ => Ok(0),
        }
    }

    /// Length of what cannot be split: a word, a text, a quoted name, or else a single byte.
    fn token(&self) -> Result<usize, Unclosed> {
        let rest = &self.text[self.at..];
        match rest[0] {
            quote @ (b'\'' | b'"' | b'`') => self.quoted(quote),
            b'$' => Ok(here_document(rest)),
            byte if is_word(byte) => Ok(rest.iter().position(|it| !is_word(*it)).unwrap_or(rest.len())),
            _ => Ok(1),
        }
    }

    fn quoted(&self, quote: u8) -> Result<usize, Unclosed> {
        let rest = &self.text[self.at..];
        let mut at = 1;
        while let Some(byte) = rest.get(at) {
            at += match byte {
                b'\\' => 2,
                byte if *byte == quote => return Ok(at + 1),
                _ => 1,
            };
        }
        Err(self.unclosed(char::from(quote)))
    }

    fn unclosed(&self, opened: impl std::fmt::Display) -> Unclosed {
        Unclosed { what: format!("the {opened} that is opened here is never closed"), line: self.line }
    }
}

fn is_word(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || byte == b'_' || byte >= 0x80
}

/// Length of a text such as `$tag$…$tag$`; 1 where there is none.
fn here_document(rest: &[u8]) -> usize {
    let tag = rest[1..].iter().position(|byte| !is_word(*byte)).filter(|end| rest[1 + end] == b'$');
    let Some(tag) = tag.map(|end| &rest[..end + 2]) else { return 1 };
    let end = rest[tag.len()..].windows(tag.len()).position(|end| end == tag);
    end.map_or(1, |end| end + 2 * tag.len())
}

/// How many bytes there are up to the next empty line, or the end.
fn empty_line(rest: &[u8]) -> usize {
    let mut at = 1;
    while let Some(end) = rest.get(at..).and_then(|rest| rest.iter().position(|byte| *byte == b'\n')) {
        if rest[at..at + end].trim_ascii().is_empty() {
            return at;
        }
        at += end + 1;
    }
    rest.len()
}

/// The first and the last two words of a statement, as far as it was read.
#[derive(Debug, Default)]
struct Words {
    inserts: Option<bool>,
    last: [Vec<u8>; 2],
}

impl Words {
    fn take(&mut self, token: &[u8]) {
        if token.iter().all(u8::is_ascii_whitespace) {
            return;
        }
        self.inserts.get_or_insert_with(|| token.eq_ignore_ascii_case(b"INSERT"));
        self.last.swap(0, 1);
        self.last[1] = token.iter().take(64).copied().collect();
    }

    /// Whether data comes next: after `INSERT … FORMAT Name`, which is no end of a query.
    fn announce_data(&self) -> bool {
        let [format, name] = &self.last;
        self.inserts == Some(true)
            && format.eq_ignore_ascii_case(b"FORMAT")
            && name.iter().all(|byte| is_word(*byte))
            && !name.eq_ignore_ascii_case(b"VALUES")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn split(text: &str) -> Result<Vec<(usize, String)>, Unclosed> {
        let mut script = Script::new(text.as_bytes());
        let mut all = Vec::new();
        while let Some(Statement { sql, line }) = script.next()? {
            all.push((line, String::from_utf8_lossy(sql).into_owned()));
        }
        Ok(all)
    }

    #[track_caller]
    fn check(text: &str, expected: &[(usize, &str)]) {
        let all = split(text).unwrap();
        let all: Vec<_> = all.iter().map(|(line, sql)| (*line, sql.as_str())).collect();
        assert_eq!(all, expected);
    }

    #[test]
    fn statements_end_at_semicolons() {
        check("SELECT 1;\n\nSELECT\n2 ; SELECT 3", &[(1, "SELECT 1"), (3, "SELECT\n2"), (4, "SELECT 3")]);
        check("\u{feff};;SELECT 1;\n;\n", &[(1, "SELECT 1")]);
        check("", &[]);
    }

    #[test]
    fn texts_names_and_comments_are_not_split() {
        check(
            "SELECT ';', 'a\\';', \"x;\", `y;`, 'it''s;'; X",
            &[(1, "SELECT ';', 'a\\';', \"x;\", `y;`, 'it''s;'"), (1, "X")],
        );
        check("--it's; a\n/* ; */ # it's;\n#!x;\nSELECT 1 --;\n, 2;", &[(4, "SELECT 1 --;\n, 2")]);
        check("SELECT $$;$$, $a_1$ $$; $a_1$, $ ;X", &[(1, "SELECT $$;$$, $a_1$ $$; $a_1$, $"), (1, "X")]);
        check("SELECT $a;", &[(1, "SELECT $a")]);
    }

    #[test]
    fn data_go_with_their_insert_up_to_an_empty_line() {
        check(
            "INSERT INTO t FORMAT JSONEachRow\n{\"a\": \"it's;\"}\n{}\n \nSELECT 1;\ninsert into t format TSV\nit's\t;",
            &[
                (1, "INSERT INTO t FORMAT JSONEachRow\n{\"a\": \"it's;\"}\n{}"),
                (5, "SELECT 1"),
                (6, "insert into t format TSV\nit's\t;"),
            ],
        );
        check(
            "INSERT INTO t FORMAT CSV -- comment\n1;2\n\nX",
            &[(1, "INSERT INTO t FORMAT CSV -- comment\n1;2"), (4, "X")],
        );
        check("INSERT INTO t FORMAT Values\n(1);\nX", &[(1, "INSERT INTO t FORMAT Values\n(1)"), (3, "X")]);
        check(
            "INSERT INTO t SELECT 1 FORMAT Null;\nX",
            &[(1, "INSERT INTO t SELECT 1 FORMAT Null"), (2, "X")],
        );
        check("SELECT 1 FORMAT TSV\n; X", &[(1, "SELECT 1 FORMAT TSV"), (2, "X")]);
    }

    #[test]
    fn what_is_never_closed_is_told_with_its_line() {
        let error = |text| split(text).unwrap_err();
        assert_eq!(error("SELECT 1;\nSELECT 'x;\n").line, 2);
        assert_eq!(error("SELECT 'x\\'").what, "the ' that is opened here is never closed");
        assert_eq!(error("\n\n/* x").line, 3);
    }

    #[test]
    fn any_bytes_are_read_to_the_end() {
        for text in
            [&b"\xff\xfe'\0';"[..], b"\\", b"/", b"-", b"$", b"$$", b"INSERT FORMAT x\n", b"\xef\xbb\xbf"]
        {
            let mut script = Script::new(text);
            while let Ok(Some(_)) = script.next() {}
        }
    }
}
