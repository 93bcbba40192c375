//! What carries the link to the cloud, as the configuration says.

use std::sync::Arc;

use kubeedge_core::transport::Transport;
use kubeedge_edge::config::EdgePlan;
use kubeedge_transport::{Fallback, FallbackSettings, Quic, QuicSettings, WebSocket};

/// WebSocket, QUIC, or QUIC that falls back to WebSocket.
pub(crate) fn transport(plan: &EdgePlan) -> Arc<dyn Transport> {
    let Some(wanted) = &plan.quic else { return Arc::new(WebSocket::default()) };
    let quic = Quic::new(QuicSettings { handshake: wanted.handshake, ..QuicSettings::default() });
    if !wanted.falls_back {
        return Arc::new(quic);
    }
    let settings = FallbackSettings { seed: plan.settings.hub.seed, ..FallbackSettings::default() };
    Arc::new(Fallback::new(quic, &wanted.server, WebSocket::default(), settings))
}
