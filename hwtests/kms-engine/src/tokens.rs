//! Bearer tokens: Google's and Microsoft's token endpoints, and what the other faces check.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::SocketAddr,
    sync::{Mutex, MutexGuard, OnceLock, PoisonError},
};

use aws_lc_rs::{
    encoding::{AsDer, Pkcs8V1Der},
    rsa::KeySize,
    signature::{KeyPair, RSA_PKCS1_2048_8192_SHA256, RsaKeyPair, UnparsedPublicKey},
};
use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use serde_json::{Value, json};

use crate::{
    call::{Call, Reply},
    clock,
    engine::Shared,
    fault::{Fault, FaultKind},
};

/// The tenant that the engine's application lives in.
pub const AZURE_TENANT: &str = "00000000-0000-4000-8000-000000000001";
/// The application that may sign in.
pub const AZURE_CLIENT_ID: &str = "00000000-0000-4000-8000-000000000002";
/// Its secret.
pub const AZURE_CLIENT_SECRET: &str = "the~test~engine~knows~this~secret";

const EMAIL: &str = "tester@signerd-tests.iam.gserviceaccount.com";
const REFRESH_TOKEN: &str = "1//the-test-engine-knows-this-refresh-token";
const CLIENT_ID: &str = "tester.apps.googleusercontent.com";
const CLIENT_SECRET: &str = "the-test-engine-knows-this-client-secret";

/// Who may ask for a token, and which tokens were given.
pub(crate) struct Tokens {
    /// Where the plain port is.
    address: SocketAddr,
    /// The key of Google's service account: made when it is asked for.
    account: OnceLock<RsaKeyPair>,
    state: Mutex<State>,
}

struct State {
    /// Tokens that were given: for whom, and until when.
    given: BTreeMap<String, (Audience, u64)>,
    /// Self-signed tokens that were seen.
    signed: BTreeSet<String>,
    /// Tokens that are refused.
    revoked: BTreeSet<String>,
    lifetime: u64,
}

/// Whose service a token is for.
#[derive(Clone, Copy, PartialEq)]
pub(crate) enum Audience {
    Google,
    Azure,
}

/// What is wrong with a token.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum BadToken {
    Missing,
    Unknown,
    Expired,
}

