//! Whether one more server may start: what it needs, what there is, and what is in the way. Pure.

use testenv_config::{ByteSize, PoolConfig};

/// Memory that is left alone, in bytes: the tests need some too.
const MEMORY_RESERVE: u64 = 64 << 20;
/// Room that a server's data is taken to need, in bytes.
const STORAGE_OF_ONE: u64 = 24 << 20;
/// Files that the broker has open for a server: its log, sockets, process, and the lease's connection.
const FILES_OF_ONE: u64 = 8;

/// What the machine has left. `None` where it does not say.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Free {
    /// Memory, in bytes, the limit of a container considered.
    pub(crate) memory: Option<u64>,
    /// Room for servers' data, in bytes.
    pub(crate) storage: Option<u64>,
    /// Files that the broker may still open.
    pub(crate) files: Option<u64>,
}

/// What there is already.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Load {
    /// Servers, those being started and ended included.
    pub(super) servers: usize,
    /// Their memory, in bytes, measured or estimated.
    pub(super) memory: u64,
    /// How many of them are being started, so that what they will take is still part of what is free.
    pub(super) starting: usize,
    /// What those will take, in bytes.
    pub(super) starting_memory: u64,
}

/// Lets one more start that needs `memory` bytes, or says what is in the way.
pub(super) fn admit(memory: u64, load: Load, limits: &PoolConfig, free: Free) -> Result<(), String> {
    if load.servers >= limits.max_servers {
        return Err(format!("{} servers are there, and `pool.max_servers` allows no more", load.servers));
    }
    let size = ByteSize::bytes;
    if load.memory + memory > limits.max_memory.as_bytes() {
        return Err(format!(
            "the servers take {}, and with about {} more it would be over `pool.max_memory`, {}",
            size(load.memory),
            size(memory),
            limits.max_memory
        ));
    }
    let starting = load.starting as u64;
    let left = |free: Option<u64>, spoken_for: u64| free.map(|free| free.saturating_sub(spoken_for));
    if let Some(left) = left(free.memory, load.starting_memory)
        && left < memory + MEMORY_RESERVE
    {
        return Err(format!(
            "the machine has {} of memory left, and one takes about {}",
            size(left),
            size(memory)
        ));
    }
    if let Some(left) = left(free.storage, starting * STORAGE_OF_ONE)
        && left < STORAGE_OF_ONE
    {
        return Err(format!(
            "there is room for {} more of servers' data; `cache.tmpfs_size` limits it",
            size(left)
        ));
    }
    if let Some(left) = left(free.files, starting * FILES_OF_ONE)
        && left < FILES_OF_ONE
    {
        return Err(format!(
            "the broker may open {left} more files, and a server takes {FILES_OF_ONE}; see `ulimit -n`"
        ));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    const MIB: u64 = 1 << 20;

    fn said(load: Load, free: Free) -> String {
        let limits = PoolConfig { max_servers: 4, max_memory: ByteSize::gib(1), ..PoolConfig::default() };
        admit(100 * MIB, load, &limits, free).map_or_else(|why| why, |()| String::new())
    }

    #[test]
    fn an_empty_broker_on_a_large_machine_starts_one() {
        assert_eq!(said(Load::default(), Free::default()), "");
        let free = Free { memory: Some(200 * MIB), storage: Some(100 * MIB), files: Some(1000) };
        assert_eq!(said(Load::default(), free), "");
    }

    #[test]
    fn what_is_in_the_way_is_named_with_its_numbers() {
        let load = Load { servers: 4, ..Load::default() };
        assert!(said(load, Free::default()).contains("4 servers are there"));
        let load = Load { memory: 1000 * MIB, ..Load::default() };
        assert!(
            said(load, Free::default()).contains("over `pool.max_memory`, 1.0 GiB"),
            "{}",
            said(load, Free::default())
        );
        let free = Free { memory: Some(150 * MIB), ..Free::default() };
        assert!(
            said(Load::default(), free).contains("150.0 MiB of memory left"),
            "{}",
            said(Load::default(), free)
        );
        let free = Free { storage: Some(10 * MIB), ..Free::default() };
        assert!(said(Load::default(), free).contains("room for 10.0 MiB more"));
        let free = Free { files: Some(3), ..Free::default() };
        assert!(said(Load::default(), free).contains("may open 3 more files"));
    }

    #[test]
    fn what_is_being_started_is_not_free() {
        let free = Free { memory: Some(300 * MIB), storage: Some(60 * MIB), files: Some(20) };
        let load = |starting: usize| Load {
            servers: starting,
            starting,
            starting_memory: starting as u64 * 100 * MIB,
            ..Load::default()
        };
        assert_eq!(said(load(1), free), "");
        assert!(said(load(2), free).contains("100.0 MiB of memory left"));
    }
}
