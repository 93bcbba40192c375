//! A whole edgecore, on a runtime and a store in memory and in simulated time, against a cloud that is
//! played: first by the catalogue of messages, then by recorded sessions of Go's cloudcore.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    reason = "helpers of a test"
)]

mod catalogue;
mod cloud;
#[path = "../../../tests/data/recorded.rs"]
mod recording;
mod replay;
