//! A transport that misbehaves as it is told: for tests of what stands on top.

use std::{sync::Arc, time::Duration};

use async_trait::async_trait;
use futures::{FutureExt, future};
use kubeedge_core::{
    failure::Failure,
    transport::{
        Credentials, EachLink, Endpoint, Frame, FrameSink, Lanes, Limits, Link, LinkHealth, Listener, Pong,
        Transport, TransportError, TransportKind, each_link,
    },
};
use parking_lot::Mutex;
use rand::{RngExt, SeedableRng, rngs::SmallRng};
use tokio::time::Instant;

/// What goes wrong.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Faults {
    /// How long each frame takes, at the most; the time is drawn anew for each.
    pub delay: Duration,
    /// The share of frames that vanish, 0 to 1.
    pub drop: f64,
    /// A link breaks when so many frames were sent on it.
    pub cut_after: Option<u64>,
    /// Nobody can be dialled.
    pub unreachable: bool,
}

#[derive(Debug)]
struct Dice {
    faults: Faults,
    random: SmallRng,
}

/// Wraps a transport; the faults can be changed while links are up.
#[derive(Clone, Debug)]
pub struct Faulty<T> {
    inner: EachLink<T>,
    dice: Arc<Mutex<Dice>>,
}

impl<T: Transport> Faulty<T> {
    /// No faults at first; the seed makes what is drawn repeatable.
    pub fn new(inner: T, seed: u64) -> Self {
        let dice = Dice { faults: Faults::default(), random: SmallRng::seed_from_u64(seed) };
        let dice = Arc::new(Mutex::new(dice));
        let of_each = dice.clone();
        let spoil = move |inner| FaultySink { inner, dice: of_each.clone(), sent: 0 };
        Self { inner: each_link(inner, move |link| link.with_sink(&spoil)), dice }
    }

    /// From now on this goes wrong.
    pub fn set(&self, faults: Faults) {
        self.dice.lock().faults = faults;
    }
}

struct FaultySink {
    inner: Box<dyn FrameSink>,
    dice: Arc<Mutex<Dice>>,
    sent: u64,
}

fn cut() -> TransportError {
    Failure::new(TransportKind::Closed, "sending a frame").on("cut by a fault")
}

impl FaultySink {
    /// Takes the time one frame takes, and says whether it vanishes.
    async fn pass(&mut self) -> Result<bool, TransportError> {
        let (cut_now, dropped, delay) = {
            let mut dice = self.dice.lock();
            let faults = dice.faults;
            let dropped = faults.drop > 0.0 && dice.random.random_range(0.0..1.0) < faults.drop;
            let delay = faults.delay.mul_f64(dice.random.random_range(0.0..=1.0));
            (faults.cut_after.is_some_and(|most| self.sent >= most), dropped, delay)
        };
        if cut_now {
            let _ = self.inner.close().await;
            return Err(cut());
        }
        if !delay.is_zero() {
            tokio::time::sleep(delay).await;
        }
        Ok(dropped)
    }
}

#[async_trait]
#[deny(clippy::missing_trait_methods)]
impl FrameSink for FaultySink {
    async fn send(&mut self, frame: Frame) -> Result<(), TransportError> {
        let dropped = self.pass().await?;
        self.sent += 1;
        if dropped { Ok(()) } else { self.inner.send(frame).await }
    }

    async fn feed(&mut self, frame: Frame) -> Result<(), TransportError> {
        let dropped = self.pass().await?;
        self.sent += 1;
        if dropped { Ok(()) } else { self.inner.feed(frame).await }
    }

    async fn flush(&mut self) -> Result<(), TransportError> {
        self.inner.flush().await
    }

    async fn close(&mut self) -> Result<(), TransportError> {
        self.inner.close().await
    }

    fn health(&mut self) -> Option<&mut dyn LinkHealth> {
        self.inner.health()?;
        Some(self)
    }

    fn lanes(&mut self) -> Option<&mut dyn Lanes> {
        self.inner.lanes()
    }
}

#[async_trait]
#[deny(clippy::missing_trait_methods)]
impl LinkHealth for FaultySink {
    async fn ping(&mut self) -> Result<Pong, TransportError> {
        let dropped = self.pass().await?;
        let health =
            self.inner.health().ok_or_else(|| Failure::new(TransportKind::Closed, "sending a ping"))?;
        let pong = health.ping().await?;
        Ok(if dropped { future::pending().boxed() } else { pong })
    }

    fn last_sign(&mut self) -> Option<Instant> {
        self.inner.health()?.last_sign()
    }
}

#[async_trait]
#[deny(clippy::missing_trait_methods)]
impl<T: Transport> Transport for Faulty<T> {
    fn scheme(&self) -> &'static str {
        self.inner.scheme()
    }

    fn limits(&self) -> Limits {
        self.inner.limits()
    }

    async fn dial(&self, to: &Endpoint, who: &Credentials) -> Result<Link, TransportError> {
        if self.dice.lock().faults.unreachable {
            return Err(Failure::new(TransportKind::Unreachable, "dialling").on(to.to_string()));
        }
        self.inner.dial(to, who).await
    }

    async fn listen(&self, on: &Endpoint, who: &Credentials) -> Result<Box<dyn Listener>, TransportError> {
        self.inner.listen(on, who).await
    }
}
