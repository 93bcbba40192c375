//! The writing half of a session: what is due goes out, and what is not confirmed goes again.

use std::{collections::BTreeMap, time::Duration};

use futures::{FutureExt, StreamExt, future::BoxFuture, stream::FuturesUnordered};
use kubeedge_common::rate::Rate;
use kubeedge_core::{
    message::Message,
    name::{Group, Operation},
    transport::{FrameSink, TransportError},
};
use tokio::time::Instant;

use super::{End, Shared};
use crate::{
    hub::{
        id::Id,
        pool::{Flight, Key, Next, Pool},
    },
    records::Confirmed,
};

/// Messages written in a row before confirmations and clocks are looked at.
const WRITES: usize = 64;

/// How often a session with objects on their way pushes out what it has written: what becomes ready meanwhile
/// goes out together, for a small part of the cost. A session that rested pushes out each of the next few at
/// once.
const PUSHES_PER_SECOND: u32 = 50;
const PUSHES_AT_ONCE: u32 = 16;
/// client-go's second limit beside the growing pause: ten requeues a second, a hundred at once.
const REQUEUES_PER_SECOND: u32 = 10;
const REQUEUES_AT_ONCE: u32 = 100;

/// What the writer waits for beside the link: a record that is made, or not.
type Recorded = (Flight, bool);

/// The writing half of a session.
pub(super) struct Writer<'a> {
    pool: &'a Pool,
    shared: &'a Shared,
    tx: &'a mut dyn FrameSink,
    /// Failed, to be queued again at a time.
    resting: BTreeMap<(Instant, u64), Key>,
    rested: u64,
    jobs: FuturesUnordered<BoxFuture<'a, Recorded>>,
    requeues: Rate,
    pushes: Rate,
    /// When the present round of writing began.
    now: Instant,
    /// Whether something was written and not pushed out yet.
    unflushed: bool,
}

impl<'a> Writer<'a> {
    pub(super) fn new(pool: &'a Pool, shared: &'a Shared, tx: &'a mut dyn FrameSink) -> Self {
        Self {
            pool,
            shared,
            tx,
            resting: BTreeMap::new(),
            rested: 0,
            jobs: FuturesUnordered::new(),
            requeues: Rate::new(REQUEUES_PER_SECOND, REQUEUES_AT_ONCE),
            pushes: Rate::new(PUSHES_PER_SECOND, PUSHES_AT_ONCE),
            now: Instant::now(),
            unflushed: false,
        }
    }

    /// Writes what is due until the link fails.
    pub(super) async fn run(&mut self) -> End {
        let mut more = true;
        loop {
            // Looked at once: what a job has fed since is pushed out when the rest is over.
            let mut rest = self.rests_until();
            if more || rest.is_none() {
                more = match self.write_and_push().await {
                    Ok(more) => more,
                    Err(end) => return end,
                };
                rest = self.rests_until();
            }
            let rest = rest.filter(|_| !more);
            let next = rest.unwrap_or_else(|| self.next_deadline());
            tokio::select! {
                // In this order: jobs that are done are seen however much there is to write.
                biased;
                Some(done) = self.jobs.next() => {
                    if let Err(end) = self.job_done(done).await { return end }
                }
                () = std::future::ready(()), if more => {}
                () = self.pool.changed(), if rest.is_none() => {}
                () = tokio::time::sleep_until(next) => {}
            }
        }
    }

    /// When the next push may be; `None` for now. Nobody who asks one thing after the other is held up: where
    /// nothing is on its way, nothing is worth waiting for.
    fn rests_until(&self) -> Option<Instant> {
        self.pushes.rests_until().filter(|_| self.pool.is_flying())
    }

    /// Writes what is due, and pushes it out together. Says whether there may be more.
    async fn write_and_push(&mut self) -> Result<bool, End> {
        let more = self.write_what_is_due().await?;
        self.flush().await?;
        Ok(more)
    }

    /// Says whether there may be more to write.
    async fn write_what_is_due(&mut self) -> Result<bool, End> {
        self.now = Instant::now();
        self.confirm_acked();
        self.resend().await?;
        while self.resting.first_key_value().is_some_and(|((at, _), _)| *at <= self.now) {
            if let Some((_, key)) = self.resting.pop_first() {
                self.pool.requeue(&key);
            }
        }
        for _ in 0..WRITES {
            match self.pool.next(self.jobs.len(), self.shared.window) {
                None => return Ok(false),
                Some(Next::Plain(message)) => self.write(&message, message.header.id.as_str()).await?,
                Some(Next::Object(flight)) if flight.waits_for_record() => self.record(flight),
                Some(Next::Object(flight)) => self.launch(flight, 1).await?,
            }
        }
        Ok(true)
    }

