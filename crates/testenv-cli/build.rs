//! Links `testenv-wrap` statically where that can be done.
//!
//! The wrapper starts once per test, and finding and relocating shared libraries is a third of what it costs
//! (0.15 ms of 0.4 ms, measured). `-C target-feature=+crt-static` does this for a whole build, not for one
//! program, so this asks the linker itself. Without a static C library the wrapper is linked as usual.

use std::env;
use std::fs;
use std::path::PathBuf;
use std::process::Command;

/// The libraries that rustc asks for, and the static ones that take their place.
const STAND_INS: [(&str, &str); 7] = [
    ("libgcc_s.a", "libgcc_eh.a"),
    ("libc.a", "libc.a"),
    ("libdl.a", "libdl.a"),
    ("libm.a", "libm.a"),
    ("libpthread.a", "libpthread.a"),
    ("librt.a", "librt.a"),
    ("libutil.a", "libutil.a"),
];

fn main() {
    println!("cargo::rerun-if-changed=build.rs");
    if !is_native_glibc() {
        return;
    }
    if let Some(dir) = stand_ins().filter(|_| static_programs_work()) {
        println!("cargo::rustc-link-arg-bin=testenv-wrap=-static-pie");
        println!("cargo::rustc-link-arg-bin=testenv-wrap=-L{}", dir.display());
    }
}

/// Whether this is a native build for Linux with glibc, and not a static one anyway.
fn is_native_glibc() -> bool {
    let is = |name: &str, value: &str| env::var(name).is_ok_and(|it| it == value);
    let features = env::var("CARGO_CFG_TARGET_FEATURE").unwrap_or_default();
    is("CARGO_CFG_TARGET_OS", "linux")
        && is("CARGO_CFG_TARGET_ENV", "gnu")
        && env::var("HOST") == env::var("TARGET")
        && !features.split(',').any(|feature| feature == "crt-static")
}

/// Whether the C compiler, which rustc links with, makes static programs that run.
fn static_programs_work() -> bool {
    let Some(dir) = env::var_os("OUT_DIR").map(PathBuf::from) else { return false };
    let (source, program) = (dir.join("trial.c"), dir.join("trial"));
    let succeeds = |command: &mut Command| command.output().is_ok_and(|output| output.status.success());
    fs::write(&source, "int main(void) { return 0; }\n").is_ok()
        && succeeds(Command::new("cc").arg("-static-pie").arg("-o").arg(&program).arg(&source))
        && succeeds(&mut Command::new(program))
}

/// Where the C compiler has the file. It echoes the bare name if it has none.
fn find(file: &str) -> Option<PathBuf> {
    let output = Command::new("cc").arg(format!("-print-file-name={file}")).output().ok()?;
    let path = PathBuf::from(String::from_utf8_lossy(&output.stdout).trim());
    path.is_absolute().then_some(path)
}

/// A directory of linker scripts: rustc asks for shared libraries by name, and these lead to static ones.
fn stand_ins() -> Option<PathBuf> {
    let dir = PathBuf::from(env::var_os("OUT_DIR")?).join("static");
    fs::create_dir_all(&dir).ok()?;
    for (asked_for, given) in STAND_INS {
        fs::write(dir.join(asked_for), format!("INPUT({})\n", find(given)?.display())).ok()?;
    }
    Some(dir)
}
