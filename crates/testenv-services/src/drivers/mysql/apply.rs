//! Applies a file of migrations or seed, statement by statement.

use std::time::Instant;

use testenv_api::{Problem, ProblemKind};

use super::client::{ClientError, Connection};
use super::script::{Script, ScriptError, Statement};
use crate::Result;

/// Pieces that a statement is tried with which ends before its body does.
const MAX_PIECES: usize = 1000;
/// The server's number for a statement that it cannot parse.
const SYNTAX_ERROR: u16 = 1064;

/// Runs all statements of a file, called `name`, up to the first that fails.
pub(super) fn file(connection: &mut Connection, name: &str, content: &[u8], deadline: Instant) -> Result<()> {
    let mut script = Script::new(content);
    let unreadable = |error: ScriptError| {
        Problem::new(ProblemKind::PrepareFailed, format!("{name}:{} cannot be read", error.line))
            .detail(error.what)
    };
    while let Some(statement) = script.next(connection.backslash_escapes()).map_err(unreadable)? {
        run_whole(connection, &mut script, statement, deadline)
            .map_err(|error| failure(name, statement, &error))?;
    }
    Ok(())
}

/// Runs a statement. Where the server finds its end too early, because it is a body with semicolons and the file
/// was not written for the `mysql` client, it is tried with what comes after it.
fn run_whole<'a>(
    connection: &mut Connection,
    script: &mut Script<'a>,
    mut statement: Statement<'a>,
    deadline: Instant,
) -> std::result::Result<(), ClientError> {
    let mut first = None;
    for _ in 0..MAX_PIECES {
        let error = match connection.run(statement.sql, deadline) {
            Ok(_) => return Ok(()),
            Err(error) if has_body(statement.sql) && ends_early(&error) => error,
            Err(error) => return Err(error),
        };
        first.get_or_insert(error);
        match script.extend(statement, connection.backslash_escapes()) {
            Ok(Some(longer)) => statement = longer,
            _ => break,
        }
    }
    first.map_or(Ok(()), Err)
}

/// Whether a statement is of those that may consist of others.
fn has_body(sql: &[u8]) -> bool {
    const KINDS: [&str; 5] = ["TRIGGER", "PROCEDURE", "FUNCTION", "EVENT", "PACKAGE"];
    let head = String::from_utf8_lossy(&sql[..sql.len().min(512)]).to_ascii_uppercase();
    let mut words =
        head.split(|c: char| !c.is_ascii_alphanumeric() && c != '_').filter(|word| !word.is_empty());
    match words.next() {
        Some("CREATE" | "ALTER") => words.take(16).any(|word| KINDS.contains(&word)),
        first => first == Some("BEGIN"),
    }
}

/// Whether the server stopped at the end of what it was given.
fn ends_early(error: &ClientError) -> bool {
    matches!(error, ClientError::Server { code: SYNTAX_ERROR, message } if message.contains("near '' at line"))
}

/// What to say of a statement that failed, with the line of the file that it is about.
fn failure(name: &str, statement: Statement<'_>, error: &ClientError) -> Problem {
    let failed = |title: String| Problem::new(ProblemKind::PrepareFailed, title);
    let line = statement.line;
    let ClientError::Server { code, message } = error else {
        let title = if error.timed_out() { "did not finish in time" } else { "failed" };
        return failed(format!("{name}:{line} {title}")).detail(error.to_string());
    };
    // Syntax errors count lines within the statement.
    let within = message.rsplit_once(" at line ").filter(|_| *code == SYNTAX_ERROR);
    let within: usize = within.and_then(|(_, number)| number.trim().parse().ok()).unwrap_or(1);
    let problem =
        failed(format!("{name}:{} failed", line.saturating_add(within.max(1) - 1))).detail(error.to_string());
    if *code == SYNTAX_ERROR && (statement.sql.starts_with(b"\\") || is_client_command(statement.sql)) {
        return problem.hint(
            "that is a command of the mysql client; use a command: { command = \"mysql … < FILE\", inputs = [\"FILE\"] }",
        );
    }
    if has_body(statement.sql) && ends_early(error) {
        return problem
            .hint("a body with semicolons needs another delimiter: DELIMITER // before it, // after it");
    }
    problem
}

fn is_client_command(sql: &[u8]) -> bool {
    let word = sql.split(|byte| !byte.is_ascii_alphabetic()).next().unwrap_or_default();
    [&b"source"[..], b"system", b"tee", b"warnings", b"charset"]
        .iter()
        .any(|it| word.eq_ignore_ascii_case(it))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bodies_are_told_from_other_statements() {
        assert!(has_body(b"CREATE DEFINER=`a`@`%` TRIGGER t"));
        assert!(has_body(b"create or replace\nprocedure p()"));
        assert!(!has_body(b"CREATE TABLE trigger_log (x int)"));
        assert!(!has_body(b"INSERT INTO t VALUES ('CREATE TRIGGER')"));
    }

    fn told(sql: &str, line: usize, code: u16, message: &str) -> String {
        let text = format!("{}{sql}", "\n".repeat(line - 1));
        let statement = Script::new(text.as_bytes()).next(true).unwrap().unwrap();
        failure("m/1.sql", statement, &ClientError::Server { code, message: message.into() }).to_string()
    }

    #[test]
    fn errors_name_the_line_of_the_file() {
        let text = told("SELEC\n1", 7, SYNTAX_ERROR, "near 'SELEC' at line 1");
        assert!(text.contains("m/1.sql:7 failed"), "{text}");
        let text = told("SELECT\n1 1", 7, SYNTAX_ERROR, "near '1' at line 2");
        assert!(text.contains("m/1.sql:8 failed"), "{text}");
        let text = told("INSERT INTO t VALUES (1)", 7, 1062, "Duplicate entry at line 9");
        assert!(text.contains("m/1.sql:7 failed") && text.contains("ERROR 1062"), "{text}");
        let text = told("SELECT 1", 7, SYNTAX_ERROR, "at line 99999999999999999999");
        assert!(text.contains("m/1.sql:7 failed"), "{text}");
    }

    #[test]
    fn what_only_the_client_knows_is_told_as_such() {
        let text = told("source other.sql", 1, SYNTAX_ERROR, "near 'source' at line 1");
        assert!(text.contains("command of the mysql client"), "{text}");
    }
}
