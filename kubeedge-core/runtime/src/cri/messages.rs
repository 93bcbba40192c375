//! The messages of the Container Runtime Interface, v1, and of containerd's events, made from `proto/`: the
//! fields that are used. What a runtime sends beyond them is skipped.

#![allow(
    unreachable_pub,
    missing_docs,
    dead_code,
    clippy::all,
    clippy::pedantic,
    reason = "made by prost-build"
)]

use std::fmt;

include!("generated/runtime.v1.rs");

/// Of containerd's own `containerd.services.events.v1`.
pub(crate) mod containerd {
    include!("generated/containerd.services.events.v1.rs");
}

/// Without the password.
impl fmt::Debug for AuthConfig {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("AuthConfig").field("username", &self.username).finish_non_exhaustive()
    }
}
