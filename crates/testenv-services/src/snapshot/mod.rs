//! Snapshots: frozen data directories, each named by a hash of everything that made it.

mod plan;
mod prepare;

use std::fs::{self, File, OpenOptions};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{SystemTime, UNIX_EPOCH};

use rustix::fs::FlockOperation;
use serde::{Deserialize, Serialize};
use testenv_api::{Engine, SnapshotStatus};

use crate::fork;
use crate::{Result, io_problem};

pub use plan::{Plan, watched_paths};
pub use prepare::{Prepared, Variant, ensure};
pub(crate) use prepare::{perform, random_password, run_tool};

/// Version of the format of snapshots. Part of every key, so that another version's are never used.
const FORMAT: u32 = 1;

/// The cache of snapshots.
#[derive(Debug)]
pub struct Store {
    dir: PathBuf,
    next: AtomicU64,
}

/// A snapshot in the cache, kept there while this exists.
#[derive(Debug)]
pub struct Snapshot {
    /// Hash of everything that made it.
    pub key: String,
    dir: PathBuf,
    meta: Meta,
    _in_use: File,
}

/// What `meta.json` in a snapshot's directory says.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Meta {
    pub(crate) format: u32,
    pub(crate) engine: Engine,
    /// For people.
    pub(crate) description: String,
    pub(crate) user: String,
    pub(crate) password: String,
    pub(crate) database: String,
    pub(crate) bytes: u64,
    /// What clones are made from, where the snapshot was made for them (see `Driver::make_template`).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) template: Option<Template>,
}

/// The database that namespaces are cloned from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Template {
    /// Object id of the prepared database.
    pub(crate) database_oid: u32,
    /// Whether `ALTER DATABASE … SET` was used on it.
    pub(crate) has_settings: bool,
}

impl Snapshot {
    /// The frozen data directory. Never written to.
    pub fn data(&self) -> PathBuf {
        self.dir.join("data")
    }

    /// Whether it is still in the cache, and nobody has removed the cache's directory by hand.
    pub fn is_there(&self) -> bool {
        self.dir.join("meta.json").exists()
    }

    /// User, password and database that a server forked from it is used with.
    pub fn login(&self) -> (String, String, String) {
        (self.meta.user.clone(), self.meta.password.clone(), self.meta.database.clone())
    }

    pub(crate) fn template(&self) -> Option<Template> {
        self.meta.template
    }
}

impl Store {
    /// Opens the cache in `dir`, removing unfinished snapshots of brokers that are gone.
    ///
    /// # Errors
    /// When the directory cannot be created or written to.
    pub fn open(dir: &Path) -> Result<Self> {
        let problem =
            |error: std::io::Error| io_problem(format!("use the cache directory {}", dir.display()), &error);
        fs::create_dir_all(dir).map_err(problem)?;
        let snapshots = dir.join("snapshots");
        if !snapshots.exists() {
            match fork::make_dir(&snapshots, 0o700, None) {
                Err(error) if error.kind() != std::io::ErrorKind::AlreadyExists => {
                    return Err(problem(error));
                }
                _ => {}
            }
        }
        let store = Self { dir: snapshots, next: AtomicU64::new(0) };
        store.check_writable().map_err(problem)?;
        for unfinished in store.entries().filter(|path| is_unfinished(path)) {
            match lock(&unfinished, FlockOperation::NonBlockingLockExclusive) {
                Ok(_lock) => drop(fs::remove_dir_all(&unfinished)),
                // Its maker was killed before it made the lock, or is about to make it.
                Err(error) if error.kind() == std::io::ErrorKind::NotFound && is_old(&unfinished) => {
                    let _ = fs::remove_dir_all(&unfinished);
                }
                Err(_) => {}
            }
        }
        Ok(store)
    }

    fn check_writable(&self) -> std::io::Result<()> {
        let (dir, _lock) = self.unfinished()?;
        fs::remove_dir_all(dir)
    }

    /// Directory of the snapshots.
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// The snapshot with this key, if the cache has it whole.
    pub fn get(&self, key: &str) -> Option<Arc<Snapshot>> {
        let dir = self.dir.join(key);
        let in_use = lock(&dir, FlockOperation::LockShared).ok()?;
        let meta: Meta = serde_json::from_slice(&fs::read(dir.join("meta.json")).ok()?).ok()?;
        if meta.format != FORMAT {
            return None;
        }
        let _ = in_use.set_modified(SystemTime::now());
        Some(Arc::new(Snapshot { key: key.to_owned(), dir, meta, _in_use: in_use }))
    }

