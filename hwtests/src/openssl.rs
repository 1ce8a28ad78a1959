//! What openssl says of signatures.

use std::{path::Path, process::Command};

use signer_core::{HashAlgorithm, KeyInfo, SignatureAlgorithm};

use crate::programs;

/// What openssl says of a bare signature over the file `message` in `folder`; `None` where it does not know the algorithm.
pub fn openssl_verifies(
    folder: &Path,
    key: &KeyInfo,
    algorithm: SignatureAlgorithm,
    signature: &[u8],
) -> Option<bool> {
    let (pem, file, sig) = (folder.join("key.pem"), folder.join("message"), folder.join("signature"));
    std::fs::write(&pem, key.public_key.to_pem()).expect("a temporary file can be written");
    std::fs::write(&sig, signature).expect("a temporary file can be written");
    let mut command = Command::new(programs::system("openssl", "openssl"));
    let hash = |h: HashAlgorithm| format!("-{h}");
    match algorithm {
        SignatureAlgorithm::Ecdsa(h) | SignatureAlgorithm::RsaPkcs1(h) => {
            command.arg("dgst").arg(hash(h)).arg("-verify").arg(pem).arg("-signature").arg(sig).arg(file);
        }
        SignatureAlgorithm::RsaPss(h) => {
            command.arg("dgst").arg(hash(h)).args(["-sigopt", "rsa_padding_mode:pss"]);
            command.args(["-sigopt", "rsa_pss_saltlen:digest"]);
            command.arg("-verify").arg(pem).arg("-signature").arg(sig).arg(file);
        }
        SignatureAlgorithm::Ed25519 => {
            command.args(["pkeyutl", "-verify", "-pubin", "-rawin", "-inkey"]).arg(pem);
            command.arg("-in").arg(file).arg("-sigfile").arg(sig);
        }
        // OpenSSL 3.0, which Debian 12 has, knows neither; 3.5 does, but under other commands for each.
        _ => return None,
    }
    Some(programs::output(&mut command).status.success())
}
