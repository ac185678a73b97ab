use testenv_api::{Isolation, Lease, LeaseRequest};
use testkit::{Mysql, TestWorkspace, have, skip, until};

use crate::{TESTENV, assert_says};

/// A table with three rows, a trigger and a procedure: written for the client, and not.
const ITEMS: &str = "\
-- It's a comment; with a semicolon.
CREATE TABLE items (id int PRIMARY KEY AUTO_INCREMENT, name varchar(20) NOT NULL, price int);
INSERT INTO items (name) VALUES ('one'), ('two; \\'x\\''), ('dreißig');
DELIMITER //
CREATE TRIGGER priced BEFORE INSERT ON items FOR EACH ROW BEGIN
  SET NEW.price = 7;
END//
CREATE PROCEDURE twice() BEGIN SELECT 1; SELECT 2; END//
DELIMITER ;
CALL twice();
CREATE TRIGGER dearer BEFORE UPDATE ON items FOR EACH ROW BEGIN
  SET NEW.price = NEW.price + 1;
END;
INSERT INTO items (name) VALUES ('four');
UPDATE items SET name = 'vier' WHERE name = 'four';
";

/// A workspace with the role `database`, or nothing where there is no server.
fn mysql(lines: &str) -> Option<TestWorkspace> {
    if !have("mariadbd") && !have("mysqld") {
        skip("there is no MariaDB and no MySQL");
        return None;
    }
    let config = format!("[services.database]\nservice = \"mysql\"\n{lines}\n");
    Some(TestWorkspace::new(TESTENV).config(&config))
}

fn items(lines: &str) -> Option<TestWorkspace> {
    let workspace = mysql(&format!("migrations = \"migrations\"\n{lines}"))?;
    Some(workspace.file("migrations/1_items.sql", ITEMS))
}

fn request(isolation: Isolation) -> LeaseRequest {
    LeaseRequest { role: Some("database".into()), isolation: Some(isolation), ..LeaseRequest::default() }
}

fn one(lease: &Lease, sql: &str) -> String {
    Mysql::new(lease).run(sql).unwrap().join("\n")
}

const SEEDED: [&str; 4] = ["one\tNULL", "two; 'x'\tNULL", "dreißig\tNULL", "vier\t8"];

#[track_caller]
fn assert_seeded(lease: &Lease) {
    assert_eq!(Mysql::new(lease).run("SELECT name, price FROM items ORDER BY id").unwrap(), SEEDED);
}

#[test]
fn a_server_s_lease_is_a_whole_server_of_its_own() {
    let Some(workspace) = items("") else { return };
    let (first, second) = (workspace.lease("database"), workspace.lease("database"));
    assert_seeded(first.lease());
    Mysql::new(first.lease())
        .run("CREATE USER somebody; CREATE DATABASE another; DELETE FROM items; SET GLOBAL max_connections = 7")
        .unwrap();
    assert_seeded(second.lease());
    let count = |sql: &str| one(second.lease(), sql);
    assert_eq!(count("SELECT count(*) FROM mysql.user WHERE user = 'somebody'"), "0");
    assert_eq!(count("SELECT count(*) FROM information_schema.schemata WHERE schema_name = 'another'"), "0");
    assert_eq!(count("SELECT @@max_connections"), "100");
    assert_eq!(count("SELECT @@character_set_server, @@time_zone"), "utf8mb4\t+00:00");
    drop((first, second));
    workspace.end();
}

#[test]
fn nobody_gets_in_without_the_password() {
    let Some(workspace) = mysql("") else { return };
    let held = workspace.lease("database");
    let mysql = Mysql::new(held.lease());
    for (user, password) in [("root", ""), ("root", "wrong"), ("", ""), ("mysql", ""), ("nobody", "")] {
        let refused = mysql.user(user, password).database("").run("SELECT 1").unwrap_err();
        assert_says(&refused, &["Access denied"]);
    }
    assert_eq!(one(held.lease(), "SELECT current_user()"), "root@%");
    // Only on this machine's own address.
    let listens = one(held.lease(), "SELECT @@bind_address");
    assert_eq!(listens, "127.0.0.1");
    drop(held);
    workspace.end();
}

#[test]
fn user_password_and_settings_are_those_of_the_configuration() {
    let lines = "database = \"shop\"\nuser = \"shopper\"\npassword = \"it's \\\\ a #secret\"\n\
                 [services.database.settings]\nsql-mode = \"ANSI_QUOTES,NO_BACKSLASH_ESCAPES\"\nmax_connections = 33\n";
    let Some(workspace) = mysql(lines) else { return };
    let held = workspace.lease("database");
    let asked = "SELECT current_user(), database(), @@max_connections, @@sql_mode LIKE '%ANSI_QUOTES%'";
    assert_eq!(one(held.lease(), asked), "shopper@%\tshop\t33\t1");
    Mysql::new(held.lease())
        .run("CREATE DATABASE more; CREATE USER other; GRANT SELECT ON more.* TO other")
        .unwrap();
    let shared = workspace.lease_as(&request(Isolation::Namespace));
    assert_eq!(shared.lease().user, "shopper");
    drop((held, shared));
    workspace.end();
}

