//! `cargo xtask demo`: the example's suite, twice, through `testenv run`: cold, then warm.

use std::fs;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};

use crate::run;
use crate::setup::{self, Need};
use crate::test::PrivateTestenv;

/// Installs what is missing, builds, runs twice and compares.
pub(crate) fn demo(arguments: &[String]) -> Result<()> {
    ensure!(arguments.is_empty(), "`cargo xtask demo` takes no arguments");
    let tools = setup::ensure(Need::Suite)?;
    run::step("build", &mut run::cargo(&["build", "--package", "testenv-cli", "--package", "orders"]))?;
    run::step(
        "build the tests",
        &mut run::cargo(&["nextest", "run", "--no-run", "--cargo-quiet", "--package", "orders"]),
    )?;

    let cache = run::reachable_dir("testenv-demo-cache");
    if cache.exists() {
        fs::remove_dir_all(&cache).with_context(|| format!("failed to remove {}", cache.display()))?;
    }
    let testenv = PrivateTestenv::new(tools.path()?).with_cache(cache);
    testenv.down();
    let first = suite(&testenv, "cold: no snapshot, no broker, no server");
    let second = suite(&testenv, "warm: the snapshots are there, the broker runs");
    testenv.down();
    let (cold, warm) = (first?, second?);
    print_comparison(cold, warm);
    Ok(())
}

fn suite(testenv: &PrivateTestenv, title: &str) -> Result<Duration> {
    println!("\n┌─ {title}");
    let mut command =
        run::command(testenv.program().to_str().context("the target directory's name is not UTF-8")?);
    command.current_dir(run::root().join("examples/orders")).args(["run", "--", "--package", "orders"]);
    let started = Instant::now();
    let status = testenv.apply(&mut command).status().context("failed to start testenv")?;
    let took = started.elapsed();
    ensure!(status.success(), "`{}` ended with {status}", run::shown(&command));
    Ok(took)
}

fn print_comparison(cold: Duration, warm: Duration) {
    let (cold, warm) = (cold.as_secs_f64(), warm.as_secs_f64());
    println!("\n  cold {cold:>6.2} s   initdb, migrations and seed happened once, on the way");
    println!(
        "  warm {warm:>6.2} s   every server was forked from what was kept: {:.1} times as fast",
        cold / warm
    );
    println!(
        "
What to try next:

  cd examples/orders
  cargo test                                    the same tests without a runner; the broker starts by itself
  ../../target/debug/testenv status             leases, pools, snapshots, memory
  ../../target/debug/testenv exec -- psql       a migrated database of your own, gone when psql ends
  ../../target/debug/testenv down               end the broker and everything it started
"
    );
}
