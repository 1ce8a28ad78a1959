//! A certificate authority for code signing, by openssl: a root, an intermediate, and what they issue.

use std::path::PathBuf;

use base64::{Engine, engine::general_purpose::STANDARD};
use serde_json::json;

use crate::programs;

/// A root and an intermediate for code signing. Everything is in a folder of its own.
pub struct Authority {
    folder: tempfile::TempDir,
}

/// The extensions of the root, as openssl's configuration has them.
pub const ROOT: &str = "basicConstraints=critical,CA:TRUE,pathlen:1\nkeyUsage=critical,keyCertSign,cRLSign\n";
/// Those of the intermediate.
pub const INTERMEDIATE: &str = "basicConstraints=critical,CA:TRUE,pathlen:0\nkeyUsage=critical,keyCertSign,cRLSign\nextendedKeyUsage=codeSigning\n";
/// Those of a leaf, without names.
pub const LEAF: &str = "keyUsage=critical,digitalSignature\nextendedKeyUsage=codeSigning\n";

impl Default for Authority {
    fn default() -> Self {
        Self::new()
    }
}

impl Authority {
    /// Makes root and intermediate.
    pub fn new() -> Self {
        let this = Self { folder: tempfile::tempdir().expect("a temporary folder can be made") };
        this.issue("root", "root", "/O=example/CN=root", ROOT);
        this.issue("intermediate", "root", "/O=example/CN=intermediate", INTERMEDIATE);
        this
    }

    /// The file of a name: `NAME.pem`, `NAME.der`, `NAME.key`.
    pub fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// Makes a key and a certificate for it, signed by another of these, or by itself.
    pub fn issue(&self, name: &str, issuer: &str, subject: &str, extensions: &str) -> Vec<u8> {
        std::fs::write(self.path("extensions"), extensions).expect("the folder can be written to");
        let script = format!(
            "set -e; cd {}; [ -e {name}.key ] || openssl ecparam -name prime256v1 -genkey -noout -out {name}.key
             openssl req -utf8 -new -key {name}.key -subj '{subject}' -out request
             if [ {name} = {issuer} ]; then sign='-signkey {issuer}.key'; else sign='-CA {issuer}.pem -CAkey {issuer}.key'; fi
             openssl x509 -req -in request $sign -set_serial 0x$(openssl rand -hex 12) -days 2 -sha256 -extfile extensions -out {name}.pem
             openssl x509 -in {name}.pem -outform DER -out {name}.der",
            self.folder.path().display()
        );
        programs::must(std::process::Command::new("sh").args(["-c", &script]));
        self.der(name)
    }

    /// A certificate that was issued.
    pub fn der(&self, name: &str) -> Vec<u8> {
        std::fs::read(self.path(&format!("{name}.der"))).expect("the certificate was issued")
    }

    /// The request that logs a certificate of the intermediate: `add-chain`, `add-pre-chain`.
    pub fn chain(&self, name: &str) -> String {
        let chain = [self.der(name), self.der("intermediate"), self.der("root")];
        json!({"chain": chain.iter().map(|c| STANDARD.encode(c)).collect::<Vec<_>>()}).to_string()
    }
}
