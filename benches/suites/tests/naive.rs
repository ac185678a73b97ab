//! Each test creates a database, migrates it, and drops it.

use postgres::{Client, NoTls};

fn three_queries(name: &str) {
    let url = std::env::var("DATABASE_URL").expect("DATABASE_URL names a server");
    let database = format!("naive_{name}_{}", std::process::id());
    let mut admin = Client::connect(&url, NoTls).unwrap();
    admin.batch_execute(&format!("CREATE DATABASE {database}")).unwrap();
    let (server, _) = url.rsplit_once('/').expect("a URL with a database");
    let mut client = Client::connect(&format!("{server}/{database}"), NoTls).unwrap();
    for (_, sql) in schema::migrations() {
        client.batch_execute(&sql).unwrap();
    }
    for query in schema::QUERIES {
        client.batch_execute(query).unwrap();
    }
    drop(client);
    admin.batch_execute(&format!("DROP DATABASE {database} WITH (FORCE)")).unwrap();
}

include!(concat!(env!("OUT_DIR"), "/naive.rs"));
