//! `#[testenv::test]` with a server of its own for each test, through the same driver as `#[sqlx::test]`.

use testenv::Postgres;

async fn on_a_pool(db: &Postgres) {
    let pool = db.pool().await.unwrap();
    for query in schema::QUERIES {
        sqlx::query(query).execute(&pool).await.unwrap();
    }
    pool.close().await;
}

include!(concat!(env!("OUT_DIR"), "/ours_sqlx.rs"));
