//! `#[testenv::test]` with a database of its own in a shared server for each test, on the session that comes with the lease.

use testenv::Postgres;

async fn on_a_session(db: &Postgres) {
    let client = db.connect().await.unwrap();
    for query in schema::QUERIES {
        client.batch_execute(query).await.unwrap();
    }
}

include!(concat!(env!("OUT_DIR"), "/ours_database.rs"));
