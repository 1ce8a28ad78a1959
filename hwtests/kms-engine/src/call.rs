//! A request as a face sees it, and an answer.

use bytes::Bytes;
use serde_json::Value;

use crate::fault::FaultKind;

/// A request that was read whole.
pub(crate) struct Call {
    pub(crate) method: String,
    /// Without the query, percent-decoded.
    pub(crate) path: String,
    pub(crate) query: Vec<(String, String)>,
    /// Names in lower case.
    pub(crate) headers: Vec<(String, String)>,
    pub(crate) body: Bytes,
    /// Whether it came over TLS.
    pub(crate) tls: bool,
    /// What is wrong with the answer, on command.
    pub(crate) twist: Option<FaultKind>,
}

impl Call {
    /// The value of a header; the first one.
    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(n, _)| n == name).map(|(_, v)| v.as_str())
    }

    /// The value of a parameter of the query.
    pub(crate) fn parameter(&self, name: &str) -> Option<&str> {
        self.query.iter().find(|(n, _)| n == name).map(|(_, v)| v.as_str())
    }

    /// The content type, without its parameters.
    pub(crate) fn content_type(&self) -> &str {
        self.header("content-type").and_then(|t| t.split(';').next()).unwrap_or_default().trim()
    }

    /// The body as JSON.
    pub(crate) fn json(&self) -> Option<Value> {
        serde_json::from_slice(&self.body).ok()
    }

    /// The bearer token.
    pub(crate) fn bearer(&self) -> Option<&str> {
        self.header("authorization")?.strip_prefix("Bearer ")
    }

    /// The fields of a form in the body.
    pub(crate) fn form(&self) -> Vec<(String, String)> {
        parse_query(std::str::from_utf8(&self.body).unwrap_or_default())
    }
}

/// An answer.
pub(crate) struct Reply {
    pub(crate) status: u16,
    pub(crate) headers: Vec<(&'static str, String)>,
    pub(crate) body: Bytes,
}

impl Reply {
    /// JSON of that media type.
    pub(crate) fn json(status: u16, media_type: &str, body: &Value) -> Self {
        Self { status, headers: vec![("content-type", media_type.to_owned())], body: body.to_string().into() }
    }

    /// Text.
    pub(crate) fn text(status: u16, media_type: &str, body: &str) -> Self {
        let headers = vec![("content-type", media_type.to_owned())];
        Self { status, headers, body: Bytes::copy_from_slice(body.as_bytes()) }
    }

    pub(crate) fn header(mut self, name: &'static str, value: impl Into<String>) -> Self {
        self.headers.push((name, value.into()));
        self
    }
}

/// Reads `a=b&c=d`, percent-encoded.
pub(crate) fn parse_query(text: &str) -> Vec<(String, String)> {
    text.split('&')
        .filter(|part| !part.is_empty())
        .map(|part| {
            let (name, value) = part.split_once('=').unwrap_or((part, ""));
            (decode(&name.replace('+', " ")), decode(&value.replace('+', " ")))
        })
        .collect()
}

/// Percent-decodes; what is malformed stays as it is.
pub(crate) fn decode(text: &str) -> String {
    let mut out = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let Some((&first, tail)) = rest.split_first() {
        let hex = (first == b'%')
            .then(|| tail.get(..2))
            .flatten()
            .and_then(|h| u8::from_str_radix(std::str::from_utf8(h).ok()?, 16).ok());
        match hex {
            Some(byte) => {
                out.push(byte);
                rest = &tail[2..];
            }
            None => {
                out.push(first);
                rest = tail;
            }
        }
    }
    String::from_utf8_lossy(&out).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn queries_are_read() {
        let query = parse_query("a=b%20c&%24alt=json%3Benum&x&%zz=%");
        let expected = [("a", "b c"), ("$alt", "json;enum"), ("x", ""), ("%zz", "%")];
        assert_eq!(query, expected.map(|(n, v)| (n.to_owned(), v.to_owned())));
    }
}
