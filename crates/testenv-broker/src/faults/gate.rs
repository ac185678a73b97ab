//! The listeners of a proxy, its connections, and the faults that hold: one task has them all.

use std::net::Ipv4Addr;
use std::sync::Arc;
use std::task::Poll;
use std::time::Duration;

use rustix::net::SocketFlags;
use testenv_api::{Effect, Fault, FaultsStatus, Problem, ProblemKind};
use tokio::net::{TcpListener, TcpSocket, TcpStream};
use tokio::sync::{mpsc, oneshot, watch};
use tokio::task::JoinSet;

use super::connection::{Over, carry, verdict};
use super::plan::{Placed, Plan};

/// Connections of one lease at the most. Further ones wait in the kernel's queue.
const MAX_CONNECTIONS: usize = 1024;
/// Connections that the kernel queues.
const BACKLOG: u32 = 1024;
/// Faults of one lease at the most.
const MAX_FAULTS: usize = 64;
/// How long the server may take to accept a connection.
const CONNECT_LIMIT: Duration = Duration::from_secs(10);
/// How long connections may take to go by another plan. They need no IO for it.
const FOLLOW_LIMIT: Duration = Duration::from_secs(5);
/// After an accept that failed, usually for want of file descriptors.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);

/// What the gate is asked.
#[derive(Debug)]
pub(super) enum Command {
    Add(Vec<Fault>, oneshot::Sender<Result<Vec<Fault>, Problem>>),
    /// Takes away the one of that name, or all.
    Remove(Option<String>, oneshot::Sender<Result<FaultsStatus, Problem>>),
    List(oneshot::Sender<FaultsStatus>),
    /// The server has ended: as with the server itself, nobody is there to connect to.
    ServerEnded(oneshot::Sender<()>),
}

/// A port of the proxy.
#[derive(Debug)]
pub(super) struct Door {
    /// Keeps the port while nobody listens on it.
    _holder: TcpSocket,
    port: u16,
    listener: Option<TcpListener>,
    target: (String, u16),
}

#[derive(Debug)]
pub(super) struct Gate {
    doors: Vec<Door>,
    seed: u64,
    placed: Vec<Placed>,
    next_id: u64,
    server_has_ended: bool,
    accepted: u64,
    connections: JoinSet<()>,
    plans: watch::Sender<Arc<Plan>>,
    /// Closed when the last connection has let go of the plan that holds.
    followed: mpsc::Receiver<()>,
}

impl Door {
    /// Listens on a free port for connections to `target`.
    pub(super) fn new(target: (String, u16)) -> std::io::Result<Self> {
        let holder = bind(0)?;
        let port = holder.local_addr()?.port();
        let mut door = Self { _holder: holder, port, listener: None, target };
        door.open()?;
        Ok(door)
    }

    pub(super) fn port(&self) -> u16 {
        self.port
    }

    fn open(&mut self) -> std::io::Result<()> {
        if self.listener.is_none() {
            self.listener = Some(bind(self.port)?.listen(BACKLOG)?);
        }
        Ok(())
    }

    /// A connection that waits to be accepted. The kernel is asked, not the runtime, which may not know of it yet.
    fn accept_waiting(&self) -> Option<TcpStream> {
        let flags = SocketFlags::NONBLOCK | SocketFlags::CLOEXEC;
        let accepted = rustix::net::accept_with(self.listener.as_ref()?, flags).ok()?;
        TcpStream::from_std(std::net::TcpStream::from(accepted)).ok()
    }
}

/// A socket on a port that may have two: the one that keeps it, and the one that listens.
fn bind(port: u16) -> std::io::Result<TcpSocket> {
    let socket = TcpSocket::new_v4()?;
    socket.set_reuseport(true)?;
    socket.bind((Ipv4Addr::LOCALHOST, port).into())?;
    Ok(socket)
}

impl Gate {
    pub(super) fn new(doors: Vec<Door>, seed: u64) -> Self {
        let (follower, followed) = mpsc::channel(1);
        let plan = Plan { placed: Vec::new(), _follower: Some(follower) };
        Self {
            doors,
            seed,
            placed: Vec::new(),
            next_id: 0,
            server_has_ended: false,
            accepted: 0,
            connections: JoinSet::new(),
            plans: watch::Sender::new(Arc::new(plan)),
            followed,
        }
    }

    /// Serves until nobody can ask any more.
    pub(super) async fn serve(mut self, mut commands: mpsc::Receiver<Command>) {
        loop {
            tokio::select! {
                command = commands.recv() => match command {
                    Some(command) => self.obey(command).await,
                    None => return,
                },
                Some(_) = self.connections.join_next() => {}
                accepted = accept(&self.doors), if self.connections.len() < MAX_CONNECTIONS => match accepted {
                    Ok((door, client)) => self.begin(door, client),
                    Err(error) => {
                        tracing::warn!(%error, "a connection to a proxy could not be accepted");
                        tokio::time::sleep(ACCEPT_PAUSE).await;
                    }
                },
            }
        }
    }

    fn begin(&mut self, door: usize, client: TcpStream) {
        let target = self.doors[door].target.clone();
        let (number, seed, plans) = (self.accepted, self.seed, self.plans.subscribe());
        self.accepted += 1;
        self.connections.spawn(async move {
            // Nothing is left to do with one that is gone already.
            let _ = serve(client, target, number, seed, plans).await;
        });
    }

    async fn obey(&mut self, command: Command) {
        // Whoever asks takes a connection for open as soon as the kernel does.
        self.accept_all_waiting();
        // An asker that has left meanwhile is none of the gate's concern.
        match command {
            Command::Add(faults, answer) => drop(answer.send(self.add(faults).await)),
            Command::Remove(name, answer) => drop(answer.send(self.remove(name.as_deref()).await)),
            Command::List(answer) => drop(answer.send(self.list())),
            Command::ServerEnded(answer) => {
                self.server_has_ended = true;
                let _ = self.set_doors();
                let _ = answer.send(());
            }
        }
    }

