//! Tokens for service accounts: JWTs signed by this server.

use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use http::StatusCode;
use serde_json::{Value, json};
use time::OffsetDateTime;

use super::{
    answer::{Answer, json_answer},
    call::Call,
    kinds::SERVICE_ACCOUNTS,
    object::Object,
    registry::Registry,
    times::later,
};

const ISSUER: &str = "https://kubernetes.default.svc";
/// What Kubernetes allows at the least.
const LEAST_SECONDS: i64 = 600;
const MOST_SECONDS: i64 = 365 * 86_400;

/// Answers a TokenRequest.
pub(super) async fn issue(
    registry: &Registry,
    signer: &Signer,
    call: &Call,
    namespace: &str,
    name: &str,
) -> Answer {
    let account = registry.get(&SERVICE_ACCOUNTS, namespace, name).await?;
    let mut request: Value = call.object()?;
    let seconds = request.number(&["spec", "expirationSeconds"]).unwrap_or(3600);
    let seconds = seconds.clamp(LEAST_SECONDS, MOST_SECONDS);
    let mut audiences = request.copy(&["spec", "audiences"]);
    if audiences.as_array().is_none_or(Vec::is_empty) {
        audiences = json!([ISSUER]);
    }
    let moment = registry.moment();
    let now = moment.unix_timestamp();
    let subject = format!("system:serviceaccount:{namespace}:{name}");
    let mut kubernetes =
        json!({"namespace": namespace, "serviceaccount": {"name": name, "uid": account.uid()}});
    if let Some(bound) = request.at(&["spec", "boundObjectRef"]).filter(|bound| bound.is_object()) {
        kubernetes.set(
            &[&bound.text(&["kind"]).to_lowercase()],
            json!({"name": bound.copy(&["name"]), "uid": bound.copy(&["uid"])}),
        );
    }
    let claims = json!({"aud": audiences, "exp": now + seconds, "iat": now, "nbf": now, "iss": ISSUER, "sub": subject, "kubernetes.io": kubernetes});
    let token = signer.sign(&claims);
    request.set(&["status"], json!({"token": token, "expirationTimestamp": later(moment, seconds)}));
    request.set(&["kind"], "TokenRequest");
    request.set(&["apiVersion"], "authentication.k8s.io/v1");
    request.set(&["spec", "expirationSeconds"], seconds);
    request.set(&["spec", "audiences"], audiences);
    Ok(json_answer(StatusCode::CREATED, &request))
}

/// The user that a token of a service account stands for, if this signer signed it and it is still good.
pub(super) fn user_of(signer: &Signer, token: &str, now: OffsetDateTime) -> Option<String> {
    let claims = signer.verify(token)?;
    let is_good = claims.get("exp")?.as_i64()? > now.unix_timestamp();
    is_good.then(|| claims.get("sub")?.as_str().map(str::to_owned)).flatten()
}

/// Signs and checks JWTs with a secret that only this server knows (HS256).
#[derive(Clone)]
pub struct Signer(ring::hmac::Key);

impl std::fmt::Debug for Signer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Signer(…)")
    }
}

impl Signer {
    /// A signer with this secret.
    pub fn new(secret: &[u8]) -> Self {
        Self(ring::hmac::Key::new(ring::hmac::HMAC_SHA256, secret))
    }

    fn sign(&self, claims: &Value) -> String {
        let head = URL_SAFE_NO_PAD.encode(r#"{"alg":"HS256","typ":"JWT"}"#);
        let signed = format!("{head}.{}", URL_SAFE_NO_PAD.encode(claims.to_string()));
        let signature = ring::hmac::sign(&self.0, signed.as_bytes());
        format!("{signed}.{}", URL_SAFE_NO_PAD.encode(signature))
    }

    fn verify(&self, token: &str) -> Option<Value> {
        let (signed, signature) = token.rsplit_once('.')?;
        let signature = URL_SAFE_NO_PAD.decode(signature).ok()?;
        ring::hmac::verify(&self.0, signed.as_bytes(), &signature).ok()?;
        serde_json::from_slice(&URL_SAFE_NO_PAD.decode(signed.split_once('.')?.1).ok()?).ok()
    }
}
