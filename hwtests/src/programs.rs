//! Where programs and modules are, ours and those of others.

use std::{
    path::{Path, PathBuf},
    process::{Command, Output, Stdio},
    sync::OnceLock,
};

/// A program of this workspace, built in the same target folder and profile as the test that asks.
pub fn ours(name: &str) -> PathBuf {
    let test = std::env::current_exe().expect("a running program has a path");
    let folder =
        test.ancestors().find(|p| p.join("deps").is_dir()).expect("a test runs from cargo's target folder");
    let program = folder.join(name);
    assert!(
        program.is_file(),
        "{} is not built: run `hwtests/run`, or first `cargo build`",
        program.display()
    );
    program
}

/// A program of the system, from a Debian package.
pub fn system(name: &str, package: &str) -> PathBuf {
    let path = std::env::var_os("PATH").unwrap_or_else(|| "/usr/bin:/bin".into());
    std::env::split_paths(&path)
        .chain([PathBuf::from("/usr/sbin"), PathBuf::from("/sbin")])
        .map(|folder| folder.join(name))
        .find(|program| program.is_file())
        .unwrap_or_else(|| {
            panic!("{name} is missing: apt-get install {package}, or run `hwtests/run` as root")
        })
}

/// A file of the system, from a Debian package: the first of the places where distributions put it.
pub fn module(places: &[&str], package: &str) -> PathBuf {
    places.iter().map(PathBuf::from).find(|p| p.is_file()).unwrap_or_else(|| {
        panic!("{} is missing: apt-get install {package}, or run `hwtests/run` as root", places[0])
    })
}

/// SoftHSM's PKCS#11 module.
pub fn softhsm_module() -> PathBuf {
    let places = [
        "/usr/lib/softhsm/libsofthsm2.so",
        "/usr/lib64/softhsm/libsofthsm2.so",
        "/usr/lib64/pkcs11/libsofthsm2.so",
    ];
    module(&places, "softhsm2")
}

/// OpenSC's module that logs each call on its way to another one.
pub fn pkcs11_spy() -> PathBuf {
    let places = [
        "/usr/lib/x86_64-linux-gnu/pkcs11-spy.so",
        "/usr/lib/aarch64-linux-gnu/pkcs11-spy.so",
        "/usr/lib64/pkcs11-spy.so",
    ];
    module(&places, "opensc-pkcs11")
}

/// Kryoptic's PKCS#11 module, built once into the user's cache.
pub fn kryoptic_module() -> PathBuf {
    static PATH: OnceLock<PathBuf> = OnceLock::new();
    PATH.get_or_init(|| engine("kryoptic.sh")).clone()
}

/// cosign, built once into the user's cache.
pub fn cosign() -> PathBuf {
    static PATH: OnceLock<PathBuf> = OnceLock::new();
    PATH.get_or_init(|| engine("cosign.sh")).clone()
}

/// Rekor v2's own POSIX server, built once into the user's cache.
pub fn rekor_tiles() -> PathBuf {
    static PATH: OnceLock<PathBuf> = OnceLock::new();
    PATH.get_or_init(|| engine("rekor-tiles.sh")).clone()
}

/// A folder with playwright-core, which drives Debian's Chromium, installed once into the user's cache.
pub fn playwright() -> PathBuf {
    static PATH: OnceLock<PathBuf> = OnceLock::new();
    PATH.get_or_init(|| engine("chromium.sh")).clone()
}

/// ykman, Yubico's own tool, installed once into the user's cache.
pub fn ykman() -> PathBuf {
    static PATH: OnceLock<PathBuf> = OnceLock::new();
    PATH.get_or_init(|| engine("ykman.sh")).clone()
}

/// HashiCorp Vault for tests, built once into the user's cache.
pub fn vault() -> PathBuf {
    static PATH: OnceLock<PathBuf> = OnceLock::new();
    PATH.get_or_init(|| engine("vault.sh")).clone()
}

/// ministack, which serves AWS's API on this machine, installed once into the user's cache.
pub fn ministack() -> PathBuf {
    static PATH: OnceLock<PathBuf> = OnceLock::new();
    PATH.get_or_init(|| engine("ministack.sh")).clone()
}

/// Tessera's `fsck`: reads a log as its own clients do, and checks all of it.
pub fn tessera_fsck() -> PathBuf {
    engine("tessera-fsck.sh")
}

/// TesseraCT's `fsck`: the same for certificate logs.
pub fn tesseract_fsck() -> PathBuf {
    engine("tesseract-fsck.sh")
}

/// MinIO, an S3 server, built once into the user's cache.
pub fn minio() -> PathBuf {
    static PATH: OnceLock<PathBuf> = OnceLock::new();
    PATH.get_or_init(|| engine("minio.sh")).clone()
}

/// versitygw, an S3 server over a folder, built once into the user's cache.
pub fn versitygw() -> PathBuf {
    static PATH: OnceLock<PathBuf> = OnceLock::new();
    PATH.get_or_init(|| engine("versitygw.sh")).clone()
}

/// litewitness, a witness of transparency logs, built once into the user's cache.
pub fn litewitness() -> PathBuf {
    static PATH: OnceLock<PathBuf> = OnceLock::new();
    PATH.get_or_init(|| engine("litewitness.sh")).clone()
}

/// What a script of `hwtests/engines` prints.
fn engine(script: &str) -> PathBuf {
    let script = source("hwtests/engines").join(script);
    let output = Command::new(&script).stderr(Stdio::inherit()).output();
    let output = output.unwrap_or_else(|e| panic!("{} cannot be run: {e}", script.display()));
    assert!(output.status.success(), "{} failed: it says above what is missing", script.display());
    PathBuf::from(String::from_utf8_lossy(&output.stdout).trim())
}

/// A path in the sources.
pub fn source(path: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("hwtests is in the workspace").join(path)
}

/// Runs a program to its end and gives what it wrote; panics with all of it when it fails.
pub fn must(command: &mut Command) -> String {
    let output = output(command);
    assert!(output.status.success(), "{command:?} failed: {}", text(&output));
    String::from_utf8_lossy(&output.stdout).into_owned()
}

/// Runs a program to its end.
pub fn output(command: &mut Command) -> Output {
    command.stdin(Stdio::null()).output().unwrap_or_else(|e| panic!("{command:?} cannot be run: {e}"))
}

/// All that a program wrote.
pub fn text(output: &Output) -> String {
    format!(
        "{}\n{}{}",
        output.status,
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr)
    )
}
