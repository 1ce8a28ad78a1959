//! A key management service to test against, with three faces: AWS KMS (JSON 1.1), Google Cloud KMS (REST) and Azure Key
//! Vault (HTTPS).
//!
//! It follows the vendors' published APIs, serves their official clients over their real transports, checks what it is
//! sent as strictly as they do, makes real keys and signatures, takes faults on command and counts requests. Keys live in
//! memory. It is for tests and never part of a shipped program.
//!
//! One process listens on two ports of 127.0.0.1, plain and TLS, and tells the faces apart by the request:
//!
//! | request | face |
//! | --- | --- |
//! | `POST /` with `X-Amz-Target: TrentService.…` | AWS |
//! | `/v1/projects/…` | Google |
//! | `/keys…`, `/deletedkeys…` (TLS only) | Azure |
//! | `/google/token`, `/computeMetadata/…` | Google's tokens |
//! | `/TENANT/oauth2/v2.0/token`, `/metadata/identity/…` | Microsoft's tokens |
//! | `POST /_fault`, `GET /_seen`, `GET /_ca.pem`, `GET /_hsm_roots.pem` | tests |

mod aws;
mod azure;
mod call;
mod certificates;
mod clock;
mod engine;
mod fault;
mod google;
mod material;
mod seen;
mod server;
mod sigv4;
mod tokens;

pub use engine::{Engine, Options};
pub use fault::{Fault, FaultKind};
pub use sigv4::{AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY};
pub use tokens::{AZURE_CLIENT_ID, AZURE_CLIENT_SECRET, AZURE_TENANT};
