//! Requests with a token, tried again where that makes sense, until the caller's deadline.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use bytes::Bytes;
use reqwest::Method;
use serde_json::Value;
use signer_core::{Error, Result};

use crate::{
    fault::{self, Again, Asked},
    http::{Answer, Http, Request},
    session::Session,
};

/// The server, as someone who is logged in.
pub(crate) struct Client {
    session: Arc<Session>,
}

/// So many tries where the trouble may be of a moment.
const TRIES: u32 = 3;
/// The pause before another try is random, up to twice as long each time, from the one to the other.
const FIRST_PAUSE: Duration = Duration::from_millis(50);
const LAST_PAUSE: Duration = Duration::from_secs(2);

impl Client {
    pub(crate) fn new(session: Arc<Session>) -> Self {
        Self { session }
    }

    pub(crate) fn session(&self) -> &Session {
        &self.session
    }

    pub(crate) fn http(&self) -> &Http {
        self.session.http()
    }

    /// The path of something in the transit engine.
    pub(crate) fn path(&self, what: &str) -> String {
        format!("{}/{what}", self.http().target().mount)
    }

    pub(crate) async fn read(&self, path: &str) -> Result<Answer> {
        let asked = Asked { path, capability: "read", repeatable: true };
        self.call(Method::GET, asked, "", None, None).await
    }

    pub(crate) async fn list(&self, path: &str) -> Result<Answer> {
        let asked = Asked { path, capability: "list", repeatable: true };
        self.call(Method::GET, asked, "?list=true", None, None).await
    }

    /// A change that may be made twice.
    pub(crate) async fn set(&self, path: &str, body: &Value) -> Result<Answer> {
        let asked = Asked { path, capability: "update", repeatable: true };
        self.call(Method::POST, asked, "", Some(body.to_string().into()), None).await
    }

    /// A change that must not be made twice.
    pub(crate) async fn change(&self, method: Method, path: &str, body: Option<&Value>) -> Result<Answer> {
        let capability = if method == Method::DELETE { "delete" } else { "update" };
        let asked = Asked { path, capability, repeatable: false };
        self.call(method, asked, "", body.map(|b| b.to_string().into()), None).await
    }

    /// A signature: nobody is harmed by two.
    pub(crate) async fn sign(&self, path: &str, body: Bytes, deadline: Option<Instant>) -> Result<Answer> {
        let asked = Asked { path, capability: "update", repeatable: true };
        self.call(Method::POST, asked, "", Some(body), deadline).await
    }

    /// What anybody may ask.
    pub(crate) async fn ask_anonymously(&self, path: &str, query: &'static str) -> Result<Answer> {
        let asked = Asked { path, capability: "read", repeatable: true };
        let request = Request { method: Method::GET, asked, query, body: None, token: None };
        self.http().send(request, self.http().target().timeout).await.map_err(|f| self.here(f.error))
    }

    async fn call(
        &self,
        method: Method,
        asked: Asked<'_>,
        query: &'static str,
        body: Option<Bytes>,
        deadline: Option<Instant>,
    ) -> Result<Answer> {
        let until = deadline.unwrap_or_else(|| Instant::now() + self.http().target().timeout);
        let mut tries = 0;
        let mut new_tokens = 0;
        let mut throttled = None;
        loop {
            let left = until.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Err(self.here(throttled.unwrap_or_else(fault::of_deadline)));
            }
            let token = self.session.token(until).await;
            let result = match &token {
                Ok(token) => {
                    let request = Request {
                        method: method.clone(),
                        asked,
                        query,
                        body: body.clone(),
                        token: Some(token.pin()),
                    };
                    self.http().send(request, left).await
                }
                Err(fault) => Err(fault.clone()),
            };
            let fault = match result {
                Ok(answer) => return Ok(answer),
                Err(fault) => fault,
            };
            tries += 1;
            let pause = match (fault.again, &token) {
                (Again::NewToken, Ok(token)) if new_tokens == 0 => {
                    new_tokens += 1;
                    self.session.reject(token, &fault.error);
                    Duration::ZERO
                }
                (Again::Soon, _) if tries < TRIES => jitter(tries),
                (Again::Throttled(asked), _) => {
                    throttled = Some(fault.error.clone());
                    asked.unwrap_or_default() + jitter(tries)
                }
                _ => return Err(self.ended(fault.error, until, throttled)),
            };
            if Instant::now() + pause >= until {
                return Err(self.ended(fault.error, until, throttled));
            }
            tokio::time::sleep(pause).await;
        }
    }

    /// The last error; or that it was too late, and for what reason.
    fn ended(&self, error: Error, until: Instant, throttled: Option<Error>) -> Error {
        // Silence until the deadline was cut short by it.
        if Instant::now() >= until && error.kind().retry_after().is_none() && !error.is_uncertain() {
            return self.here(throttled.unwrap_or_else(|| fault::of_deadline().vendor(error.what())));
        }
        self.here(error)
    }

    pub(crate) fn here(&self, error: Error) -> Error {
        error.device(&self.http().target().shown)
    }
}

/// Full jitter: callers that were sent away together do not come back together.
fn jitter(tries: u32) -> Duration {
    let most = (FIRST_PAUSE * 2_u32.saturating_pow(tries.min(10))).min(LAST_PAUSE);
    most.mul_f64(fastrand::f64())
}
