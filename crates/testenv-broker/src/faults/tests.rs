//! The proxy between sockets that the test holds itself.

use std::io::ErrorKind;
use std::sync::Arc;
use std::time::{Duration, Instant};

use testenv_api::{Connections, Direction, Effect, Fault};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};

use super::Proxy;

/// How long anything may take.
const LIMIT: Duration = Duration::from_secs(30);

/// A proxy in front of a listener that the test accepts from.
struct Site {
    proxy: Arc<Proxy>,
    server: TcpListener,
}

impl Site {
    async fn new() -> Self {
        let server = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let target = ("127.0.0.1".to_owned(), server.local_addr().unwrap().port());
        Self { proxy: Proxy::start(vec![target], 0).unwrap(), server }
    }

    async fn connect(&self) -> std::io::Result<TcpStream> {
        TcpStream::connect(("127.0.0.1", self.proxy.ports()[0])).await
    }

    /// Both ends of a new connection.
    async fn pair(&self) -> (TcpStream, TcpStream) {
        let client = self.connect().await.unwrap();
        let (server, _) = within(self.server.accept()).await.unwrap();
        (client, server)
    }

    /// Adds a fault; returns its name.
    async fn add(&self, fault: impl Into<Fault>) -> String {
        self.proxy.add(vec![fault.into()]).await.unwrap().remove(0).name
    }

    async fn clear(&self) {
        assert_eq!(self.proxy.remove(None).await.unwrap().faults, []);
    }
}

async fn within<T>(doing: impl Future<Output = T>) -> T {
    tokio::time::timeout(LIMIT, doing).await.expect("it does not take for ever")
}

fn up(effect: Effect) -> Fault {
    Fault { direction: Direction::Up, ..effect.into() }
}

fn down(effect: Effect) -> Fault {
    Fault { direction: Direction::Down, ..effect.into() }
}

fn on(connections: Connections, effect: Effect) -> Fault {
    Fault { connections, ..effect.into() }
}

fn latency(latency_ms: u64) -> Effect {
    Effect::Latency { latency_ms, jitter_ms: 0 }
}

/// Reads so many bytes.
async fn read(stream: &mut TcpStream, count: usize) -> Vec<u8> {
    let mut bytes = vec![0; count];
    within(stream.read_exact(&mut bytes)).await.unwrap();
    bytes
}

/// Everything up to an orderly end.
async fn rest(stream: &mut TcpStream) -> Vec<u8> {
    let mut bytes = Vec::new();
    within(stream.read_to_end(&mut bytes)).await.unwrap();
    bytes
}

/// What reading comes to that does not come to an orderly end: the bytes before, and the error.
async fn until_lost(stream: &mut TcpStream) -> (Vec<u8>, ErrorKind) {
    let mut bytes = Vec::new();
    let error = within(stream.read_to_end(&mut bytes)).await.unwrap_err();
    (bytes, error.kind())
}

async fn says(from: &mut TcpStream, text: &[u8], to: &mut TcpStream) {
    from.write_all(text).await.unwrap();
    assert_eq!(read(to, text.len()).await, text);
}

/// That nothing has come, so far as one can tell without waiting for it.
fn assert_silent(stream: &TcpStream) {
    let error = stream.try_read(&mut [0; 1]).expect_err("nothing has come, and no end");
    assert_eq!(error.kind(), ErrorKind::WouldBlock);
}

#[tokio::test]
async fn bytes_go_both_ways_and_each_way_ends_by_itself() {
    let site = Site::new().await;
    let (mut client, mut server) = site.pair().await;
    says(&mut client, b"question", &mut server).await;
    says(&mut server, b"answer", &mut client).await;
    client.shutdown().await.unwrap();
    assert_eq!(rest(&mut server).await, b"");
    says(&mut server, b"still here", &mut client).await;
    drop(server);
    assert_eq!(rest(&mut client).await, b"");
    let faults = site.proxy.list().await.unwrap();
    assert_eq!((faults.seed, faults.accepted_connections, faults.faults.len()), (0, 1, 0));
}

#[tokio::test]
async fn a_reset_is_passed_on_as_a_reset() {
    let site = Site::new().await;
    let (mut client, server) = site.pair().await;
    server.set_zero_linger().unwrap();
    drop(server);
    assert_eq!(until_lost(&mut client).await.1, ErrorKind::ConnectionReset);

    let (client, mut server) = site.pair().await;
    client.set_zero_linger().unwrap();
    drop(client);
    assert_eq!(until_lost(&mut server).await.1, ErrorKind::ConnectionReset);
}

