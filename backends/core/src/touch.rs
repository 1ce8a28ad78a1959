//! Touch: a device that waits for a finger, and who is told of it.

use std::{fmt, sync::Arc, time::Duration};

/// A device waits for somebody to touch it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TouchPrompt {
    /// The device as its owner knows it: a label and a serial number.
    pub device: String,
    /// The key that is about to sign, by its name in its backend.
    pub key: String,
    /// How long the device waits.
    pub timeout: Duration,
}

/// Whom a backend tells that a request waits for a touch. It must not block.
#[derive(Clone)]
pub struct TouchListener(Arc<dyn Fn(&TouchPrompt) + Send + Sync>);

impl TouchListener {
    /// Calls `tell` for each touch that a request waits for.
    pub fn new(tell: impl Fn(&TouchPrompt) + Send + Sync + 'static) -> Self {
        Self(Arc::new(tell))
    }

    /// A device waits.
    pub fn tell(&self, prompt: &TouchPrompt) {
        (self.0)(prompt);
    }
}

impl fmt::Debug for TouchListener {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("TouchListener")
    }
}
