//! Rekor v2 over gRPC.

use signer_core::ErrorKind;
use tonic::{Code, Request, Response, Status, metadata::MetadataValue};

use super::{
    Refusal, SignatureLog,
    pb::{
        api::HttpBody,
        rekor::{
            v1::TransparencyLogEntry,
            v2::{
                CreateEntryRequest, EntryBundleRequest, TileRequest,
                rekor_server::{Rekor, RekorServer},
            },
        },
    },
};
use crate::tiles::{self, Found};

/// The largest message that is read.
pub(crate) const MAX_MESSAGE: usize = crate::http::MAX_BODY;

/// The service.
pub(crate) fn service(log: SignatureLog) -> RekorServer<SignatureLog> {
    RekorServer::new(log).max_decoding_message_size(MAX_MESSAGE)
}

#[tonic::async_trait]
impl Rekor for SignatureLog {
    async fn create_entry(
        &self,
        request: Request<CreateEntryRequest>,
    ) -> Result<Response<TransparencyLogEntry>, Status> {
        match self.create(request.into_inner()).await {
            Ok(answer) => Ok(Response::new(answer.to_message())),
            Err(refusal) => Err(status(&refusal)),
        }
    }

    async fn get_tile(&self, request: Request<TileRequest>) -> Result<Response<HttpBody>, Status> {
        let request = request.into_inner();
        self.object(format!("tile/{}/{}", request.l, request.n)).await
    }

    async fn get_entry_bundle(
        &self,
        request: Request<EntryBundleRequest>,
    ) -> Result<Response<HttpBody>, Status> {
        self.object(format!("tile/entries/{}", request.into_inner().n)).await
    }

    async fn get_checkpoint(&self, _: Request<()>) -> Result<Response<HttpBody>, Status> {
        self.object("checkpoint".to_owned()).await
    }
}

impl SignatureLog {
    async fn object(&self, name: String) -> Result<Response<HttpBody>, Status> {
        match tiles::find(&self.log, &name).await {
            Ok(Some(Found { bytes, kind, .. })) => {
                Ok(Response::new(HttpBody { content_type: kind.to_owned(), data: bytes.to_vec() }))
            }
            Ok(None) => Err(Status::not_found("the log has no such tile")),
            Err(e) => Err(Status::internal(e.to_string())),
        }
    }
}

/// A refusal as gRPC says it.
pub(crate) fn status(refusal: &Refusal) -> Status {
    match refusal {
        Refusal::Duplicate(index) => {
            let mut status = Status::already_exists(format!(
                "an equivalent entry already exists in the log with index {index}"
            ));
            if let Ok(index) = MetadataValue::try_from(index.to_string()) {
                status.metadata_mut().insert("x-log-index", index);
            }
            status
        }
        Refusal::Error(e) => Status::new(code(e.kind()), e.to_string()),
    }
}

/// The gRPC code of an error.
pub(crate) fn code(kind: ErrorKind) -> Code {
    match kind {
        ErrorKind::BadRequest | ErrorKind::Unsupported => Code::InvalidArgument,
        ErrorKind::Busy { .. } | ErrorKind::Throttled { .. } | ErrorKind::DeviceGone => Code::Unavailable,
        // The only thing that the log denies to everybody: it is frozen.
        ErrorKind::Denied => Code::Unimplemented,
        ErrorKind::NotFound => Code::NotFound,
        ErrorKind::TimedOut => Code::DeadlineExceeded,
        _ => Code::Internal,
    }
}
