//! The node's own API as kubectl and the cloud use it.
#![allow(clippy::unwrap_used)]

mod exec;
mod logs;
mod node;
