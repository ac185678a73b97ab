//! Splits a file into statements, by the rules of the `mysql` client.
//!
//! A statement ends at the delimiter, `;` unless a line begins with `DELIMITER` and another one. Delimiters in
//! texts, in quoted names and in comments end nothing.

/// The statements of a file, one after the other.
#[derive(Debug)]
pub(crate) struct Script<'a> {
    text: &'a [u8],
    /// How far it was read, and the number of the line that this is in.
    at: usize,
    line: usize,
    delimiter: Vec<u8>,
}

/// A statement and the line that it begins in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Statement<'a> {
    pub(crate) sql: &'a [u8],
    pub(crate) line: usize,
    /// Where in the file it begins.
    start: usize,
}

/// What in a file cannot be meant, and the line that it is in.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct ScriptError {
    pub(crate) what: String,
    pub(crate) line: usize,
}

impl<'a> Script<'a> {
    pub(crate) fn new(text: &'a [u8]) -> Self {
        const BYTE_ORDER_MARK: &[u8] = b"\xef\xbb\xbf";
        let text = text.strip_prefix(BYTE_ORDER_MARK).unwrap_or(text);
        Self { text, at: 0, line: 1, delimiter: b";".to_vec() }
    }

    /// The next statement. Whether a backslash escapes depends on the session, so it is asked for each time.
    pub(crate) fn next(&mut self, backslash_escapes: bool) -> Result<Option<Statement<'a>>, ScriptError> {
        // Where the statement begins, once something other than space and comments was seen.
        let mut begun: Option<(usize, usize)> = None;
        let statement = |this: &Self, (start, line): (usize, usize), end: usize| Statement {
            sql: this.text[start..end].trim_ascii_end(),
            line,
            start,
        };
        let mut line_begins = self.at == 0 || self.text[..self.at].ends_with(b"\n");
        while let Some(&byte) = self.text.get(self.at) {
            if byte.is_ascii_whitespace() {
                line_begins |= byte == b'\n';
                self.skip(1);
                continue;
            }
            if line_begins && let Some(length) = self.delimiter_command() {
                if let Some(begun) = begun {
                    return Ok(Some(statement(self, begun, self.at)));
                }
                self.change_delimiter(length)?;
                continue;
            }
            line_begins = false;
            let here = (self.at, self.line);
            if self.text[self.at..].starts_with(&self.delimiter) {
                self.skip(self.delimiter.len());
                if let Some(begun) = begun {
                    return Ok(Some(statement(self, begun, here.0)));
                }
                continue;
            }
            let comment = self.comment()?;
            if comment > 0 {
                self.skip(comment);
                line_begins = self.text[..self.at].ends_with(b"\n");
                continue;
            }
            begun.get_or_insert(here);
            let length = self.token(backslash_escapes)?;
            self.skip(length);
        }
        Ok(begun.map(|begun| statement(self, begun, self.text.len())))
    }

    /// Takes the next statement together with one that was taken before, and what is between them.
    pub(crate) fn extend(
        &mut self,
        statement: Statement<'a>,
        backslash_escapes: bool,
    ) -> Result<Option<Statement<'a>>, ScriptError> {
        let Some(next) = self.next(backslash_escapes)? else { return Ok(None) };
        let end = next.start + next.sql.len();
        Ok(Some(Statement { sql: &self.text[statement.start..end], ..statement }))
    }

    fn skip(&mut self, count: usize) {
        let end = self.text.len().min(self.at + count);
        self.line += self.text[self.at..end].iter().filter(|byte| **byte == b'\n').count();
        self.at = end;
    }

    /// Length of the word `DELIMITER`, if it is here.
    fn delimiter_command(&self) -> Option<usize> {
        const WORD: &[u8] = b"DELIMITER";
        let (word, rest) = self.text[self.at..].split_at_checked(WORD.len())?;
        let ends = rest.first().is_none_or(u8::is_ascii_whitespace);
        (word.eq_ignore_ascii_case(WORD) && ends).then_some(WORD.len())
    }

    /// Reads a line with `DELIMITER`: the first word after it, in quotes or not.
    fn change_delimiter(&mut self, word: usize) -> Result<(), ScriptError> {
        let line = self.text[self.at + word..].split(|byte| *byte == b'\n').next().unwrap_or_default();
        let given = line.trim_ascii();
        let delimiter = match given.first() {
            Some(quote @ (b'\'' | b'"' | b'`')) => given[1..].split(|byte| byte == quote).next(),
            _ => given.split(u8::is_ascii_whitespace).next(),
        };
        let delimiter = delimiter.unwrap_or_default();
        if delimiter.is_empty() || delimiter.contains(&b'\\') {
            let what = "DELIMITER has to be followed by a delimiter, without a backslash".into();
            return Err(ScriptError { what, line: self.line });
        }
        self.delimiter = delimiter.to_vec();
        self.skip(word + line.len());
        Ok(())
    }

    /// Length of the comment that begins here, 0 if none does. Those that servers execute are none.
    fn comment(&self) -> Result<usize, ScriptError> {
        let rest = &self.text[self.at..];
        let to_line_end = || rest.iter().position(|byte| *byte == b'\n').map_or(rest.len(), |end| end + 1);
        match rest {
            [b'#', ..] => Ok(to_line_end()),
            [b'-', b'-'] => Ok(2),
            [b'-', b'-', next, ..] if next.is_ascii_whitespace() || next.is_ascii_control() => {
                Ok(to_line_end())
            }
            [b'/', b'*', b'!' | b'+', ..] | [b'/', b'*', b'M', b'!', ..] => Ok(0),
            [b'/', b'*', inside @ ..] => match inside.windows(2).position(|end| end == b"*/") {
                Some(end) => Ok(end + 4),
                None => Err(self.unclosed("/*")),
            },
            _ => Ok(0),
        }
    }

    /// Length of what cannot be split: a text, a quoted name, or else a single byte.
    fn token(&self, backslash_escapes: bool) -> Result<usize, ScriptError> {
        let rest = &self.text[self.at..];
        let quote @ (b'\'' | b'"' | b'`') = rest[0] else { return Ok(1) };
        let mut at = 1;
        while let Some(byte) = rest.get(at) {
            at += match byte {
                b'\\' if backslash_escapes && quote != b'`' => 2,
                byte if *byte == quote => return Ok(at + 1),
                _ => 1,
            };
        }
        Err(self.unclosed(char::from(quote)))
    }

    fn unclosed(&self, opened: impl std::fmt::Display) -> ScriptError {
        ScriptError { what: format!("the {opened} that is opened here is never closed"), line: self.line }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn split(text: &str) -> Result<Vec<(usize, String)>, ScriptError> {
        let mut script = Script::new(text.as_bytes());
        let mut all = Vec::new();
        while let Some(Statement { sql, line, .. }) = script.next(true)? {
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
        check("\u{feff}SELECT 1;;\n;", &[(1, "SELECT 1")]);
        check("", &[]);
    }

    #[test]
    fn texts_and_names_are_not_split() {
        check(
            "SELECT ';', \"a\\\";\", `;`, 'it''s;'; X",
            &[(1, "SELECT ';', \"a\\\";\", `;`, 'it''s;'"), (1, "X")],
        );
        check("SELECT `\\`; X", &[(1, "SELECT `\\`"), (1, "X")]);
        let mut script = Script::new(b"SELECT '\\'; X");
        assert_eq!(script.next(false).unwrap().unwrap().sql, b"SELECT '\\'");
    }

    #[test]
    fn comments_are_left_out_before_a_statement_and_kept_within() {
        check("-- a; b\n# c; d\n/* e;\n f */ SELECT 1; -- end", &[(4, "SELECT 1")]);
        check("SELECT 1 -- a;\n, 2 /* ; */;", &[(1, "SELECT 1 -- a;\n, 2 /* ; */")]);
        check("SELECT 1--2;\n--", &[(1, "SELECT 1--2")]);
        check("-- it's\nSELECT 1", &[(2, "SELECT 1")]);
    }

    #[test]
    fn comments_that_servers_execute_are_statements() {
        check(
            "/*!40101 SET NAMES utf8 */;\n/*M! SET x */;",
            &[(1, "/*!40101 SET NAMES utf8 */"), (2, "/*M! SET x */")],
        );
    }

    #[test]
    fn delimiters_change_at_the_beginning_of_lines() {
        check(
            "DELIMITER //\nCREATE TRIGGER t BEGIN a; b; END//\n  delimiter ; ignored\nSELECT 1;\nSELECT delimiter\n;",
            &[(2, "CREATE TRIGGER t BEGIN a; b; END"), (4, "SELECT 1"), (5, "SELECT delimiter")],
        );
        check("DELIMITER '$ $'\nA$ $ B $ $", &[(2, "A"), (2, "B")]);
        check("DELIMITER ;;\r\nA; B;;\r\nDELIMITER ;\r\nC;", &[(2, "A; B"), (4, "C")]);
        check("SELECT 1\nDELIMITER //\nSELECT 2", &[(1, "SELECT 1"), (3, "SELECT 2")]);
        check("-- x\nDELIMITER $$\nA$$", &[(3, "A")]);
        check("DELIMITERS;", &[(1, "DELIMITERS")]);
        check("SELECT 'a\nDELIMITER //\n';", &[(1, "SELECT 'a\nDELIMITER //\n'")]);
    }

    #[test]
    fn what_is_never_closed_is_told_with_its_line() {
        let error = |text| split(text).unwrap_err();
        assert_eq!(error("SELECT 1;\nSELECT 'x;\n").line, 2);
        assert_eq!(error("SELECT 'x\\'").what, "the ' that is opened here is never closed");
        assert_eq!(error("\n\n/* x").line, 3);
        assert_eq!(error("\nDELIMITER \n").line, 2);
        assert_eq!(error("DELIMITER \\\\").line, 1);
    }

    #[test]
    fn statements_are_extended_with_what_is_between() {
        let mut script =
            Script::new(b"CREATE PROCEDURE p() BEGIN\nSELECT 1; -- x\nSELECT 2;\nEND;\nSELECT 3");
        let mut statement = script.next(true).unwrap().unwrap();
        statement = script.extend(statement, true).unwrap().unwrap();
        statement = script.extend(statement, true).unwrap().unwrap();
        assert_eq!(statement.sql, b"CREATE PROCEDURE p() BEGIN\nSELECT 1; -- x\nSELECT 2;\nEND");
        assert_eq!(script.next(true).unwrap().unwrap().line, 5);
        assert_eq!(script.extend(statement, true), Ok(None));
    }

    #[test]
    fn any_bytes_are_read_to_the_end() {
        for text in [&b"\xff\xfe';\0"[..], b"\\", b"'\\", b"/", b"/*!", b"-", b"DELIMITER", b"\xef\xbb\xbf"] {
            let mut script = Script::new(text);
            while let Ok(Some(_)) = script.next(true) {}
        }
    }
}
