//! The files that prepare a service: which they are, what they hold, and whether they changed.

mod watch;

use std::fs;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

use sha2::{Digest as _, Sha256};

use crate::{Result, io_problem};

pub use watch::Watch;

/// Files at the most; a directory of more is a mistake, such as `inputs = ["/"]`.
const MAX_FILES: usize = 20_000;

/// Files under `path`, in the order of their names, only those with an ending in `endings` (all when empty).
///
/// A name that starts with digits sorts by their number, so `10_x.sql` comes after `9_x.sql`. Files and
/// directories whose names begin with a dot are left out, and so are `*.down.sql` migrations.
///
/// # Errors
/// When the path is not there or cannot be read.
pub fn list(path: &Path, endings: &[&str]) -> Result<Vec<PathBuf>> {
    let mut files = Vec::new();
    collect(path, endings, &mut files).map_err(|error| {
        io_problem(format!("read {}", path.display()), &error)
            .hint("paths in testenv.toml are relative to the directory it is in")
    })?;
    Ok(files)
}

fn collect(path: &Path, endings: &[&str], files: &mut Vec<PathBuf>) -> std::io::Result<()> {
    if !fs::metadata(path)?.is_dir() {
        files.push(path.to_path_buf());
        return Ok(());
    }
    let mut entries: Vec<_> = fs::read_dir(path)?
        .map(|entry| entry.map(|entry| (entry.file_name().to_string_lossy().into_owned(), entry.path())))
        .collect::<Result<_, _>>()?;
    entries.retain(|(name, _)| !name.starts_with('.'));
    entries.sort_by(|(a, _), (b, _)| (number(a), a).cmp(&(number(b), b)));
    for (name, path) in entries {
        let is_dir = fs::metadata(&path)?.is_dir();
        let wanted = endings.is_empty() || endings.iter().any(|ending| name.ends_with(ending));
        if is_dir || (wanted && !name.ends_with(".down.sql") && name != "down.sql") {
            collect(&path, endings, files)?;
        }
        if files.len() > MAX_FILES {
            return Err(std::io::Error::other(format!("more than {MAX_FILES} files")));
        }
    }
    Ok(())
}

/// The number a name begins with, as digits without leading zeros, shorter first; names without one come last.
fn number(name: &str) -> (bool, usize, &str) {
    let end = name.find(|c: char| !c.is_ascii_digit()).unwrap_or(name.len());
    let digits = name[..end].trim_start_matches('0');
    (end == 0, digits.len(), digits)
}

/// What files looked like: cheap to take, and different whenever one was changed, added or removed.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Fingerprint(Seen);

impl Fingerprint {
    /// Looks at the files and directories under `paths`, without reading them.
    pub fn take<'a>(paths: impl IntoIterator<Item = &'a Path>) -> Self {
        let mut seen = Vec::new();
        for path in paths {
            look(path, &mut seen);
        }
        Self(seen)
    }
}

type Seen = Vec<(PathBuf, u64, i64, i64, u64)>;

fn look(path: &Path, seen: &mut Seen) {
    if look_at_one(path, seen) && seen.len() <= MAX_FILES {
        let mut entries: Vec<_> =
            fs::read_dir(path).into_iter().flatten().flatten().map(|it| it.path()).collect();
        entries.sort();
        for entry in entries {
            look(&entry, seen);
        }
    }
}

/// Notes what is there; whether it is a directory.
fn look_at_one(path: &Path, seen: &mut Seen) -> bool {
    let Ok(meta) = fs::metadata(path) else { return false };
    seen.push((path.to_path_buf(), meta.ino(), meta.mtime(), meta.mtime_nsec(), meta.len()));
    meta.is_dir()
}

/// A running hash of everything that makes a snapshot. Each part is added with its length, so that no two
/// lists of parts hash alike.
#[derive(Clone, Debug, Default)]
pub struct KeyHash(Sha256);

impl KeyHash {
    /// Adds a part.
    #[must_use]
    pub fn with(mut self, part: impl AsRef<[u8]>) -> Self {
        let part = part.as_ref();
        self.0.update((part.len() as u64).to_le_bytes());
        self.0.update(part);
        self
    }

    /// The key so far: 32 hex digits.
    pub fn key(&self) -> String {
        hex(&self.0.clone().finalize()[..16])
    }
}

/// Bytes as lowercase hex digits.
pub fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(dir: &Path) -> Vec<String> {
        let name = |path: PathBuf| path.strip_prefix(dir).unwrap().to_string_lossy().into_owned();
        list(dir, &[".sql"]).unwrap().into_iter().map(name).collect()
    }

    #[test]
    fn migrations_are_in_the_order_of_their_numbers() {
        let dir = tempfile::tempdir().unwrap();
        for name in ["10_b.sql", "9_a.sql", "0011_c.sql", "9_a.down.sql", ".hidden.sql", "readme.md", "z.sql"]
        {
            fs::write(dir.path().join(name), "").unwrap();
        }
        fs::create_dir(dir.path().join("12_dir")).unwrap();
        fs::write(dir.path().join("12_dir/up.sql"), "").unwrap();
        fs::write(dir.path().join("12_dir/down.sql"), "").unwrap();
        assert_eq!(names(dir.path()), ["9_a.sql", "10_b.sql", "0011_c.sql", "12_dir/up.sql", "z.sql"]);
    }

    #[test]
    fn a_missing_directory_is_named() {
        let problem = list(Path::new("/nonexistent/migrations"), &[]).unwrap_err();
        assert!(problem.title.contains("/nonexistent/migrations"), "{problem}");
    }

    #[test]
    fn a_fingerprint_changes_with_the_files() {
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join("a.sql"), "1").unwrap();
        let before = Fingerprint::take([dir.path()]);
        assert_eq!(before, Fingerprint::take([dir.path()]));
        fs::write(dir.path().join("a.sql"), "22").unwrap();
        assert_ne!(before, Fingerprint::take([dir.path()]));
    }

    #[test]
    fn keys_tell_apart_where_one_part_ends_and_the_next_begins() {
        let key = |parts: &[&str]| parts.iter().fold(KeyHash::default(), |hash, part| hash.with(part)).key();
        assert_ne!(key(&["ab", "c"]), key(&["a", "bc"]));
        assert_eq!(key(&["a"]).len(), 32);
    }
}
