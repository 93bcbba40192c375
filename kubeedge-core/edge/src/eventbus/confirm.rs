//! Confirmations to a broker that remembers us, of what can be lost no more.
//!
//! What is not confirmed the broker sends again on the next connection, in order. So a publish is confirmed
//! after the module it is for has it safely, and after all that were read before it.

use std::sync::{
    Arc,
    atomic::{AtomicBool, AtomicU64, Ordering},
};

use bytes::Bytes;
use kubeedge_core::{failure::BoxError, message::Message};
use rumqttc::{AsyncClient, Publish};
use tokio::sync::{mpsc, oneshot};

/// How many publishes can wait for their confirmation at most: MQTT numbers them by two bytes.
const MOST: usize = 0xffff;

/// A publish that was read.
#[derive(Debug)]
struct Read {
    /// Without its payload.
    publish: Publish,
    connection: u64,
    /// The word that it is safe; `None` if there is none to wait for.
    safe: Option<oneshot::Receiver<Message>>,
}

#[derive(Debug, Default)]
struct Shared {
    /// The number of the connection: what was read on another one is not confirmed on this.
    connection: AtomicU64,
    /// Whether nobody will ever say of something that it is safe.
    broken: AtomicBool,
}

/// See the module's text.
#[derive(Debug)]
pub(super) struct Confirmations {
    reads: mpsc::Sender<Read>,
    shared: Arc<Shared>,
}

impl Confirmations {
    /// For this client, and the task that works until this is dropped.
    pub(super) fn new(
        client: AsyncClient,
    ) -> (Self, impl Future<Output = Result<(), BoxError>> + Send + 'static) {
        let (reads, waiting) = mpsc::channel(MOST);
        let shared = Arc::<Shared>::default();
        (Self { reads, shared: shared.clone() }, confirm(client, waiting, shared))
    }

    /// Confirms a publish when it is safe.
    pub(super) fn follow(&self, publish: Publish, safe: Option<oneshot::Receiver<Message>>) {
        let publish = Publish { payload: Bytes::new(), ..publish };
        let connection = self.shared.connection.load(Ordering::Acquire);
        if self.reads.try_send(Read { publish, connection, safe }).is_err() {
            // No broker can have so many open: it is made to begin anew.
            self.shared.broken.store(true, Ordering::Release);
        }
    }

    /// The connection has gone, and with it what is not confirmed: it will come again.
    pub(super) fn cut(&self) {
        self.shared.connection.fetch_add(1, Ordering::AcqRel);
    }

    /// Whether something must be read again, and so the connection be cut. Says it once.
    pub(super) fn is_broken(&self) -> bool {
        self.shared.broken.swap(false, Ordering::AcqRel)
    }
}

async fn confirm(
    client: AsyncClient,
    mut reads: mpsc::Receiver<Read>,
    shared: Arc<Shared>,
) -> Result<(), BoxError> {
    while let Some(Read { publish, connection, safe }) = reads.recv().await {
        let is_current = || connection == shared.connection.load(Ordering::Acquire);
        if !is_current() {
            continue;
        }
        // An error says that there was no room, which EdgeHub tells programs: it is answered for as well.
        let answered = match safe {
            Some(safe) => safe.await.is_ok(),
            None => true,
        };
        if !is_current() {
            continue;
        }
        if answered {
            client.ack(&publish).await?;
        } else {
            tracing::warn!(topic = publish.topic, "nobody took a message from MQTT, it is asked for again");
            shared.broken.store(true, Ordering::Release);
        }
    }
    Ok(())
}
