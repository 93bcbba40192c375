//! One connection of a service.

use std::{
    convert::Infallible,
    net::SocketAddr,
    pin::{Pin, pin},
    sync::Arc,
    task::{Context, Poll},
    time::Duration,
};

use bytes::Bytes;
use http::{Request, Response};
use http_body::{Body, Frame, SizeHint};
use http_body_util::{BodyExt, combinators::UnsyncBoxBody};
use hyper::{
    body::Incoming,
    service::{Service, service_fn},
};
use hyper_util::{
    rt::{TokioExecutor, TokioIo, TokioTimer},
    server::conn::auto,
};
use kubeedge_core::{failure::BoxError, kernel::Shutdown};
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::TcpStream,
    sync::mpsc,
};

use super::{
    Peer, Security, ServeLimits, Session, Upgrades,
    activity::{Activity, Busy},
};

/// The longest head of a request over HTTP/1.1. Over HTTP/2 hyper's own bound holds, 16 KiB.
const MAX_HEAD: usize = 128 << 10;
/// How long a connection without a request may take to end once it was told to.
const LINGER: Duration = Duration::from_secs(2);

/// What all connections of a service have in common.
pub(super) struct Shared<M> {
    pub(super) security: Security,
    pub(super) limits: ServeLimits,
    pub(super) service: M,
    pub(super) ending: Shutdown,
}

/// Serves a connection to its end.
pub(super) async fn run<M, S, B>(
    shared: Arc<Shared<M>>,
    socket: TcpStream,
    address: SocketAddr,
    activity: Arc<Activity>,
) where
    M: Fn(&Peer) -> S,
    S: Service<Request<Incoming>, Response = Response<B>, Error = Infallible> + Send + 'static,
    S::Future: Send + 'static,
    B: Body<Data = Bytes> + Send + 'static,
    B::Error: Into<BoxError>,
{
    let _ = socket.set_nodelay(true);
    let lifetime = async {
        match shared.limits.lifetime {
            Some(lifetime) => tokio::time::sleep(lifetime).await,
            None => std::future::pending().await,
        }
    };
    tokio::select! {
        () = secured(&shared, socket, address, &activity) => {}
        () = lifetime => tracing::debug!(%address, "a connection lasted too long"),
    }
}

async fn secured<M, S, B>(
    shared: &Shared<M>,
    socket: TcpStream,
    address: SocketAddr,
    activity: &Arc<Activity>,
) where
    M: Fn(&Peer) -> S,
    S: Service<Request<Incoming>, Response = Response<B>, Error = Infallible> + Send + 'static,
    S::Future: Send + 'static,
    B: Body<Data = Bytes> + Send + 'static,
    B::Error: Into<BoxError>,
{
    let mut http = auto::Builder::new(TokioExecutor::new());
    http.http1().timer(TokioTimer::new()).header_read_timeout(shared.limits.idle).max_buf_size(MAX_HEAD);
    http.http2().timer(TokioTimer::new()).max_concurrent_streams(shared.limits.streams);
    match &shared.security {
        Security::None => {
            let peer = Peer { address, certificate: None };
            talk(shared, http.http1_only(), socket, peer, activity).await;
        }
        #[cfg(feature = "https")]
        Security::Tls(acceptor) => {
            let handshake = tokio::time::timeout(shared.limits.handshake, acceptor.accept(socket));
            let stream = tokio::select! {
                () = shared.ending.requested() => return,
                stream = handshake => match stream {
                    Ok(Ok(stream)) => stream,
                    Ok(Err(error)) => return tracing::debug!(%address, error = %error, "a TLS handshake failed"),
                    Err(_) => return tracing::debug!(%address, "a TLS handshake took too long"),
                },
            };
            let certificate = stream.get_ref().1.peer_certificates().and_then(<[_]>::first);
            let certificate = certificate.map(|der| Bytes::copy_from_slice(der));
            talk(shared, http, stream, Peer { address, certificate }, activity).await;
        }
    }
}

/// HTTP until either side ends it, and then what has taken the connection over.
async fn talk<M, S, B>(
    shared: &Shared<M>,
    http: auto::Builder<TokioExecutor>,
    stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static,
    peer: Peer,
    activity: &Arc<Activity>,
) where
    M: Fn(&Peer) -> S,
    S: Service<Request<Incoming>, Response = Response<B>, Error = Infallible> + Send + 'static,
    S::Future: Send + 'static,
    B: Body<Data = Bytes> + Send + 'static,
    B::Error: Into<BoxError>,
{
    let (upgrades, mut sessions) = mpsc::channel(1);
    let (service, upgrades, requests) = ((shared.service)(&peer), Upgrades(upgrades), activity.clone());
    let service = service_fn(move |mut request: Request<Incoming>| {
        let busy = requests.begin();
        request.extensions_mut().insert(upgrades.clone());
        let answer = service.call(request);
        async move {
            let answer = answer.await?;
            Ok::<_, Infallible>(answer.map(|body| {
                let body = body.map_err(Into::into).boxed_unsync();
                AnswerBody { body, _busy: busy }
            }))
        }
    });
    let mut served = pin!(http.serve_connection_with_upgrades(TokioIo::new(stream), service));
    let (mut told, mut patience) = (false, shared.limits.idle);
    let outcome = loop {
        tokio::select! {
            outcome = served.as_mut() => break outcome,
            () = shared.ending.requested(), if !told => {}
            () = activity.idle_for(patience) => if told { return },
        }
        (told, patience) = (true, LINGER);
        served.as_mut().graceful_shutdown();
    };
    if let Err(error) = outcome {
        tracing::debug!(address = %peer.address, error = %error, "a connection broke");
    }
    if let Ok(Session(session)) = sessions.try_recv() {
        let _busy = activity.begin();
        tokio::select! {
            () = shared.ending.requested() => {}
            () = session => {}
        }
    }
}

/// The body of an answer. Until its last byte is sent the request is under way.
struct AnswerBody {
    body: UnsyncBoxBody<Bytes, BoxError>,
    _busy: Busy,
}

impl Body for AnswerBody {
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        Pin::new(&mut self.body).poll_frame(cx)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}
