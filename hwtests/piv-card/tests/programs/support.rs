//! A reader with a card, a folder for files, and programs that are run until they end.

use std::{
    fs,
    io::ErrorKind,
    path::{Path, PathBuf},
    process::{Command, Stdio},
    sync::OnceLock,
};

use hwtests_piv_card::{CardOptions, Firmware, Pcscd, VirtualCard, attestation_root_pem};
use tempfile::TempDir;

pub(crate) const SERIAL: u32 = 12_345_678;
pub(crate) const MANAGEMENT_KEY: &str = "010203040506070801020304050607080102030405060708";

/// A card in a reader that only this test can reach.
pub(crate) struct Bench {
    pub(crate) card: VirtualCard,
    pub(crate) pcscd: Pcscd,
    folder: TempDir,
}

impl Bench {
    pub(crate) fn new(firmware: Firmware) -> Self {
        let pcscd = Pcscd::start().unwrap();
        let card = VirtualCard::start(pcscd.slot(0), CardOptions::new(SERIAL, firmware)).unwrap();
        pcscd.wait_for_cards(1).unwrap();
        let bench = Self { card, pcscd, folder: tempfile::tempdir().unwrap() };
        bench.write("root.pem", attestation_root_pem().as_bytes());
        bench.write("message", b"what is signed");
        bench
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    pub(crate) fn write(&self, name: &str, content: &[u8]) {
        fs::write(self.path(name), content).unwrap();
    }

    pub(crate) fn read(&self, name: &str) -> Vec<u8> {
        fs::read(self.path(name)).unwrap_or_else(|e| panic!("{name}: {e}"))
    }

    /// A program in the test's folder; words are split at spaces.
    pub(crate) fn command(&self, program: impl AsRef<Path>, words: &str) -> Command {
        let mut command = self.pcscd.command(program.as_ref());
        command
            .args(words.split_whitespace())
            .current_dir(self.folder.path())
            .env("HOME", self.folder.path());
        command.stdin(Stdio::null());
        command
    }

    /// What a program says, which must succeed.
    pub(crate) fn run(&self, program: impl AsRef<Path>, words: &str) -> String {
        let (success, said) = end(self.command(program.as_ref(), words));
        assert!(success, "{} {words}: {said}", program.as_ref().display());
        said
    }

    /// What a program says, which must fail.
    pub(crate) fn fail(&self, program: impl AsRef<Path>, words: &str) -> String {
        let (success, said) = end(self.command(program.as_ref(), words));
        assert!(!success, "{} {words} succeeded: {said}", program.as_ref().display());
        said
    }

    /// A signature by the key of a public key or certificate, over `message` with SHA-256.
    pub(crate) fn check_signature(&self, public: &str, signature: &str) {
        self.run("openssl", &format!("dgst -sha256 -verify {public} -signature {signature} message"));
    }

    /// The public key of a certificate, as a file.
    pub(crate) fn public_key_of(&self, certificate: &str, public: &str) {
        self.run("openssl", &format!("x509 -in {certificate} -noout -pubkey -out {public}"));
    }

    /// A chain from an attestation to the test root; what the attestation says, as text.
    pub(crate) fn check_attestation(&self, attestation: &str, intermediate: &str) -> String {
        self.run("openssl", &format!("verify -CAfile root.pem -untrusted {intermediate} {attestation}"));
        self.run("openssl", &format!("x509 -in {attestation} -noout -text"))
    }
}

/// Waits for the end; whether it succeeded, and all that it said.
pub(crate) fn end(mut command: Command) -> (bool, String) {
    let output = command.output().unwrap_or_else(|e| missing(&command, &e));
    let text = [output.stdout, output.stderr].concat();
    (output.status.success(), String::from_utf8_lossy(&text).into_owned())
}

fn missing(command: &Command, error: &std::io::Error) -> ! {
    let name = command.get_program().to_string_lossy().into_owned();
    let package = match name.as_str() {
        "pkcs11-tool" | "piv-tool" | "opensc-tool" => "opensc",
        "nsenter" => "util-linux",
        name => name,
    };
    match error.kind() {
        ErrorKind::NotFound => {
            panic!("{name} is missing: apt-get install {package}, or run `hwtests/run` as root")
        }
        _ => panic!("{name}: {error}"),
    }
}

/// A PKCS#11 module, by its file name and Debian package.
pub(crate) fn module(file: &str, package: &str) -> String {
    ["/usr/lib/x86_64-linux-gnu", "/usr/lib/aarch64-linux-gnu", "/usr/lib64", "/usr/lib64/pkcs11"]
        .iter()
        .map(|folder| format!("{folder}/{file}"))
        .find(|path| Path::new(path).is_file())
        .unwrap_or_else(|| {
            panic!("{file} is missing: apt-get install {package}, or run `hwtests/run` as root")
        })
}

/// Yubico's own tool, from PyPI.
pub(crate) fn ykman() -> &'static Path {
    static PATH: OnceLock<PathBuf> = OnceLock::new();
    PATH.get_or_init(|| {
        let script = concat!(env!("CARGO_MANIFEST_DIR"), "/../engines/ykman.sh");
        let output = Command::new(script).stderr(Stdio::inherit()).output().unwrap();
        assert!(output.status.success(), "{script} failed: it says above what is missing");
        PathBuf::from(String::from_utf8_lossy(&output.stdout).trim())
    })
}
