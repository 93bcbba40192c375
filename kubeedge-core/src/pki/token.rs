//! Join tokens: `sha256(CA certificate).header.claims.signature`, signed with the bytes of the CA's key.

use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use ring::{digest, hmac};
use serde::Deserialize;

use super::Authority;

const HEADER: &str = r#"{"alg":"HS256","typ":"JWT"}"#;

/// Why a token is not good.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum TokenError {
    /// Not four parts, or parts that are not what they should be.
    #[error("token is malformed: it must be the whole text of tokendata, four parts joined by dots")]
    Malformed,
    /// The certificate is not the one the token names.
    #[error("token is of another cloudcore: its hash is not that of the CA certificate")]
    OtherAuthority,
    /// Not signed by this authority, or not by an algorithm of the HMAC family that KubeEdge uses.
    #[error("token signature is invalid")]
    Signature,
    /// Its time is over.
    #[error("token is expired; take a fresh one, for example with keadm gettoken")]
    Expired,
}

#[derive(Deserialize)]
struct Head {
    alg: String,
}

#[derive(Deserialize)]
struct Claims {
    exp: f64,
}

/// A token good until `expires` (seconds since the Unix epoch).
pub fn sign_token(authority: &Authority, expires: i64) -> String {
    let claims = format!(r#"{{"exp":{expires}}}"#);
    let signed = format!("{}.{}", URL_SAFE_NO_PAD.encode(HEADER), URL_SAFE_NO_PAD.encode(claims));
    let key = hmac::Key::new(hmac::HMAC_SHA256, authority.key().sec1());
    let signature = URL_SAFE_NO_PAD.encode(hmac::sign(&key, signed.as_bytes()));
    format!("{}.{signed}.{signature}", fingerprint(authority.certificate()))
}

/// The hash of the CA certificate and the JWT, the two halves an edge uses apart.
pub fn split_token(token: &str) -> Result<(&str, &str), TokenError> {
    let (hash, jwt) = token.trim().split_once('.').ok_or(TokenError::Malformed)?;
    if jwt.split('.').count() == 3 { Ok((hash, jwt)) } else { Err(TokenError::Malformed) }
}

/// Whether a CA certificate (DER) is the one a token names.
pub fn token_names_ca(token: &str, certificate: &[u8]) -> Result<(), TokenError> {
    let (hash, _) = split_token(token)?;
    if hash == fingerprint(certificate) { Ok(()) } else { Err(TokenError::OtherAuthority) }
}

/// Checks the JWT part of a token, as the cloud gets it.
pub fn verify_token(authority: &Authority, jwt: &str, now: i64) -> Result<(), TokenError> {
    expiry(authority, jwt, now).map(|_| ())
}

/// When a whole token expires (seconds since the Unix epoch), if it is this authority's and good now.
pub fn token_expiry(authority: &Authority, token: &str, now: i64) -> Result<i64, TokenError> {
    token_names_ca(token, authority.certificate())?;
    expiry(authority, split_token(token)?.1, now)
}

fn expiry(authority: &Authority, jwt: &str, now: i64) -> Result<i64, TokenError> {
    let (signed, signature) = jwt.rsplit_once('.').ok_or(TokenError::Malformed)?;
    let (head, claims) = signed.split_once('.').ok_or(TokenError::Malformed)?;
    let decode = |part: &str| URL_SAFE_NO_PAD.decode(part).map_err(|_| TokenError::Malformed);
    let head: Head = serde_json::from_slice(&decode(head)?).map_err(|_| TokenError::Malformed)?;
    let algorithm = match head.alg.as_str() {
        "HS256" => hmac::HMAC_SHA256,
        "HS384" => hmac::HMAC_SHA384,
        "HS512" => hmac::HMAC_SHA512,
        _ => return Err(TokenError::Signature),
    };
    let key = hmac::Key::new(algorithm, authority.key().sec1());
    hmac::verify(&key, signed.as_bytes(), &decode(signature)?).map_err(|_| TokenError::Signature)?;
    let claims: Claims = serde_json::from_slice(&decode(claims)?).map_err(|_| TokenError::Malformed)?;
    if claims.exp > now as f64 { Ok(claims.exp as i64) } else { Err(TokenError::Expired) }
}

fn fingerprint(certificate: &[u8]) -> String {
    let digest = digest::digest(&digest::SHA256, certificate);
    digest.as_ref().iter().map(|byte| format!("{byte:02x}")).collect()
}
