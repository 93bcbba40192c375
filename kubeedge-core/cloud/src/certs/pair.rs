//! A certificate with its key: in files, in a secret, or made.

use std::path::{Path, PathBuf};

use kubeedge_core::pki::{self, PkiError};

use super::{
    PrepareError,
    secrets::{self, Values},
};
use crate::cluster::{ApiClient, NAMESPACE};

/// How often another cloudcore may get ahead of us before that is an error.
const ATTEMPTS: usize = 5;

/// Certificate and key in DER.
pub(super) type Der = (Vec<u8>, Vec<u8>);

/// Where a certificate and its key may be found.
pub(super) struct Pair<'a> {
    pub(super) secret: &'static str,
    pub(super) keys: [&'static str; 2],
    pub(super) files: &'a Option<(PathBuf, PathBuf)>,
}

impl Pair<'_> {
    /// Where it is found, for messages.
    pub(super) fn place(&self) -> String {
        match self.files {
            Some((certificate, _)) => certificate.display().to_string(),
            None => format!("secret {NAMESPACE}/{}", self.secret),
        }
    }

    /// From the files, which the secret is set to; else from the secret; else made and kept there. Of several
    /// cloudcores that start at once, the first one's counts.
    pub(super) async fn find_or_make(
        &self,
        client: &ApiClient,
        make: impl FnOnce() -> Result<Der, PkiError>,
    ) -> Result<Der, PrepareError> {
        let cluster = |doing| move |source| PrepareError::Cluster { doing, source };
        if let Some((certificate, key)) = self.files {
            let found = (file(certificate).await?, file(key).await?);
            self.publish(client, &found).await.map_err(cluster("keeping a certificate"))?;
            return Ok(found);
        }
        if let Some(found) = self.in_secret(client).await? {
            return Ok(found);
        }
        let made = make().map_err(|source| PrepareError::Certificate { place: self.place(), source })?;
        match secrets::create(client, self.secret, &self.values(&made)).await {
            Ok(()) => Ok(made),
            Err(status) if status.is_already_exists() => {
                let theirs = self.in_secret(client).await?;
                theirs.ok_or_else(|| PrepareError::Incomplete { place: self.place(), what: "its data" })
            }
            Err(source) => Err(PrepareError::Cluster { doing: "keeping a certificate", source }),
        }
    }

    async fn publish(&self, client: &ApiClient, found: &Der) -> Result<(), Box<kube::core::Status>> {
        let values = self.values(found);
        for _ in 1..ATTEMPTS {
            match secrets::write(client, self.secret, &values).await {
                Err(status) if status.is_conflict() => {}
                done => return done,
            }
        }
        secrets::write(client, self.secret, &values).await
    }

    async fn in_secret(&self, client: &ApiClient) -> Result<Option<Der>, PrepareError> {
        let found = secrets::read(client, self.secret).await;
        let Some(mut values) =
            found.map_err(|source| PrepareError::Cluster { doing: "reading a certificate", source })?
        else {
            return Ok(None);
        };
        let mut take = |what: &'static str| {
            values.remove(what).ok_or_else(|| PrepareError::Incomplete { place: self.place(), what })
        };
        let [certificate, key] = self.keys;
        Ok(Some((take(certificate)?, take(key)?)))
    }

    fn values(&self, (certificate, key): &Der) -> Values {
        let [certificate_key, key_key] = self.keys.map(str::to_owned);
        [(certificate_key, certificate.clone()), (key_key, key.clone())].into()
    }
}

async fn file(path: &Path) -> Result<Vec<u8>, PrepareError> {
    let bytes =
        tokio::fs::read(path).await.map_err(|source| PrepareError::File { path: path.to_owned(), source })?;
    der_of(&bytes).ok_or_else(|| PrepareError::Incomplete {
        place: path.display().to_string(),
        what: "a certificate or key in PEM or DER",
    })
}

/// The DER in a PEM text, or the bytes themselves when they are DER.
fn der_of(file: &[u8]) -> Option<Vec<u8>> {
    if file.starts_with(&[0x30]) {
        return Some(file.to_vec());
    }
    let text = std::str::from_utf8(file).ok()?;
    let der = pki::from_pem(text, &["CERTIFICATE", "EC PRIVATE KEY", "PRIVATE KEY"]).ok()?;
    Some(der.to_vec())
}