impl Tokens {
    pub(crate) fn new(address: SocketAddr) -> Self {
        let state = State {
            given: BTreeMap::new(),
            signed: BTreeSet::new(),
            revoked: BTreeSet::new(),
            lifetime: 3600,
        };
        Self { address, account: OnceLock::new(), state: Mutex::new(state) }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn account(&self) -> &RsaKeyPair {
        self.account
            .get_or_init(|| RsaKeyPair::generate(KeySize::Rsa2048).expect("the library makes RSA keys"))
    }

    /// The key file of a service account, as the Google Cloud console gives it.
    pub(crate) fn google_service_account(&self) -> String {
        let der: Pkcs8V1Der<'_> = self.account().as_der().expect("a key that was made can be written");
        let pem = pkcs8::der::pem::encode_string("PRIVATE KEY", pkcs8::LineEnding::LF, der.as_ref());
        json!({
            "type": "service_account",
            "project_id": "signerd-tests",
            "private_key_id": "0123456789abcdef",
            "private_key": pem.expect("a key that was made can be written"),
            "client_email": EMAIL,
            "client_id": "100000000000000000001",
            "token_uri": format!("http://{}/google/token", self.address),
            "universe_domain": "googleapis.com",
        })
        .to_string()
    }

    /// The file that `gcloud auth application-default login` writes.
    pub(crate) fn google_authorized_user(&self) -> String {
        json!({
            "type": "authorized_user",
            "client_id": CLIENT_ID,
            "client_secret": CLIENT_SECRET,
            "refresh_token": REFRESH_TOKEN,
            "token_uri": format!("http://{}/google/token", self.address),
        })
        .to_string()
    }

    /// How long new tokens are good for, in seconds.
    pub(crate) fn set_lifetime(&self, seconds: u64) {
        self.state().lifetime = seconds;
    }

    /// Refuses all tokens of before.
    pub(crate) fn revoke(&self) {
        let mut state = self.state();
        let given: Vec<_> = state.given.keys().chain(&state.signed).cloned().collect();
        state.revoked.extend(given);
        state.given.clear();
    }

    fn give(&self, audience: Audience) -> (String, u64) {
        let mut bytes = [0; 24];
        aws_lc_rs::rand::fill(&mut bytes).expect("the system has randomness");
        let mut state = self.state();
        let lifetime = state.lifetime;
        let token = format!("token.{}", URL_SAFE_NO_PAD.encode(bytes));
        state.given.insert(token.clone(), (audience, clock::now() + lifetime));
        (token, lifetime)
    }

    /// Whether the caller has a good token.
    pub(crate) fn check(&self, call: &Call, audience: Audience) -> Result<(), BadToken> {
        let token = call.bearer().filter(|t| !t.is_empty()).ok_or(BadToken::Missing)?;
        let mut state = self.state();
        if state.revoked.contains(token) {
            return Err(BadToken::Expired);
        }
        match state.given.get(token) {
            Some((for_whom, until)) if *for_whom == audience && *until > clock::now() => Ok(()),
            Some((for_whom, _)) if *for_whom == audience => Err(BadToken::Expired),
            _ if audience == Audience::Google => {
                self.check_self_signed(token)?;
                state.signed.insert(token.to_owned());
                Ok(())
            }
            _ => Err(BadToken::Unknown),
        }
    }

    /// A JWT that the service account signed for itself.
    fn check_self_signed(&self, token: &str) -> Result<(), BadToken> {
        let claims = self.verified(token).ok_or(BadToken::Unknown)?;
        let mine = |name: &str| claims[name] == json!(EMAIL);
        let scoped = claims["scope"].as_str().is_some_and(|s| s.contains("/auth/cloud"))
            || claims["aud"].as_str().is_some_and(|a| a.contains("cloudkms"));
        if !mine("iss") || !mine("sub") || !scoped {
            return Err(BadToken::Unknown);
        }
        match claims["exp"].as_u64() {
            Some(until) if until > clock::now() => Ok(()),
            _ => Err(BadToken::Expired),
        }
    }

    /// The claims of a JWT with a good signature of the service account.
    fn verified(&self, token: &str) -> Option<Value> {
        let (signed, signature) = token.rsplit_once('.')?;
        let (header, claims) = signed.split_once('.')?;
        let decode = |text: &str| serde_json::from_slice::<Value>(&URL_SAFE_NO_PAD.decode(text).ok()?).ok();
        if decode(header)?["alg"] != json!("RS256") {
            return None;
        }
        let key = UnparsedPublicKey::new(&RSA_PKCS1_2048_8192_SHA256, self.account().public_key().as_ref());
        key.verify(signed.as_bytes(), &URL_SAFE_NO_PAD.decode(signature).ok()?).ok()?;
        decode(claims)
    }
}

pub(crate) fn is_for_tokens(path: &str) -> bool {
    path == "/google/token"
        || path.starts_with("/computeMetadata/")
        || path.starts_with("/metadata/identity/")
        || path.ends_with("/oauth2/v2.0/token")
        || path.ends_with("/openid-configuration")
}

/// `google.token`, `azure.token`.
pub(crate) fn operation(call: &Call) -> String {
    let google = call.path == "/google/token" || call.path.starts_with("/computeMetadata/");
    if google { "google.token" } else { "azure.token" }.to_owned()
}

const MEDIA_TYPE: &str = "application/json; charset=utf-8";

/// What a token endpoint says on command.
pub(crate) fn fails(_: &Call, fault: &Fault) -> Option<Reply> {
    let (status, body) = match fault.kind {
        FaultKind::Unavailable => (503, json!({"error": "temporarily_unavailable"})),
        FaultKind::Internal => (500, json!({"error": "server_error"})),
        FaultKind::Throttle => (429, json!({"error": "slow_down"})),
        FaultKind::Denied => (403, json!({"error": "access_denied"})),
        FaultKind::Expired => (
            401,
            json!({
                "error": "invalid_client",
                "error_description": "AADSTS7000222: The provided client secret keys are expired.",
                "error_codes": [7_000_222],
            }),
        ),
        _ => return None,
    };
    Some(Reply::json(status, MEDIA_TYPE, &body))
}

pub(crate) fn answer(shared: &Shared, call: &Call) -> Reply {
    let tokens = &shared.tokens;
    let given = |audience| {
        let (token, lifetime) = tokens.give(audience);
        let until = (clock::now() + lifetime).to_string();
        let body = json!({
            "token_type": "Bearer", "access_token": token, "expires_in": lifetime, "ext_expires_in": lifetime,
            "expires_on": until,
        });
        Reply::json(200, MEDIA_TYPE, &body)
    };
    let refused = |status, error: &str, text: &str| {
        Reply::json(status, MEDIA_TYPE, &json!({"error": error, "error_description": text}))
    };
    match (call.method.as_str(), call.path.as_str()) {
        ("POST", "/google/token") if google_grant(tokens, call) => given(Audience::Google),
        ("POST", "/google/token") => refused(400, "invalid_grant", "Bad Request"),
        ("GET", path) if path.starts_with("/computeMetadata/") => {
            if call.header("metadata-flavor") != Some("Google") {
                return refused(403, "forbidden", "Missing Metadata-Flavor:Google header.");
            }
            let path = path.trim_start_matches("/computeMetadata/v1/instance/service-accounts/default/");
            match path {
                "token" => given(Audience::Google).header("metadata-flavor", "Google"),
                "email" => Reply::text(200, "application/text", EMAIL).header("metadata-flavor", "Google"),
                _ => refused(404, "not_found", "Not Found").header("metadata-flavor", "Google"),
            }
        }
        ("GET", path) if path.starts_with("/metadata/identity/") => {
            let asked = call.header("metadata") == Some("true") && call.parameter("resource").is_some();
            if asked {
                given(Audience::Azure)
            } else {
                refused(400, "invalid_request", "Required metadata header not specified")
            }
        }
        ("GET", path) if path.ends_with("/openid-configuration") => openid(call),
        ("POST", path) => match azure_grant(call, path) {
            Ok(()) => given(Audience::Azure),
            Err((status, error, text)) => refused(status, error, text),
        },
        _ => refused(404, "not_found", "Not Found"),
    }
}

/// Both grants of Google's token endpoint: JSON as the Rust client sends it, a form as the others do.
fn google_grant(tokens: &Tokens, call: &Call) -> bool {
    let json = call.json();
    let form = call.form();
    let field = |name: &str| match &json {
        Some(body) => body[name].as_str().map(str::to_owned),
        None => form.iter().find(|(n, _)| n == name).map(|(_, v)| v.clone()),
    };
    match field("grant_type").as_deref() {
        Some("refresh_token") => {
            field("refresh_token").as_deref() == Some(REFRESH_TOKEN)
                && field("client_id").as_deref() == Some(CLIENT_ID)
                && field("client_secret").as_deref() == Some(CLIENT_SECRET)
        }
        Some("urn:ietf:params:oauth:grant-type:jwt-bearer") => {
            let claims = field("assertion").and_then(|a| tokens.verified(&a)).unwrap_or_default();
            claims["iss"] == json!(EMAIL) && claims["exp"].as_u64().is_some_and(|t| t > clock::now())
        }
        _ => false,
    }
}

/// The client credentials grant, with a secret or a federated assertion.
fn azure_grant(call: &Call, path: &str) -> Result<(), (u16, &'static str, &'static str)> {
    if path.trim_start_matches('/').split('/').next() != Some(AZURE_TENANT) {
        return Err((400, "invalid_request", "AADSTS90002: Tenant not found."));
    }
    let form = call.form();
    let field = |name: &str| form.iter().find(|(n, _)| n == name).map(|(_, v)| v.as_str());
    if call.content_type() != "application/x-www-form-urlencoded"
        || field("grant_type") != Some("client_credentials")
    {
        return Err((
            400,
            "invalid_request",
            "AADSTS900144: The request body must contain the parameter 'grant_type'.",
        ));
    }
    if field("client_id") != Some(AZURE_CLIENT_ID) {
        return Err((
            400,
            "unauthorized_client",
            "AADSTS700016: Application was not found in the directory.",
        ));
    }
    let scopes = ["https://vault.azure.net/.default", "https://managedhsm.azure.net/.default"];
    if !field("scope").is_some_and(|s| s.split(' ').any(|s| scopes.contains(&s))) {
        return Err((
            400,
            "invalid_scope",
            "AADSTS70011: The provided request must include a 'scope' input parameter.",
        ));
    }
    match (field("client_secret"), field("client_assertion")) {
        (Some(AZURE_CLIENT_SECRET), _) => Ok(()),
        (_, Some(assertion)) if assertion.starts_with("federated.") => Ok(()),
        _ => Err((401, "invalid_client", "AADSTS7000215: Invalid client secret provided.")),
    }
}

fn openid(call: &Call) -> Reply {
    let scheme = if call.tls { "https" } else { "http" };
    let base = format!("{scheme}://{}/{AZURE_TENANT}", call.header("host").unwrap_or_default());
    let body = json!({
        "issuer": format!("{base}/v2.0"),
        "token_endpoint": format!("{base}/oauth2/v2.0/token"),
        "authorization_endpoint": format!("{base}/oauth2/v2.0/authorize"),
        "device_authorization_endpoint": format!("{base}/oauth2/v2.0/devicecode"),
        "tenant_region_scope": null,
    });
    Reply::json(200, MEDIA_TYPE, &body)
}
