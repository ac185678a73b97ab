//! What the proxy costs that stands in front of leases with faults.

use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use serde_json::json;
use testenv_api::{Lease, LeaseRequest};

use crate::ours::Workspace;
use crate::stats::{Plan, Row, Samples};

/// Size of the answer that throughput is measured with, in bytes.
const LARGE: usize = 64 << 20;
/// Round trips of one connection before it is the other's turn, so that both meet the same machine.
const TURN: usize = 50;
/// How long one answer may take.
const LIMIT: Duration = Duration::from_secs(30);

/// Round trips and throughput past the proxy, through it, and under a fault that holds nothing up.
pub fn faults(plan: Plan) -> Result<Vec<Row>> {
    let workspace = Workspace::start("faults", &[], 1)?;
    let held = workspace.lease_as(&LeaseRequest {
        role: Some("cache".into()),
        faults: true,
        ..Default::default()
    })?;
    let lease = held.lease();
    let mut direct = Redis::connect(lease, lease.direct_port.context("the lease has no proxy")?)?;
    let mut proxied = Redis::connect(lease, lease.port)?;
    direct.set_large()?;
    let [past, through] = rows(plan, &mut direct, &mut proxied, ["past the proxy", "through the proxy"])?;
    let wide = json!({ "add": [{ "effect": { "kind": "bandwidth", "bytes_per_second": u64::MAX } }] });
    held.client().post_only(&format!("/v1/leases/{}/faults", lease.id), &wide)?;
    let names = ["past the proxy", "through the proxy, under a bandwidth that holds nothing up"];
    let [_, held_up] = rows(plan, &mut direct, &mut proxied, names)?;
    Ok(vec![past, through, held_up])
}

fn rows(plan: Plan, direct: &mut Redis, proxied: &mut Redis, names: [&str; 2]) -> Result<[Row; 2]> {
    let mut times = [Vec::new(), Vec::new()];
    for _ in 0..plan.samples() {
        for (redis, times) in [&mut *direct, &mut *proxied].into_iter().zip(&mut times) {
            for _ in 0..TURN {
                times.push(redis.ping()?);
            }
        }
    }
    let throughputs = [direct.throughput()?, proxied.throughput()?];
    let row = |at: usize, times: Vec<Duration>| {
        let samples = Samples::of(times);
        Row::new("faults", names[at])
            .cell("round trip p50 µs", samples.percentile_ms(50) * 1000.0)
            .cell("p99 µs", samples.percentile_ms(99) * 1000.0)
            .cell("samples", samples.len() as f64)
            .cell("MB a second", throughputs[at])
    };
    let [past, through] = times;
    Ok([row(0, past), row(1, through)])
}

/// A connection to Redis.
struct Redis(TcpStream);

impl Redis {
    fn connect(lease: &Lease, port: u16) -> Result<Self> {
        let stream = TcpStream::connect((lease.host.as_str(), port))?;
        stream.set_nodelay(true)?;
        stream.set_read_timeout(Some(LIMIT))?;
        let mut redis = Self(stream);
        redis.ask(format!("AUTH {}\r\n", lease.password).as_bytes(), b"+OK\r\n")?;
        Ok(redis)
    }

    fn ask(&mut self, question: &[u8], expected: &[u8]) -> Result<()> {
        self.0.write_all(question)?;
        let mut answer = vec![0; expected.len()];
        self.0.read_exact(&mut answer)?;
        ensure!(answer == expected, "Redis answered {:?}", String::from_utf8_lossy(&answer));
        Ok(())
    }

    fn ping(&mut self) -> Result<Duration> {
        let started = Instant::now();
        self.ask(b"PING\r\n", b"+PONG\r\n")?;
        Ok(started.elapsed())
    }

    fn set_large(&mut self) -> Result<()> {
        self.0.write_all(format!("*3\r\n$3\r\nSET\r\n$5\r\nlarge\r\n${LARGE}\r\n").as_bytes())?;
        self.0.write_all(&vec![b'x'; LARGE])?;
        self.ask(b"\r\n", b"+OK\r\n")
    }

    /// Megabytes a second of the fastest of five large answers.
    fn throughput(&mut self) -> Result<f64> {
        let mut buffer = vec![0; 1 << 20];
        let length = format!("${LARGE}\r\n").len() + LARGE + "\r\n".len();
        let mut fastest: f64 = 0.0;
        for _ in 0..5 {
            let started = Instant::now();
            self.0.write_all(b"GET large\r\n")?;
            let mut left = length;
            while left > 0 {
                let count = self.0.read(&mut buffer)?;
                ensure!(count > 0, "the connection ended {left} bytes early");
                left -= count;
            }
            fastest = fastest.max(LARGE as f64 / started.elapsed().as_secs_f64() / 1e6);
        }
        Ok(fastest)
    }
}
