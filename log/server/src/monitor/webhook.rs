//! Reports to a webhook, one request each, signed as <https://www.standardwebhooks.com> specifies: whoever receives them can
//! verify them with the libraries that are there for it.

use std::{path::Path, time::Duration};

use aws_lc_rs::hmac;
use base64::{Engine, engine::general_purpose::STANDARD};
use reqwest::{Certificate, Client, StatusCode, Url, header, redirect::Policy};
use signer_core::{Error, ErrorKind, Result};
use signer_log_engine::now_millis;
use tokio::runtime::Handle;

use super::report::Report;
use crate::decode::sha256;

/// How long one request may take.
const PATIENCE: Duration = Duration::from_secs(30);

/// A webhook.
pub(super) struct Webhook {
    url: Url,
    key: Option<hmac::Key>,
    client: Client,
    runtime: Handle,
}

impl Webhook {
    /// The webhook at an address, with the secret that its receiver has too, and for https the authorities to trust instead of
    /// the system's.
    pub(super) fn new(url: &str, secret: Option<&Path>, ca_file: Option<&Path>) -> Result<Self> {
        let wrong = |what: &str| Error::bad_request(format!("the webhook {what}"));
        let url: Url = url.parse().map_err(|_| wrong("is no URL"))?;
        if !matches!(url.scheme(), "http" | "https") || url.host_str().is_none_or(str::is_empty) {
            return Err(wrong("is no http:// or https:// URL"));
        }
        let key = secret.map(read_secret).transpose()?;
        // What is sent elsewhere than it was told to is not sent: no redirects.
        let mut builder = Client::builder()
            .user_agent(concat!("signer-log/", env!("CARGO_PKG_VERSION")))
            .timeout(PATIENCE)
            .redirect(Policy::none());
        if let Some(path) = ca_file {
            let failed = || Error::bad_request(format!("{} holds no certificates (PEM)", path.display()));
            let pem = std::fs::read(path).map_err(|e| failed().vendor(e))?;
            let bundle = Certificate::from_pem_bundle(&pem).map_err(|e| failed().vendor(e))?;
            builder = builder.tls_certs_only(bundle);
        }
        let client = builder.build().map_err(|e| {
            Error::new(ErrorKind::DeviceGone, "no connection can be made from here").vendor(e).next(
                "install the system's certificate authorities (ca-certificates), or give webhook_ca_file",
            )
        })?;
        Ok(Self { url, key, client, runtime: Handle::current() })
    }

    /// Host and a hash: the path of a webhook often is its secret.
    pub(super) fn name(&self) -> String {
        let host = self.url.host_str().unwrap_or_default();
        format!("webhook:{host}:{}", hex::encode(&sha256(self.url.as_str().as_bytes())[..4]))
    }

    /// Posts a report, once. From a thread that may block.
    pub(super) fn post(&self, report: &Report) -> Result<()> {
        self.runtime.block_on(self.send(report))
    }

    async fn send(&self, report: &Report) -> Result<()> {
        let time = now_millis() / 1000;
        let mut request = self
            .client
            .post(self.url.clone())
            .header(header::CONTENT_TYPE, "application/json")
            .header("webhook-id", &report.id)
            .header("webhook-timestamp", time);
        if let Some(key) = &self.key {
            request = request.header("webhook-signature", signature(key, &report.id, time, &report.body));
        }
        let response = request.body(report.body.clone()).send().await.map_err(|e| {
            let kind = if e.is_timeout() { ErrorKind::TimedOut } else { ErrorKind::DeviceGone };
            // The address may have a secret in it.
            Error::new(kind, format!("{} cannot be reached", self.name())).vendor(e.without_url())
        })?;
        let status = response.status();
        let wait = response.headers().get(header::RETRY_AFTER).and_then(|v| v.to_str().ok()?.parse().ok());
        let retry_after = Duration::from_secs(wait.unwrap_or(0));
        match status {
            status if status.is_success() => Ok(()),
            StatusCode::TOO_MANY_REQUESTS | StatusCode::SERVICE_UNAVAILABLE => Err(Error::new(
                ErrorKind::Throttled { retry_after },
                format!("{} answers {status}", self.name()),
            )),
            status => Err(Error::new(ErrorKind::DeviceGone, format!("{} answers {status}", self.name()))
                .next("look at its receiver: the report is sent again until it answers 2xx")),
        }
    }
}

/// `v1,` and the HMAC with SHA-256 over identifier, time and body, in base64.
fn signature(key: &hmac::Key, id: &str, time: u64, body: &str) -> String {
    let tag = hmac::sign(key, format!("{id}.{time}.{body}").as_bytes());
    format!("v1,{}", STANDARD.encode(tag.as_ref()))
}

/// A secret from a file: `whsec_` and base64, or any bytes without the last line's end.
fn read_secret(path: &Path) -> Result<hmac::Key> {
    use std::os::unix::fs::PermissionsExt;
    let failed =
        |what: &str| Error::bad_request(format!("the webhook's secret in {} {what}", path.display()));
    let metadata = std::fs::metadata(path).map_err(|e| failed("cannot be read").vendor(e))?;
    if metadata.is_file() && metadata.permissions().mode() & 0o007 != 0 {
        return Err(failed("can be read by everybody").next(format!("chmod 600 {}", path.display())));
    }
    let text = std::fs::read_to_string(path).map_err(|e| failed("cannot be read").vendor(e))?;
    let text = text.trim_end_matches(['\r', '\n']);
    let bytes = match text.strip_prefix("whsec_") {
        Some(encoded) => STANDARD.decode(encoded).map_err(|_| failed("is not base64 after whsec_"))?,
        None => text.as_bytes().to_vec(),
    };
    if bytes.len() < 16 {
        return Err(
            failed("is too short").next("use at least 16 bytes, as `openssl rand -hex 32` makes them")
        );
    }
    Ok(hmac::Key::new(hmac::HMAC_SHA256, &bytes))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The example of the specification.
    #[test]
    fn signatures_are_those_of_standard_webhooks() {
        let secret = STANDARD.decode("MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw").unwrap();
        let key = hmac::Key::new(hmac::HMAC_SHA256, &secret);
        let body = r#"{"test": 2432232314}"#;
        assert_eq!(
            signature(&key, "msg_p5jXN8AQM9LWM0D4loKWxJek", 1_614_265_330, body),
            "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE="
        );
    }

    #[test]
    fn secrets_are_read_with_care() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("secret");
        let write = |text: &str, mode: u32| {
            use std::os::unix::fs::PermissionsExt;
            std::fs::write(&path, text).unwrap();
            std::fs::set_permissions(&path, std::fs::Permissions::from_mode(mode)).unwrap();
            read_secret(&path)
        };
        assert!(write("0123456789abcdef0123\n", 0o600).is_ok());
        assert!(write("whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw\n", 0o600).is_ok());
        for (text, mode) in [("abc123\n", 0o600), ("whsec_!!!\n", 0o600), ("0123456789abcdef0123\n", 0o644)] {
            let error = write(text, mode).err().unwrap().to_string();
            assert!(!error.contains(text.trim()), "{error}");
        }
    }
}
