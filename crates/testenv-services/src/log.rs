//! Servers' logs: read as they are written, the last part kept.

use std::collections::{HashMap, VecDeque};
use std::fs::File;
use std::io::{self, Read as _};
use std::os::fd::{AsFd as _, OwnedFd};
use std::sync::{Arc, Mutex, OnceLock};

use rustix::event::epoll;

/// Bytes kept of each server's log.
const KEPT_BYTES: usize = 256 * 1024;

/// The last part of a server's log.
#[derive(Clone, Debug, Default)]
pub struct Log(Arc<Mutex<Tail>>);

#[derive(Debug, Default)]
struct Tail {
    bytes: VecDeque<u8>,
    written: u64,
    noise: Option<fn(&str) -> bool>,
}

impl Log {
    /// An empty log of which lines are not shown that are `noise`.
    pub fn without(noise: fn(&str) -> bool) -> Self {
        Self(Arc::new(Mutex::new(Tail { noise: Some(noise), ..Tail::default() })))
    }

    /// Adds what the server wrote, dropping the oldest beyond the limit.
    pub fn append(&self, bytes: &[u8]) {
        let mut tail = self.0.lock().expect("no panic while locked");
        tail.written += bytes.len() as u64;
        tail.bytes.extend(bytes);
        let excess = tail.bytes.len().saturating_sub(KEPT_BYTES);
        tail.bytes.drain(..excess);
    }

    /// How many bytes were ever written: a mark for [`Log::tail_since`].
    pub fn position(&self) -> u64 {
        self.0.lock().expect("no panic while locked").written
    }

    /// The last `lines` lines.
    pub fn tail(&self, lines: usize) -> String {
        self.tail_since(0, lines)
    }

    /// The last `lines` lines of what was written after `position`, up to this very moment: a server logs an
    /// error before it tells its client, so whoever has seen the error finds it here.
    pub fn tail_since(&self, position: u64, lines: usize) -> String {
        self.catch_up();
        let tail = self.0.lock().expect("no panic while locked");
        let newer = usize::try_from(tail.written.saturating_sub(position)).unwrap_or(usize::MAX);
        let skipped = tail.bytes.len().saturating_sub(newer);
        let bytes: Vec<u8> = tail.bytes.iter().skip(skipped).copied().collect();
        let text = String::from_utf8_lossy(&bytes);
        let noise = tail.noise.unwrap_or(|_| false);
        let mut shown: Vec<_> = text.lines().rev().filter(|line| !noise(line)).take(lines).collect();
        shown.reverse();
        shown.join("\n")
    }

    /// Reads what is in the pipe already, ahead of the collector. Leaves a pipe's end to the collector.
    fn catch_up(&self) {
        let Some(Ok(collector)) = COLLECTOR.get() else { return };
        let mut sources = collector.sources.lock().expect("no panic while locked");
        let Some(source) = sources.1.values_mut().find(|source| Arc::ptr_eq(&source.log.0, &self.0)) else {
            return;
        };
        let mut buffer = vec![0; 64 * 1024];
        // Bounded, as a server may write faster than this reads.
        for _ in 0..=KEPT_BYTES / buffer.len() {
            match source.pipe.read(&mut buffer) {
                Ok(count @ 1..) => source.log.append(&buffer[..count]),
                _ => return,
            }
        }
    }
}

type OnEnd = Box<dyn FnOnce() + Send>;

struct Source {
    pipe: File,
    log: Log,
    on_end: OnEnd,
}

/// One thread reads the logs of all servers.
struct Collector {
    epoll: OwnedFd,
    sources: Mutex<(u64, HashMap<u64, Source>)>,
}

static COLLECTOR: OnceLock<io::Result<Collector>> = OnceLock::new();

