//! What people are told.

use signer_core::{BackendName, Error, TouchPrompt};
use signerd_api::{PinAsker, PinEnd, PinRequest};

/// A question for a PIN.
pub(crate) struct Question {
    /// What stands before the place where it is typed: "PIN of yubikey".
    pub(crate) prompt: String,
    /// Which device, who asks, for what, a line each.
    pub(crate) lines: Vec<String>,
    /// What was wrong with the last answer.
    pub(crate) error: Option<String>,
    /// Tries left, where it is known.
    tries_left: Option<u32>,
    /// Seconds until nobody waits for an answer any more.
    pub(crate) seconds: Option<u64>,
}

impl Question {
    pub(super) fn new(backend: &BackendName, request: &PinRequest, error: Option<String>) -> Self {
        let mut lines: Vec<_> = request.askers.iter().map(asker).collect();
        lines.insert(0, format!("{} needs its PIN", request.device));
        Self {
            prompt: format!("PIN of {backend}"),
            lines,
            error: error.or_else(|| request.refused.clone()),
            tries_left: request.tries_left,
            seconds: Some(request.timeout.as_secs().max(1)),
        }
    }

    /// One that nobody waits behind: what is typed is for the command itself.
    pub(crate) fn plain(prompt: &str) -> Self {
        Self { prompt: prompt.to_owned(), lines: Vec::new(), error: None, tries_left: None, seconds: None }
    }

    /// All that is to be known before an answer.
    fn with_tries(&self) -> Vec<String> {
        let mut lines = self.lines.clone();
        if let Some(tries) = self.tries_left {
            lines.push(format!("{tries} tries left"));
        }
        lines
    }

    pub(super) fn for_terminal(&self) -> String {
        let mut lines = self.with_tries();
        if let Some(error) = &self.error {
            lines.insert(0, error.clone());
        }
        lines.join("\n  ")
    }

    /// The same for a dialog, which shows the error apart.
    pub(super) fn for_dialog(&self) -> String {
        self.with_tries().join("\n")
    }
}

/// "alice (uid 1000) asks to sign release.tar.gz with yubikey/9c (ecdsa-sha256 of the digest …)".
pub(crate) fn asker(asker: &PinAsker) -> String {
    let what = match (&asker.label, asker.operation.as_str()) {
        (Some(label), "sign") => format!("sign {label}"),
        (_, "certificate") => "store a certificate".to_owned(),
        (_, "list") => "look at a key".to_owned(),
        (_, operation) => operation.to_owned(),
    };
    let key = match (&asker.key, asker.operation.as_str()) {
        (Some(key), "sign") => format!(" with {key}"),
        (Some(key), _) => format!(" {key}"),
        (None, _) => " with a key that you may not see".to_owned(),
    };
    format!("{} asks to {what}{key} ({})", asker.caller, asker.purpose)
}

/// What is said of a PIN that the device refused. How many tries are left stands elsewhere.
pub(super) fn wrong(error: &Error) -> String {
    error.what().to_owned()
}

/// What is said when a question is over before it is answered.
pub(super) fn over(end: Option<PinEnd>) -> &'static str {
    match end {
        Some(PinEnd::Given) => "the PIN was given elsewhere",
        Some(PinEnd::Refused) => "the PIN was refused elsewhere",
        Some(PinEnd::TimedOut) => "nobody waits for the PIN any more: the time is over",
        Some(PinEnd::Withdrawn) => "nobody waits for the PIN any more",
        Some(PinEnd::Failed) | None => "the PIN is not asked for any more",
    }
}

/// "Touch YubiKey 5.7.1 serial 1234567 now: sign release.tar.gz with yubikey/9c, for alice (uid 1000)".
pub(super) fn touch(prompt: &TouchPrompt, caller: &str, purpose: &str, label: Option<&str>) -> String {
    let what = label.map_or_else(|| purpose.to_owned(), |label| format!("sign {label}"));
    format!("Touch {} now: {what} with {}, for {caller}", prompt.device, prompt.key)
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn request(askers: &[(&str, Option<&str>, Option<&str>)]) -> PinRequest {
        PinRequest {
            number: 1,
            device: "YubiKey 5.7.1 serial 12345678".into(),
            tries_left: Some(3),
            timeout: Duration::from_secs(20),
            askers: askers
                .iter()
                .map(|(operation, key, label)| PinAsker {
                    caller: "alice (uid 1000)".into(),
                    operation: (*operation).into(),
                    key: key.map(Into::into),
                    purpose: "purpose".into(),
                    label: label.map(Into::into),
                    yours: true,
                })
                .collect(),
            refused: None,
        }
    }

    #[test]
    fn a_question_says_who_asks_for_what() {
        let askers = [
            ("sign", Some("yubikey/9c"), Some("release.tar.gz")),
            ("create", Some("yubikey/9a"), None),
            ("sign", None, None),
        ];
        let name = "yubikey".parse().unwrap();
        let question = Question::new(&name, &request(&askers), Some("the card refused the PIN".into()));
        assert_eq!(
            question.for_terminal(),
            "the card refused the PIN\n  YubiKey 5.7.1 serial 12345678 needs its PIN\n  \
             alice (uid 1000) asks to sign release.tar.gz with yubikey/9c (purpose)\n  \
             alice (uid 1000) asks to create yubikey/9a (purpose)\n  \
             alice (uid 1000) asks to sign with a key that you may not see (purpose)\n  3 tries left"
        );
        assert!(!question.for_dialog().contains("refused"));
        assert_eq!(question.prompt, "PIN of yubikey");
    }

    #[test]
    fn a_touch_says_where_and_what_for() {
        let prompt = TouchPrompt {
            device: "YubiKey 5.7.1 serial 1".into(),
            key: "yubikey/9c".into(),
            timeout: Duration::from_secs(15),
        };
        assert_eq!(
            touch(&prompt, "alice", "ecdsa-sha256 of …", Some("release.tar.gz")),
            "Touch YubiKey 5.7.1 serial 1 now: sign release.tar.gz with yubikey/9c, for alice"
        );
        assert!(touch(&prompt, "alice", "ecdsa-sha256 of …", None).contains("now: ecdsa-sha256 of …"));
    }
}
