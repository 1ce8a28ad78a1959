//! What is configured.

use std::path::PathBuf;

use serde::Deserialize;

/// Which KMS it is. Credentials are never here: the SDK's default chain finds them (environment, profiles with SSO, roles
/// and programs, web identity, containers, instances).
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct AwsConfig {
    /// The region; by default what the SDK finds: `AWS_REGION`, the profile, the instance.
    pub region: Option<String>,
    /// The profile in the SDK's files; by default `AWS_PROFILE`, then `default`.
    pub profile: Option<String>,
    /// The SDK's configuration file, instead of `~/.aws/config`.
    pub config_file: Option<PathBuf>,
    /// The SDK's credentials file, instead of `~/.aws/credentials`.
    pub credentials_file: Option<PathBuf>,
    /// Another endpoint than the region's own: a VPC endpoint, or a server for tests. By default `AWS_ENDPOINT_URL_KMS`,
    /// `AWS_ENDPOINT_URL` or the profile say whether there is one.
    pub endpoint: Option<String>,
    /// The certificate authorities that the endpoint's certificate is checked against, PEM, instead of the system's; by
    /// default what `AWS_CA_BUNDLE` names.
    pub ca_file: Option<PathBuf>,
    /// Whether to use the endpoints that are validated under FIPS 140.
    pub fips: Option<bool>,
    /// Days for which a deleted key can be brought back, 7 to 30; 30 by default.
    pub deletion_window_days: Option<u8>,
    /// Seconds for which a public key is kept; an hour by default.
    pub public_key_lifetime: Option<u64>,
    /// Seconds that a request without a deadline of its own may take; 10 by default.
    pub timeout: Option<u64>,
    /// Kinds of keys and algorithms that this region or endpoint lacks: `ml-dsa-65`, `ed25519ph`.
    #[serde(default)]
    pub lacks: Vec<String>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_setting_is_read_and_an_unknown_one_is_refused() {
        let text = r#"{
            "region": "eu-west-1", "profile": "signing", "config_file": "/c", "credentials_file": "/d",
            "endpoint": "https://kms.example", "ca_file": "/ca.pem", "fips": true, "deletion_window_days": 7, "public_key_lifetime": 60,
            "timeout": 5, "lacks": ["ml-dsa-44", "ed25519ph"]
        }"#;
        let config: AwsConfig = serde_json::from_str(text).unwrap();
        assert_eq!((config.region.as_deref(), config.deletion_window_days), (Some("eu-west-1"), Some(7)));
        assert!(serde_json::from_str::<AwsConfig>(r#"{ "access_key": "A" }"#).is_err());
        assert_eq!(serde_json::from_str::<AwsConfig>("{}").unwrap(), AwsConfig::default());
    }
}