#[tokio::test]
async fn what_was_said_before_a_reset_arrives_under_latency_too() {
    let site = Site::new().await;
    site.add(latency(30)).await;
    let (mut client, mut server) = site.pair().await;
    says(&mut client, b"hello", &mut server).await;
    server.write_all(b"FATAL: going").await.unwrap();
    server.set_zero_linger().unwrap();
    drop(server);
    assert_eq!(until_lost(&mut client).await, (b"FATAL: going".to_vec(), ErrorKind::ConnectionReset));
}

#[tokio::test]
async fn a_receiver_that_has_gone_is_told_to_its_sender_as_a_reset() {
    let site = Site::new().await;
    let (mut client, server) = site.pair().await;
    drop(server);
    // The orderly end comes first, as it would without a proxy.
    assert_eq!(rest(&mut client).await, b"");
    let lost = within(async {
        loop {
            if let Err(error) = client.write_all(&[0; 1024]).await {
                break error.kind();
            }
            tokio::task::yield_now().await;
        }
    });
    assert!(matches!(lost.await, ErrorKind::ConnectionReset | ErrorKind::BrokenPipe));
}

#[tokio::test]
async fn a_server_that_cannot_be_reached_is_a_reset() {
    let Site { proxy, server } = Site::new().await;
    drop(server);
    let mut client = TcpStream::connect(("127.0.0.1", proxy.ports()[0])).await.unwrap();
    assert_eq!(until_lost(&mut client).await.1, ErrorKind::ConnectionReset);
    within(proxy.server_ended()).await.unwrap();
    let refused = TcpStream::connect(("127.0.0.1", proxy.ports()[0])).await.unwrap_err();
    assert_eq!(refused.kind(), ErrorKind::ConnectionRefused);
}

#[tokio::test]
async fn latency_delays_one_way_and_leaves_with_its_name() {
    let site = Site::new().await;
    let (mut client, mut server) = site.pair().await;
    let name = site.add(up(latency(60))).await;
    assert_eq!(name, "latency-1");
    let begun = Instant::now();
    says(&mut client, b"slow", &mut server).await;
    assert!(begun.elapsed() >= Duration::from_millis(60));
    client.write_all(b"on its way").await.unwrap();
    site.add(Fault { name, ..up(latency(3_600_000)) }).await;
    client.write_all(b", held").await.unwrap();
    says(&mut server, b"quick", &mut client).await;
    let left = site.proxy.remove(Some("latency-1".into())).await.unwrap();
    assert_eq!(left.faults, []);
    assert_eq!(read(&mut server, 16).await, b"on its way, held");
}

#[tokio::test]
async fn faults_of_the_same_name_are_replaced_and_unknown_ones_are_told() {
    let site = Site::new().await;
    let named = |ms| Fault { name: "slow".into(), ..latency(ms).into() };
    site.add(named(1)).await;
    site.add(named(2)).await;
    assert_eq!(site.proxy.list().await.unwrap().faults, [named(2)]);
    let problem = site.proxy.remove(Some("fast".into())).await.unwrap_err();
    assert_eq!(problem.to_string(), "no fault \"fast\"\n  | there are slow");
}

#[tokio::test]
async fn what_makes_no_sense_is_refused_and_nothing_is_added() {
    let site = Site::new().await;
    for (effect, said) in [
        (Effect::Bandwidth { bytes_per_second: 0 }, "`stall` lets nothing pass"),
        (Effect::Loss { percent: 0, retransmit_ms: 1 }, "from 1 to 100"),
        (Effect::Loss { percent: 101, retransmit_ms: 1 }, "from 1 to 100"),
        (latency(3_600_001), "`latency_ms` is more than an hour"),
        (Effect::Latency { latency_ms: 0, jitter_ms: u64::MAX }, "`jitter_ms`"),
        (Effect::SlowClose { delay_ms: u64::MAX }, "`delay_ms`"),
    ] {
        let problem = site.proxy.add(vec![Effect::Stall.into(), effect.into()]).await.unwrap_err();
        assert!(problem.to_string().contains(said), "{problem}");
    }
    let problem = site.proxy.add(vec![Fault { name: "a b".into(), ..Effect::Cut.into() }]).await.unwrap_err();
    assert!(problem.to_string().contains("the name \"a b\""), "{problem}");
    let problem = site.proxy.add(vec![Effect::Stall.into(); 65]).await.unwrap_err();
    assert!(problem.to_string().contains("64 faults at the most"), "{problem}");
    assert_eq!(site.proxy.list().await.unwrap().faults, []);
}

#[tokio::test]
async fn bandwidth_is_shared_by_nothing_and_takes_its_time() {
    let site = Site::new().await;
    site.add(down(Effect::Bandwidth { bytes_per_second: 10_000 })).await;
    let (mut client, mut server) = site.pair().await;
    let begun = Instant::now();
    server.write_all(&[7; 1000]).await.unwrap();
    assert_eq!(read(&mut client, 1000).await, [7; 1000]);
    assert!(begun.elapsed() >= Duration::from_millis(100));
}

