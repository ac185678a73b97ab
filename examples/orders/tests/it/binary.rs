//! The service as users run it: the real binary, configured through its environment, asked over HTTP.

use std::process::Stdio;
use std::time::Duration;

use anyhow::Context as _;
use serde_json::{Value, json};
use testenv::{Postgres, Redis};
use tokio::io::{AsyncBufReadExt as _, BufReader};
use tokio::process::{Child, Command};
use tokio::time::timeout;

const BINARY: &str = env!("CARGO_BIN_EXE_orders");
const PATIENCE: Duration = Duration::from_secs(10);

/// Starts the binary on a free port and returns it with its address, once it has said that it listens.
async fn start(db: &Postgres, cache: &Redis, env: &[(&str, &str)]) -> anyhow::Result<(Child, String)> {
    let mut child = Command::new(BINARY)
        // DATABASE_URL, REDIS_URL: the variables of each role, as testenv.toml words them.
        .envs(db.env())
        .envs(cache.env())
        .env("PORT", "0")
        .envs(env.iter().copied())
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        // The test fails before the child is waited for: then nothing of it stays.
        .kill_on_drop(true)
        .spawn()?;
    let stdout = child.stdout.take().context("stdout was not piped")?;
    let line = timeout(PATIENCE, BufReader::new(stdout).lines().next_line()).await??;
    let line = line.context("the service ended before it listened")?;
    let url = line.strip_prefix("listening on ").with_context(|| format!("the service said {line:?}"))?;
    Ok((child, url.to_owned()))
}

#[testenv::test]
async fn the_binary_takes_an_order(db: Postgres, cache: Redis) -> anyhow::Result<()> {
    let (_child, url) = start(&db, &cache, &[]).await?;
    let order: Value = reqwest::Client::new()
        .post(format!("{url}/orders"))
        .header("idempotency-key", "k")
        .json(&json!({ "customer_id": 1, "lines": [{ "product_id": 1, "quantity": 2 }] }))
        .send()
        .await?
        .error_for_status()?
        .json()
        .await?;
    assert_eq!(order["order"]["total_cents"], 1380);

    let stored = db.connect().await?.query_one("SELECT total_cents FROM orders", &[]).await?;
    assert_eq!(stored.get::<_, i64>(0), 1380);
    Ok(())
}

#[testenv::test]
async fn two_instances_share_cache_and_limit(db: Postgres, cache: Redis) -> anyhow::Result<()> {
    let limit = [("ORDERS_PER_MINUTE", "1")];
    let (first, second) = tokio::try_join!(start(&db, &cache, &limit), start(&db, &cache, &limit))?;
    let http = reqwest::Client::new();
    let mut seen = Vec::new();
    for (_, url) in [&first, &second] {
        let response = http.get(format!("{url}/products/1")).send().await?.error_for_status()?;
        seen.push(response.headers()["x-cache"].to_str()?.to_owned());
    }
    assert_eq!(seen, ["miss", "hit"]);

    let mut statuses = Vec::new();
    for (index, (_, url)) in [&first, &second].into_iter().enumerate() {
        let order = json!({ "customer_id": 1, "lines": [{ "product_id": 1, "quantity": 1 }] });
        let request =
            http.post(format!("{url}/orders")).header("idempotency-key", index.to_string()).json(&order);
        statuses.push(request.send().await?.status().as_u16());
    }
    assert_eq!(statuses, [201, 429]);
    Ok(())
}

#[testenv::test]
async fn it_stops_in_good_order_when_asked(db: Postgres, cache: Redis) -> anyhow::Result<()> {
    let (mut child, url) = start(&db, &cache, &[]).await?;
    reqwest::get(format!("{url}/health")).await?.error_for_status()?;
    let pid = child.id().context("it has ended already")?.to_string();
    Command::new("kill").args(["-TERM", &pid]).status().await?;
    let status = timeout(PATIENCE, child.wait()).await??;
    assert!(status.success(), "{status}");
    Ok(())
}

/// Needs no server at all, and so asks for none.
#[tokio::test]
async fn it_says_what_is_missing_from_its_environment() -> anyhow::Result<()> {
    let output = Command::new(BINARY).env_remove("DATABASE_URL").stdin(Stdio::null()).output().await?;
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(!output.status.success());
    assert!(said.contains("DATABASE_URL is not set"), "{said}");
    Ok(())
}
