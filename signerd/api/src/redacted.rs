//! How messages that hold a secret, or what is to be signed, print themselves: without it.

use std::fmt;

use crate::pb;

impl fmt::Debug for pb::SignRequest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SignRequest")
            .field("key", &self.key)
            .field("algorithm", &self.algorithm)
            .field("input", &self.input)
            .finish()
    }
}

impl fmt::Debug for pb::sign_request::Input {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Message(message) => write!(f, "a message of {} bytes", message.len()),
            Self::Digest(digest) => write!(f, "a digest of {} bytes", digest.len()),
        }
    }
}

impl fmt::Debug for pb::SignStreamRequest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SignStreamRequest")
            .field("key", &self.key)
            .field("algorithm", &self.algorithm)
            .field("id", &self.id)
            .field("input", &self.input)
            .finish()
    }
}

impl fmt::Debug for pb::sign_stream_request::Input {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Message(message) => write!(f, "a message of {} bytes", message.len()),
            Self::Digest(digest) => write!(f, "a digest of {} bytes", digest.len()),
        }
    }
}

impl fmt::Debug for pb::ImportKeyRequest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ImportKeyRequest").field("key", &self.key).finish_non_exhaustive()
    }
}

impl fmt::Debug for pb::UnlockRequest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("UnlockRequest").field("backend", &self.backend).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn secrets_and_payloads_are_never_printed() {
        let secret = "hunter2";
        let unlock = pb::UnlockRequest { backend: "hsm".into(), pin: secret.into(), ..Default::default() };
        let import =
            pb::ImportKeyRequest { key: "hsm/a".into(), pkcs8: secret.into(), id: None, policy: None };
        let input = Some(pb::sign_request::Input::Message(secret.into()));
        let sign = pb::SignRequest { key: "hsm/a".into(), algorithm: String::new(), input };
        let input = Some(pb::sign_stream_request::Input::Message(secret.into()));
        let stream = pb::SignStreamRequest { input, ..Default::default() };
        let bytes = format!("{:?}", secret.as_bytes());
        for printed in
            [format!("{unlock:?}"), format!("{import:?}"), format!("{sign:?}"), format!("{stream:?}")]
        {
            assert!(
                !printed.contains(secret) && !printed.contains(bytes.trim_matches(['[', ']'])),
                "{printed}"
            );
        }
    }
}
