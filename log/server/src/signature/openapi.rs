//! The description of the HTTP API that is served at `/openapi.json`.

/// OpenAPI 3.0.
pub(crate) const DOCUMENT: &str = include_str!("openapi.json");
