//! `cargo xtask demo`: the example's suite, twice, through `testenv run`: cold, then warm.

use std::fs;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use serde_json::Value;

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
    print_comparison(&cold, &warm);
    Ok(())
}

/// What one run of the suite took.
struct Took {
    wall: Duration,
    /// The run's own record.
    record: Value,
}

impl Took {
    /// A duration of the record, in seconds.
    fn seconds(&self, pointer: &str) -> f64 {
        self.record.pointer(pointer).and_then(Value::as_f64).unwrap_or_default() / 1e6
    }

    fn line(&self, name: &str) -> String {
        let count = |pointer: &str| self.record.pointer(pointer).and_then(Value::as_u64).unwrap_or_default();
        format!(
            "  {name} {:>8.2} s {:>10.2} s {:>14.2} s {:>12} of {}",
            self.wall.as_secs_f64(),
            self.seconds("/wall_us"),
            self.seconds("/leases/setup_us"),
            count("/leases/warm"),
            count("/leases/count"),
        )
    }
}

fn suite(testenv: &PrivateTestenv, title: &str) -> Result<Took> {
    println!("\n┌─ {title}");
    let mut command =
        run::command(testenv.program().to_str().context("the target directory's name is not UTF-8")?);
    let example = run::root().join("examples/orders");
    command.current_dir(&example).args(["run", "--", "--package", "orders"]);
    let started = Instant::now();
    let status = testenv.apply(&mut command).status().context("failed to start testenv")?;
    let wall = started.elapsed();
    ensure!(status.success(), "`{}` ended with {status}", run::shown(&command));
    let path = example.join("target/testenv/run.json");
    let text = fs::read_to_string(&path).with_context(|| format!("failed to read {}", path.display()))?;
    Ok(Took { wall, record: serde_json::from_str(&text)? })
}

fn print_comparison(cold: &Took, warm: &Took) {
    println!("\n           whole     the tests   waiting for     leases out of");
    println!("         command      together       servers     the warm pool");
    println!("{}\n{}", cold.line("cold"), warm.line("warm"));
    let ratio = |pointer: &str| cold.seconds(pointer) / warm.seconds(pointer).max(1e-6);
    println!(
        "
  Cold, initdb, migrations and seed ran once and were frozen. Warm, every server is a fork of that: the tests
  waited {:.1} times less for their servers, and the suite was {:.1} times as fast.",
        ratio("/leases/setup_us"),
        ratio("/wall_us"),
    );
    println!(
        "
What to try next:

  export PATH=\"{}:$PATH\" && cd examples/orders
  cargo test                 the same tests without a runner; the broker starts by itself
  testenv status             leases, pools, snapshots, memory
  testenv exec -- psql       a migrated database of your own, gone when psql ends
  testenv down               end the broker and everything it started
",
        run::target_dir().join("debug").display(),
    );
}
