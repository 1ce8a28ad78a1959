//! The test CA and the server's certificates.

use std::sync::{
    Arc,
    atomic::{AtomicBool, Ordering},
};

use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, DnType, IsCa, KeyPair, KeyUsagePurpose};
use rustls::{
    ServerConfig,
    crypto::aws_lc_rs,
    pki_types::{PrivateKeyDer, PrivatePkcs8KeyDer},
    server::{ClientHello, ResolvesServerCert},
    sign::CertifiedKey,
};
use time::{Duration, OffsetDateTime};

/// Names that the server's certificate is good for, besides 127.0.0.1: vaults by their real names, so that a client's own
/// checks of the name stay on.
const NAMES: [&str; 5] =
    ["localhost", "127.0.0.1", "*.vault.azure.net", "*.managedhsm.azure.net", "login.microsoftonline.com"];

/// A CA that nobody trusts, and a server's certificates by it.
pub(crate) struct Certificates {
    ca: String,
    served: Arc<Served>,
}

#[derive(Debug)]
struct Served {
    good: Arc<CertifiedKey>,
    expired: Arc<CertifiedKey>,
    is_expired: AtomicBool,
}

impl Certificates {
    /// Makes everything anew.
    pub(crate) fn make() -> Self {
        Self::try_make().expect("certificates of fixed parameters can be made")
    }

    fn try_make() -> Result<Self, Box<dyn std::error::Error>> {
        let mut parameters = CertificateParams::new(Vec::new())?;
        parameters.distinguished_name.push(DnType::CommonName, "signerd test CA");
        parameters.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
        parameters.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        let now = OffsetDateTime::now_utc();
        (parameters.not_before, parameters.not_after) = (now - Duration::days(10), now + Duration::days(10));
        let ca = CertifiedIssuer::self_signed(parameters, KeyPair::generate()?)?;
        let issue = |from: OffsetDateTime, until: OffsetDateTime| -> Result<_, Box<dyn std::error::Error>> {
            let mut parameters = CertificateParams::new(NAMES.map(String::from))?;
            parameters.distinguished_name.push(DnType::CommonName, "key management test engine");
            parameters.key_usages = vec![KeyUsagePurpose::DigitalSignature];
            parameters.use_authority_key_identifier_extension = true;
            parameters.insert_extended_key_usage(rcgen::ExtendedKeyUsagePurpose::ServerAuth);
            (parameters.not_before, parameters.not_after) = (from, until);
            let key = KeyPair::generate()?;
            let certificate = parameters.signed_by(&key, &ca)?;
            let key = PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(key.serialize_der()));
            let chain = vec![certificate.der().clone()];
            Ok(Arc::new(CertifiedKey::from_der(chain, key, &aws_lc_rs::default_provider())?))
        };
        let served = Served {
            good: issue(now - Duration::hours(1), now + Duration::days(1))?,
            expired: issue(now - Duration::days(2), now - Duration::days(1))?,
            is_expired: AtomicBool::new(false),
        };
        Ok(Self { ca: ca.as_ref().pem(), served: Arc::new(served) })
    }

    /// The CA's certificate in PEM.
    pub(crate) fn ca_pem(&self) -> &str {
        &self.ca
    }

    /// Serves the certificate that has expired, to connections from now on.
    pub(crate) fn expire(&self, expired: bool) {
        self.served.is_expired.store(expired, Ordering::Relaxed);
    }

    /// What a TLS server needs. HTTP/1.1 only.
    pub(crate) fn server_config(&self) -> Arc<ServerConfig> {
        let builder = ServerConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()));
        let builder =
            builder.with_safe_default_protocol_versions().expect("the provider has the default versions");
        let mut config = builder.with_no_client_auth().with_cert_resolver(self.served.clone());
        config.alpn_protocols = vec![b"http/1.1".to_vec()];
        Arc::new(config)
    }
}

impl ResolvesServerCert for Served {
    fn resolve(&self, _: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        let expired = self.is_expired.load(Ordering::Relaxed);
        Some(if expired { self.expired.clone() } else { self.good.clone() })
    }
}
