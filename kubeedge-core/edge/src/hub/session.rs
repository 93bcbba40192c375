//! One link while it lasts: what comes is handed on, what waits is written, keepalives go past the limit.

use std::sync::Arc;

use futures::{StreamExt, stream::BoxStream};
use kubeedge_core::{
    bus::Envelope,
    failure::chain,
    log::{Seldom, shown},
    message::{Content, Message},
    name::{Group, ModuleName, Operation},
    rate::Rate,
    transport::{Frame, FrameSink, Link, TransportError, TransportKind},
    wire::Codec,
};
use tokio::time::{Duration, Instant, MissedTickBehavior};

use super::{
    EdgeHubSettings,
    dispatch::{self, Backlogs},
    outbox::Outbox,
};

/// Why a link ended.
#[derive(Debug, thiserror::Error)]
pub(super) enum End {
    #[error("the cloud closed the link")]
    Closed,
    #[error("{}", chain(.0))]
    Link(#[from] TransportError),
    #[error("the cloud took no frame for {0:?}")]
    Stuck(Duration),
    #[error(
        "the cloud was asked and said nothing for {0:?}; does it know this node, and is its node limit reached?"
    )]
    Mute(Duration),
    #[error("the node has new certificates")]
    Renewed,
    #[error("edgecore ends")]
    Shutdown,
}

/// What a session works with.
pub(super) struct Session<'a> {
    pub(super) settings: &'a EdgeHubSettings,
    pub(super) codec: &'a Arc<dyn Codec>,
    pub(super) outbox: &'a Outbox,
    pub(super) backlogs: &'a Backlogs,
}

impl Session<'_> {
    /// Serves the link until it breaks.
    pub(super) async fn run(&self, link: Link) -> End {
        let Link { rx, mut tx, .. } = link;
        let end = tokio::select! {
            end = self.read(rx) => end,
            end = self.write(&mut *tx) => end,
        };
        // A cloud that does not read must not hold up the end.
        let _ = tokio::time::timeout(Duration::from_secs(2), tx.close()).await;
        end
    }

    async fn read(&self, mut rx: BoxStream<'static, Result<Frame, TransportError>>) -> End {
        let malformed = Seldom::default();
        loop {
            let frame = match rx.next().await {
                None => return End::Closed,
                Some(Err(error)) => return error.into(),
                Some(Ok(frame)) => frame,
            };
            self.outbox.heard();
            match self.codec.decode(frame) {
                Ok(message) => self.take(message),
                Err(error) => {
                    if let Some(unsaid) = malformed.line("") {
                        let why = chain(&error);
                        tracing::warn!(error = %shown(&why), unsaid, "skipped a frame of the cloud that is no message");
                    }
                }
            }
        }
    }

    fn take(&self, message: Message) {
        if let Some(answer) = dispatch::link_answer(&message) {
            return self.outbox.put(Envelope::new(answer));
        }
        if let Some(message) = self.outbox.claim(message) {
            self.backlogs.leave(message);
        }
    }

    async fn write(&self, tx: &mut dyn FrameSink) -> End {
        let settings = self.settings;
        let mut beat = tokio::time::interval(settings.heartbeat);
        beat.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut limit = Rate::new(settings.qps, settings.burst);
        loop {
            let free = limit.free_at();
            let sent = tokio::select! {
                // In this order: nothing holds up a keepalive.
                biased;
                _ = beat.tick() => {
                    if self.outbox.unheard() > settings.silence {
                        return End::Mute(settings.silence);
                    }
                    self.outbox.sweep();
                    self.send(tx, &keepalive()).await
                }
                message = self.next(free) => {
                    limit.spend();
                    self.send_next(tx, message).await
                }
            };
            if let Err(end) = sent {
                return end;
            }
        }
    }

    async fn next(&self, free: Instant) -> Message {
        tokio::time::sleep_until(free).await;
        self.outbox.next().await
    }

    async fn send_next(&self, tx: &mut dyn FrameSink, mut message: Message) -> Result<(), End> {
        message.header.sync = false;
        match self.send(tx, &message).await {
            Err(End::Link(error)) if error.kind() == TransportKind::TooLarge => {
                let why = chain(&error);
                tracing::error!(resource = %message.route.resource, error = %why, "a message cannot be sent, dropped");
                self.outbox.unwritable(&why);
            }
            Err(end) => return Err(end),
            Ok(()) => self.outbox.written(),
        }
        Ok(())
    }

    async fn send(&self, tx: &mut dyn FrameSink, message: &Message) -> Result<(), End> {
        let frame = self.codec.encode(message).map_err(|error| {
            End::Link(
                kubeedge_core::failure::Failure::new(TransportKind::TooLarge, "encoding").because(error),
            )
        })?;
        match tokio::time::timeout(self.settings.write, tx.send(frame)).await {
            Ok(sent) => Ok(sent?),
            Err(_) => Err(End::Stuck(self.settings.write)),
        }
    }
}

/// Go's keepalive. The cloud does not answer it.
fn keepalive() -> Message {
    Message::new(ModuleName::EDGE_HUB, Operation::KEEPALIVE, "node")
        .in_group(Group::RESOURCE)
        .with(Content::text("ping"))
}