#[test]
fn an_empty_password_is_none() {
    let Some(workspace) = mysql("password = \"\"") else { return };
    let held = workspace.lease("database");
    assert!(held.lease().url.starts_with("mysql://root@127.0.0.1:"), "{}", held.lease().url);
    assert_eq!(one(held.lease(), "SELECT current_user()"), "root@%");
    // A user of one database has one all the same: it would be open to every other lease.
    let namespace = workspace.lease_as(&request(Isolation::Namespace));
    assert!(!namespace.lease().password.is_empty());
    drop((held, namespace));
    workspace.end();
}

#[test]
fn databases_of_a_shared_server_are_closed_to_each_other() {
    let Some(workspace) = items("") else { return };
    let namespace = request(Isolation::Namespace);
    let (first, second) = (workspace.lease_as(&namespace), workspace.lease_as(&namespace));
    assert_eq!(first.lease().port, second.lease().port);
    assert_seeded(first.lease());
    Mysql::new(first.lease()).run("DELETE FROM items; CREATE TABLE more (id int)").unwrap();
    assert_seeded(second.lease());
    let other = Mysql::new(first.lease()).database(&second.lease().database);
    assert_says(&other.run("SELECT 1").unwrap_err(), &["Access denied"]);
    let seen = Mysql::new(first.lease()).run("SHOW DATABASES").unwrap();
    assert_eq!(seen, ["information_schema", &first.lease().database]);
    for forbidden in
        ["CREATE DATABASE t_x", "SET GLOBAL max_connections = 1", "DROP USER root", "FLUSH PRIVILEGES"]
    {
        assert_says(&Mysql::new(first.lease()).run(forbidden).unwrap_err(), &["denied"]);
    }
    drop((first, second));
    workspace.end();
}

#[test]
fn a_database_in_use_is_dropped_nevertheless() {
    let Some(workspace) = items("[pool]\nwarm = 0\n") else { return };
    let namespace = request(Isolation::Namespace);
    let (gone, stays) = (workspace.lease_as(&namespace), workspace.lease_as(&namespace));
    let (lease, port) = (gone.lease().clone(), stays.lease().port);
    // A transaction that holds a lock on the table, for much longer than the test.
    let busy = std::thread::spawn(move || {
        Mysql::new(&lease).run("BEGIN; UPDATE items SET name = 'x'; SELECT sleep(600)").unwrap_err()
    });
    let seen = || {
        let list = "SHOW PROCESSLIST";
        let all = Mysql::new(gone.lease()).run(list)?;
        if all.iter().any(|line| line.contains("sleep(600)")) { Ok(()) } else { Err(format!("{all:?}")) }
    };
    until(std::time::Duration::from_secs(20), seen);
    drop(gone);
    assert_says(&busy.join().unwrap(), &["ERROR"]);
    let next = workspace.lease_as(&namespace);
    assert_eq!(next.lease().port, port);
    assert_seeded(next.lease());
    drop((stays, next));
    workspace.end();
}

#[test]
fn a_migration_that_fails_is_named_with_its_line() {
    let Some(workspace) = items("") else { return };
    for (content, says) in [
        (
            "CREATE TABLE fine (id int);\n\nALTER TABLE missing ADD x int;\n",
            ["2_broken.sql:3 failed", "1146"],
        ),
        ("SELECT 1;\n\nSELECT\n  1,\n  FROM;\n", ["2_broken.sql:5 failed", "ERROR 1064"]),
        (
            "SELECT 1;\nCREATE PROCEDURE p() BEGIN\n SELECT 1;\n SELECT 2;\n",
            ["2_broken.sql:", "DELIMITER //"],
        ),
        ("SELECT 1;\nSELECT 'x;\n", ["2_broken.sql:2 cannot be read", "never closed"]),
        ("SELECT 1;\nDELIMITER\n", ["2_broken.sql:2 cannot be read", "DELIMITER has to be followed"]),
        ("source other.sql\n", ["2_broken.sql:1 failed", "command of the mysql client"]),
        ("LOAD DATA LOCAL INFILE '/etc/passwd' INTO TABLE items;\n", ["2_broken.sql:1 failed", "ERROR"]),
    ] {
        workspace.write("migrations/2_broken.sql", content);
        let message = workspace.refusal("database");
        assert_says(&message, &["preparing database: migrations/"]);
        assert_says(&message, &says);
    }
    workspace.write("migrations/2_broken.sql", "-- nothing but a comment\n");
    assert_seeded(workspace.lease("database").lease());
    workspace.end();
}

