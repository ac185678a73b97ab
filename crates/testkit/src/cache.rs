//! One cache of snapshots for all tests of a machine's user, so that `initdb` and migrations run once.

use std::fs;
use std::os::unix::fs::{DirBuilderExt as _, MetadataExt as _};
use std::path::{Path, PathBuf};

use crate::user::User;

/// The directory, made if it has to be: below cargo's target directory, where every user can get to that, and
/// below `/var/tmp` otherwise.
pub(crate) fn shared(user: User) -> PathBuf {
    let name = format!("testkit-cache-{}", user.uid());
    let target = std::env::current_exe().ok().and_then(|exe| {
        let target = exe.ancestors().find(|dir| dir.join("CACHEDIR.TAG").is_file())?;
        open_to_all(target).then(|| target.join(&name))
    });
    let dir = target.unwrap_or_else(|| Path::new("/var/tmp").join(&name));
    match fs::DirBuilder::new().mode(0o711).create(&dir) {
        Ok(()) => user.own(&dir).expect("a new directory can be given away"),
        Err(error) if error.kind() == std::io::ErrorKind::AlreadyExists => {}
        Err(error) => panic!("failed to create {}: {error}", dir.display()),
    }
    dir
}

/// Whether every user may pass through.
fn open_to_all(dir: &Path) -> bool {
    dir.ancestors().all(|dir| fs::metadata(dir).is_ok_and(|meta| meta.mode() & 0o001 != 0))
}
