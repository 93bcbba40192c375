//! Certificates in files. New ones take the old ones' place so that a crash at any moment leaves a pair that
//! fits.

use std::{
    fs::File,
    io::{self, Read},
    path::{Path, PathBuf},
    sync::Arc,
};

use bytes::Bytes;
use kubeedge_common::{
    blocking::Blocking,
    file::{self, Replacement, interim},
};
use kubeedge_core::{
    name::NodeName,
    pki::{self, Identity, Key, Leaf},
};
use rustls::{
    pki_types::{CertificateDer, PrivateSec1KeyDer},
    sign::CertifiedKey,
};

use super::identity::{JoinError, JoinSettings, fits};

/// No certificate or key of ours is larger.
const MOST: u64 = 64 << 10;

/// The stored certificate that fits this node, or what is wrong with the one in place.
pub(super) async fn load(
    join: &Arc<JoinSettings>,
    node: &NodeName,
    now: i64,
) -> Result<(Identity, Leaf), JoinError> {
    let (join, node) = (join.clone(), node.clone());
    blocking(move || load_now(&join, &node, now)).await
}

/// Stores an identity.
pub(super) async fn save(join: &Arc<JoinSettings>, identity: &Identity) -> Result<(), JoinError> {
    let (join, identity) = (join.clone(), identity.clone());
    blocking(move || save_now(&join, &identity)).await
}

/// The largest join token that is read.
const MAX_TOKEN: u64 = 16 << 10;

/// The join token there is now: the one in the file, else the configured one.
pub(super) async fn token(join: &Arc<JoinSettings>) -> Option<String> {
    let text = |text: &str| Some(text.trim().to_owned()).filter(|text| !text.is_empty());
    let configured = || join.token.as_deref().and_then(text);
    let Some(file) = join.token_file.clone() else { return configured() };
    let read = blocking(move || {
        let mut content = String::new();
        let opened = File::open(&file).map_err(JoinError::file(&file))?;
        opened.take(MAX_TOKEN).read_to_string(&mut content).map_err(JoinError::file(&file))?;
        Ok(content)
    });
    match read.await {
        Ok(content) => text(&content).or_else(configured),
        Err(error) => {
            if !matches!(&error, JoinError::File { source, .. } if source.kind() == io::ErrorKind::NotFound) {
                tracing::warn!(%error, "the join token was not read");
            }
            configured()
        }
    }
}

/// Removes the file of a join token that is of no more use.
pub(super) async fn token_has_served(join: &Arc<JoinSettings>) {
    let Some(file) = join.token_file.clone() else { return };
    match tokio::fs::remove_file(&file).await {
        Err(error) if error.kind() != io::ErrorKind::NotFound => {
            tracing::warn!(file = %file.display(), %error, "the join token has served and its file was not removed");
        }
        _ => {}
    }
}

async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, JoinError> + Send + 'static,
) -> Result<T, JoinError> {
    let done = Blocking::Threads.run(work).await;
    done.map_err(|error| JoinError::File { path: PathBuf::new(), source: io::Error::other(error) })?
}

fn load_now(join: &JoinSettings, node: &NodeName, now: i64) -> Result<(Identity, Leaf), JoinError> {
    let in_place = load_pair(join, &join.cert_file, &join.key_file, node, now);
    if in_place.is_ok() {
        return in_place;
    }
    // A crash between the two renames leaves one half of the pair under its interim name.
    let (cert, key) = (interim(&join.cert_file), interim(&join.key_file));
    let pairs = [(&cert, &join.key_file), (&join.cert_file, &key), (&cert, &key)];
    let rescued = pairs.into_iter().find_map(|(cert, key)| load_pair(join, cert, key, node, now).ok());
    let Some(found) = rescued else { return in_place };
    save_now(join, &found.0)?;
    Ok(found)
}

fn load_pair(
    join: &JoinSettings,
    cert: &Path,
    key: &Path,
    node: &NodeName,
    now: i64,
) -> Result<(Identity, Leaf), JoinError> {
    let unfit = |path: &Path| {
        let path = path.to_owned();
        move |why: String| JoinError::Unfit { path, why }
    };
    let ca = read(&join.ca_file)?;
    let certificate = read(cert)?;
    let secret = Key::from_der(read(key)?).map_err(|error| unfit(key)(error.to_string()))?;
    let identity = Identity { ca, certificate, key: secret };
    let leaf = fits(&identity, node, now).map_err(unfit(cert))?;
    Ok((identity, leaf))
}

/// The DER in a file of PEM or DER.
fn read(path: &Path) -> Result<Bytes, JoinError> {
    let mut content = Vec::new();
    let file = File::open(path).map_err(JoinError::file(path))?;
    file.take(MOST).read_to_end(&mut content).map_err(JoinError::file(path))?;
    if content.starts_with(&[0x30]) {
        return Ok(content.into());
    }
    let labels = ["CERTIFICATE", "EC PRIVATE KEY", "PRIVATE KEY"];
    pki::from_pem(&String::from_utf8_lossy(&content), &labels).map_err(|_| JoinError::Unfit {
        path: path.to_owned(),
        why: "neither a certificate nor an EC key in PEM or DER".to_owned(),
    })
}

/// Whether a private key is that of a certificate.
pub(super) fn is_key_of(key: &Key, certificate: &Bytes) -> bool {
    let sec1 = PrivateSec1KeyDer::from(key.sec1().to_vec()).into();
    let signer = rustls::crypto::ring::sign::any_ecdsa_type(&sec1);
    let chain = vec![CertificateDer::from(certificate.to_vec())];
    signer.is_ok_and(|signer| CertifiedKey::new(chain, signer).keys_match().is_ok())
}

fn save_now(join: &JoinSettings, identity: &Identity) -> Result<(), JoinError> {
    let certificate = |der: &Bytes| pki::to_pem("CERTIFICATE", der);
    let files = [
        (&join.ca_file, certificate(&identity.ca), 0o644),
        (&join.key_file, identity.key.to_pem(), 0o600),
        (&join.cert_file, certificate(&identity.certificate), 0o644),
    ];
    let prepare = |(path, content, mode): &(&PathBuf, String, u32)| {
        let folder = path.parent().map_or(Ok(()), |folder| file::make_folder(folder, 0o700));
        folder
            .and_then(|()| Replacement::prepare(path, content.as_bytes(), *mode))
            .map_err(JoinError::file(path))
    };
    let prepared = files.iter().map(prepare).collect::<Result<_, _>>()?;
    Replacement::commit_all(prepared).map_err(|(path, source)| JoinError::File { path, source })
}
