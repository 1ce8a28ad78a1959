//! The answer: a `TransparencyLogEntry`, as JSON with all fields, or as a message.

use base64::{Engine, engine::general_purpose::STANDARD};
use bytes::Bytes;
use signer_log_engine::Appended;

use super::{
    entry::VERSION,
    pb::{common::v1::LogId, rekor::v1},
};

/// An entry that is in the log, and the proof.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) appended: Appended,
    pub(crate) kind: &'static str,
    pub(crate) log_id: [u8; 32],
    pub(crate) body: Bytes,
}

impl Answer {
    /// Protobuf's JSON form, with fields that are not set: that is how Rekor answers.
    pub(crate) fn to_json(&self) -> String {
        let Appended { index, size, root, proof, checkpoint } = &self.appended;
        let hashes: Vec<_> = proof.iter().map(|h| format!("\"{}\"", STANDARD.encode(h))).collect();
        // The one string that may have something in it that has to be escaped.
        let envelope = serde_json::to_string(&**checkpoint).unwrap_or_default();
        format!(
            concat!(
                r#"{{"logIndex":"{index}","logId":{{"keyId":"{id}"}},"kindVersion":{{"kind":"{kind}","version":"{version}"}},"#,
                r#""integratedTime":"0","inclusionPromise":null,"inclusionProof":{{"logIndex":"{index}","rootHash":"{root}","#,
                r#""treeSize":"{size}","hashes":[{hashes}],"checkpoint":{{"envelope":{envelope}}}}},"#,
                r#""canonicalizedBody":"{body}"}}"#
            ),
            index = index,
            id = STANDARD.encode(self.log_id),
            kind = self.kind,
            version = VERSION,
            root = STANDARD.encode(root),
            size = size,
            hashes = hashes.join(","),
            envelope = envelope,
            body = STANDARD.encode(&self.body),
        )
    }

    /// The same as a message.
    pub(crate) fn to_message(&self) -> v1::TransparencyLogEntry {
        let number = |n: u64| i64::try_from(n).unwrap_or(i64::MAX);
        let Appended { index, size, root, proof, checkpoint } = &self.appended;
        v1::TransparencyLogEntry {
            log_index: number(*index),
            log_id: Some(LogId { key_id: self.log_id.to_vec() }),
            kind_version: Some(v1::KindVersion { kind: self.kind.to_owned(), version: VERSION.to_owned() }),
            integrated_time: 0,
            inclusion_promise: None,
            inclusion_proof: Some(v1::InclusionProof {
                log_index: number(*index),
                root_hash: root.to_vec(),
                tree_size: number(*size),
                hashes: proof.iter().map(|h| h.to_vec()).collect(),
                checkpoint: Some(v1::Checkpoint { envelope: checkpoint.to_string() }),
            }),
            canonicalized_body: self.body.to_vec(),
        }
    }
}
