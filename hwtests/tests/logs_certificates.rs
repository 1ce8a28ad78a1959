//! The certificate log, with chains that openssl makes.
#![allow(clippy::unwrap_used)] // tests

use std::path::Path;

use base64::{Engine, engine::general_purpose::STANDARD};
use hwtests::{
    authority::{Authority, INTERMEDIATE},
    daemon::Daemon,
    engines::{Engine as _, Software},
    log::{Answer, LogServer},
    programs,
};
use serde_json::{Value, json};
use signer_contract::PinSetup;
use signer_core::{Digest, HashAlgorithm, Input, PublicKey, SignatureAlgorithm};
use signer_log_engine::{Checkpoint, Format, NoteKey, NoteKind};

const LEAF: &str = "keyUsage=critical,digitalSignature\nextendedKeyUsage=codeSigning\nsubjectAltName=critical,email:dev@example.test\n";
const POISON: &str = "1.3.6.1.4.1.11129.2.4.3=critical,ASN1:NULL\n";

async fn log(authority: &Authority) -> (Software, Daemon, LogServer, PublicKey) {
    let engine = Software::start();
    let daemon = Daemon::start(&[engine.toml("soft", PinSetup::Right)]).await;
    let key = daemon.make_key("soft", "ct").await.public_key;
    let roots = authority.path("root.pem");
    let roots = Path::to_str(&roots).unwrap();
    let log = LogServer::start(&daemon, "ct", "certificate", "soft/ct", &["--roots", roots]).await;
    (engine, daemon, log, key)
}

fn chain(certificates: &[&[u8]]) -> String {
    json!({"chain": certificates.iter().map(|c| STANDARD.encode(c)).collect::<Vec<_>>()}).to_string()
}

fn bytes(value: &Value) -> Vec<u8> {
    STANDARD.decode(value.as_str().unwrap()).unwrap()
}

fn sha256(bytes: &[u8]) -> Vec<u8> {
    Digest::of(HashAlgorithm::Sha256, bytes).as_bytes().to_vec()
}

/// Verifies a timestamp as RFC 6962 section 3.2 says; gives its time and index.
fn verified(answer: &Answer, key: &PublicKey, signed_entry: &[u8]) -> (u64, u64) {
    assert_eq!(answer.status, 200, "{}", answer.text());
    let sct = answer.json();
    assert_eq!((&sct["sct_version"], bytes(&sct["id"])), (&json!(0), sha256(key.as_der())));
    let (time, extensions) = (sct["timestamp"].as_u64().unwrap(), bytes(&sct["extensions"]));
    let mut message = vec![0, 0];
    message.extend(time.to_be_bytes());
    message.extend(signed_entry);
    message.extend((extensions.len() as u16).to_be_bytes());
    message.extend(&extensions);
    let signature = bytes(&sct["signature"]);
    assert_eq!(signature[..2], [4, 3], "ECDSA with SHA-256");
    key.verify(
        SignatureAlgorithm::Ecdsa(HashAlgorithm::Sha256),
        &Input::Message(message.into()),
        &signature[4..],
    )
    .unwrap();
    assert_eq!(extensions[..3], [0, 0, 5], "leaf_index");
    (time, extensions[3..].iter().fold(0, |sum, b| sum << 8 | u64::from(*b)))
}

fn certificate_entry(der: &[u8]) -> Vec<u8> {
    [&[0, 0][..], &(der.len() as u32).to_be_bytes()[1..], der].concat()
}

