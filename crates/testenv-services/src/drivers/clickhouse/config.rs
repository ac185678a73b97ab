//! What a server is configured with: XML, in an order that does not matter.

use std::collections::BTreeMap;

use sha2::{Digest as _, Sha256};
use testenv_config::Setting;

use crate::inputs::hex;

/// Configuration of the server, in its data directory.
pub(super) const FILE: &str = "config.xml";
/// Users, and the settings that their queries have.
pub(super) const USERS: &str = "users.xml";
/// What settings of the server, not of queries, begin with in `testenv.toml`.
const OF_SERVER: &str = "server.";
/// The first version with users and rights in SQL.
pub(super) const USERS_IN_SQL: u32 = 21;

/// Settings of the server. Servers pass over those that they do not know.
const SERVER_SETTINGS: &[(&str, &str)] = &[
    ("logger.level", "information"),
    ("logger.console", "1"),
    ("listen_host", "127.0.0.1"),
    ("path", "./"),
    ("tmp_path", "./tmp/"),
    ("user_files_path", "./user_files/"),
    ("format_schema_path", "./format_schemas/"),
    ("access_control_path", "./access/"),
    ("users_config", USERS),
    ("default_profile", "default"),
    ("default_database", "default"),
    ("timezone", "UTC"),
    ("mark_cache_size", "67108864"),
    ("uncompressed_cache_size", "0"),
    ("max_connections", "1024"),
    ("mlock_executable", "false"),
    ("max_table_size_to_drop", "0"),
    ("max_partition_size_to_drop", "0"),
    ("database_atomic_delay_before_drop_table_sec", "0"),
    ("disable_internal_dns_cache", "1"),
    ("shutdown_wait_unfinished", "0"),
    ("send_crash_reports.enabled", "false"),
    // Some of what follows was a setting of queries once, and refused here by the versions of that time.
    ("skip_check_for_incorrect_settings", "1"),
    // Hundreds of threads otherwise, of which a server of one test has no use.
    ("background_schedule_pool_size", "16"),
    ("background_buffer_flush_schedule_pool_size", "2"),
    ("background_distributed_schedule_pool_size", "2"),
    ("background_message_broker_schedule_pool_size", "2"),
];

/// Settings of queries that all versions know.
const QUERY_SETTINGS: &[(&str, &str)] = &[("fsync_metadata", "0")];
/// Settings of queries that versions before 21 had, and later ones moved to the server.
const OLD_QUERY_SETTINGS: &[(&str, &str)] =
    &[("background_pool_size", "2"), ("background_schedule_pool_size", "2")];

/// Settings of the server that testenv relies on.
const RESERVED: &[(&str, &str)] = &[
    ("logger", "testenv reads the server's log from its standard error"),
    ("listen_host", "servers listen on 127.0.0.1 only"),
    ("path", "every server has a data directory of its own"),
    ("tmp_path", "every server has a data directory of its own"),
    ("access_control_path", "every server has a data directory of its own"),
    ("users_config", "testenv writes it"),
    ("user_directories", "testenv writes it"),
    ("http_port", "testenv gives every server ports of its own"),
    ("https_port", "testenv gives every server ports of its own"),
    ("tcp_port", "testenv gives every server ports of its own"),
    ("tcp_port_secure", "testenv gives every server ports of its own"),
    ("mysql_port", "it would listen on a port of its own"),
    ("postgresql_port", "it would listen on a port of its own"),
    ("grpc_port", "it would listen on a port of its own"),
    ("interserver_http_port", "it would listen on a port of its own"),
    ("interserver_https_port", "it would listen on a port of its own"),
    ("prometheus", "it would listen on a port of its own"),
    ("keeper_server", "it would listen on a port of its own"),
    ("protocols", "it would listen on a port of its own"),
];

/// Why a setting is not for the configuration to give, if so.
pub(super) fn reserved(name: &str) -> Option<&'static str> {
    let Some(of_server) = name.strip_prefix(OF_SERVER) else {
        return name
            .contains(['.', '-'])
            .then_some("settings of queries have plain names; those of the server begin with `server.`");
    };
    let first = of_server.split('.').next().unwrap_or_default();
    RESERVED.iter().find(|(reserved, _)| first == *reserved).map(|(_, why)| *why)
}

/// The server's configuration.
pub(super) fn server(version: u32, settings: &BTreeMap<String, Setting>) -> String {
    let own = SERVER_SETTINGS.iter().map(|(name, value)| (*name, *value));
    let given = settings.iter().filter_map(|(name, value)| Some((name.strip_prefix(OF_SERVER)?, &*value.0)));
    // The last one counts.
    let all: BTreeMap<_, _> = own.chain(given).collect();
    document(version, all)
}

