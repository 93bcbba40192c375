//! Authorities: KubeEdge's own, and that of the embedded API server.

use std::net::IpAddr;

use bytes::Bytes;
use rand::RngExt;
use rcgen::{
    BasicConstraints, Certificate, CertificateParams, CertificateSigningRequestParams, DistinguishedName,
    DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair, KeyUsagePurpose, SanType, SerialNumber,
};
use time::{Duration, OffsetDateTime};

use super::{Key, Leaf, Names, PkiError};

/// What a certificate may be used for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Usage {
    /// By a server.
    Server,
    /// By a client.
    Client,
    /// By both.
    Both,
}

impl Usage {
    fn purposes(self) -> Vec<ExtendedKeyUsagePurpose> {
        match self {
            Self::Server => vec![ExtendedKeyUsagePurpose::ServerAuth],
            Self::Client => vec![ExtendedKeyUsagePurpose::ClientAuth],
            Self::Both => vec![ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth],
        }
    }

    /// From Go's `x509.ExtKeyUsage` numbers, as `/edge.crt` takes them; unknown numbers are refused.
    pub fn from_go(numbers: &[i64]) -> Option<Self> {
        let known = |number: &i64| matches!(number, 1 | 2);
        let (server, client) = (numbers.contains(&1), numbers.contains(&2));
        match (numbers.iter().all(known), server, client) {
            (true, true, true) => Some(Self::Both),
            (true, true, false) => Some(Self::Server),
            (true, false, true) => Some(Self::Client),
            _ => None,
        }
    }
}

/// A certificate authority with its key.
#[derive(Clone, Debug)]
pub struct Authority {
    certificate: Bytes,
    key: Key,
}

impl Authority {
    /// KubeEdge's authority as cloudcore makes it: CN `KubeEdge`, serial 1024, 100 x 364 days.
    pub fn kubeedge(now: i64) -> Result<Self, PkiError> {
        Self::generate("KubeEdge", now, 36_400)
    }

    /// A new self-signed authority.
    pub fn generate(common_name: &str, now: i64, days: i64) -> Result<Self, PkiError> {
        let key = Key::generate()?;
        let mut params = params(&[(DnType::CommonName, common_name)], now, days)?;
        params.serial_number = Some(SerialNumber::from(1024));
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.key_usages = vec![
            KeyUsagePurpose::KeyEncipherment,
            KeyUsagePurpose::DigitalSignature,
            KeyUsagePurpose::KeyCertSign,
        ];
        params.extended_key_usages = Usage::Both.purposes();
        let certificate = params.self_signed(&key.pair()?).map_err(sign_error)?;
        Ok(Self { certificate: der(&certificate), key })
    }

    /// An authority made before; certificate and key must belong together.
    pub fn load(certificate: impl Into<Bytes>, key: Key) -> Result<Self, PkiError> {
        let authority = Self { certificate: certificate.into(), key };
        if !Leaf::read(&authority.certificate)?.is_ca {
            return Err(PkiError::Certificate("it may not sign others".to_owned()));
        }
        let probe = authority.issue("probe", &[], &Names::default(), Usage::Client, 0, 1)?;
        if !Leaf::is_client_of(&probe.certificate, &authority.certificate, 0) {
            return Err(PkiError::Key("the key is not the certificate's".to_owned()));
        }
        Ok(authority)
    }

    /// The certificate in DER.
    pub fn certificate(&self) -> &Bytes {
        &self.certificate
    }

    /// The key.
    pub fn key(&self) -> &Key {
        &self.key
    }

