//! The schema that every subject prepares: 60 tables, 150 indexes, 19 foreign keys, in 60 migrations.
//!
//! Generated rather than copied from a project, so that its size is what the targets name and anyone can see it.

#![forbid(unsafe_code)]

/// Tables, and migrations: each migration makes one table.
pub const TABLES: usize = 60;

/// Queries that every test of the 1,000-test suites runs: one that writes, one that reads, one that joins.
pub const QUERIES: [&str; 3] = [
    "INSERT INTO t_00 (name, email, body) VALUES ('a', 'a@example.com', 'b')",
    "SELECT count(*) FROM t_00 WHERE name = 'a'",
    "SELECT count(*) FROM t_03 JOIN t_02 ON t_02.id = t_03.parent_id",
];

/// The migrations in order, each as a file name and its SQL.
pub fn migrations() -> Vec<(String, String)> {
    (0..TABLES).map(|table| (format!("{:04}_t_{table:02}.sql", table + 1), migration(table))).collect()
}

fn migration(table: usize) -> String {
    // Every third table but the first refers to the one before it.
    let parent = match table % 3 {
        0 if table > 0 => format!(" REFERENCES t_{:02} (id)", table - 1),
        _ => String::new(),
    };
    let mut sql = format!(
        "CREATE TABLE t_{table:02} (
    id bigserial PRIMARY KEY,
    parent_id bigint{parent},
    name text NOT NULL,
    email text NOT NULL DEFAULT '',
    body text,
    amount numeric(12, 2) NOT NULL DEFAULT 0,
    created_at timestamptz NOT NULL DEFAULT now()
);
CREATE INDEX t_{table:02}_name ON t_{table:02} (name);
"
    );
    // With the primary keys these are 60 + 60 + 30 = 150 indexes.
    if table.is_multiple_of(2) {
        sql.push_str(&format!("CREATE INDEX t_{table:02}_created ON t_{table:02} (created_at, amount);\n"));
    }
    sql
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn has_the_size_that_the_targets_name() {
        let all: String = migrations().into_iter().map(|(_, sql)| sql).collect();
        let count = |what: &str| all.matches(what).count();
        assert_eq!(count("CREATE TABLE"), 60);
        assert_eq!(count("PRIMARY KEY") + count("CREATE INDEX"), 150);
        assert_eq!(count("REFERENCES"), 19);
    }
}
