//! One link while it lasts: what comes is handed on, what waits is written, keepalives go past the limit.

use std::sync::Arc;

use futures::{StreamExt, stream::BoxStream};
use kubeedge_common::{
    log::{Seldom, shown},
    rate::Rate,
};
use kubeedge_core::{
    bus::Envelope,
    failure::{Failure, chain},
    message::{Content, Message},
    name::{Group, ModuleName, Operation},
    transport::{Frame, FrameSink, Lane, Link, LinkHealth, TransportError, TransportKind},
    wire::Codec,
};
use tokio::time::{Duration, Instant, MissedTickBehavior};

use super::{
    EdgeHubSettings,
    dispatch::{self, Backlogs},
    outbox::Outbox,
    pulse::Pulse,
};

/// How long a busy process may take to read what has come before a link counts as dead.
const LAST_CHANCE: Duration = Duration::from_millis(10);

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
    #[error("the cloud gave no sign of life for {0:?}")]
    Dead(Duration),
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
            end = Writer::new(self, &mut *tx).run() => end,
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
            self.backlogs
                .leave(message)
                .into_iter()
                .for_each(|answer| self.outbox.put(Envelope::new(answer)));
        }
    }
}

/// The writing half of a session.
struct Writer<'a> {
    settings: &'a EdgeHubSettings,
    codec: &'a Arc<dyn Codec>,
    outbox: &'a Outbox,
    tx: &'a mut dyn FrameSink,
    limit: Rate,
    pulse: Pulse,
}

impl<'a> Writer<'a> {
    fn new(session: &Session<'a>, tx: &'a mut dyn FrameSink) -> Self {
        let Session { settings, codec, outbox, .. } = *session;
        let limit = Rate::new(settings.qps, settings.burst);
        let pulse = Pulse::new(tx.health().is_some());
        Self { settings, codec, outbox, tx, limit, pulse }
    }

    async fn run(mut self) -> End {
        let mut beat = tokio::time::interval(self.settings.heartbeat);
        beat.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            let (written, waiting) = self.outbox.progress();
            let patience = self.settings.heartbeat * 2;
            let (ping, dead) = (self.pulse.due(waiting), alive_since(self.outbox, self.tx) + patience);
            let done = tokio::select! {
                // In this order: nothing holds up a keepalive.
                biased;
                _ = beat.tick() => self.beat(written).await,
                through = self.pulse.answered() => {
                    self.outbox.alive();
                    self.outbox.prove(through);
                    Ok(())
                }
                () = tokio::time::sleep_until(dead), if self.pulse.works => {
                    doubt(self.outbox, self.tx, patience).await
                }
                () = due(ping) => self.ping(written, false).await,
                (lane, message) = next(self.outbox, &self.limit, self.tx) => {
                    self.limit.spend();
                    self.send_next(lane, &message).await
                }
            };
            if let Err(end) = done {
                return end;
            }
        }
    }

    async fn beat(&mut self, written: u64) -> Result<(), End> {
        if self.outbox.unheard() > self.settings.silence {
            return Err(End::Mute(self.settings.silence));
        }
        self.outbox.sweep(self.codec.is_ours());
        self.outbox.prove(self.pulse.beat(written));
        self.send(Lane::Control, &keepalive()).await?;
        self.ping(written, true).await
    }

    async fn ping(&mut self, written: u64, again: bool) -> Result<(), End> {
        let ping = self.pulse.ping(self.tx, written, again);
        match tokio::time::timeout(self.settings.write, ping).await {
            Ok(sent) => Ok(sent?),
            Err(_) => Err(End::Stuck(self.settings.write)),
        }
    }

    async fn send_next(&mut self, lane: Lane, message: &Message) -> Result<(), End> {
        match self.send(lane, message).await {
            Err(End::Link(error)) if error.kind().is_of_the_frame() => {
                let why = chain(&error);
                tracing::error!(resource = %message.route.resource, error = %why, "a message cannot be sent, dropped");
                self.outbox.unwritable(&why);
            }
            Err(end) => return Err(end),
            Ok(()) => self.outbox.written(),
        }
        Ok(())
    }

    async fn send(&mut self, lane: Lane, message: &Message) -> Result<(), End> {
        let frame = self
            .codec
            .encode(message)
            .map_err(|error| End::Link(Failure::new(TransportKind::TooLarge, "encoding").because(error)))?;
        match tokio::time::timeout(self.settings.write, self.tx.send(frame.in_lane(lane))).await {
            Ok(sent) => Ok(sent?),
            Err(_) => Err(End::Stuck(self.settings.write)),
        }
    }
}

/// When the last sign of life came.
fn alive_since(outbox: &Outbox, tx: &mut dyn FrameSink) -> Instant {
    let sign = tx.health().and_then(LinkHealth::last_sign);
    sign.map_or_else(|| outbox.alive_since(), |sign| sign.max(outbox.alive_since()))
}

/// Whether a lane takes a frame now.
fn has_room(tx: &mut dyn FrameSink, lane: Lane) -> bool {
    tx.lanes().is_none_or(|lanes| lanes.has_room(lane))
}

