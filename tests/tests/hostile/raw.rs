//! TLS without anything above it, to write what no library would.

use std::{
    io::{Read, Write},
    net::{SocketAddr, TcpStream},
    sync::Arc,
    time::Duration,
};

use kubeedge_core::pki::Identity;
use rustls::{
    ClientConfig, ClientConnection, RootCertStore, StreamOwned,
    pki_types::{CertificateDer, PrivateKeyDer, ServerName},
};

/// How long a write or a read may hang before it counts as refused.
const PATIENCE: Duration = Duration::from_secs(20);

pub(crate) type Raw = StreamOwned<ClientConnection, TcpStream>;

/// TLS to a door of cloudcore, with a certificate or without, over HTTP/1.1.
pub(crate) fn tls(door: SocketAddr, identity: &Identity, shown: bool) -> Raw {
    let mut roots = RootCertStore::empty();
    roots.add(CertificateDer::from(identity.ca.to_vec())).unwrap();
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(roots);
    let chain = vec![CertificateDer::from(identity.certificate.to_vec())];
    let key = PrivateKeyDer::try_from(identity.key.sec1().to_vec()).unwrap();
    let config =
        if shown { config.with_client_auth_cert(chain, key).unwrap() } else { config.with_no_client_auth() };
    let name = ServerName::try_from("127.0.0.1").unwrap();
    let socket = TcpStream::connect(door).unwrap();
    socket.set_write_timeout(Some(PATIENCE)).unwrap();
    socket.set_read_timeout(Some(PATIENCE)).unwrap();
    StreamOwned::new(ClientConnection::new(Arc::new(config), name).unwrap(), socket)
}

/// The head of an upgrade for this node, without its end.
pub(crate) fn head(path: &str, claim: &str, node: &str) -> String {
    format!(
        "GET {path} HTTP/1.1\r\nHost: x\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n{claim}: {node}\r\n"
    )
}

/// A WebSocket to a door, upgraded.
pub(crate) fn upgraded(door: SocketAddr, identity: &Identity, head: &str) -> Raw {
    let mut raw = tls(door, identity, true);
    write!(raw, "{head}\r\n").unwrap();
    let mut answer = Vec::new();
    while !answer.ends_with(b"\r\n\r\n") {
        let mut byte = [0];
        raw.read_exact(&mut byte).unwrap();
        answer.push(byte[0]);
    }
    assert!(answer.starts_with(b"HTTP/1.1 101"), "{}", String::from_utf8_lossy(&answer));
    raw
}

/// A masked frame whose head declares `length`, which may be another than the payload's.
pub(crate) fn frame(first: u8, length: u64, payload: &[u8]) -> Vec<u8> {
    let mut out = vec![first];
    match length {
        0..=125 => out.push(0x80 | length as u8),
        126..=0xffff => {
            out.push(0xfe);
            out.extend((length as u16).to_be_bytes());
        }
        _ => {
            out.push(0xff);
            out.extend(length.to_be_bytes());
        }
    }
    // The mask is zero, so that the payload stands as it is.
    out.extend([0; 4]);
    out.extend_from_slice(payload);
    out
}

/// Writes a piece again and again, until it is told to stop or `most` bytes are written; how many were taken.
pub(crate) fn pour(raw: &mut Raw, piece: &[u8], most: usize) -> usize {
    let mut written = 0;
    while written < most {
        if raw.write_all(piece).is_err() {
            break;
        }
        written += piece.len();
    }
    written
}

/// Whether the other side has ended it, or ends it while it is read; other bytes are passed over.
pub(crate) fn ended(raw: &mut Raw) -> bool {
    let mut block = [0; 4096];
    loop {
        match raw.read(&mut block) {
            Ok(0) => return true,
            Ok(_) => {}
            Err(error) => {
                return !matches!(
                    error.kind(),
                    std::io::ErrorKind::WouldBlock | std::io::ErrorKind::TimedOut
                );
            }
        }
    }
}
