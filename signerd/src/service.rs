//! The daemon's API. Each call is a few steps: who calls, may they, do it, tell about it.

use std::{sync::Arc, time::Instant};

use signer_core::{
    Digest, Error, ErrorKind, Input, Result, SignRequest, Signature, SignatureAlgorithm, Signer,
};
use signerd_api::{pb, status_from_error};
use tonic::{Request, Response, Status, Streaming};
use zeroize::Zeroizing;

use crate::{
    call::Call,
    compose::Policed,
    grants::Operations,
    state::{Daemon, State},
};

mod changes;
mod health_service;
mod listing;
mod pins;
mod sign_stream;
mod watching;

pub(crate) use health_service::HealthService;

use pins::Asks;

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
        let (call, request) = (Call::of(&request), request.into_inner());
        let asks = Asks::to(Operations::LIST, &request.key, "look at the key");
        answer(self.daemon.with_pin(&call, asks, || self.one_key(&call, &request.key)).await)
    }

    async fn create_key(&self, request: Request<pb::CreateKeyRequest>) -> Answer<pb::Key> {
        let (call, request) = (Call::of(&request), request.into_inner());
        let what = match request.key_type.as_str() {
            "" => "make a key".to_owned(),
            key_type => format!("make a key of the kind {key_type}"),
        };
        let asks = Asks::to(Operations::CREATE, &request.key, &what);
        answer(self.daemon.with_pin(&call, asks, || self.create(call.clone(), request.clone())).await)
    }

    async fn import_key(&self, request: Request<pb::ImportKeyRequest>) -> Answer<pb::Key> {
        let (call, mut request) = (Call::of(&request), request.into_inner());
        let pkcs8 = Zeroizing::new(std::mem::take(&mut request.pkcs8));
        let asks = Asks::to(Operations::IMPORT, &request.key, "take a private key in");
        let again = || pb::ImportKeyRequest { pkcs8: pkcs8.to_vec(), ..request.clone() };
        answer(self.daemon.with_pin(&call, asks, || self.import(call.clone(), again())).await)
    }

    async fn delete_key(&self, request: Request<pb::DeleteKeyRequest>) -> Answer<pb::DeleteKeyResponse> {
        let (call, request) = (Call::of(&request), request.into_inner());
        let asks = Asks::to(Operations::DELETE, &request.key, "destroy the key");
        let done = self.daemon.with_pin(&call, asks, || self.delete(call.clone(), request.key.clone()));
        answer(done.await.map(|()| pb::DeleteKeyResponse {}))
    }

    async fn rotate_key(&self, request: Request<pb::RotateKeyRequest>) -> Answer<pb::Key> {
        let (call, request) = (Call::of(&request), request.into_inner());
        let asks = Asks::to(Operations::ROTATE, &request.key, "make a new version of the key");
        answer(self.daemon.with_pin(&call, asks, || self.rotate(call.clone(), request.key.clone())).await)
    }

    async fn store_certificate(&self, request: Request<pb::StoreCertificateRequest>) -> Answer<pb::Key> {
        let (call, request) = (Call::of(&request), request.into_inner());
        let asks = Asks::to(Operations::CERTIFICATE, &request.key, "store a certificate beside the key");
        let attempt = || self.store_certificate(call.clone(), request.clone());
        answer(self.daemon.with_pin(&call, asks, attempt).await)
    }

    async fn attest(&self, request: Request<pb::AttestRequest>) -> Answer<pb::Evidence> {
        let (call, request) = (Call::of(&request), request.into_inner());
        let asks = Asks::to(Operations::LIST, &request.key, "have the key attested by its device");
        answer(self.daemon.with_pin(&call, asks, || self.evidence(&call, &request.key)).await)
    }

    async fn unlock(&self, request: Request<pb::UnlockRequest>) -> Answer<pb::UnlockResponse> {
        let call = Call::of(&request);
        answer(self.unlock(call, request.into_inner()).await.map(|()| pb::UnlockResponse {}))
    }

    async fn refuse_pin(&self, request: Request<pb::RefusePinRequest>) -> Answer<pb::RefusePinResponse> {
        let call = Call::of(&request);
        answer(self.refuse(&call, &request.into_inner()).await.map(|()| pb::RefusePinResponse {}))
    }

    async fn lock(&self, request: Request<pb::LockRequest>) -> Answer<pb::LockResponse> {
        let call = Call::of(&request);
        answer(self.lock_backend(call, &request.into_inner()).await.map(|()| pb::LockResponse {}))
    }

    type WatchStream = watching::Watching;

    async fn watch(&self, request: Request<pb::WatchRequest>) -> Answer<Self::WatchStream> {
        let call = Call::of(&request);
        answer(self.watching(&call, request.into_inner()).await)
    }
}

impl Service {
    async fn sign_one(&self, call: &Call, mut request: pb::SignRequest) -> Result<pb::SignResponse> {
        let input = request.input.take().map(|input| match input {
            pb::sign_request::Input::Message(message) => Wanted::Message(message),
            pb::sign_request::Input::Digest(digest) => Wanted::Digest(digest),
        });
        let wanted = input.ok_or_else(nothing_to_sign)?;
        let asks = Asks::to_sign(&request.key, &request.algorithm, &wanted);
        self.daemon.with_pin(call, asks, || self.sign_now(call, &request, &wanted)).await
    }

    async fn sign_now(
        &self,
        call: &Call,
        request: &pb::SignRequest,
        wanted: &Wanted,
    ) -> Result<pb::SignResponse> {
        let state = self.daemon.state();
        let key = state.signer(&call.caller, &request.key).await?.labelled(call);
        let result = sign_with(&state, &key, &request.algorithm, wanted.clone(), call.deadline).await;
        let (key, (signature, algorithm)) = match result {
            // The key that was opened earlier is gone: look once whether there is another of that name now.
            Err(e) if e.kind() == ErrorKind::NotFound => {
                let key = state.signer(&call.caller, &request.key).await?.labelled(call);
                let signed =
                    sign_with(&state, &key, &request.algorithm, wanted.clone(), call.deadline).await?;
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
