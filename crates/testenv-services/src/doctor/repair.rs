//! What `testenv doctor --fix` does: only to what is testenv's own, and only what can be done at any time.

use std::fs::{self, File, Permissions};
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};

use rustix::fs::FlockOperation;
use testenv_api::{Problem, ProblemKind};

use super::broker::Leftover;
use super::load::size;
use crate::machine::Guard;
use crate::{Result, io_problem, sweep};

/// One repair.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Repair {
    /// Gives a directory other permissions.
    SetMode {
        /// The directory.
        path: PathBuf,
        /// Its new mode.
        mode: u32,
    },
    /// Removes what a dead broker left.
    Sweep(Leftover),
}

impl Repair {
    /// Does it, and says what was done.
    ///
    /// # Errors
    /// What kept it from being done.
    pub fn apply(&self) -> Result<String> {
        match self {
            Self::SetMode { path, mode } => {
                let done = fs::set_permissions(path, Permissions::from_mode(*mode));
                done.map_err(|error| io_problem(format!("change the mode of {}", path.display()), &error))?;
                Ok(format!("gave {} the mode {mode:o}", path.display()))
            }
            Self::Sweep(left) => sweep_up(left),
        }
    }
}

/// Does what the workspace's next broker would do, with that broker kept from starting meanwhile.
fn sweep_up(left: &Leftover) -> Result<String> {
    let lock = left.runtime_dir.join("lock");
    let lock = File::open(&lock).map_err(|error| io_problem(format!("open {}", lock.display()), &error))?;
    if rustix::fs::flock(&lock, FlockOperation::NonBlockingLockExclusive).is_err() {
        let title = format!("a broker has started in {} meanwhile", left.runtime_dir.display());
        return Err(Problem::new(ProblemKind::Resources, title).detail("it has removed what was left itself"));
    }
    // Ends the processes that are left.
    let _guard = Guard::take(&left.runtime_dir)?;
    for path in &left.paths {
        remove(path)?;
    }
    let ended = if left.processes { "ended the processes of a dead broker and " } else { "" };
    let freed = if left.bytes > 0 { format!(", {}", size(left.bytes)) } else { String::new() };
    Ok(format!("{ended}removed what was left of it in {}{freed}", left.runtime_dir.display()))
}

fn remove(path: &Path) -> Result<()> {
    if fs::symlink_metadata(path).is_ok_and(|meta| meta.is_dir()) {
        return sweep::remove_dir(path);
    }
    match fs::remove_file(path) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            Err(io_problem(format!("remove {}", path.display()), &error))
        }
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_mode_is_set_and_told() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().to_path_buf();
        let done = Repair::SetMode { path: path.clone(), mode: 0o711 }.apply().unwrap();
        assert!(done.ends_with("the mode 711"), "{done}");
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o711);
        Repair::SetMode { path: path.join("none"), mode: 0o711 }.apply().unwrap_err();
    }
}