#[tokio::test]
async fn a_reset_ends_those_that_are_open_and_no_others() {
    let site = Site::new().await;
    let (mut client, mut server) = site.pair().await;
    // Open as far as its owner can know, though nobody may have accepted it yet.
    let mut early = site.connect().await.unwrap();
    site.add(on(Connections::Open, Effect::Reset)).await;
    assert_eq!(until_lost(&mut client).await.1, ErrorKind::ConnectionReset);
    assert_eq!(until_lost(&mut server).await.1, ErrorKind::ConnectionReset);
    assert_eq!(until_lost(&mut early).await.1, ErrorKind::ConnectionReset);
    let mut late = site.connect().await.unwrap();
    late.write_all(b"hello").await.unwrap();
    site.add(on(Connections::New, Effect::Reset)).await;
    assert_silent(&late);
    let mut latest = site.connect().await.unwrap();
    assert_eq!(until_lost(&mut latest).await.1, ErrorKind::ConnectionReset);
}

#[tokio::test]
async fn a_reset_one_way_is_an_orderly_end_the_other_way() {
    let site = Site::new().await;
    let (mut client, mut server) = site.pair().await;
    site.add(Fault { connections: Connections::Open, ..down(Effect::Reset) }).await;
    assert_eq!(until_lost(&mut client).await.1, ErrorKind::ConnectionReset);
    assert_eq!(rest(&mut server).await, b"");

    let (mut client, mut server) = site.pair().await;
    site.add(Fault { connections: Connections::Open, ..up(Effect::Reset) }).await;
    assert_eq!(rest(&mut client).await, b"");
    assert_eq!(until_lost(&mut server).await.1, ErrorKind::ConnectionReset);
}

#[tokio::test]
async fn a_cut_one_way_swallows_bytes_and_leaves_the_other_way() {
    let site = Site::new().await;
    let (mut client, mut server) = site.pair().await;
    site.add(down(Effect::Cut)).await;
    says(&mut client, b"arrives", &mut server).await;
    // More than fits between the server and the proxy: it can be written because it is swallowed.
    within(server.write_all(&vec![0; 32 << 20])).await.unwrap();
    says(&mut client, b"arrives too", &mut server).await;
    assert_silent(&client);
    // After the gap nothing would make sense.
    site.clear().await;
    assert_eq!(until_lost(&mut client).await, (vec![], ErrorKind::ConnectionReset));
    assert_eq!(until_lost(&mut server).await.1, ErrorKind::ConnectionReset);
}

#[tokio::test]
async fn a_cut_that_swallowed_nothing_leaves_no_trace() {
    let site = Site::new().await;
    let (mut client, mut server) = site.pair().await;
    site.add(Effect::Cut).await;
    site.clear().await;
    says(&mut client, b"question", &mut server).await;
    says(&mut server, b"answer", &mut client).await;
}

#[tokio::test]
async fn a_stall_holds_bytes_and_ends_until_it_goes() {
    let site = Site::new().await;
    let (mut client, mut server) = site.pair().await;
    site.add(Effect::Stall).await;
    client.write_all(b"question").await.unwrap();
    client.shutdown().await.unwrap();
    tokio::time::sleep(Duration::from_millis(30)).await;
    assert_silent(&server);
    site.clear().await;
    assert_eq!(rest(&mut server).await, b"question");
}

#[tokio::test]
async fn a_limit_lets_so_many_bytes_pass_and_closes() {
    let site = Site::new().await;
    let (mut client, mut server) = site.pair().await;
    says(&mut server, b"before it counts", &mut client).await;
    site.add(down(Effect::LimitBytes { bytes: 10 })).await;
    says(&mut server, b"123456", &mut client).await;
    says(&mut client, b"not limited this way", &mut server).await;
    server.write_all(b"7890truncated").await.unwrap();
    assert_eq!(rest(&mut client).await, b"7890");
    assert_eq!(rest(&mut server).await, b"");
}

#[tokio::test]
async fn a_slow_close_passes_the_end_on_later() {
    let site = Site::new().await;
    let (mut client, mut server) = site.pair().await;
    site.add(down(Effect::SlowClose { delay_ms: 80 })).await;
    server.write_all(b"bye").await.unwrap();
    let begun = Instant::now();
    drop(server);
    assert_eq!(read(&mut client, 3).await, b"bye");
    assert_eq!(rest(&mut client).await, b"");
    assert!(begun.elapsed() >= Duration::from_millis(80));
}

