//! `#[sqlx::test]`: sqlx creates a database for each test and applies the migrations.

use std::sync::LazyLock;

use sqlx::PgPool;
use sqlx::migrate::{Migration, MigrationType, Migrator};
use sqlx::{AssertSqlSafe, SqlSafeStr as _};

static MIGRATOR: LazyLock<Migrator> = LazyLock::new(|| {
    let migrations = (1..).zip(schema::migrations()).map(|(version, (name, sql))| {
        let sql = AssertSqlSafe(sql).into_sql_str();
        Migration::new(version, name.into(), MigrationType::Simple, sql, false)
    });
    Migrator { migrations: migrations.collect::<Vec<_>>().into(), ..Migrator::DEFAULT }
});

async fn three_queries(pool: &PgPool) {
    for query in schema::QUERIES {
        sqlx::query(query).execute(pool).await.unwrap();
    }
}

include!(concat!(env!("OUT_DIR"), "/sqlx.rs"));
