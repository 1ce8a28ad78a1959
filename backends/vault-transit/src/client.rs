//! Requests with a token, tried again where that makes sense, until the caller's deadline.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use bytes::Bytes;
use reqwest::Method;
use serde_json::Value;
use signer_core::{Error, Result};
use signer_remote::Patience;

use crate::{
    fault::{Asked, Fault},
    http::{Answer, Http, Request},
    session::Session,
};

/// The server, as someone who is logged in.
pub(crate) struct Client {
    session: Arc<Session>,
}

/// A login, a request, and both again with another token: each has a limit of its own, which says more.
const ATTEMPT: Duration = Duration::from_mins(1);

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
        self.http().send(request).await.map_err(|f| self.here(f.failure.error))
    }

    async fn call(
        &self,
        method: Method,
        asked: Asked<'_>,
        query: &'static str,
        body: Option<Bytes>,
        deadline: Option<Instant>,
    ) -> Result<Answer> {
        let patience = Patience { attempt: ATTEMPT, total: self.http().target().timeout };
        let attempt = || async { Ok(self.attempt(&method, asked, query, body.as_ref()).await?) };
        let answer = if asked.repeatable {
            patience.persist(deadline, attempt).await
        } else {
            patience.change(deadline, attempt).await
        };
        answer.map_err(|e| self.here(e))
    }

    /// One request; one more when the first was refused for a token that is not valid any more.
    async fn attempt(
        &self,
        method: &Method,
        asked: Asked<'_>,
        query: &'static str,
        body: Option<&Bytes>,
    ) -> Result<Answer, Fault> {
        let mut token = self.session.token().await?;
        for last in [false, true] {
            let (method, body) = (method.clone(), body.cloned());
            let request = Request { method, asked, query, body, token: Some(token.pin()) };
            match self.http().send(request).await {
                Err(fault) if fault.stale_token => {
                    self.session.reject(&token, &fault.failure.error);
                    if last {
                        return Err(fault);
                    }
                    token = self.session.token().await?;
                }
                done => return done,
            }
        }
        Err(Error::internal("two requests gave neither answer nor failure").into())
    }

    pub(crate) fn here(&self, error: Error) -> Error {
        error.device(&self.http().target().shown)
    }
}