#[tokio::test]
async fn refused_connections_are_refused_by_the_kernel_and_open_ones_stay() {
    let site = Site::new().await;
    let (mut client, mut server) = site.pair().await;
    for _ in 0..3 {
        let name = site.add(Effect::Refuse).await;
        assert_eq!(site.connect().await.unwrap_err().kind(), ErrorKind::ConnectionRefused);
        says(&mut client, b"still here", &mut server).await;
        site.proxy.remove(Some(name)).await.unwrap();
        let (mut client, mut server) = site.pair().await;
        says(&mut client, b"new", &mut server).await;
    }
}

#[tokio::test]
async fn a_server_with_several_ports_has_a_proxy_for_each_and_faults_for_all() {
    let servers =
        [TcpListener::bind("127.0.0.1:0").await.unwrap(), TcpListener::bind("127.0.0.1:0").await.unwrap()];
    let targets = servers.iter().map(|server| ("127.0.0.1".to_owned(), server.local_addr().unwrap().port()));
    let proxy = Proxy::start(targets.collect(), 0).unwrap();
    for (server, port) in servers.iter().zip(proxy.ports()) {
        let mut client = TcpStream::connect(("127.0.0.1", *port)).await.unwrap();
        let (mut server, _) = within(server.accept()).await.unwrap();
        says(&mut client, b"question", &mut server).await;
    }
    proxy.add(vec![Effect::Refuse.into()]).await.unwrap();
    for port in proxy.ports() {
        let error = TcpStream::connect(("127.0.0.1", *port)).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::ConnectionRefused);
    }
    assert_eq!(proxy.list().await.unwrap().accepted_connections, 2);
}

#[tokio::test]
async fn the_end_of_the_proxy_is_the_end_of_its_connections_and_port() {
    let site = Site::new().await;
    let (mut client, mut server) = site.pair().await;
    let port = site.proxy.ports()[0];
    drop(site);
    assert_eq!(rest(&mut client).await, b"");
    assert_eq!(rest(&mut server).await, b"");
    let refused = within(async {
        loop {
            match TcpStream::connect(("127.0.0.1", port)).await {
                Err(error) => break error.kind(),
                Ok(_) => tokio::task::yield_now().await,
            }
        }
    });
    assert_eq!(refused.await, ErrorKind::ConnectionRefused);
}

/// A stream of which every part tells where it belongs.
fn pattern(length: usize) -> Vec<u8> {
    (0..length as u32 / 4).flat_map(u32::to_le_bytes).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn whatever_faults_come_and_go_no_byte_is_lost_doubled_or_overtaken() {
    const LENGTH: usize = 8 << 20;
    let site = Site::new().await;
    let (mut client, mut server) = site.pair().await;
    let send = |mut stream: tokio::net::tcp::OwnedWriteHalf| async move {
        for part in pattern(LENGTH).chunks(100_000) {
            stream.write_all(part).await.unwrap();
            tokio::time::sleep(Duration::from_micros(500)).await;
        }
        stream.shutdown().await.unwrap();
    };
    let receive = |mut stream: tokio::net::tcp::OwnedReadHalf| async move {
        let mut bytes = Vec::new();
        stream.read_to_end(&mut bytes).await.unwrap();
        assert!(bytes == pattern(LENGTH), "{} bytes", bytes.len());
    };
    says(&mut client, b"open", &mut server).await;
    let ((client_reads, client_writes), (server_reads, server_writes)) =
        (client.into_split(), server.into_split());
    let tasks = [tokio::spawn(send(client_writes)), tokio::spawn(send(server_writes))];
    let readers = [tokio::spawn(receive(client_reads)), tokio::spawn(receive(server_reads))];
    let effects = [
        Effect::Latency { latency_ms: 2, jitter_ms: 9 },
        Effect::Stall,
        Effect::Bandwidth { bytes_per_second: 50_000_000 },
        Effect::Loss { percent: 20, retransmit_ms: 3 },
        Effect::SlowClose { delay_ms: 5 },
        Effect::Cut, // one that swallows would tear the connection, so it is for connections to come
    ];
    for round in 0.. {
        if readers.iter().all(|reader| reader.is_finished()) {
            break;
        }
        let effect = effects[round % effects.len()].clone();
        let connections = if effect == Effect::Cut { Connections::New } else { Connections::All };
        let name = site.add(on(connections, effect)).await;
        tokio::time::sleep(Duration::from_millis(3)).await;
        if round % 4 != 0 {
            site.proxy.remove(Some(name)).await.unwrap();
        } else if round % 8 == 0 {
            site.clear().await;
        }
        if round % 16 == 15 {
            site.clear().await;
        }
    }
    for task in tasks.into_iter().chain(readers) {
        within(task).await.unwrap();
    }
}