    /// Signs a request (PKCS#10 in DER). Common name, organizations, names and key are the request's;
    /// everything else is ours: no authority, only this usage, only this life, a random serial.
    pub fn sign(&self, request: &[u8], usage: Usage, now: i64, days: i64) -> Result<Bytes, PkiError> {
        let bad = |error: rcgen::Error| PkiError::Request(error.to_string());
        let mut request = CertificateSigningRequestParams::from_der(&request.to_vec().into()).map_err(bad)?;
        let asked = &request.params.distinguished_name;
        if asked.get(&DnType::CommonName).is_none() {
            return Err(PkiError::Request("it names no subject (CN)".to_owned()));
        }
        let mut subject = DistinguishedName::new();
        for kind in [DnType::OrganizationName, DnType::CommonName] {
            if let Some(value) = asked.get(&kind) {
                subject.push(kind, value.clone());
            }
        }
        let host = |name: &SanType| matches!(name, SanType::DnsName(_) | SanType::IpAddress(_));
        let names = request.params.subject_alt_names.iter().filter(|name| host(name)).cloned().collect();
        let mut params = leaf_params(params(&[], now, days)?, usage);
        params.distinguished_name = subject;
        params.subject_alt_names = names;
        request.params = params;
        let signed = request.signed_by(&self.issuer()?).map_err(sign_error)?;
        Ok(der(&signed))
    }

    /// Makes a key and a certificate for it.
    pub fn issue(
        &self,
        common_name: &str,
        organizations: &[&str],
        names: &Names,
        usage: Usage,
        now: i64,
        days: i64,
    ) -> Result<super::Identity, PkiError> {
        let subject: Vec<_> = organizations.iter().map(|name| (DnType::OrganizationName, *name)).collect();
        let subject = [subject, vec![(DnType::CommonName, common_name)]].concat();
        let mut params = leaf_params(params(&subject, now, days)?, usage);
        params.subject_alt_names = alt_names(names)?;
        let key = Key::generate()?;
        let certificate = params.signed_by(&key.pair()?, &self.issuer()?).map_err(sign_error)?;
        Ok(super::Identity { ca: self.certificate.clone(), certificate: der(&certificate), key })
    }

    /// The hub's and HTTPS service's certificate as cloudcore makes it: O and CN `KubeEdge`.
    pub fn issue_server(&self, names: &Names, now: i64) -> Result<super::Identity, PkiError> {
        self.issue("KubeEdge", &["KubeEdge"], names, Usage::Server, now, 36_400)
    }

    fn issuer(&self) -> Result<Issuer<'static, KeyPair>, PkiError> {
        let certificate = self.certificate.to_vec().into();
        Issuer::from_ca_cert_der(&certificate, self.key.pair()?)
            .map_err(|e| PkiError::Certificate(e.to_string()))
    }
}

fn params(subject: &[(DnType, &str)], now: i64, days: i64) -> Result<CertificateParams, PkiError> {
    let moment = |at: i64| OffsetDateTime::from_unix_timestamp(at).map_err(|e| PkiError::Sign(e.to_string()));
    let mut params = CertificateParams::default();
    params.distinguished_name = DistinguishedName::new();
    for (kind, value) in subject {
        params.distinguished_name.push(kind.clone(), *value);
    }
    params.not_before = moment(now)?;
    params.not_after = moment(now)? + Duration::days(days);
    Ok(params)
}

fn leaf_params(mut params: CertificateParams, usage: Usage) -> CertificateParams {
    // 63 bits and never 0, as Go draws it.
    let serial: u64 = rand::rng().random_range(1..=u64::MAX >> 1);
    params.serial_number = Some(SerialNumber::from(serial));
    params.is_ca = IsCa::ExplicitNoCa;
    params.key_usages = vec![KeyUsagePurpose::KeyEncipherment, KeyUsagePurpose::DigitalSignature];
    params.extended_key_usages = usage.purposes();
    params.use_authority_key_identifier_extension = true;
    params
}

fn alt_names(names: &Names) -> Result<Vec<SanType>, PkiError> {
    let dns = names.dns.iter().filter(|name| !name.is_empty()).map(|name| {
        let name =
            name.as_str().try_into().map_err(|_| PkiError::Sign(format!("{name:?} is no host name")))?;
        Ok(SanType::DnsName(name))
    });
    let ips = names.ips.iter().map(|ip: &IpAddr| Ok(SanType::IpAddress(*ip)));
    dns.chain(ips).collect()
}

fn der(certificate: &Certificate) -> Bytes {
    Bytes::copy_from_slice(certificate.der())
}

fn sign_error(error: rcgen::Error) -> PkiError {
    PkiError::Sign(error.to_string())
}
