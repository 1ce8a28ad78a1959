//! What a hardware security module says of a key.

use google_cloud_kms_v1::model::ProtectionLevel;
use signer_core::{Error, ErrorKind, Evidence, EvidenceFormat, KeySelector, Result};

use crate::{fault, keys::Service};

/// The statement, then the certificate chains: the maker's, Google's for the card, Google's for the partition.
pub(crate) async fn attest(service: &Service, selector: &KeySelector) -> Result<Evidence> {
    let name = service.find(selector).await?.to_string();
    let version = service
        .patience
        .persist(None, || {
            service
                .clients
                .ask(fault::GET_VERSION, |client| client.get_crypto_key_version().set_name(&name).send())
        })
        .await?;
    let in_hardware =
        [ProtectionLevel::Hsm, ProtectionLevel::HsmSingleTenant].contains(&version.protection_level);
    let attestation =
        version.attestation.filter(|a| in_hardware && !a.content.is_empty()).ok_or_else(|| {
            Error::new(
                ErrorKind::Unsupported,
                format!(
                    "Google makes no statement on this key: its protection level is {}",
                    version.protection_level
                ),
            )
            .next("make keys with protection_level = \"hsm\"")
        })?;
    let chains = attestation.cert_chains.unwrap_or_default();
    let pem = |certificates: Vec<String>| {
        certificates.iter().map(|c| format!("{}\n", c.trim_end())).collect::<String>().into_bytes()
    };
    Ok(Evidence {
        format: EvidenceFormat::GoogleHsm,
        parts: vec![
            attestation.content.to_vec(),
            pem(chains.cavium_certs),
            pem(chains.google_card_certs),
            pem(chains.google_partition_certs),
        ],
    })
}
