//! The daemon's API. Each call is a few steps: who calls, may they, do it, tell about it.

use std::{sync::Arc, time::Instant};

use signer_core::{
    Digest, Error, ErrorKind, Input, Result, SignRequest, Signature, SignatureAlgorithm, Signer,
};
use signerd_api::{pb, status_from_error};
use tonic::{Request, Response, Status, Streaming};

use crate::{
    call::Call,
    compose::Policed,
    state::{Daemon, State},
};

mod changes;
mod health_service;
mod listing;
mod sign_stream;
mod watching;

pub(crate) use health_service::HealthService;

/// The API as one connection sees it.
#[derive(Clone)]
pub(crate) struct Service {
    pub(crate) daemon: Arc<Daemon>,
}

/// The answer to a call.
type Answer<T> = Result<Response<T>, Status>;

fn answer<T>(result: Result<T>) -> Answer<T> {
    result.map(Response::new).map_err(|error| status_from_error(&error))
}

#[tonic::async_trait]
impl pb::signer_service_server::SignerService for Service {
    async fn sign(&self, request: Request<pb::SignRequest>) -> Answer<pb::SignResponse> {
        let call = Call::of(&request);
        answer(self.sign_one(&call, request.into_inner()).await)
    }

    type SignStreamStream = sign_stream::Answers;

    async fn sign_stream(
        &self,
        request: Request<Streaming<pb::SignStreamRequest>>,
    ) -> Answer<Self::SignStreamStream> {
        let call = Call::of(&request);
        Ok(Response::new(sign_stream::Answers::new(self.daemon.clone(), call, request.into_inner())))
    }

    async fn list_backends(
        &self,
        request: Request<pb::ListBackendsRequest>,
    ) -> Answer<pb::ListBackendsResponse> {
        answer(Ok(self.backends(&Call::of(&request)).await))
    }

    async fn list_keys(&self, request: Request<pb::ListKeysRequest>) -> Answer<pb::ListKeysResponse> {
        let call = Call::of(&request);
        answer(self.keys(&call, request.into_inner()).await)
    }

    async fn get_key(&self, request: Request<pb::GetKeyRequest>) -> Answer<pb::Key> {
        let call = Call::of(&request);
        answer(self.one_key(&call, &request.into_inner().key).await)
    }

    async fn create_key(&self, request: Request<pb::CreateKeyRequest>) -> Answer<pb::Key> {
        let call = Call::of(&request);
        answer(self.create(call, request.into_inner()).await)
    }

    async fn import_key(&self, request: Request<pb::ImportKeyRequest>) -> Answer<pb::Key> {
        let call = Call::of(&request);
        answer(self.import(call, request.into_inner()).await)
    }

    async fn delete_key(&self, request: Request<pb::DeleteKeyRequest>) -> Answer<pb::DeleteKeyResponse> {
        let call = Call::of(&request);
        answer(self.delete(call, request.into_inner().key).await.map(|()| pb::DeleteKeyResponse {}))
    }

    async fn rotate_key(&self, request: Request<pb::RotateKeyRequest>) -> Answer<pb::Key> {
        let call = Call::of(&request);
        answer(self.rotate(call, request.into_inner().key).await)
    }

    async fn store_certificate(&self, request: Request<pb::StoreCertificateRequest>) -> Answer<pb::Key> {
        let call = Call::of(&request);
        answer(self.store_certificate(call, request.into_inner()).await)
    }

    async fn attest(&self, request: Request<pb::AttestRequest>) -> Answer<pb::Evidence> {
        let call = Call::of(&request);
        answer(self.evidence(&call, &request.into_inner().key).await)
    }

    async fn unlock(&self, request: Request<pb::UnlockRequest>) -> Answer<pb::UnlockResponse> {
        let call = Call::of(&request);
        answer(self.unlock(call, request.into_inner()).await.map(|()| pb::UnlockResponse {}))
    }

    type WatchStream = watching::Watching;

    async fn watch(&self, request: Request<pb::WatchRequest>) -> Answer<Self::WatchStream> {
        let call = Call::of(&request);
        answer(self.watching(&call, &request.into_inner().backend).await)
    }
}

impl Service {
    async fn sign_one(&self, call: &Call, request: pb::SignRequest) -> Result<pb::SignResponse> {
        let input = request.input.map(|input| match input {
            pb::sign_request::Input::Message(message) => Wanted::Message(message),
            pb::sign_request::Input::Digest(digest) => Wanted::Digest(digest),
        });
        let wanted = input.ok_or_else(nothing_to_sign)?;
        let state = self.daemon.state();
        let key = state.signer(&call.caller, &request.key).await?;
        let result = sign_with(&state, &key, &request.algorithm, wanted.clone(), call.deadline).await;
        let (key, (signature, algorithm)) = match result {
            // The key that was opened earlier is gone: look once whether there is another of that name now.
            Err(e) if e.kind() == ErrorKind::NotFound => {
                let key = state.signer(&call.caller, &request.key).await?;
                let signed = sign_with(&state, &key, &request.algorithm, wanted, call.deadline).await?;
                (key, signed)
            }
            Err(e) => {
                let (caller, key) = (&call.caller, key.entry.reference());
                tracing::info!(%caller, key, operation = "sign", kind = e.kind().name(), "failed: {e}");
                return Err(e);
            }
            Ok(signed) => (key, signed),
        };
        let reference = key.entry.reference();
        tracing::debug!(caller = %call.caller, key = reference, %algorithm, "signed");
        Ok(pb::SignResponse {
            signature: signature.into_bytes(),
            algorithm: algorithm.name().to_owned(),
            key: reference.to_owned(),
        })
    }
}

/// What a caller wants signed, as it came.
#[derive(Clone)]
enum Wanted {
    Message(bytes::Bytes),
    Digest(Vec<u8>),
}

fn nothing_to_sign() -> Error {
    Error::bad_request("there is nothing to sign: neither message nor digest")
}

/// Makes sense of a request, and signs.
async fn sign_with(
    state: &State,
    key: &Policed,
    algorithm: &str,
    wanted: Wanted,
    deadline: Instant,
) -> Result<(Signature, SignatureAlgorithm)> {
    let algorithm = match algorithm {
        "" => key.info().default_algorithm(),
        name => name.parse()?,
    };
    let request = to_request(state, algorithm, wanted).map_err(|e| e.key(key.entry.asked()))?;
    Ok((key.sign(request.deadline(Some(deadline))).await?, algorithm))
}

fn to_request(state: &State, algorithm: SignatureAlgorithm, wanted: Wanted) -> Result<SignRequest> {
    match wanted {
        Wanted::Message(message) if message.len() > state.config.limits.max_message => {
            Err(Error::bad_request(format!(
                "the message has {} bytes, and the daemon takes {} at most",
                message.len(),
                state.config.limits.max_message
            ))
            .next("hash it and have the digest signed, or raise max_message in [limits]"))
        }
        Wanted::Message(message) => SignRequest::new(algorithm, Input::Message(message)),
        Wanted::Digest(bytes) => match algorithm.prehash() {
            Some(hash) => SignRequest::digest(algorithm, Digest::new(hash, &bytes)?),
            None => {
                Err(Error::bad_request(format!("{algorithm} signs the message itself, not a digest of it"))
                    .next("send the message"))
            }
        },
    }
}