    fn accept_all_waiting(&mut self) {
        for door in 0..self.doors.len() {
            while self.connections.len() < MAX_CONNECTIONS
                && let Some(client) = self.doors[door].accept_waiting()
            {
                self.begin(door, client);
            }
        }
    }

    async fn add(&mut self, faults: Vec<Fault>) -> Result<Vec<Fault>, Problem> {
        let named: Vec<Fault> = faults.into_iter().map(|fault| self.named(fault)).collect();
        let is_replaced = |placed: &&Placed| named.iter().any(|fault| fault.name == placed.fault.name);
        let replaced = self.placed.iter().filter(is_replaced).count();
        if self.placed.len() - replaced + named.len() > MAX_FAULTS {
            let title = format!("a lease has {MAX_FAULTS} faults at the most");
            return Err(Problem::new(ProblemKind::BadRequest, title)
                .detail(format!("there are {}", self.placed.len()))
                .hint("clear those that are no longer needed, or reuse their names, which replaces them"));
        }
        for fault in &named {
            self.next_id += 1;
            let placed = Placed { id: self.next_id, after: self.accepted, fault: fault.clone() };
            match self.placed.iter_mut().find(|placed| placed.fault.name == fault.name) {
                Some(old) => *old = placed,
                None => self.placed.push(placed),
            }
        }
        self.publish().await?;
        Ok(named)
    }

    async fn remove(&mut self, name: Option<&str>) -> Result<FaultsStatus, Problem> {
        let count = self.placed.len();
        match name {
            Some(name) => self.placed.retain(|placed| placed.fault.name != name),
            None => self.placed.clear(),
        }
        if let Some(name) = name.filter(|_| self.placed.len() == count) {
            return Err(self.no_fault(name));
        }
        self.publish().await?;
        Ok(self.list())
    }

    fn list(&mut self) -> FaultsStatus {
        while self.connections.try_join_next().is_some() {}
        FaultsStatus {
            seed: self.seed,
            open_connections: self.connections.len(),
            accepted_connections: self.accepted,
            faults: self.placed.iter().map(|placed| placed.fault.clone()).collect(),
        }
    }

    /// The fault with a name, its own or one that no other has had.
    fn named(&mut self, fault: Fault) -> Fault {
        if !fault.name.is_empty() {
            return fault;
        }
        let kind = fault.effect.kind();
        loop {
            self.next_id += 1;
            let name = format!("{kind}-{}", self.next_id);
            if self.placed.iter().all(|placed| placed.fault.name != name) {
                return Fault { name, ..fault };
            }
        }
    }

    fn no_fault(&self, name: &str) -> Problem {
        let names: Vec<_> = self.placed.iter().map(|placed| placed.fault.name.as_str()).collect();
        let detail = if names.is_empty() {
            "the lease has none".into()
        } else {
            format!("there are {}", names.join(", "))
        };
        Problem::new(ProblemKind::NotFound, format!("no fault {name:?}")).detail(detail)
    }

    /// Has every connection go by the faults as they are now. Returns when all do.
    async fn publish(&mut self) -> Result<(), Problem> {
        let (follower, followed) = mpsc::channel(1);
        let plan = Plan { placed: self.placed.clone(), _follower: Some(follower) };
        drop(self.plans.send_replace(Arc::new(plan)));
        let mut before = std::mem::replace(&mut self.followed, followed);
        self.set_doors()?;
        if tokio::time::timeout(FOLLOW_LIMIT, before.recv()).await.is_err() {
            tracing::warn!("a connection did not take notice of a fault in time");
        }
        Ok(())
    }

    /// Opens the doors, or closes them while connections are refused.
    fn set_doors(&mut self) -> Result<(), Problem> {
        let is_closed = self.server_has_ended || self.refuses();
        for door in &mut self.doors {
            if is_closed {
                door.listener = None;
            } else if let Err(error) = door.open() {
                let title = format!("port {} cannot be listened on again", door.port);
                return Err(Problem::new(ProblemKind::Resources, title).detail(error.to_string()));
            }
        }
        Ok(())
    }

    fn refuses(&self) -> bool {
        self.placed.iter().any(|placed| placed.fault.effect == Effect::Refuse)
    }
}

/// The next connection, and the door at which it arrived. Can be dropped at any time.
async fn accept(doors: &[Door]) -> std::io::Result<(usize, TcpStream)> {
    std::future::poll_fn(|context| {
        for (at, door) in doors.iter().enumerate() {
            if let Some(listener) = &door.listener
                && let Poll::Ready(accepted) = listener.poll_accept(context)
            {
                return Poll::Ready(accepted.map(|(client, _)| (at, client)));
            }
        }
        Poll::Pending
    })
    .await
}

/// Serves one connection, from the first byte to the last.
async fn serve(
    mut client: TcpStream,
    (host, port): (String, u16),
    number: u64,
    seed: u64,
    mut plans: watch::Receiver<Arc<Plan>>,
) -> std::io::Result<()> {
    if let Some(over) = verdict(&plans.borrow(), number) {
        over.close(&client, None);
        return Ok(());
    }
    let connecting = tokio::time::timeout(CONNECT_LIMIT, TcpStream::connect((host.as_str(), port)));
    let Ok(Ok(mut server)) = connecting.await else {
        Over::RESET.close(&client, None);
        return Ok(());
    };
    client.set_nodelay(true)?;
    server.set_nodelay(true)?;
    let over = carry(&mut client, &mut server, number, seed, &mut plans).await;
    over.close(&client, Some(&server));
    Ok(())
}
