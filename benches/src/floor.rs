//! What the machine charges for the things that no way to a database can do without.

use std::hint::black_box;
use std::io::{Read as _, Write as _};
use std::os::unix::net::UnixStream;
use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Result, ensure};

use crate::cluster::{self, Cluster, Kind};
use crate::machine;
use crate::stats::{PACE, Plan, Row, Samples};

/// Memory touched for one sample.
const MEMORY_BYTES: usize = 64 << 20;
const PAGE_BYTES: usize = 4096;

/// Every floor; those of PostgreSQL for each version.
pub fn floors(plan: Plan) -> Result<Vec<Row>> {
    let mut rows = vec![
        row("a page of memory, touched for the first time", &touch(plan)?),
        row("a process that does nothing, started and awaited", &process(plan)?),
        row("a byte there and back between two threads", &echo(plan, Duration::ZERO)?),
        row(WAKE, &echo(plan, PACE)?),
    ];
    for build in machine::builds()? {
        let cluster = Cluster::start(&build, Kind::Tuned)?;
        cluster::migrate(&mut cluster.connect("postgres")?)?;
        let session = Samples::take(plan, PACE, || answered(&cluster, Instant::now()))?;
        let start = Samples::take(plan, PACE, || {
            cluster.stop()?;
            let started = Instant::now();
            cluster.start_again()?;
            answered(&cluster, started)
        })?;
        let stock = format!("({})", cluster.label);
        rows.push(row(&format!("{SESSION} {stock}"), &session));
        rows.push(row(&format!("{START} {stock}"), &start));
    }
    Ok(rows)
}

/// Name of the row for waking a thread.
pub const WAKE: &str = "a byte there and back between two threads that were idle";
/// Name of the row for a new session.
pub const SESSION: &str = "a new session of a server that runs, to its first answer";
/// Name of the row for a new server.
pub const START: &str = "a server started on a ready directory, to its first answer";

fn row(who: &str, samples: &Samples) -> Row {
    Row::new("floor", who).latency(samples)
}

fn answered(cluster: &Cluster, since: Instant) -> Result<Duration> {
    cluster.connect("postgres")?.simple_query("SELECT 1")?;
    Ok(since.elapsed())
}

fn touch(plan: Plan) -> Result<Samples> {
    Samples::take(plan, Duration::ZERO, || {
        let mut memory = vec![0_u8; MEMORY_BYTES];
        let started = Instant::now();
        memory.iter_mut().step_by(PAGE_BYTES).for_each(|byte| *byte = 1);
        let took = started.elapsed();
        black_box(memory);
        Ok(took / u32::try_from(MEMORY_BYTES / PAGE_BYTES)?)
    })
}

fn process(plan: Plan) -> Result<Samples> {
    Samples::take(plan, Duration::ZERO, || {
        let started = Instant::now();
        ensure!(Command::new("true").status()?.success(), "`true` is not true");
        Ok(started.elapsed())
    })
}

fn echo(plan: Plan, pause: Duration) -> Result<Samples> {
    let (mut here, mut there) = UnixStream::pair()?;
    let echoing = std::thread::spawn(move || {
        let mut byte = [0];
        while there.read_exact(&mut byte).is_ok() && there.write_all(&byte).is_ok() {}
    });
    let samples = Samples::take(plan, pause, || {
        let started = Instant::now();
        here.write_all(&[1])?;
        here.read_exact(&mut [0])?;
        Ok(started.elapsed())
    });
    drop(here);
    echoing.join().expect("an echo does not panic");
    samples
}