    /// Freezes a copy of `data` under `key`.
    pub(crate) fn put(
        &self,
        key: &str,
        data: &Path,
        mut meta: Meta,
        owner: Option<&crate::process::User>,
    ) -> Result<Arc<Snapshot>> {
        let problem = |error: std::io::Error| io_problem("store a snapshot", &error);
        let (unfinished, lock) = self.unfinished().map_err(problem)?;
        let stored = (|| {
            fork::copy_tree(data, &unfinished.join("data"), owner, &fork::plain_copy)?;
            meta.bytes = fork::disk_usage(&unfinished);
            fs::write(unfinished.join("meta.json"), serde_json::to_vec_pretty(&meta)?)?;
            match fs::rename(&unfinished, self.dir.join(key)) {
                // Another broker was faster; both are the same.
                Err(_) if self.get(key).is_some() => fs::remove_dir_all(&unfinished),
                Err(_) => {
                    self.remove_damaged(key);
                    fs::rename(&unfinished, self.dir.join(key))
                }
                Ok(()) => Ok(()),
            }
        })();
        drop(lock);
        if let Err(error) = stored {
            let _ = fs::remove_dir_all(&unfinished);
            return Err(problem(error));
        }
        self.get(key).ok_or_else(|| problem(std::io::Error::other("it is not there after it was stored")))
    }

    /// Removes the least recently used snapshots until the cache is no larger than `max_bytes`. Those in use stay.
    pub fn evict(&self, max_bytes: u64) -> u64 {
        let mut all = self.list();
        all.sort_by_key(|snapshot| snapshot.used_unix_seconds);
        let mut total: u64 = all.iter().map(|snapshot| snapshot.bytes).sum();
        let mut freed = 0;
        for snapshot in all {
            if total <= max_bytes {
                break;
            }
            let dir = self.dir.join(&snapshot.key);
            // Out of the way at once, so that a broker that is killed here leaves no half of a snapshot.
            let aside = self.new_name();
            if let Ok(_lock) = lock(&dir, FlockOperation::NonBlockingLockExclusive)
                && fs::rename(&dir, &aside).and_then(|()| fs::remove_dir_all(&aside)).is_ok()
            {
                total -= snapshot.bytes;
                freed += snapshot.bytes;
            }
        }
        freed
    }

    /// What the cache holds.
    pub fn list(&self) -> Vec<SnapshotStatus> {
        let status = |dir: PathBuf| {
            let meta: Meta = serde_json::from_slice(&fs::read(dir.join("meta.json")).ok()?).ok()?;
            let used = fs::metadata(dir.join("lock")).and_then(|meta| meta.modified()).ok()?;
            Some(SnapshotStatus {
                key: dir.file_name()?.to_string_lossy().into_owned(),
                description: meta.description,
                bytes: meta.bytes,
                used_unix_seconds: used.duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs()),
            })
        };
        self.entries().filter(|path| !is_unfinished(path)).filter_map(status).collect()
    }

    fn entries(&self) -> impl Iterator<Item = PathBuf> + use<> {
        fs::read_dir(&self.dir).into_iter().flatten().flatten().map(|entry| entry.path())
    }

    /// A new directory for a snapshot in the making, locked while it is made.
    fn unfinished(&self) -> std::io::Result<(PathBuf, File)> {
        loop {
            let dir = self.new_name();
            fork::make_dir(&dir, 0o700, None)?;
            let lock = OpenOptions::new().create_new(true).write(true).mode(0o600).open(dir.join("lock"))?;
            rustix::fs::flock(&lock, FlockOperation::LockExclusive)?;
            // A broker that opens the cache at this moment may have had the lock first, and removed it all.
            if dir.join("lock").exists() {
                return Ok((dir, lock));
            }
        }
    }

    /// A name that nothing else has, not even in a container that shares the cache.
    fn new_name(&self) -> PathBuf {
        let number = self.next.fetch_add(1, Ordering::Relaxed);
        let now = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_nanos());
        self.dir.join(format!(".unfinished-{}-{now:x}-{number}", std::process::id()))
    }

    /// Removes what has the place of a snapshot but cannot be used, unless somebody is at it.
    fn remove_damaged(&self, key: &str) {
        let dir = self.dir.join(key);
        let lock = lock(&dir, FlockOperation::NonBlockingLockExclusive);
        let in_use = lock.as_ref().is_err_and(|error| error.kind() != std::io::ErrorKind::NotFound);
        if !in_use {
            tracing::warn!(key, "removing a damaged snapshot");
            let _ = fs::remove_dir_all(dir);
        }
    }
}

