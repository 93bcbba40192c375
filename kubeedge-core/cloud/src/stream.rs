//! CloudStream: logs, exec and attach of pods, through the tunnel that each edge keeps open.
//!
//! [`NodeStreams`] is what needs a node's kubelet API sees of it; it knows nothing of tunnels.

use std::fmt;

use async_trait::async_trait;
use http::{HeaderMap, Method};
use kubeedge_core::{cluster::Body, failure::Failure, kinds, name::NodeName};
use tokio::io::{AsyncRead, AsyncWrite};

kinds! {
    /// Why a node's kubelet API cannot be reached.
    StreamKind {
        NotConnected => "the node's tunnel is not connected", Retry;
        Closed => "the stream was closed", Retry;
        Busy => "too many streams of this node", Retry;
    }
}

/// A stream to a node could not be opened.
pub type StreamError = Failure<StreamKind>;

/// A byte stream in both directions.
pub trait Duplex: AsyncRead + AsyncWrite + Send + Unpin {}
impl<T: AsyncRead + AsyncWrite + Send + Unpin> Duplex for T {}

/// The way to the kubelet API of nodes.
#[async_trait]
pub trait NodeStreams: fmt::Debug + Send + Sync + 'static {
    /// The body of a GET, such as `/containerLogs/default/web/web?follow=true`; ends when the node ends it. Dropping
    /// the body ends the stream.
    async fn logs(&self, node: &NodeName, path_and_query: String, headers: HeaderMap) -> Result<Body, StreamError>;

    /// An upgraded connection, such as for `/exec/default/web/web?command=sh`: the bytes that come back begin with
    /// the kubelet's own HTTP response.
    async fn upgrade(
        &self,
        node: &NodeName,
        method: Method,
        path_and_query: String,
        headers: HeaderMap,
    ) -> Result<Box<dyn Duplex>, StreamError>;
}
