//! What the machine has that some tests need.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use crate::program::run;

/// Whether a program is in `PATH`, or where administrators have theirs.
pub fn have(program: &str) -> bool {
    let path = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&path)
        .chain(["/usr/sbin", "/sbin"].map(PathBuf::from))
        .any(|dir| dir.join(program).is_file())
}

/// A directory with the programs of this major version of PostgreSQL: Debian's, or one in `PATH`, or where
/// `cargo xtask setup` puts a newer one.
pub fn postgres_dir(major: u32) -> Option<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let own = std::env::current_exe().unwrap_or_default();
    let tools = own.ancestors().map(|dir| dir.join(format!("testenv-tools/pg{major}/bin")));
    std::iter::once(PathBuf::from(format!("/usr/lib/postgresql/{major}/bin")))
        .chain(std::env::split_paths(&path))
        .chain(tools)
        .find(|dir| version(&dir.join("postgres")) == Some(major))
}

/// The directory with the programs of Kafka: one in `PATH`, or where `cargo xtask setup` puts it. None where there
/// is no Java to run them.
pub fn kafka_dir() -> Option<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let own = std::env::current_exe().unwrap_or_default();
    let tools = own.ancestors().map(|dir| dir.join("testenv-tools"));
    let tools = tools.flat_map(|dir| fs::read_dir(dir).into_iter().flatten().flatten());
    let tools = tools.filter(|tool| tool.file_name().to_string_lossy().starts_with("kafka-"));
    std::env::split_paths(&path)
        .chain(tools.map(|tool| tool.path().join("bin")))
        .find(|dir| dir.join("kafka-server-start.sh").is_file())
        .filter(|_| have("java"))
}

fn version(postgres: &Path) -> Option<u32> {
    if !postgres.is_file() {
        return None;
    }
    let said = run(Command::new(postgres).arg("--version"), Duration::from_secs(10)).stdout;
    said.split_whitespace().find_map(|word| word.split('.').next()?.parse().ok())
}

/// The directory with a server that is built with Go: one in `PATH`, or where `cargo xtask setup` puts it.
pub fn go_dir(program: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let own = std::env::current_exe().unwrap_or_default();
    let tools = own.ancestors().map(|dir| dir.join("testenv-tools/go"));
    std::env::split_paths(&path).chain(tools).find(|dir| dir.join(program).is_file())
}

/// A file system in a file, mounted for as long as this exists. Root only.
#[derive(Debug)]
pub struct Loop {
    dir: PathBuf,
}

impl Loop {
    /// Makes a file of `mib` MiB in `dir`, a file system in it with `mkfs`, and mounts it at `dir/mounted`.
    ///
    /// # Errors
    /// What the programs said; a machine may have no loop devices.
    pub fn mount(dir: &Path, mkfs: &[&str], mib: u64) -> Result<Self, String> {
        let (image, mounted) = (dir.join("image"), dir.join("mounted"));
        fs::create_dir_all(&mounted).map_err(|error| error.to_string())?;
        fs::File::create(&image)
            .and_then(|file| file.set_len(mib << 20))
            .map_err(|error| error.to_string())?;
        let (program, arguments) = mkfs.split_first().ok_or("no program")?;
        step(Command::new(program).args(arguments).arg(&image))?;
        step(Command::new("mount").args(["-o", "loop"]).arg(&image).arg(&mounted))?;
        Ok(Self { dir: mounted })
    }

    /// Mounts a tmpfs of `kib` KiB at `dir`.
    ///
    /// # Errors
    /// What `mount` said.
    pub fn tmpfs(dir: &Path, kib: u64) -> Result<Self, String> {
        fs::create_dir_all(dir).map_err(|error| error.to_string())?;
        let size = format!("size={kib}k,mode=0711");
        step(Command::new("mount").args(["-t", "tmpfs", "-o", &size, "tmpfs"]).arg(dir))?;
        Ok(Self { dir: dir.to_path_buf() })
    }

    /// Mounts `dir` once more in its own place, to be read only.
    ///
    /// # Errors
    /// What `mount` said.
    pub fn read_only(dir: &Path) -> Result<Self, String> {
        step(Command::new("mount").arg("--bind").arg(dir).arg(dir))?;
        let mounted = Self { dir: dir.to_path_buf() };
        step(Command::new("mount").args(["-o", "remount,bind,ro"]).arg(dir))?;
        Ok(mounted)
    }

    /// Where it is.
    pub fn dir(&self) -> &Path {
        &self.dir
    }
}

impl Drop for Loop {
    fn drop(&mut self) {
        let _ = step(Command::new("umount").arg("--lazy").arg(&self.dir));
    }
}

fn step(command: &mut Command) -> Result<(), String> {
    let ran =
        run(command.env("PATH", "/usr/local/bin:/usr/bin:/bin:/usr/sbin:/sbin"), Duration::from_secs(30));
    if ran.code == Some(0) { Ok(()) } else { Err(format!("{command:?}: {}", ran.said().trim())) }
}