#[tokio::test(flavor = "multi_thread")]
async fn certificates_and_precertificates_get_timestamps_that_verify() {
    let authority = Authority::new();
    let (_engine, _daemon, log, key) = log(&authority).await;
    let (root, intermediate) = (authority.der("root"), authority.der("intermediate"));
    let mut caller = log.caller();
    let leaf = authority.issue("leaf", "intermediate", "/CN=leaf", LEAF);
    let request = chain(&[&leaf, &intermediate, &root]);
    let first = verified(
        &caller.post("/ct/v1/add-chain", request.as_bytes()).await.unwrap(),
        &key,
        &certificate_entry(&leaf),
    );
    assert_eq!(first.1, 0);
    // The same again, and without the root: the same time and index.
    for request in [request, chain(&[&leaf, &intermediate])] {
        let again = caller.post("/ct/v1/add-chain", request.as_bytes()).await.unwrap();
        assert_eq!(verified(&again, &key, &certificate_entry(&leaf)), first);
    }
    // A precertificate: what is signed is the certificate without poison. openssl makes that from the same extensions, and
    // its TBS differs in the serial number alone, so it is taken out of the precertificate here.
    let pre = authority.issue("pre", "intermediate", "/CN=pre", &format!("{LEAF}{POISON}"));
    let poison =
        [&[0x30, 0x13, 6, 10][..], &[0x2b, 6, 1, 4, 1, 0xd6, 0x79, 2, 4, 3], &[1, 1, 0xff, 4, 2, 5, 0]]
            .concat();
    let at = pre.windows(poison.len()).position(|w| w == poison).expect("the poison is there");
    let answer =
        caller.post("/ct/v1/add-pre-chain", chain(&[&pre, &intermediate, &root]).as_bytes()).await.unwrap();
    let tile = caller.get("/tile/data/000.p/2").await.unwrap();
    let entries = Format::Certificates.split_all(&tile.body).unwrap();
    let parts = signer_log_engine::timestamped_entry(entries[1].bytes).unwrap();
    assert_eq!(parts.signed.len(), tbs(&pre).len() - poison.len());
    assert!(parts.signed.windows(40).any(|w| w == &pre[at - 40..at]), "what is before the poison stays");
    let issuer_spki = programs::must(std::process::Command::new("sh").args([
        "-c",
        &format!("openssl x509 -in {} -noout -pubkey", authority.path("intermediate.pem").display()),
    ]));
    let issuer_key_hash = sha256(PublicKey::from_pem(&issuer_spki).unwrap().as_der());
    assert_eq!(parts.issuer_key_hash.unwrap()[..], issuer_key_hash[..]);
    let signed_entry =
        [&[0, 1][..], &issuer_key_hash, &(parts.signed.len() as u32).to_be_bytes()[1..], parts.signed]
            .concat();
    assert_eq!(verified(&answer, &key, &signed_entry).1, 1);
    // Reading: issuers by fingerprint, a checkpoint with a tree head's signature.
    for (at, issuer) in entries[1].issuers().iter().zip([&intermediate, &root]) {
        assert_eq!(at[..], sha256(issuer)[..]);
        let found = caller.get(&format!("/issuer/{}", hex::encode(at))).await.unwrap();
        assert_eq!((&found.body, found.header("content-type")), (issuer, Some("application/pkix-cert")));
    }
    let note = NoteKey::new("log.example", NoteKind::TreeHead, key).unwrap();
    assert_eq!(Checkpoint::verified(&caller.get("/checkpoint").await.unwrap().body, &note).unwrap().size, 2);
    assert_eq!(log.check(), (vec![], 2));
    let roots = caller.get("/ct/v1/get-roots").await.unwrap().json();
    assert_eq!(bytes(&roots["certificates"][0]), root);
}

/// The `TBSCertificate` of a certificate with lengths of two bytes.
fn tbs(der: &[u8]) -> &[u8] {
    let length = usize::from(u16::from_be_bytes([der[6], der[7]]));
    &der[4..8 + length]
}

#[tokio::test(flavor = "multi_thread")]
async fn chains_that_are_not_in_order_are_refused() {
    let authority = Authority::new();
    let stranger = Authority::new();
    let (_engine, _daemon, log, _) = log(&authority).await;
    let (root, intermediate) = (authority.der("root"), authority.der("intermediate"));
    let leaf = authority.issue("leaf", "intermediate", "/CN=leaf", LEAF);
    let pre = authority.issue("pre", "intermediate", "/CN=pre", &format!("{LEAF}{POISON}"));
    let soft = authority.issue(
        "soft",
        "intermediate",
        "/CN=soft",
        &format!("{LEAF}1.3.6.1.4.1.11129.2.4.3=ASN1:NULL\n"),
    );
    let server = authority.issue("server", "intermediate", "/CN=server", "extendedKeyUsage=serverAuth\n");
    let below_leaf = authority.issue("below", "leaf", "/CN=below", LEAF);
    let deeper = authority.issue("deeper", "intermediate", "/O=example/CN=deeper", INTERMEDIATE);
    let too_deep = authority.issue("toodeep", "deeper", "/CN=too deep", LEAF);
    let foreign = stranger.issue("leaf", "intermediate", "/CN=leaf", LEAF);
    let mut flipped = leaf.clone();
    let last = flipped.len() - 5;
    flipped[last] ^= 1;
    let trailing = [&leaf[..], b"x"].concat();
    let many: Vec<&[u8]> = std::iter::once(&leaf[..]).chain((0..20).map(|_| &intermediate[..])).collect();
    let add = "/ct/v1/add-chain";
    let mut caller = log.caller();
    let cases: Vec<(&str, &str, String)> = vec![
        ("no JSON", add, "x".into()),
        ("no chain", add, "{}".into()),
        ("unknown field", add, json!({"chain": [], "x": 1}).to_string()),
        ("empty", add, chain(&[])),
        ("not base64", add, json!({"chain": ["*"]}).to_string()),
        ("no certificate", add, chain(&[b"abc"])),
        ("trailing byte", add, chain(&[&trailing, &intermediate])),
        ("too many", add, chain(&many)),
        ("leaf alone", add, chain(&[&leaf])),
        ("wrong order", add, chain(&[&leaf, &root, &intermediate])),
        ("foreign", add, chain(&[&foreign, &stranger.der("intermediate"), &stranger.der("root")])),
        ("foreign under our names", add, chain(&[&foreign, &intermediate, &root])),
        ("flipped bit", add, chain(&[&flipped, &intermediate, &root])),
        ("for servers", add, chain(&[&server, &intermediate, &root])),
        ("issued by a leaf", add, chain(&[&below_leaf, &leaf, &intermediate, &root])),
        ("deeper than allowed", add, chain(&[&too_deep, &deeper, &intermediate, &root])),
        ("a precertificate as certificate", add, chain(&[&pre, &intermediate, &root])),
        ("a certificate as precertificate", "/ct/v1/add-pre-chain", chain(&[&leaf, &intermediate, &root])),
        ("poison not critical", "/ct/v1/add-pre-chain", chain(&[&soft, &intermediate, &root])),
    ];
    for (name, path, body) in cases {
        let answer = caller.post(path, body.as_bytes()).await.unwrap();
        assert_eq!(answer.status, 400, "{name}: {}", answer.text());
        assert!(answer.body.len() > 15, "{name} is not explained");
    }
    let good = caller.post(add, chain(&[&leaf, &intermediate, &root]).as_bytes()).await.unwrap();
    assert_eq!(good.status, 200, "{}", good.text());
}

