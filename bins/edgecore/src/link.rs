//! What carries the link to the cloud, as the configuration says.

use std::sync::Arc;

use kubeedge_core::transport::Transport;
use kubeedge_edge::config::EdgePlan;
use kubeedge_transport::{Fallback, FallbackSettings, Quic, QuicSettings, WebSocket};

/// QUIC, alone or before WebSocket; `None` where it is off.
pub(crate) fn over_quic(plan: &EdgePlan) -> Option<Arc<dyn Transport>> {
    let wanted = plan.quic.as_ref()?;
    let quic = Quic::new(QuicSettings { handshake: wanted.handshake, ..QuicSettings::default() });
    if !wanted.falls_back {
        return Some(Arc::new(quic));
    }
    let settings = FallbackSettings { seed: plan.settings.hub.seed, ..FallbackSettings::default() };
    Some(Arc::new(Fallback::new(quic, &wanted.server, WebSocket::default(), settings)))
}
