//! Kubernetes' channels of a command over a WebSocket: the first byte of each binary message names one.

/// The subprotocol in which the input can be ended alone.
pub const V5: &str = "v5.channel.k8s.io";
/// The subprotocol before it.
pub const V4: &str = "v4.channel.k8s.io";

/// What the command reads.
pub const STDIN: u8 = 0;
/// What it says.
pub const STDOUT: u8 = 1;
/// What it complains of.
pub const STDERR: u8 = 2;
/// How it ended: a `Status` object.
pub const STATUS: u8 = 3;
/// The size of its terminal.
pub const RESIZE: u8 = 4;
/// Followed by the channel that ends; in [`V5`] only.
pub const CLOSE: u8 = 255;