    /// Records what the edge has confirmed; at the end of a session too.
    pub(super) fn confirm_acked(&self) {
        for flight in self.pool.take_acked() {
            self.confirm(&flight);
            self.pool.landed(&flight);
        }
    }

    /// Makes the record of an object, or takes back what it says; the object goes when that is done.
    fn record(&mut self, flight: Flight) {
        let records = &self.shared.records;
        self.jobs.push(
            async move {
                if flight.withdraws {
                    records.withdraw(&flight.record).await;
                    return (flight, true);
                }
                let made = records.ensure(&flight.record).await;
                if let Err(status) = &made {
                    tracing::warn!(record = %flight.record.name, error = %status, "cannot make a sync record");
                }
                (flight, made.is_ok())
            }
            .boxed(),
        );
    }

    async fn job_done(&mut self, (flight, made): Recorded) -> Result<(), End> {
        self.now = Instant::now();
        if !made {
            self.rest(&flight);
            return Ok(());
        }
        self.pool.record_made(&flight.key);
        self.launch(flight, 1).await
    }

    /// Writes an object; with this, `times` times.
    async fn launch(&mut self, flight: Flight, times: u32) -> Result<(), End> {
        let (message, id) = (flight.message.clone(), flight.id.clone());
        self.pool.flies(flight, times, self.now + self.shared.times.resend);
        self.write(&message, id.text(&mut [0; Id::LONGEST])).await
    }

    /// Writes again what was not confirmed in time; after the last time the object rests and others go first.
    async fn resend(&mut self) -> Result<(), End> {
        for (flight, times) in self.pool.take_due(self.now) {
            if self.pool.superseded(&flight) {
                self.pool.failed(&flight);
                self.pool.requeue(&flight.key);
            } else if times >= self.shared.times.sends {
                tracing::warn!(record = %flight.record.name, times, "not confirmed by the edge, trying again later");
                self.rest(&flight);
            } else {
                self.launch(flight, times + 1).await?;
            }
        }
        Ok(())
    }

    /// The confirmation becomes the record's version; a deleted object's record goes, unless the object comes
    /// back.
    fn confirm(&self, flight: &Flight) {
        let route = &flight.message.route;
        let confirmed = match &flight.message.header.resource_version {
            _ if route.group == Group::TWIN => return,
            _ if route.operation == Operation::DELETE && self.pool.superseded(flight) => return,
            _ if route.operation == Operation::DELETE => Confirmed::Gone,
            Some(version) => Confirmed::At(version.clone()),
            None => return,
        };
        self.shared.records.confirm(&flight.record, confirmed, self.now);
    }

    fn rest(&mut self, flight: &Flight) {
        let failures = self.pool.failed(flight);
        let doubled = Duration::from_millis(5).saturating_mul(1 << failures.min(18));
        let at = (Instant::now() + doubled.min(Duration::from_secs(1000))).max(self.requeues.free_at());
        self.requeues.spend();
        self.rested += 1;
        self.resting.insert((at, self.rested), flight.key.clone());
    }

    fn next_deadline(&self) -> Instant {
        let flying = self.pool.next_due();
        let resting = self.resting.keys().next().map(|(at, _)| *at);
        let idle = Instant::now() + Duration::from_secs(3600);
        flying.into_iter().chain(resting).min().unwrap_or(idle)
    }

    async fn write(&mut self, message: &Message, id: &str) -> Result<(), End> {
        let frame = match self.shared.codec.encode_as(message, id) {
            Ok(frame) => frame,
            Err(error) => {
                tracing::error!(resource = %message.route.resource, error = %error, "a message cannot be sent");
                return Ok(());
            }
        };
        self.unflushed = true;
        match in_time(self.shared.times.write, self.tx.feed(frame)).await {
            Err(End::Link(error)) if error.kind().is_of_the_frame() => {
                tracing::error!(resource = %message.route.resource, error = %error, "a message cannot be sent");
                Ok(())
            }
            written => written,
        }
    }

    async fn flush(&mut self) -> Result<(), End> {
        if !std::mem::take(&mut self.unflushed) {
            return Ok(());
        }
        self.pushes.spend();
        in_time(self.shared.times.write, self.tx.flush()).await
    }
}

/// What the link does, which is done at once unless the edge does not read.
async fn in_time(
    limit: Duration,
    doing: impl Future<Output = Result<(), TransportError>>,
) -> Result<(), End> {
    let mut doing = std::pin::pin!(doing);
    let done = match doing.as_mut().now_or_never() {
        Some(done) => done,
        None => tokio::time::timeout(limit, doing).await.map_err(|_| End::Stuck(limit))?,
    };
    done.map_err(End::Link)
}
