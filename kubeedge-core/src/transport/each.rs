//! A transport whose links are wrapped, at either end.

use std::{fmt, sync::Arc};

use async_trait::async_trait;

use super::{Credentials, Endpoint, Incoming, Limits, Link, Listener, Peer, Transport, TransportError};

type Wrap = Arc<dyn Fn(Link) -> Link + Send + Sync>;

/// See [`each_link`].
#[derive(Clone)]
pub struct EachLink<T> {
    inner: T,
    wrap: Wrap,
}

/// The transport, with each link that is dialled or accepted passed through `wrap`. All else is the
/// transport's own.
///
/// A transport that counts what is sent:
///
/// ```
/// use std::sync::{Arc, atomic::{AtomicUsize, Ordering}};
///
/// use async_trait::async_trait;
/// use kubeedge_core::transport::{Frame, FrameSink, Lanes, LinkHealth, Transport, TransportError, each_link};
///
/// struct Counted(Box<dyn FrameSink>, Arc<AtomicUsize>);
///
/// #[async_trait]
/// #[deny(clippy::missing_trait_methods)]
/// impl FrameSink for Counted {
///     async fn send(&mut self, frame: Frame) -> Result<(), TransportError> {
///         self.1.fetch_add(frame.payload.len(), Ordering::Relaxed);
///         self.0.send(frame).await
///     }
///     async fn feed(&mut self, frame: Frame) -> Result<(), TransportError> {
///         self.1.fetch_add(frame.payload.len(), Ordering::Relaxed);
///         self.0.feed(frame).await
///     }
///     async fn flush(&mut self) -> Result<(), TransportError> {
///         self.0.flush().await
///     }
///     async fn close(&mut self) -> Result<(), TransportError> {
///         self.0.close().await
///     }
///     fn health(&mut self) -> Option<&mut dyn LinkHealth> {
///         self.0.health()
///     }
///     fn lanes(&mut self) -> Option<&mut dyn Lanes> {
///         self.0.lanes()
///     }
/// }
///
/// fn counted(transport: impl Transport, bytes: Arc<AtomicUsize>) -> impl Transport {
///     each_link(transport, move |link| link.with_sink(|sink| Counted(sink, bytes.clone())))
/// }
/// ```
pub fn each_link<T: Transport>(
    transport: T,
    wrap: impl Fn(Link) -> Link + Send + Sync + 'static,
) -> EachLink<T> {
    EachLink { inner: transport, wrap: Arc::new(wrap) }
}

impl<T: fmt::Debug> fmt::Debug for EachLink<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("EachLink").field(&self.inner).finish()
    }
}

#[async_trait]
#[deny(clippy::missing_trait_methods)]
impl<T: Transport> Transport for EachLink<T> {
    fn scheme(&self) -> &'static str {
        self.inner.scheme()
    }

    fn limits(&self) -> Limits {
        self.inner.limits()
    }

    async fn dial(&self, to: &Endpoint, who: &Credentials) -> Result<Link, TransportError> {
        Ok((self.wrap)(self.inner.dial(to, who).await?))
    }

    async fn listen(&self, on: &Endpoint, who: &Credentials) -> Result<Box<dyn Listener>, TransportError> {
        let inner = self.inner.listen(on, who).await?;
        Ok(Box::new(EachAccepted { inner, wrap: self.wrap.clone() }))
    }
}

/// What listens, or a peer that wants in, with the same in store for the link.
struct EachAccepted<T: ?Sized> {
    wrap: Wrap,
    inner: Box<T>,
}

#[async_trait]
#[deny(clippy::missing_trait_methods)]
impl Listener for EachAccepted<dyn Listener> {
    fn local(&self) -> Endpoint {
        self.inner.local()
    }

    async fn next(&mut self) -> Result<Box<dyn Incoming>, TransportError> {
        let inner = self.inner.next().await?;
        Ok(Box::new(EachAccepted { inner, wrap: self.wrap.clone() }))
    }
}

#[async_trait]
#[deny(clippy::missing_trait_methods)]
impl Incoming for EachAccepted<dyn Incoming> {
    fn peer(&self) -> &Peer {
        self.inner.peer()
    }

    async fn accept(self: Box<Self>) -> Result<Link, TransportError> {
        let link = self.inner.accept().await?;
        Ok((self.wrap)(link))
    }

    async fn refuse(self: Box<Self>, why: String) {
        self.inner.refuse(why).await;
    }
}
