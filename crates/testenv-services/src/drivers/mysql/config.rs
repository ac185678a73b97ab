//! What a server is configured with.

use std::collections::BTreeMap;

use testenv_config::Setting;

use super::quote_text;
use crate::drivers::CONFIG_HEADER;

/// The configuration file in a server's data directory.
pub(super) const FILE: &str = "testenv.cnf";
/// Statements that a new server runs before it listens: until then its administrator has no password.
pub(super) const FIRST_STATEMENTS: &str = "testenv-first.sql";
/// Files that a fork has no use for: `auto.cnf` is a server's identity, of which each has its own.
pub(super) const LEFTOVERS: [&str; 4] = [FIRST_STATEMENTS, "auto.cnf", "mysqld.pid", "ib_buffer_pool"];
/// Connections that a server shared by many leases takes, unless the configuration says otherwise.
pub(super) const SHARED_CONNECTIONS: u32 = 500;

/// Settings that make a server quick and small, at the price of what only matters after a power cut. They are
/// written with `loose_` before them, so that servers pass over those that they do not know.
const TEST_SETTINGS: &[(&str, &str)] = &[
    ("innodb_flush_log_at_trx_commit", "0"),
    ("innodb_flush_method", "nosync"),
    ("innodb_doublewrite", "OFF"),
    // There is a limit for the whole machine, which many servers would reach.
    ("innodb_use_native_aio", "OFF"),
    ("innodb_buffer_pool_size", "16M"),
    ("innodb_buffer_pool_load_at_startup", "OFF"),
    ("innodb_buffer_pool_dump_at_shutdown", "OFF"),
    ("innodb_log_buffer_size", "2M"),
    ("innodb_autoextend_increment", "1"),
    ("innodb_read_io_threads", "1"),
    ("innodb_write_io_threads", "2"),
    ("innodb_purge_threads", "1"),
    ("performance_schema", "OFF"),
    ("key_buffer_size", "1M"),
    ("max_connections", "100"),
    ("max_allowed_packet", "64M"),
    ("table_open_cache", "400"),
    ("secure_file_priv", ""),
    ("character_set_server", "utf8mb4"),
    ("default_time_zone", "+00:00"),
    ("skip_name_resolve", "ON"),
    ("pid_file", "mysqld.pid"),
];

const MARIADB_SETTINGS: &[(&str, &str)] = &[
    ("innodb_log_file_size", "4M"),
    ("innodb_temp_data_file_path", "ibtmp1:3M:autoextend"),
    ("innodb_undo_tablespaces", "0"),
    ("innodb_log_file_mmap", "OFF"),
    ("aria_pagecache_buffer_size", "8M"),
    ("sync_frm", "OFF"),
    // Newer ones make up a certificate whenever they start, which takes half a second.
    ("ssl", "OFF"),
];

const MYSQL_SETTINGS: &[(&str, &str)] = &[
    ("innodb_redo_log_capacity", "8M"),
    ("innodb_log_writer_threads", "OFF"),
    ("innodb_validate_tablespace_paths", "OFF"),
    ("mysqlx", "OFF"),
];

/// Settings that testenv relies on.
const RESERVED: &[(&str, &str)] = &[
    ("port", "testenv gives every server a port of its own"),
    ("bind_address", "servers listen on 127.0.0.1 only"),
    ("networking", "servers listen on 127.0.0.1 only"),
    ("socket", "every server has a socket of its own"),
    ("datadir", "every server has a data directory of its own"),
    ("tmpdir", "every server has a data directory of its own"),
    ("basedir", "testenv finds it; name the engine's directory with `bin_dir`"),
    ("user", "testenv chooses the user that servers run as"),
    ("pid_file", "testenv keeps track of its servers itself"),
    ("log_error", "testenv reads the server's log from its standard error"),
    ("syslog", "testenv reads the server's log from its standard error"),
    ("lc_messages", "testenv reads the server's log, in English"),
    ("grant_tables", "everybody on the machine can reach 127.0.0.1, so servers ask for a password"),
    ("name_resolve", "the administrator without a password would be open to everybody on the machine"),
    ("init_file", "testenv sets the password with it; use `migrations`"),
    ("mysqlx", "it would listen on a port of its own"),
    ("mysqlx_port", "it would listen on a port of its own"),
    ("admin_address", "it would listen on a port of its own"),
];

