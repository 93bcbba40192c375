//! ECDSA P-256 keys in the encodings that Go reads and writes.

use std::fmt;

use bytes::Bytes;
use rcgen::{KeyPair, PKCS_ECDSA_P256_SHA256};

use super::{PkiError, from_pem, to_pem};

/// prime256v1, as an encoded object identifier.
const CURVE: [u8; 10] = [0x06, 0x08, 0x2a, 0x86, 0x48, 0xce, 0x3d, 0x03, 0x01, 0x07];
/// The algorithm identifier of an EC key on that curve.
const ALGORITHM: [u8; 21] = [
    0x30, 0x13, 0x06, 0x07, 0x2a, 0x86, 0x48, 0xce, 0x3d, 0x02, 0x01, 0x06, 0x08, 0x2a, 0x86, 0x48, 0xce,
    0x3d, 0x03, 0x01, 0x07,
];

/// A private key. Its bytes are Go's SEC1 form, which tokens are signed with: they must survive unchanged.
#[derive(Clone, PartialEq, Eq)]
pub struct Key {
    sec1: Bytes,
}

impl fmt::Debug for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Key(…)")
    }
}

impl Key {
    /// A new key.
    pub fn generate() -> Result<Self, PkiError> {
        let pair =
            KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256).map_err(|e| PkiError::Key(e.to_string()))?;
        let pkcs8 = pair.serialize_der();
        let scalar = scalar_of(inner(&pkcs8).unwrap_or_default());
        let scalar = scalar.ok_or_else(|| PkiError::Key("unexpected form of a new key".to_owned()))?;
        Ok(Self { sec1: go_sec1(scalar, pair.public_key_raw()).into() })
    }

    /// A key in SEC1 or PKCS#8. SEC1 bytes are kept as they are.
    pub fn from_der(der: impl Into<Bytes>) -> Result<Self, PkiError> {
        let der = der.into();
        let sec1 = match inner(&der) {
            Some(inner) => der.slice_ref(inner),
            None => der,
        };
        let key = Self { sec1 };
        key.pair()?;
        Ok(key)
    }

    /// A key in PEM: `EC PRIVATE KEY`, or `PRIVATE KEY` around PKCS#8 or, as cloudcore writes it, around
    /// SEC1.
    pub fn from_pem(text: &str) -> Result<Self, PkiError> {
        Self::from_der(from_pem(text, &["EC PRIVATE KEY", "PRIVATE KEY"])?)
    }

    /// The key as Go stores it.
    pub fn sec1(&self) -> &Bytes {
        &self.sec1
    }

    /// The key as edges keep it in a file.
    pub fn to_pem(&self) -> String {
        to_pem("EC PRIVATE KEY", &self.sec1)
    }

    /// The key for signing.
    pub(super) fn pair(&self) -> Result<KeyPair, PkiError> {
        let body = [&[2, 1, 0][..], &ALGORITHM, &tlv(0x04, &self.sec1)].concat();
        KeyPair::try_from(tlv(0x30, &body)).map_err(|error| PkiError::Key(error.to_string()))
    }
}

/// SEC1 with curve and public key, as Go's MarshalECPrivateKey writes it.
fn go_sec1(scalar: &[u8], public: &[u8]) -> Vec<u8> {
    let bits = [&[0][..], public].concat();
    let body =
        [&[2, 1, 1][..], &tlv(0x04, scalar), &tlv(0xa0, &CURVE), &tlv(0xa1, &tlv(0x03, &bits))].concat();
    tlv(0x30, &body)
}

/// The SEC1 document inside a PKCS#8 one; `None` when it is not PKCS#8.
fn inner(pkcs8: &[u8]) -> Option<&[u8]> {
    let (0x30, body, _) = split(pkcs8)? else { return None };
    let (0x02, _, rest) = split(body)? else { return None };
    let (0x30, _, rest) = split(rest)? else { return None };
    let (0x04, sec1, _) = split(rest)? else { return None };
    Some(sec1)
}

/// The secret number inside SEC1.
fn scalar_of(sec1: &[u8]) -> Option<&[u8]> {
    let (0x30, body, _) = split(sec1)? else { return None };
    let (0x02, _, rest) = split(body)? else { return None };
    let (0x04, scalar, _) = split(rest)? else { return None };
    Some(scalar)
}

/// Tag, content and what follows, of DER with lengths below 64 KiB.
fn split(der: &[u8]) -> Option<(u8, &[u8], &[u8])> {
    let (&tag, rest) = der.split_first()?;
    let (&first, rest) = rest.split_first()?;
    let (length, rest) = match first {
        0..=0x7f => (usize::from(first), rest),
        0x81 => (usize::from(*rest.first()?), rest.get(1..)?),
        0x82 => (usize::from(u16::from_be_bytes([*rest.first()?, *rest.get(1)?])), rest.get(2..)?),
        _ => return None,
    };
    Some((tag, rest.get(..length)?, rest.get(length..)?))
}

fn tlv(tag: u8, content: &[u8]) -> Vec<u8> {
    let length = content.len();
    let mut out = vec![tag];
    match u8::try_from(length) {
        Ok(short @ 0..=0x7f) => out.push(short),
        Ok(byte) => out.extend([0x81, byte]),
        Err(_) => out.extend([0x82, (length >> 8) as u8, length as u8]),
    }
    out.extend_from_slice(content);
    out
}
