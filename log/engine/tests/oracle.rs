//! Other implementations read what is written here.
#![allow(clippy::unwrap_used)] // tests

mod support;

use std::path::PathBuf;

use signed_note::{Note, StandardVerifier, VerifierList};
use signer_core::KeyType;
use signer_log_engine::leaf_hash;
use support::{append_all, open};
use tlog_tiles::{
    Checkpoint, Hash, HashReader, Tile, TileHashReader, TileReader, check_record, prove_record, prove_tree,
};

struct Files(PathBuf);

impl TileReader for Files {
    fn height(&self) -> u8 {
        8
    }

    fn read_tiles(&self, tiles: &[Tile]) -> Result<Vec<Vec<u8>>, tlog_tiles::Error> {
        let read = |tile: &Tile| {
            // The height is not in the path of C2SP's tiles.
            let path = tile.path().replace("tile/8/", "tile/");
            Ok(std::fs::read(self.0.join(&path)).unwrap_or_else(|e| panic!("{path}: {e}")))
        };
        tiles.iter().map(read).collect()
    }

    fn save_tiles(&self, _: &[Tile], _: &[Vec<u8>]) {}
}

#[tokio::test(flavor = "multi_thread")]
async fn tiles_and_checkpoint_are_those_of_others() {
    let folder = tempfile::tempdir().unwrap();
    let log = open(folder.path(), KeyType::Ed25519).await.unwrap();
    let mut old = None;
    for round in 0..4 {
        let bodies: Vec<_> =
            (0..[1, 255, 700, 70_000 - 956][round]).map(|i| format!("{round} {i}").into_bytes()).collect();
        for chunk in bodies.chunks(4000) {
            let answers = append_all(&log, chunk.to_vec()).await;
            assert!(answers.iter().all(Result::is_ok));
        }
        log.storage().settle().unwrap();
        let bytes = std::fs::read(folder.path().join("checkpoint")).unwrap();
        let note = Note::from_bytes(&bytes).unwrap();
        let verifier = StandardVerifier::new(&log.key().to_vkey().unwrap()).unwrap();
        let (good, _) = note.verify(&VerifierList::new(vec![Box::new(verifier)])).unwrap();
        assert_eq!(good.len(), 1);
        let checkpoint = Checkpoint::from_bytes(note.text()).unwrap();
        assert_eq!(checkpoint.size(), log.published().checkpoint.size);
        let files = Files(folder.path().to_owned());
        let (size, root) = (checkpoint.size(), *checkpoint.hash());
        let reader = TileHashReader::new(size, root, &files);
        for index in [0, size / 3, size / 2, size - 1] {
            let theirs = prove_record(size, index, &reader).unwrap();
            let ours = log.prove(index).await.unwrap();
            assert_eq!(theirs.iter().map(|h| h.0).collect::<Vec<_>>(), ours.proof);
            let leaf = reader.read_hashes(&[tlog_tiles::stored_hash_index(0, index)]).unwrap()[0];
            check_record(&theirs, size, root, index, leaf).unwrap();
        }
        if let Some((old_size, old_root)) = old {
            let proof = prove_tree(size, old_size, &reader).unwrap();
            tlog_tiles::check_tree(&proof, size, root, old_size, old_root).unwrap();
        }
        old = Some((size, root));
    }
    assert_eq!(tlog_tiles::record_hash(b"x"), Hash(leaf_hash(b"x")));
}