/// Waits until a lane that has no room has some.
async fn more_room(tx: &mut dyn FrameSink) {
    if let Some(lanes) = tx.lanes() {
        lanes.more_room().await;
    }
}

/// Nothing was heard for so long: unless something lies there unread, the link is dead.
async fn doubt(outbox: &Outbox, tx: &mut dyn FrameSink, patience: Duration) -> Result<(), End> {
    tokio::time::sleep(LAST_CHANCE).await;
    if alive_since(outbox, tx).elapsed() > patience { Err(End::Dead(patience)) } else { Ok(()) }
}

async fn due(at: Option<Instant>) {
    match at {
        Some(at) => tokio::time::sleep_until(at).await,
        None => std::future::pending().await,
    }
}

/// The next message to write and its lane, when the limit and the link let it go. Cancel-safe.
async fn next(outbox: &Outbox, limit: &Rate, tx: &mut dyn FrameSink) -> (Lane, Message) {
    loop {
        let Some(lane) = outbox.waits(|lane| has_room(tx, lane)) else {
            let blocked = outbox.waits(|_| true).is_some();
            tokio::select! {
                () = outbox.changed() => {}
                () = more_room(tx), if blocked => {}
            }
            continue;
        };
        let free = free_at(limit, lane);
        if free > Instant::now() {
            tokio::select! {
                () = tokio::time::sleep_until(free) => {}
                // It may be something that may go at once.
                () = outbox.changed() => {}
            }
        } else if let Some(next) = outbox.try_next(|lane| has_room(tx, lane)) {
            return next;
        }
    }
}

/// Go's keepalive. The cloud does not answer it.
fn keepalive() -> Message {
    Message::new(ModuleName::EDGE_HUB, Operation::KEEPALIVE, "node")
        .in_group(Group::RESOURCE)
        .with(Content::text("ping"))
}

/// When the next message of a lane may go. Half of those that may go at once are kept for control: a flood of
/// twins or uploads leaves it room.
fn free_at(limit: &Rate, lane: Lane) -> Instant {
    if lane == Lane::Control { limit.free_at() } else { limit.free_at_share(2) }
}

#[cfg(test)]
mod tests {
    use async_trait::async_trait;
    use futures::FutureExt;
    use kubeedge_core::{
        transport::{Lanes, Pong},
        wire::GoJson,
    };

    use super::*;
    use crate::hub::outbox::Bounds;

    /// A cloud that takes pings and never answers; until so long after its beginning it says that it has
    /// them.
    struct Slow {
        until: Instant,
        heard: Option<Instant>,
    }

    #[async_trait]
    impl FrameSink for Slow {
        async fn send(&mut self, _: Frame) -> Result<(), TransportError> {
            Ok(())
        }
        async fn feed(&mut self, _: Frame) -> Result<(), TransportError> {
            Ok(())
        }
        async fn flush(&mut self) -> Result<(), TransportError> {
            Ok(())
        }
        async fn close(&mut self) -> Result<(), TransportError> {
            Ok(())
        }
        fn health(&mut self) -> Option<&mut dyn LinkHealth> {
            Some(self)
        }
        fn lanes(&mut self) -> Option<&mut dyn Lanes> {
            None
        }
    }

    #[async_trait]
    impl LinkHealth for Slow {
        async fn ping(&mut self) -> Result<Pong, TransportError> {
            if Instant::now() <= self.until {
                self.heard = Some(Instant::now());
            }
            Ok(std::future::pending().boxed())
        }
        fn last_sign(&mut self) -> Option<Instant> {
            self.heard
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_cloud_that_is_slow_to_take_frames_and_says_so_is_not_left_before_it_goes_silent() {
        let settings = EdgeHubSettings::default();
        let outbox = Outbox::new(Bounds { uploads: 1, upload_bytes: 1 }, None);
        let codec: Arc<dyn Codec> = Arc::new(GoJson);
        let backlogs = Backlogs::default();
        let session = Session { settings: &settings, codec: &codec, outbox: &outbox, backlogs: &backlogs };
        outbox.up();
        let begun = Instant::now();
        let mut tx = Slow { until: begun + Duration::from_secs(601), heard: None };
        let end = Writer::new(&session, &mut tx).run().await;
        assert!(matches!(end, End::Dead(_)), "{end}");
        let left = begun.elapsed().as_secs();
        assert!((600..=631).contains(&left), "left after {left} s");
    }

    #[tokio::test(start_paused = true)]
    async fn a_flood_of_twins_leaves_tokens_for_control() {
        let (mut limit, start) = (Rate::new(30, 60), Instant::now());
        for _ in 0..200 {
            tokio::time::sleep_until(free_at(&limit, Lane::Twins)).await;
            limit.spend();
        }
        let rate = 200.0 / start.elapsed().as_secs_f64();
        assert!((30.0..=36.0).contains(&rate), "{rate}");
        let flooded = Instant::now();
        for _ in 0..30 {
            tokio::time::sleep_until(free_at(&limit, Lane::Control)).await;
            limit.spend();
        }
        assert!(flooded.elapsed() <= Duration::from_millis(40), "{:?}", flooded.elapsed());
    }
}
