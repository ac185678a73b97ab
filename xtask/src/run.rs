//! Starting other programs, visibly: each step says what it runs and how long it took.

use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Instant;

use anyhow::{Context as _, Result, bail};

/// Root of the repository.
pub(crate) fn root() -> PathBuf {
    let xtask = Path::new(env!("CARGO_MANIFEST_DIR"));
    xtask.parent().expect("xtask/ lies in the repository").to_path_buf()
}

/// Cargo's target directory, which `CARGO_TARGET_DIR` may have moved.
pub(crate) fn target_dir() -> PathBuf {
    match std::env::var_os("CARGO_TARGET_DIR").filter(|it| !it.is_empty()) {
        Some(dir) => root().join(dir),
        None => root().join("target"),
    }
}

/// A directory beside the build that the unprivileged user who runs servers for root can reach; where root's home
/// is closed to others, one outside of it.
pub(crate) fn reachable_dir(name: &str) -> PathBuf {
    let closed = |dir: &Path| std::fs::metadata(dir).is_ok_and(|meta| meta.permissions().mode() & 0o001 == 0);
    if is_root() && target_dir().ancestors().any(closed) {
        return Path::new("/var/cache/testenv-xtask").join(name);
    }
    target_dir().join(name)
}

/// A command that runs in the repository's root.
pub(crate) fn command(program: &str) -> Command {
    let mut command = Command::new(program);
    command.current_dir(root());
    command
}

/// `cargo` with these arguments, in the repository's root.
pub(crate) fn cargo(arguments: &[&str]) -> Command {
    let mut command = command(&std::env::var("CARGO").unwrap_or_else(|_| "cargo".into()));
    command.args(arguments);
    command
}

/// The command as one would type it.
pub(crate) fn shown(command: &Command) -> String {
    let program = Path::new(command.get_program());
    let program = program.file_name().unwrap_or(program.as_os_str());
    let words = std::iter::once(program).chain(command.get_args());
    words.map(|word| word.to_string_lossy()).collect::<Vec<_>>().join(" ")
}

/// Runs one step to its end, its output passing through.
pub(crate) fn step(name: &str, command: &mut Command) -> Result<()> {
    println!("\n=== {name}: {}", shown(command));
    let started = Instant::now();
    let status = command.status().with_context(|| format!("failed to start {}", shown(command)))?;
    if !status.success() {
        bail!("{name} failed: `{}` ended with {status}", shown(command));
    }
    println!("=== {name}: done in {:.1} s", started.elapsed().as_secs_f64());
    Ok(())
}

/// What a command prints on stdout, or an error with what it printed on stderr.
pub(crate) fn output(command: &mut Command) -> Result<String> {
    let output = command
        .stdin(Stdio::null())
        .output()
        .with_context(|| format!("failed to start {}", shown(command)))?;
    if !output.status.success() {
        let stderr = String::from_utf8_lossy(&output.stderr);
        bail!("`{}` ended with {}\n{}", shown(command), output.status, stderr.trim_end());
    }
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

/// Full path of a program in `PATH`.
pub(crate) fn which(program: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH")?;
    std::env::split_paths(&path).map(|dir| dir.join(program)).find(|file| file.is_file())
}

/// Whether this process is root.
pub(crate) fn is_root() -> bool {
    std::fs::metadata("/proc/self").is_ok_and(|meta| meta.uid() == 0)
}

/// A program, with its arguments, that runs as the kind of user that servers run as.
pub(crate) fn as_servers_user(words: &[&str]) -> Command {
    if is_root() && which("setpriv").is_some() {
        let mut setpriv = command("setpriv");
        setpriv.args(["--reuid=65534", "--regid=65534", "--clear-groups"]).args(words);
        return setpriv;
    }
    let (program, arguments) = words.split_first().expect("a program at least");
    let mut own = command(program);
    own.args(arguments);
    own
}

/// Runs the last step. Its own closing lines stay the last that are printed; `afterwards` must be silent.
pub(crate) fn tail(command: &mut Command, afterwards: impl FnOnce()) -> Result<()> {
    println!("\n=== {}", shown(command));
    let status = command.status().with_context(|| format!("failed to start {}", shown(command)));
    afterwards();
    match status? {
        status if status.success() => Ok(()),
        status => bail!("`{}` ended with {status}", shown(command)),
    }
}
