//! Proofs made by others: which verify, and which must not.
#![allow(clippy::unwrap_used)] // tests

use std::path::{Path, PathBuf};

use base64::{Engine, engine::general_purpose::STANDARD};
use serde_json::Value;
use signer_log_engine::{Hash, verify_consistency, verify_inclusion};

fn files(folder: &Path, found: &mut Vec<PathBuf>) {
    for entry in std::fs::read_dir(folder).unwrap().flatten() {
        let path = entry.path();
        if path.is_dir() {
            files(&path, found);
        } else if path.extension().is_some_and(|e| e == "json") {
            found.push(path);
        }
    }
}

/// A hash; one of a wrong length, as some vectors have, fits nowhere.
fn hash(value: &Value) -> Option<Hash> {
    STANDARD.decode(value.as_str().unwrap_or_default()).unwrap().try_into().ok()
}

fn holds(vector: &Value) -> bool {
    let number = |name: &str| vector[name].as_u64();
    let proof: Option<Vec<_>> =
        vector["proof"].as_array().map_or(Some(Vec::new()), |p| p.iter().map(hash).collect());
    let Some(proof) = proof else { return false };
    let check = || {
        if vector.get("leafIdx").is_some() {
            let (leaf, root) = (hash(&vector["leafHash"])?, hash(&vector["root"])?);
            verify_inclusion(&leaf, number("leafIdx")?, number("treeSize")?, &proof, &root).ok()
        } else {
            let (old, new) = (hash(&vector["root1"])?, hash(&vector["root2"])?);
            verify_consistency((number("size1")?, &old), (number("size2")?, &new), &proof).ok()
        }
    };
    check().is_some()
}

#[test]
fn proofs_of_others() {
    let own = Path::new(env!("CARGO_MANIFEST_DIR")).join("testdata/merkle");
    let folder = std::env::var_os("MERKLE_VECTORS").map_or(own, PathBuf::from);
    let mut found = Vec::new();
    files(&folder, &mut found);
    assert!(!found.is_empty(), "there are no vectors in {}", folder.display());
    let mut wrong = Vec::new();
    for file in &found {
        let vector: Value = serde_json::from_slice(&std::fs::read(file).unwrap()).unwrap();
        if holds(&vector) == vector["wantErr"].as_bool().unwrap_or(false) {
            wrong.push(format!("{}: {}", file.display(), vector["desc"]));
        }
    }
    println!("{} vectors", found.len());
    assert!(wrong.is_empty(), "{} of {} are judged wrong:\n{}", wrong.len(), found.len(), wrong.join("\n"));
}
