//! The baseline for the software backend: a server of the same API that does nothing but sign inline.

use std::path::PathBuf;

use aws_lc_rs::{
    digest,
    encoding::{AsDer, PublicKeyX509Der},
    signature::{ECDSA_P256_SHA256_ASN1_SIGNING, EcdsaKeyPair, KeyPair},
};
use clap::Args;
use signerd_api::pb::{self, sign_request, signer_service_server};
use tokio::net::UnixListener;
use tokio_stream::{Empty, wrappers::UnixListenerStream};
use tonic::{Request, Response, Status, Streaming};

/// Serve one P-256 key of aws-lc-rs, bare/p256, and nothing else
#[derive(Args, Debug)]
pub(crate) struct BareServer {
    /// Where to listen
    #[arg(long)]
    socket: PathBuf,
    /// Threads of the runtime
    #[arg(long, default_value_t = 1)]
    runtime_threads: usize,
}

impl BareServer {
    pub(crate) fn run(&self) -> Result<(), Box<dyn std::error::Error + Send + Sync>> {
        let key = EcdsaKeyPair::generate(&ECDSA_P256_SHA256_ASN1_SIGNING)?;
        crate::drive::runtime(self.runtime_threads)?.block_on(async {
            let listener = UnixListener::bind(&self.socket)?;
            tonic::transport::Server::builder()
                .add_service(signer_service_server::SignerServiceServer::new(Bare(key)))
                .serve_with_incoming(UnixListenerStream::new(listener))
                .await?;
            Ok(())
        })
    }
}

struct Bare(EcdsaKeyPair);

/// The calls that the baseline does not have.
macro_rules! unimplemented {
    ($($name:ident($request:ident) -> $response:ident;)*) => {
        #[tonic::async_trait]
        impl signer_service_server::SignerService for Bare {
            async fn sign(&self, request: Request<pb::SignRequest>) -> Result<Response<pb::SignResponse>, Status> {
                self.sign(request.into_inner()).map(Response::new)
            }

            async fn get_key(&self, _: Request<pb::GetKeyRequest>) -> Result<Response<pb::Key>, Status> {
                self.key().map(Response::new)
            }

            type SignStreamStream = Empty<Result<pb::SignStreamResponse, Status>>;

            async fn sign_stream(
                &self,
                _: Request<Streaming<pb::SignStreamRequest>>,
            ) -> Result<Response<Self::SignStreamStream>, Status> {
                Err(Status::unimplemented("the baseline only signs"))
            }

            type WatchStream = Empty<Result<pb::Event, Status>>;

            async fn watch(&self, _: Request<pb::WatchRequest>) -> Result<Response<Self::WatchStream>, Status> {
                Err(Status::unimplemented("the baseline only signs"))
            }

            $(async fn $name(&self, _: Request<pb::$request>) -> Result<Response<pb::$response>, Status> {
                Err(Status::unimplemented("the baseline only signs"))
            })*
        }
    };
}

unimplemented! {
    list_backends(ListBackendsRequest) -> ListBackendsResponse;
    list_keys(ListKeysRequest) -> ListKeysResponse;
    create_key(CreateKeyRequest) -> Key;
    import_key(ImportKeyRequest) -> Key;
    delete_key(DeleteKeyRequest) -> DeleteKeyResponse;
    rotate_key(RotateKeyRequest) -> Key;
    store_certificate(StoreCertificateRequest) -> Key;
    attest(AttestRequest) -> Evidence;
    unlock(UnlockRequest) -> UnlockResponse;
    refuse_pin(RefusePinRequest) -> RefusePinResponse;
    lock(LockRequest) -> LockResponse;
}

impl Bare {
    fn sign(&self, request: pb::SignRequest) -> Result<pb::SignResponse, Status> {
        let Some(sign_request::Input::Digest(bytes)) = request.input else {
            return Err(Status::invalid_argument("the baseline signs digests"));
        };
        let digest = digest::Digest::import_less_safe(&bytes, &digest::SHA256)
            .map_err(|_| Status::invalid_argument("a SHA-256 digest has 32 bytes"))?;
        let signature =
            self.0.sign_digest(&digest).map_err(|_| Status::internal("aws-lc-rs could not sign"))?;
        Ok(pb::SignResponse {
            signature: signature.as_ref().to_vec(),
            algorithm: "ecdsa-sha256".into(),
            key: "bare/p256".into(),
        })
    }

    fn key(&self) -> Result<pb::Key, Status> {
        let der: PublicKeyX509Der<'_> =
            self.0.public_key().as_der().map_err(|_| Status::internal("the key cannot be encoded"))?;
        Ok(pb::Key {
            reference: "bare/p256".into(),
            key_type: "ecdsa-p256".into(),
            public_key: der.as_ref().to_vec(),
            algorithms: vec!["ecdsa-sha256".into()],
            ..pb::Key::default()
        })
    }
}
