//! The broker inside this process: in memory, without passwords and TLS, for the loopback address.

use std::net::SocketAddr;

use kubeedge_core::{failure::BoxError, kernel::Shutdown};
use mqtt5::broker::{
    BrokerConfig, MqttBroker,
    config::{AuthConfig, StorageBackend, StorageConfig},
};

use super::EventBusError;

/// Listening, not serving yet.
pub(super) struct Broker {
    broker: MqttBroker,
    address: SocketAddr,
}

/// Listens; port 0 takes a free one.
pub(super) async fn listen(address: SocketAddr, session_queue: usize) -> Result<Broker, EventBusError> {
    // Tried beforehand, since what the broker itself says of a taken address names no cause.
    let free = tokio::net::TcpListener::bind(address).await.map(drop);
    free.map_err(|error| EventBusError::Listen { address, why: error.to_string() })?;
    let anonymous = AuthConfig { allow_anonymous: true, ..AuthConfig::default() };
    let memory = StorageConfig::new().with_backend(StorageBackend::Memory);
    let config = BrokerConfig::default()
        .with_bind_address(address)
        .with_auth(anonymous)
        .with_storage(memory)
        .with_sys_topics_enabled(false)
        .with_client_channel_capacity(session_queue.max(16));
    let broker = MqttBroker::with_config(config).await;
    let broker = broker.map_err(|error| EventBusError::Listen { address, why: error.to_string() })?;
    let bound = broker.local_addr().unwrap_or(address);
    Ok(Broker { broker, address: bound })
}

impl Broker {
    /// Where it listens.
    pub(super) fn address(&self) -> SocketAddr {
        self.address
    }

    /// Serves until the shutdown is requested.
    pub(super) async fn run(mut self, shutdown: Shutdown) -> Result<(), BoxError> {
        let handle = self.broker.shutdown_handle();
        let mut served = std::pin::pin!(self.broker.run());
        tokio::select! {
            ended = &mut served => return ended.map_err(|error| error.to_string().into()),
            () = shutdown.requested() => handle.shutdown(),
        }
        served.await.map_err(|error| error.to_string().into())
    }
}