/// Whether nothing was done in the directory for a while.
fn is_old(dir: &Path) -> bool {
    const A_WHILE: std::time::Duration = std::time::Duration::from_secs(60);
    let modified = fs::metadata(dir).and_then(|meta| meta.modified());
    modified.is_ok_and(|modified| modified.elapsed().is_ok_and(|since| since > A_WHILE))
}

fn is_unfinished(path: &Path) -> bool {
    path.file_name().is_some_and(|name| name.to_string_lossy().starts_with(".unfinished-"))
}

fn lock(dir: &Path, how: FlockOperation) -> std::io::Result<File> {
    let file = OpenOptions::new().write(true).open(dir.join("lock"))?;
    rustix::fs::flock(&file, how)?;
    Ok(file)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn meta() -> Meta {
        Meta {
            format: FORMAT,
            engine: Engine { name: "x".into(), version: "1".into(), sha256: String::new() },
            description: "x".into(),
            user: String::new(),
            password: String::new(),
            database: String::new(),
            bytes: 0,
            template: None,
        }
    }

    fn store_with(keys: &[&str]) -> (tempfile::TempDir, Store) {
        let dir = tempfile::tempdir().unwrap();
        let data = dir.path().join("data");
        fs::create_dir(&data).unwrap();
        fs::write(data.join("file"), vec![1; 100_000]).unwrap();
        let store = Store::open(&dir.path().join("cache")).unwrap();
        for key in keys {
            store.put(key, &data, meta(), None).unwrap();
        }
        (dir, store)
    }

    #[test]
    fn a_stored_snapshot_is_found_again_and_others_are_not() {
        let (_dir, store) = store_with(&["a"]);
        assert_eq!(fs::read(store.get("a").unwrap().data().join("file")).unwrap().len(), 100_000);
        assert!(store.get("b").is_none());
    }

    #[test]
    fn eviction_spares_what_is_in_use() {
        let (_dir, store) = store_with(&["a", "b"]);
        let used = store.get("a").unwrap();
        assert!(store.evict(0) > 0);
        assert!(store.get("b").is_none());
        drop(used);
        assert!(store.get("a").is_some());
    }

    #[test]
    fn unfinished_snapshots_of_the_dead_are_removed_and_those_of_the_living_stay() {
        let (dir, store) = store_with(&[]);
        let (living, lock) = store.unfinished().unwrap();
        let (dead, its_lock) = store.unfinished().unwrap();
        drop(its_lock);
        Store::open(&dir.path().join("cache")).unwrap();
        assert!(living.exists() && !dead.exists());
        drop(lock);
    }

    #[test]
    fn a_damaged_snapshot_is_as_good_as_none() {
        let (_dir, store) = store_with(&["a"]);
        fs::write(store.dir().join("a/meta.json"), "{").unwrap();
        assert!(store.get("a").is_none());
        assert!(store.list().is_empty());
    }

    #[test]
    fn a_damaged_snapshot_is_replaced() {
        let (dir, store) = store_with(&["a", "b"]);
        fs::remove_file(store.dir().join("a/meta.json")).unwrap();
        fs::remove_file(store.dir().join("b/lock")).unwrap();
        for key in ["a", "b"] {
            store.put(key, &dir.path().join("data"), meta(), None).unwrap();
        }
        assert_eq!(store.list().len(), 2);
    }

    #[test]
    fn brokers_that_open_one_cache_at_the_same_time_do_not_disturb_each_other() {
        let dir = tempfile::tempdir().unwrap();
        std::thread::scope(|scope| {
            for _ in 0..8 {
                scope.spawn(|| (0..50).for_each(|_| drop(Store::open(dir.path()).unwrap())));
            }
        });
    }
}
