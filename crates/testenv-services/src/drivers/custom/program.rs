//! The program of a custom server.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};

use testenv_api::{Problem, ProblemKind};
use testenv_config::ServiceConfig;

use super::Custom;
use crate::engine::{self, EngineBuild};
use crate::process::User;
use crate::{Result, machine};

/// Finds the program: by its path in the workspace, else in `bin_dir`, else where programs are.
pub(super) fn find(
    config: &ServiceConfig,
    root: &Path,
    path: &str,
    user: Option<&User>,
) -> Result<EngineBuild> {
    let words = super::words(config);
    let name = words.first().map_or("", String::as_str).replace("{root}", &root.display().to_string());
    let dirs: Vec<PathBuf> = match &config.bin_dir {
        _ if name.contains('/') => vec![root.to_path_buf()],
        Some(dir) => vec![root.join(dir)],
        None => {
            let usual = ["/usr/local/bin", "/usr/bin", "/usr/sbin", "/opt/homebrew/bin"].map(PathBuf::from);
            std::env::split_paths(path).chain(usual).collect()
        }
    };
    let role = &config.role;
    let found: Vec<_> = dirs.iter().map(|dir| dir.join(&name)).filter(|file| is_program(file)).collect();
    // One that the servers' user cannot get to, such as a shim in somebody's home, is passed over for one it can.
    let reachable = |file: &&PathBuf| machine::check_reachable(file, user, "command").is_ok();
    let program = found.iter().find(reachable).or(found.first()).cloned().ok_or_else(|| {
        let dirs: Vec<_> = dirs.iter().map(|dir| dir.display().to_string()).collect();
        Problem::new(ProblemKind::EngineMissing, format!("there is no program {name} for services.{role}"))
            .detail(format!("looked in {}", dirs.join(", ")))
            .hint("install it, give its path in the workspace in `command`, or its directory with `bin_dir`")
    })?;
    machine::check_reachable(&program, user, "command")?;
    let mut engine = engine::inspect(&Custom, &program, "custom")?;
    // What a program says of its version cannot be asked without starting it.
    engine.version = config
        .version
        .clone()
        .unwrap_or_else(|| format!("0+{}", &engine.sha256[..12.min(engine.sha256.len())]));
    engine.name = program.file_name().map_or(name, |name| name.to_string_lossy().into_owned());
    let bin_dir = program.parent().unwrap_or(root).to_path_buf();
    Ok(EngineBuild { engine, program, bin_dir, interpreter: None })
}

fn is_program(file: &Path) -> bool {
    fs::metadata(file).is_ok_and(|meta| meta.is_file() && meta.permissions().mode() & 0o111 != 0)
}
