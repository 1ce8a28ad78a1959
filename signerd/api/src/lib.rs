//! The daemon's gRPC API, and a client whose keys are [`signer_core::Signer`]s like any other.
//!
//! [`pb`] is generated from `proto/signerd/v1/signerd.proto`, which documents every call and field. Around it stand
//! the conversions to and from the types of signer-core, which both sides use, and the [`Client`].

pub mod audit;
mod client;
mod convert;
mod label;
mod redacted;
mod socket;
mod status;

pub use client::{
    AuditStatus, BackendStatus, Client, DaemonEvent, EventStream, Happening, KeyDescription, KeyList,
    MemberStatus, NamedKey, PinAsker, PinEnd, PinRequest, Prompts, RemoteBackend, RemoteSigner, SignStream,
    Signed,
};
pub use convert::{
    backend_from_pb, backend_to_pb, evidence_to_pb, group_to_pb, key_from_pb, key_to_pb, policy_from_pb,
};
pub use label::{has_label, label_of};
pub use socket::{default_socket, find_socket};
pub use status::{error_from_pb, error_from_status, error_to_pb, status_from_error};

/// The generated messages, client and server.
#[allow(missing_docs, unreachable_pub, unused_qualifications, clippy::pedantic)]
pub mod pb {
    tonic::include_proto!("signerd.v1");
}

/// The compiled `signerd.proto`, for server reflection.
pub const FILE_DESCRIPTOR_SET: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/signerd.bin"));

/// The most bytes of one message of the API in either direction: a message that is signed as it is (Ed25519, ML-DSA),
/// and what stands around it. Everything else is far smaller.
pub const MAX_MESSAGE: usize = 130 * 1024 * 1024;
