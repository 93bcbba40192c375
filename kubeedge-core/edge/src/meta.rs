//! MetaManager: the edge's durable copy of what it should run.

mod client;

pub use client::{ApiStatus, Client, ClientError};