#[tokio::test(flavor = "multi_thread")]
async fn roots_are_read_again_when_the_file_changes() {
    let (authority, other) = (Authority::new(), Authority::new());
    let (_engine, _daemon, log, _) = log(&authority).await;
    let leaf = other.issue("leaf", "intermediate", "/CN=leaf", LEAF);
    let request = chain(&[&leaf, &other.der("intermediate")]);
    assert_eq!(log.caller().post("/ct/v1/add-chain", request.as_bytes()).await.unwrap().status, 400);
    let both =
        [std::fs::read(authority.path("root.pem")).unwrap(), std::fs::read(other.path("root.pem")).unwrap()]
            .concat();
    std::fs::write(authority.path("root.pem"), both).unwrap();
    let taken = hwtests::eventually(std::time::Duration::from_secs(15), async || {
        log.caller().post("/ct/v1/add-chain", request.as_bytes()).await.unwrap().status == 200
    });
    assert!(taken.await, "{}", log.output());
}

#[tokio::test(flavor = "multi_thread")]
async fn tesseracts_own_fsck_finds_nothing_wrong_and_finds_what_is() {
    let authority = Authority::new();
    let (_engine, _daemon, log, key) = log(&authority).await;
    let (root, intermediate) = (authority.der("root"), authority.der("intermediate"));
    let mut caller = log.caller();
    for number in 0..3 {
        let leaf = authority.issue("leaf", "intermediate", &format!("/CN=leaf {number}"), LEAF);
        let answer = caller.post("/ct/v1/add-chain", chain(&[&leaf, &intermediate, &root]).as_bytes()).await;
        assert_eq!(answer.unwrap().status, 200);
        let poisoned = format!("{LEAF}{POISON}");
        let pre = authority.issue("pre", "intermediate", &format!("/CN=pre {number}"), &poisoned);
        let request = chain(&[&pre, &intermediate, &root]);
        let answer = caller.post("/ct/v1/add-pre-chain", request.as_bytes()).await;
        assert_eq!(answer.unwrap().status, 200);
    }
    // It ends with 0 either way.
    let fsck = || {
        let mut command = std::process::Command::new(programs::tesseract_fsck());
        command.args(["-ui=false", "-logtostderr", "-v=1", "-origin", "log.example"]);
        command.args(["-monitoring_url", &format!("http://{}/", log.address())]);
        command.args(["-public_key", &STANDARD.encode(key.as_der())]);
        programs::text(&programs::output(&mut command))
    };
    let said = fsck();
    assert!(said.contains("Successfully fsck'd log with size 6"), "{said}");
    // It does look: one bit of a certificate.
    let bundle = log.storage().join("tile/data/000.p/6");
    let mut bytes = std::fs::read(&bundle).unwrap();
    bytes[200] ^= 1;
    std::fs::write(&bundle, bytes).unwrap();
    let said = fsck();
    assert!(said.contains("checking log of size 6") && !said.contains("Successfully"), "{said}");
}
