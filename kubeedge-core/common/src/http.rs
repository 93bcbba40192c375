//! HTTP as all our services speak it: a listener with limits, bodies with limits, queries.

mod body;
mod query;
mod serve;

pub use self::{
    body::{BodyError, read_body},
    query::{Query, with_query},
    serve::{HttpListener, Peer, ServeLimits, Upgrades, serve},
};