/// Users, profiles and quotas.
pub(super) fn users(
    version: u32,
    user: &str,
    password: &str,
    settings: &BTreeMap<String, Setting>,
) -> String {
    let old = if version < USERS_IN_SQL { OLD_QUERY_SETTINGS } else { &[] };
    let own = QUERY_SETTINGS.iter().chain(old).map(|(name, value)| ((*name).to_owned(), *value));
    let given = settings.iter().filter(|(name, _)| !name.starts_with(OF_SERVER));
    let profile = own.chain(given.map(|(name, value)| (name.clone(), &*value.0)));
    let mut all: BTreeMap<String, &str> =
        profile.map(|(name, value)| (format!("profiles.default.{name}"), value)).collect();
    let hash = hex(&Sha256::digest(password));
    let mut of_user = vec![("networks.ip", "127.0.0.1"), ("profile", "default"), ("quota", "default")];
    of_user.push(if password.is_empty() { ("password", "") } else { ("password_sha256_hex", &hash) });
    if version >= USERS_IN_SQL {
        of_user.push(("access_management", "1"));
    }
    all.extend(of_user.into_iter().map(|(name, value)| (format!("users.{user}.{name}"), value)));
    all.insert("quotas.default".into(), "");
    document(version, all.iter().map(|(name, value)| (name.as_str(), *value)))
}

fn document<'a>(version: u32, settings: impl IntoIterator<Item = (&'a str, &'a str)>) -> String {
    // Named after the company where it began, before 21.
    let root = if version < USERS_IN_SQL { "yandex" } else { "clickhouse" };
    let content = elements(settings);
    format!("<?xml version=\"1.0\"?>\n<!-- Written by testenv. -->\n<{root}>\n{content}</{root}>\n")
}

/// An element for each name; those within each other for `a.b`, and one for all that begin with `a`.
fn elements<'a>(settings: impl IntoIterator<Item = (&'a str, &'a str)>) -> String {
    /// What is in an element: a value, and what is below it by name.
    type Content<'a> = (&'a str, Vec<(&'a str, &'a str)>);
    let mut all: BTreeMap<&str, Content<'_>> = BTreeMap::new();
    for (path, value) in settings {
        match path.split_once('.') {
            Some((name, below)) => all.entry(name).or_default().1.push((below, value)),
            None => all.entry(path).or_default().0 = value,
        }
    }
    let element = |(name, (value, below))| format!("<{name}>{}{}</{name}>\n", plain(value), elements(below));
    all.into_iter().map(element).collect()
}

/// A value as ClickHouse writes booleans, escaped for XML.
fn plain(value: &str) -> String {
    match value {
        "on" => "1".into(),
        "off" => "0".into(),
        value => value.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn settings(pairs: &[(&str, &str)]) -> BTreeMap<String, Setting> {
        pairs.iter().map(|(name, value)| ((*name).to_owned(), Setting((*value).to_owned()))).collect()
    }

    #[test]
    fn settings_go_where_they_belong_and_cannot_break_out() {
        let given = [("max_threads", "</x>&"), ("allow_x", "on"), ("server.merge_tree.y", "7")];
        let given = settings(&[&given[..], &[("server.merge_tree.x", "6")]].concat());
        let (server, users) = (server(24, &given), users(24, "app", "pw", &given));
        assert!(server.contains("<merge_tree><x>6</x>\n<y>7</y>\n</merge_tree>"), "{server}");
        assert!(
            server.contains("<logger><console>1</console>\n<level>information</level>\n</logger>"),
            "{server}"
        );
        assert!(!server.contains("max_threads"), "{server}");
        assert!(users.contains("<max_threads>&lt;/x&gt;&amp;</max_threads>"), "{users}");
        assert!(users.contains("<allow_x>1</allow_x>"), "{users}");
        assert!(users.contains("<access_management>1"), "{users}");
        assert!(!users.contains("pw"), "{users}");
        assert!(server.contains("<clickhouse>") && server.contains("<timezone>UTC</timezone>"), "{server}");
    }

    #[test]
    fn old_versions_get_what_they_know() {
        let text = users(18, "default", "", &settings(&[("background_pool_size", "4")]));
        assert!(text.contains("<yandex>") && text.contains("<background_pool_size>4<"), "{text}");
        assert!(!text.contains("access_management"), "{text}");
    }

    #[test]
    fn what_testenv_needs_is_reserved() {
        for name in ["server.path", "server.logger.level", "server.http_port", "a.b", "max-threads"] {
            assert!(reserved(name).is_some(), "{name}");
        }
        for name in ["max_threads", "server.max_concurrent_queries", "server.merge_tree.x"] {
            assert!(reserved(name).is_none(), "{name}");
        }
    }
}
