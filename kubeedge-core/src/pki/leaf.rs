//! Reading certificates and asking for one.

use std::net::IpAddr;

use bytes::Bytes;
use rcgen::{CertificateParams, DistinguishedName, DnType};
use x509_parser::prelude::{FromDer, GeneralName, X509Certificate};

use super::{Key, PkiError};

/// What a certificate says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Leaf {
    /// The subject's common name.
    pub common_name: String,
    /// The subject's organizations.
    pub organizations: Vec<String>,
    /// The serial number in lower-case hexadecimal without leading zeros.
    pub serial: String,
    /// Host names and addresses it stands for.
    pub names: Names,
    /// Valid from, in seconds since the Unix epoch.
    pub not_before: i64,
    /// Valid to, in seconds since the Unix epoch.
    pub not_after: i64,
    /// Whether it may sign others.
    pub is_ca: bool,
}

/// Host names and addresses a server certificate stands for.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Names {
    /// Host names.
    pub dns: Vec<String>,
    /// Addresses.
    pub ips: Vec<IpAddr>,
}

impl Leaf {
    /// Reads a certificate.
    pub fn read(der: &[u8]) -> Result<Self, PkiError> {
        let certificate = parse(der)?;
        let subject = certificate.subject();
        let text =
            |value: &x509_parser::x509::AttributeTypeAndValue<'_>| value.as_str().map(str::to_owned).ok();
        let validity = certificate.validity();
        let serial: String = certificate.raw_serial().iter().map(|byte| format!("{byte:02x}")).collect();
        Ok(Self {
            common_name: subject.iter_common_name().find_map(text).unwrap_or_default(),
            organizations: subject.iter_organization().filter_map(text).collect(),
            serial: serial.trim_start_matches('0').to_owned(),
            names: names(&certificate),
            not_before: validity.not_before.timestamp(),
            not_after: validity.not_after.timestamp(),
            is_ca: certificate.is_ca(),
        })
    }

    /// Whether it is valid at this moment (seconds since the Unix epoch).
    pub fn is_valid_at(&self, now: i64) -> bool {
        (self.not_before..=self.not_after).contains(&now)
    }

    /// Whether `ca` signed this certificate, it is valid at `now`, and may be used by a client.
    pub fn is_client_of(der: &[u8], ca: &[u8], now: i64) -> bool {
        let check = || -> Result<bool, PkiError> {
            let certificate = parse(der)?;
            let usage = certificate.extended_key_usage().ok().flatten();
            let client = usage.is_none_or(|usage| usage.value.client_auth || usage.value.any);
            Ok(client && Self::read(der)?.is_valid_at(now))
        };
        Self::is_signed_by(der, ca) && check().unwrap_or(false)
    }

    /// Whether `ca` signed this certificate.
    pub fn is_signed_by(der: &[u8], ca: &[u8]) -> bool {
        let check = || -> Result<bool, PkiError> {
            let (certificate, authority) = (parse(der)?, parse(ca)?);
            let signed = certificate.verify_signature(Some(authority.public_key())).is_ok();
            Ok(signed && certificate.issuer() == authority.subject())
        };
        check().unwrap_or(false)
    }
}

/// The host names and addresses of a certificate; empty names, which Go writes, are left out.
fn names(certificate: &X509Certificate<'_>) -> Names {
    let mut names = Names::default();
    let extension = certificate.subject_alternative_name().ok().flatten();
    for name in extension.iter().flat_map(|extension| &extension.value.general_names) {
        match name {
            GeneralName::DNSName(name) if !name.is_empty() => names.dns.push((*name).to_owned()),
            GeneralName::IPAddress(bytes) => names.ips.extend(address(bytes)),
            _ => {}
        }
    }
    names
}

fn address(bytes: &[u8]) -> Option<IpAddr> {
    let four = <[u8; 4]>::try_from(bytes).map(IpAddr::from);
    four.or_else(|_| <[u8; 16]>::try_from(bytes).map(IpAddr::from)).ok()
}

fn parse(der: &[u8]) -> Result<X509Certificate<'_>, PkiError> {
    let parsed = X509Certificate::from_der(der);
    parsed.map(|(_, certificate)| certificate).map_err(|error| PkiError::Certificate(error.to_string()))
}

/// The node a common name stands for: `system:node:<node>`.
pub fn node_of(common_name: &str) -> Option<&str> {
    common_name.strip_prefix("system:node:").filter(|node| !node.is_empty())
}

/// The request an edge sends for its node's certificate: PKCS#10 in DER, with Go's subject.
pub fn node_request(node: &str, key: &Key) -> Result<Bytes, PkiError> {
    let mut subject = DistinguishedName::new();
    subject.push(DnType::CountryName, "CN");
    subject.push(DnType::OrganizationName, "system:nodes");
    subject.push(DnType::LocalityName, "Hangzhou");
    subject.push(DnType::StateOrProvinceName, "Zhejiang");
    subject.push(DnType::CommonName, format!("system:node:{node}"));
    let mut params = CertificateParams::default();
    params.distinguished_name = subject;
    let request =
        params.serialize_request(&key.pair()?).map_err(|error| PkiError::Request(error.to_string()))?;
    Ok(Bytes::copy_from_slice(request.der()))
}

/// When a certificate is to be replaced: at 70 to 90 % of its life, `random` being between 0 and 1.
pub fn rotation_point(leaf: &Leaf, random: f64) -> i64 {
    let life = (leaf.not_after - leaf.not_before) as f64;
    leaf.not_before + (life * (0.7 + 0.2 * random.clamp(0.0, 1.0))).round() as i64
}