#[test]
fn a_migration_that_hangs_is_ended_and_named() {
    let Some(workspace) = items("prepare_timeout = \"4s\"") else { return };
    let workspace = workspace.file("migrations/2_sleep.sql", "SELECT 1;\nSELECT sleep(600);");
    // Once with the time that initialising takes; then it is the migration's turn.
    let _ = workspace.try_lease(&request(Isolation::Server));
    let message = workspace.refusal("database");
    assert_says(&message, &["migrations/2_sleep.sql:2", "4 s", "sleep(600)", "raise `prepare_timeout`"]);
    workspace.end();
}

#[test]
fn a_command_prepares_with_the_environment_of_the_role() {
    if !have("mariadb") {
        return skip("there is no client of MariaDB");
    }
    let client = "mariadb -u$MYSQL_USER $MYSQL_DATABASE < schema.sql";
    let table = format!("{{ command = \"{client}\", inputs = [\"schema.sql\"] }}");
    let Some(workspace) = mysql(&format!("migrations = {table}")) else { return };
    let workspace = workspace.file("schema.sql", "CREATE TABLE made (id int); INSERT INTO made VALUES (5);");
    let held = workspace.lease("database");
    assert_eq!(one(held.lease(), "SELECT id FROM made"), "5");
    let env = &held.lease().env;
    assert_eq!(env["MYSQL_URL"], held.lease().url);
    assert_eq!(env["DATABASE_URL"], held.lease().url);
    assert_eq!(env["MYSQL_TCP_PORT"], held.lease().port.to_string());
    drop(held);
    workspace.end();
}

#[test]
fn the_command_that_connects_does() {
    let Some(workspace) = items("") else { return };
    for isolation in [Isolation::Server, Isolation::Namespace] {
        let held = workspace.lease_as(&request(isolation));
        let command = format!("{} -N -e 'SELECT count(*) FROM items'", held.lease().connect_command);
        let mut shell = std::process::Command::new("sh");
        shell.args(["-c", &command]).env("MYSQL_HOST", "elsewhere.invalid");
        let ran = testkit::run(&mut shell, std::time::Duration::from_secs(20)).expect_success();
        assert_eq!(ran.stdout.trim(), "4");
    }
    workspace.end();
}

#[test]
fn settings_that_testenv_needs_are_refused_and_unknown_ones_told() {
    for name in ["port", "skip-networking", "loose_pid_file"] {
        let Some(workspace) = mysql(&format!("settings = {{ {name} = 1 }}")) else { return };
        let message = workspace.refusal("database");
        assert_says(&message, &[&format!("services.database.settings.{name} cannot be set")]);
        workspace.end();
    }
    let Some(workspace) = mysql("settings = { no_such_setting = 1 }") else { return };
    assert_says(&workspace.refusal("database"), &["did not start", "no_such_setting"]);
    workspace.end();
}

#[test]
fn mariadb_is_not_taken_for_mysql() {
    let Some(workspace) = mysql("version = \"99\"") else { return };
    assert_says(
        &workspace.refusal("database"),
        &["no MySQL or MariaDB 99 on this machine", "found only", "apt-get install"],
    );
    workspace.end();
    if !have("mariadbd") {
        return skip("there is no MariaDB");
    }
    let workspace = TestWorkspace::new(TESTENV).config("[services.database]\nservice = \"mariadb\"\n");
    let held = workspace.lease("database");
    assert_eq!(held.lease().engine.name, "mariadb");
    assert!(held.lease().engine.version.contains("MariaDB"), "{:?}", held.lease().engine);
    drop(held);
    workspace.end();
}

#[test]
fn each_lease_has_a_database_of_its_own_in_a_declared_server() {
    let Some(provider) = mysql("") else { return };
    let server = provider.lease("database");
    let Some(workspace) = items("runtime = \"external\"") else { return };
    let workspace = workspace.env("MYSQL_URL", &server.lease().url);
    let (first, second) = (workspace.lease("database"), workspace.lease("database"));
    assert_eq!(first.lease().runtime, "external");
    assert_eq!(first.lease().port, server.lease().port);
    Mysql::new(first.lease()).run("DELETE FROM items").unwrap();
    assert_seeded(second.lease());
    drop((first, second));
    workspace.end();
    let left = Mysql::new(server.lease()).run("SHOW DATABASES LIKE 't\\_%'").unwrap();
    assert_eq!(left, Vec::<String>::new());
    let users =
        Mysql::new(server.lease()).run("SELECT user FROM mysql.user WHERE user LIKE 't\\_%'").unwrap();
    assert_eq!(users, Vec::<String>::new());
    drop(server);
    provider.end();
}
