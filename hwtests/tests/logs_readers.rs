//! Programs and libraries of others read our logs over HTTP, unmodified.
#![allow(clippy::unwrap_used)] // tests

use base64::{Engine as _, engine::general_purpose::STANDARD};
use hwtests::{
    daemon::Daemon,
    engines::{Engine as _, Software},
    log::{ENTRIES, LogServer, Signatory},
    programs,
};
use signer_contract::PinSetup;
use signer_core::{KeyType, PublicKey};
use signer_log_engine::NoteKey;
use sigstore_rekor::{RekorV2Client, entry::HashedRekordV2};
use tlog_tiles::{Checkpoint, Tile, TileHashReader, TileReader, prove_record};

/// Enough for a full tile and a partial one on two levels.
const ENTRIES_IN_LOG: usize = 600;

struct Setup {
    _daemon: Daemon,
    log: LogServer,
    vkey: String,
    _engine: Software,
}

/// A signature log with some entries.
async fn setup(key_type: KeyType) -> Setup {
    let engine = Software::start();
    let daemon = Daemon::start(&[engine.toml("soft", PinSetup::Right)]).await;
    let info = daemon.make_key_of("soft", "log", key_type).await;
    let log = LogServer::start(&daemon, "log", "signature", "soft/log", &[]).await;
    let vkey = vkey(&info.public_key);
    let callers = (0..20).map(|caller| {
        let (mut connection, signatory) = (log.caller(), Signatory::default());
        async move {
            for i in 0..ENTRIES_IN_LOG / 20 {
                let request = signatory.request(format!("{caller} {i}").as_bytes());
                let answer = connection.post(ENTRIES, request.to_string().as_bytes()).await.unwrap();
                assert_eq!(answer.status, 201, "{}", answer.text());
            }
        }
    });
    futures_util::future::join_all(callers).await;
    Setup { _daemon: daemon, log, vkey, _engine: engine }
}

/// A verifier's key as Go's `note` packages read it; C2SP has no such form for ECDSA, Tessera has.
fn vkey(key: &PublicKey) -> String {
    if key.key_type() == KeyType::Ed25519 {
        return NoteKey::of_log("log.example", key.clone()).unwrap().to_vkey().unwrap();
    }
    let id = hex::encode(&key.fingerprint().as_bytes()[..4]);
    format!("log.example+{id}+{}", STANDARD.encode([&[2], key.as_der()].concat()))
}

/// What Tessera's `fsck` says of a log at a URL. It ends with 0 either way.
fn fsck(folder: &std::path::Path, vkey: &str, url: &str) -> String {
    let key = folder.join("log.vkey");
    std::fs::write(&key, vkey).unwrap();
    let mut command = std::process::Command::new(programs::tessera_fsck());
    command.args(["-ui=false", "-logtostderr", "-v=1", "-N=4", "-storage_url", url, "-public_key"]).arg(&key);
    programs::text(&programs::output(&mut command))
}

#[tokio::test(flavor = "multi_thread")]
async fn tesseras_own_fsck_finds_nothing_wrong_and_finds_what_is() {
    for key_type in [KeyType::Ed25519, KeyType::EcdsaP256] {
        let Setup { log, vkey, .. } = &setup(key_type).await;
        let folder = tempfile::tempdir().unwrap();
        let url = format!("http://{}/", log.address());
        let said = fsck(folder.path(), vkey, &url);
        let whole = format!("Successfully fsck'd log with size {ENTRIES_IN_LOG}");
        assert!(said.contains(&whole), "{said}");
        // It does look: one bit of one entry.
        let bundle = log.storage().join("tile/entries/000");
        let mut bytes = std::fs::read(&bundle).unwrap();
        bytes[300] ^= 1;
        std::fs::write(&bundle, bytes).unwrap();
        let said = fsck(folder.path(), vkey, &url);
        assert!(said.contains("failed") && !said.contains("Successfully"), "{said}");
    }
}

/// Reads tiles over HTTP for the `tlog_tiles` crate.
struct OverHttp {
    base: String,
    client: reqwest::Client,
    runtime: tokio::runtime::Handle,
}

impl OverHttp {
    fn get(&self, path: &str) -> Vec<u8> {
        let url = format!("{}/{path}", self.base);
        let answer = async { self.client.get(&url).send().await?.error_for_status()?.bytes().await };
        self.runtime.block_on(answer).unwrap_or_else(|e| panic!("{url}: {e}")).to_vec()
    }
}

impl TileReader for OverHttp {
    fn height(&self) -> u8 {
        8
    }

    fn read_tiles(&self, tiles: &[Tile]) -> Result<Vec<Vec<u8>>, tlog_tiles::Error> {
        // The height is not in the path of C2SP's tiles.
        Ok(tiles.iter().map(|tile| self.get(&tile.path().replace("tile/8/", "tile/"))).collect())
    }

    fn save_tiles(&self, _: &[Tile], _: &[Vec<u8>]) {}
}

#[tokio::test(flavor = "multi_thread")]
async fn tlog_tiles_proves_every_entry_from_tiles_that_it_fetched() {
    let Setup { log, vkey, .. } = &setup(KeyType::Ed25519).await;
    let files = OverHttp {
        base: format!("http://{}", log.address()),
        client: reqwest::Client::new(),
        runtime: tokio::runtime::Handle::current(),
    };
    let verifier = signed_note::StandardVerifier::new(vkey).unwrap();
    // Its reader is synchronous.
    let proven = tokio::task::spawn_blocking(move || {
        let note = signed_note::Note::from_bytes(&files.get("checkpoint")).unwrap();
        let known = signed_note::VerifierList::new(vec![Box::new(verifier)]);
        assert_eq!(note.verify(&known).unwrap().0.len(), 1);
        let checkpoint = Checkpoint::from_bytes(note.text()).unwrap();
        // It authenticates each tile that it uses against the checkpoint's root.
        let reader = TileHashReader::new(checkpoint.size(), *checkpoint.hash(), &files);
        let sample = (0..checkpoint.size()).step_by(37);
        sample.inspect(|index| assert!(prove_record(checkpoint.size(), *index, &reader).is_ok())).count()
    });
    assert!(proven.await.unwrap() > ENTRIES_IN_LOG / 40);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_sigstore_rekor_crate_writes_and_reads() {
    let Setup { log, .. } = &setup(KeyType::Ed25519).await;
    let client = RekorV2Client::new(format!("http://{}", log.address())).unwrap();
    let before = client.get_checkpoint().await.unwrap();
    assert_eq!(before.tree_size(), ENTRIES_IN_LOG as u64);
    // It compares the answer with what it asked for.
    let request: HashedRekordV2 =
        serde_json::from_value(Signatory::default().request(b"by somebody else's client")).unwrap();
    let entry = client.create_entry(request).await.unwrap();
    assert_eq!(entry.log_index.get(), ENTRIES_IN_LOG as u64);
    let after = client.get_checkpoint().await.unwrap();
    assert_eq!(after.tree_size(), ENTRIES_IN_LOG as u64 + 1);
    let full = client.get_tile(0, 0, None).await.unwrap();
    assert_eq!(full.bytes.len(), 256 * 32);
    let width = u8::try_from(after.tree_size() % 256).ok().and_then(std::num::NonZeroU8::new);
    let last = client.get_entry_bundle(after.tree_size() / 256, width).await.unwrap();
    let body = entry.canonicalized_body.as_bytes();
    assert!(last.bytes.ends_with(body), "the entry is the last of its bundle");
}