/// Reads `pipe` into `log` from now on, and calls `on_end` when every process that writes to it has ended.
///
/// # Errors
/// When the kernel refuses to watch the pipe.
pub fn collect(pipe: OwnedFd, log: Log, on_end: impl FnOnce() + Send + 'static) -> io::Result<()> {
    static THREAD: OnceLock<()> = OnceLock::new();
    let collector = COLLECTOR
        .get_or_init(|| {
            let epoll = epoll::create(epoll::CreateFlags::CLOEXEC)?;
            Ok(Collector { epoll, sources: Mutex::default() })
        })
        .as_ref()
        .map_err(|error| io::Error::new(error.kind(), error.to_string()))?;
    THREAD.get_or_init(|| {
        std::thread::Builder::new()
            .name("logs".into())
            .spawn(|| collector.run())
            .expect("the broker can start a thread");
    });
    rustix::io::ioctl_fionbio(&pipe, true)?;
    let mut sources = collector.sources.lock().expect("no panic while locked");
    sources.0 += 1;
    let id = sources.0;
    epoll::add(&collector.epoll, &pipe, epoll::EventData::new_u64(id), epoll::EventFlags::IN)?;
    sources.1.insert(id, Source { pipe: pipe.into(), log, on_end: Box::new(on_end) });
    Ok(())
}

impl Collector {
    fn run(&self) {
        let mut events = Vec::with_capacity(64);
        let mut buffer = vec![0; 64 * 1024];
        loop {
            events.clear();
            match epoll::wait(self.epoll.as_fd(), rustix::buffer::spare_capacity(&mut events), None) {
                Ok(_) | Err(rustix::io::Errno::INTR) => {}
                Err(error) => {
                    tracing::error!(%error, "logs can no longer be read");
                    return;
                }
            }
            for event in &events {
                self.read(event.data.u64(), &mut buffer);
            }
        }
    }

    fn read(&self, id: u64, buffer: &mut [u8]) {
        let mut sources = self.sources.lock().expect("no panic while locked");
        let Some(source) = sources.1.get_mut(&id) else { return };
        match source.pipe.read(buffer) {
            Ok(0) => {}
            Ok(count) => return source.log.append(&buffer[..count]),
            Err(error) if matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted) => {
                return;
            }
            Err(error) => tracing::warn!(%error, "a server's log can no longer be read"),
        }
        let ended = sources.1.remove(&id);
        drop(sources);
        if let Some(source) = ended {
            (source.on_end)();
        }
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write as _;
    use std::sync::mpsc;
    use std::time::Duration;

    use super::*;

    #[test]
    fn keeps_the_last_lines_within_the_limit() {
        let log = Log::default();
        log.append(b"one\ntwo\n");
        let mark = log.position();
        log.append(b"three\nfour\n");
        assert_eq!(log.tail(3), "two\nthree\nfour");
        assert_eq!(log.tail_since(mark, 9), "three\nfour");
        log.append(&vec![b'x'; KEPT_BYTES * 2]);
        assert_eq!(log.tail(1).len(), KEPT_BYTES);
    }

    #[test]
    fn noise_is_not_shown_and_does_not_count() {
        let log = Log::without(|line| line.starts_with('#'));
        log.append(b"one\n# 1\n# 2\ntwo\n# 3\n");
        assert_eq!(log.tail(2), "one\ntwo");
    }

    #[test]
    fn what_has_been_written_is_there_at_once() {
        let (reader, writer) = rustix::pipe::pipe_with(rustix::pipe::PipeFlags::CLOEXEC).unwrap();
        let log = Log::default();
        collect(reader, log.clone(), || ()).unwrap();
        let mut writer = File::from(writer);
        for line in 0..1000 {
            writeln!(writer, "{line}").unwrap();
            assert_eq!(log.tail(1), line.to_string());
        }
    }

    #[test]
    fn tells_when_the_last_writer_is_gone() {
        let (reader, writer) = rustix::pipe::pipe_with(rustix::pipe::PipeFlags::CLOEXEC).unwrap();
        let log = Log::default();
        let (ended, end) = mpsc::channel();
        collect(reader, log.clone(), move || ended.send(()).unwrap()).unwrap();
        File::from(writer).write_all(b"ready\n").unwrap();
        end.recv_timeout(Duration::from_secs(10)).unwrap();
        assert_eq!(log.tail(1), "ready");
    }
}
