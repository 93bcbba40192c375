//! The node's own API as kubectl and the cloud use it.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

mod exec;
mod logs;
mod node;
mod tunnel;
