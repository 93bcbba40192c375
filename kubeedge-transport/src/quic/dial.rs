//! The dialling side.

use std::{net::SocketAddr, time::Duration};

use bytes::Bytes;
use futures::future::select_ok;
use kubeedge_core::{
    failure::{BoxError, Failure},
    transport::{Credentials, Endpoint, Link, Peer, TransportError, TransportKind},
};
use quinn::Connection;

use super::{
    DONE, Quic, QuicSettings, certificates,
    frames::Reader,
    hello::{self, Abilities},
    kind_of, link,
};
use crate::tls;

/// How many addresses of one name are tried.
const ADDRESSES: usize = 4;
/// How long the next address waits for the one before.
const HEAD_START: Duration = Duration::from_millis(250);

fn fail(kind: TransportKind, to: &Endpoint, why: impl Into<BoxError>) -> TransportError {
    Failure::new(kind, "dialling").on(to.0.clone()).because(why)
}

/// Makes a link: to the first address of the name that answers.
pub(super) async fn dial(quic: &Quic, to: &Endpoint, who: &Credentials) -> Result<Link, TransportError> {
    let (settings, config, hello) = (&quic.settings, quic.client_config(who)?, hello::say(to, who)?);
    let found = tokio::net::lookup_host(to.authority()).await;
    let found: Vec<_> = found.map_err(|e| fail(TransportKind::Unreachable, to, e))?.take(ADDRESSES).collect();
    if found.is_empty() {
        return Err(fail(TransportKind::Unreachable, to, "the name has no address"));
    }
    let connecting = found.into_iter().zip(0..).map(|(address, before)| {
        let config = config.clone();
        Box::pin(async move {
            tokio::time::sleep(HEAD_START * before).await;
            let endpoint = quic.socket(address).map_err(|e| fail(TransportKind::Unreachable, to, e))?;
            shake(settings, &endpoint, config, address, to).await
        })
    });
    let (connection, _) = select_ok(connecting).await?;
    enter(connection, to, hello, settings.max_frame).await
}

/// The handshake with one address.
pub(super) async fn shake(
    settings: &QuicSettings,
    endpoint: &quinn::Endpoint,
    config: quinn::ClientConfig,
    address: SocketAddr,
    to: &Endpoint,
) -> Result<Connection, TransportError> {
    let name = tls::server_name(to)?.to_str().into_owned();
    let connecting = endpoint.connect_with(config, address, &name);
    let mut connecting = connecting.map_err(|e| fail(TransportKind::Misconfigured, to, e))?;
    match tokio::time::timeout(settings.answer, connecting.handshake_data()).await {
        Err(_) => {
            let why = format!("no answer over UDP within {:?}", settings.answer);
            return Err(fail(TransportKind::Unreachable, to, why));
        }
        Ok(Err(error)) => return Err(fail(kind_of(&error), to, error)),
        Ok(Ok(_)) => {}
    }
    connecting.await.map_err(|error| fail(kind_of(&error), to, error))
}

/// Says hello and waits to be let in.
pub(super) async fn enter(
    connection: Connection,
    to: &Endpoint,
    hello: Bytes,
    max_frame: usize,
) -> Result<Link, TransportError> {
    let (mut tx, rx) = connection.open_bi().await.map_err(|error| fail(kind_of(&error), to, error))?;
    // If the peer has gone, why it went shows when the answer is read.
    let _ = tx.write_chunk(hello).await;
    let mut rx = Reader::new(rx);
    let answer = rx.next(hello::MAX_HELLO).await.map_err(|error| fail(error.kind(), to, error))?;
    let can = match answer {
        Some((hello::WELCOME, words)) => Abilities::of(&words),
        Some((hello::REFUSAL, reason)) => {
            connection.close(DONE, b"");
            let why = format!("{}: {}", to.0, String::from_utf8_lossy(&reason));
            return Err(Failure::new(TransportKind::Refused, "dialling").on(why));
        }
        other => {
            let what =
                if other.is_some() { "the answer to the hello is none" } else { "no answer to the hello" };
            return Err(fail(TransportKind::Protocol, to, what));
        }
    };
    let peer = Peer::default().with_address(connection.remote_address());
    let peer = peer.with_certificates(certificates(&connection)).with_path(to.path());
    Ok(link::join(connection, tx, rx, peer, can, max_frame))
}
