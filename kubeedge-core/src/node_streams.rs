//! The seam to the kubelet API of nodes: logs, exec, attach and metrics, wherever the node is.
//!
//! An API server needs to know no more of nodes than this; CloudStream's tunnels are one implementation.

use std::fmt;

use async_trait::async_trait;
use http::{HeaderMap, Method};

use crate::{cluster::Body, failure::Failure, kinds, name::NodeName, tunnel::Duplex};

kinds! {
    /// Why a node's kubelet API cannot be reached.
    StreamKind {
        NotConnected => "the node's tunnel is not connected", Retry;
        Closed => "the stream was closed", Retry;
        Busy => "too many streams of this node", Retry;
        Refused => "the request cannot be sent to the node", GiveUp;
    }
}

/// A stream to a node could not be opened.
pub type StreamError = Failure<StreamKind>;

/// The way to the kubelet API of nodes.
#[async_trait]
pub trait NodeStreams: fmt::Debug + Send + Sync + 'static {
    /// The body of a GET, such as `/containerLogs/default/web/web?follow=true`; ends when the node ends it.
    /// Dropping the body ends the stream.
    async fn logs(
        &self,
        node: &NodeName,
        path_and_query: String,
        headers: HeaderMap,
    ) -> Result<Body, StreamError>;

    /// An upgraded connection, such as for `/exec/default/web/web?command=sh`: the bytes that come back begin
    /// with the kubelet's own HTTP response.
    async fn upgrade(
        &self,
        node: &NodeName,
        method: Method,
        path_and_query: String,
        headers: HeaderMap,
    ) -> Result<Box<dyn Duplex>, StreamError>;
}
