//! The tile log engine: an append-only Merkle tree (RFC 6962) in the files that C2SP `tlog-tiles` and `static-ct-api`
//! specify, with signed checkpoints (`signed-note`, `tlog-checkpoint`).
//!
//! A [`Log`] takes entries, makes them durable in groups, signs a checkpoint for each group and answers with proofs. A
//! [`Ledger`] answers when an entry is durable, and signs in its own time. The order of writes, on which everything rests,
//! is argued in [`storage`]'s source. Keys are [`signer_core::Signer`]s,
//! wherever they are. The engine knows nothing of HTTP, nor of what entries mean.

mod check;
mod checkpoint;
mod compact;
mod dedup;
mod format;
mod freeze;
mod frontier;
mod ledger;
mod log;
mod note;
mod recovery;
mod sequencer;
mod signing;
pub mod storage;
mod tile;
mod tree;
mod witness;

pub use check::{Findings, check};
pub use checkpoint::Checkpoint;
pub use compact::CompactTree;
pub use format::{EntryRef, Format, MAX_ENTRY, TimestampedEntry, timestamped_entry};
pub use freeze::freeze;
pub use frontier::StoredNodes;
pub use ledger::{Condition, Durable, Ledger, LedgerLimits, OpenKey};
pub use log::{Appended, Build, FROZEN, Limits, Log, Published, Submitted, Ticket, prove_stored};
pub use note::{MAX_NOTE, Note, NoteKey, NoteKind, digitally_signed};
pub use signing::{CheckpointSigner, now_millis};
pub use storage::{
    Bucket, BucketStorage, Entry, Folder, LocalStorage, Mirror, Mirrored, Objects, Storage, Swap,
    read_entry_tile,
};
pub use tile::{TileId, TileKind, WIDTH, partial_tiles};
pub use tree::{
    Edge, Hash, Nodes, consistency_proof, empty_root, leaf_hash, node_hash, verify_consistency,
    verify_inclusion,
};
pub use witness::{Prove, Refused, Witness, Witnesses};