/// Why a setting is not for the configuration to give, if so.
pub(super) fn reserved(name: &str) -> Option<&'static str> {
    let plain = plain(name);
    RESERVED.iter().find(|(reserved, _)| plain == *reserved).map(|(_, why)| *why)
}

/// Whether a setting is given, however it is written.
pub(super) fn sets(settings: &BTreeMap<String, Setting>, name: &str) -> bool {
    settings.keys().any(|given| plain(given) == name)
}

/// A setting's name without the ways to write it: `skip-networking` is about `networking`.
fn plain(name: &str) -> String {
    let mut name = name.to_ascii_lowercase().replace('-', "_");
    while let Some(rest) =
        ["loose_", "skip_", "disable_", "enable_", "maximum_"].iter().find_map(|it| name.strip_prefix(it))
    {
        name = rest.to_owned();
    }
    name
}

/// Options for making a data directory.
pub(super) fn at_init(mariadb: bool) -> impl Iterator<Item = String> {
    const MARIADB: &[&str] =
        &["--auth-root-authentication-method=normal", "--skip-test-db", "--skip-name-resolve"];
    const MYSQL: &[&str] = &["--initialize-insecure", "--secure-file-priv="];
    let own = if mariadb { MARIADB } else { MYSQL };
    // Files are made with the sizes that the server finds them with later.
    let sizes = test_settings(mariadb).filter(|(name, _)| name.starts_with("innodb_"));
    let sizes = sizes.map(|(name, value)| format!("--loose-{name}={value}"));
    own.iter().map(|option| (*option).to_owned()).chain(sizes)
}

fn test_settings(mariadb: bool) -> impl Iterator<Item = (&'static str, &'static str)> {
    let engine = if mariadb { MARIADB_SETTINGS } else { MYSQL_SETTINGS };
    TEST_SETTINGS.iter().chain(engine).copied()
}

/// The configuration file.
pub(super) fn text(mariadb: bool, settings: &BTreeMap<String, Setting>) -> String {
    let mut conf = format!("{CONFIG_HEADER}[mysqld]\nskip_log_bin\n");
    for (name, value) in test_settings(mariadb) {
        conf.push_str(&format!("loose_{name} = \"{}\"\n", escape(value)));
    }
    for (name, value) in settings {
        conf.push_str(&format!("{name} = \"{}\"\n", escape(&value.0)));
    }
    conf
}

/// Statements that close a new server: a password for its administrator, and no others who have none.
pub(super) fn first_statements(mariadb: bool, password: &str) -> String {
    let mut sql = String::from("SET sql_mode = '';\n");
    if mariadb {
        sql.push_str(
            "DELETE FROM mysql.global_priv WHERE Host <> 'localhost' OR User NOT IN ('root', 'mariadb.sys');\n\
             FLUSH PRIVILEGES;\n",
        );
    }
    sql.push_str(&format!("ALTER USER 'root'@'localhost' IDENTIFIED BY {};\n", quote_text(password)));
    sql
}

/// Escapes a value for an option file.
fn escape(value: &str) -> String {
    let escaped = |c| match c {
        '\\' => "\\\\".to_owned(),
        '\n' => "\\n".to_owned(),
        '\r' => "\\r".to_owned(),
        c => c.to_string(),
    };
    value.chars().map(escaped).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reserved_settings_are_known_however_they_are_written() {
        for name in
            ["port", "PORT", "skip-networking", "loose-skip_networking", "pid-file", "skip-grant-tables"]
        {
            assert!(reserved(name).is_some(), "{name}");
        }
        for name in ["sql_mode", "innodb_buffer_pool_size", "lower-case-table-names"] {
            assert!(reserved(name).is_none(), "{name}");
        }
    }

    #[test]
    fn settings_of_the_workspace_come_last_and_stay_in_their_line() {
        let settings = BTreeMap::from([("sql_mode".to_owned(), Setting("a\nport = 1\\".into()))]);
        let conf = text(true, &settings);
        assert_eq!(conf.lines().last().unwrap(), r#"sql_mode = "a\nport = 1\\""#);
        assert!(conf.contains("\nloose_ssl = \"OFF\"\n"), "{conf}");
        assert!(!text(false, &settings).contains("ssl"));
    }

    #[test]
    fn first_statements_stay_in_their_line() {
        let sql = first_statements(false, "a'b\nc");
        assert_eq!(sql, "SET sql_mode = '';\nALTER USER 'root'@'localhost' IDENTIFIED BY 'a\\'b\\nc';\n");
    }
}
