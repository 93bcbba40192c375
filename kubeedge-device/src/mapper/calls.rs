//! A session whose calls are limited in time, and which is not used again after a call that it cannot bear to
//! lose.

use std::future::Future;

use kubeedge_core::{
    device::{DriverError, DriverKind, DriverResult, Value},
    failure::Failure,
};
use tokio::time::Duration;

use crate::driver::{Session, Values};

/// A session with a limit to each of its calls.
pub(super) struct LimitedSession<S> {
    session: S,
    limit: Duration,
    interrupted: bool,
}

impl<S: Session> LimitedSession<S> {
    pub(super) fn new(session: S, limit: Duration) -> Self {
        Self { session, limit, interrupted: false }
    }

    /// Whether a call was dropped half-way that the session cannot bear to lose: only
    /// [`LimitedSession::close`] is left to do.
    pub(super) fn is_interrupted(&self) -> bool {
        self.interrupted
    }

    pub(super) async fn read(&mut self, at: &S::Visitor) -> DriverResult<Value> {
        self.usable()?;
        let done = limited(self.limit, "reading a device", self.session.read(at)).await;
        self.in_time(done)?
    }

    pub(super) async fn read_many(&mut self, at: &[&S::Visitor]) -> DriverResult<Vec<DriverResult<Value>>> {
        self.usable()?;
        let done = limited(self.limit, "reading a device", self.session.read_many(at)).await;
        self.in_time(done)
    }

    pub(super) async fn write(&mut self, at: &S::Visitor, value: Value) -> DriverResult<()> {
        self.usable()?;
        let done = limited(self.limit, "writing to a device", self.session.write(at, value)).await;
        self.in_time(done)?
    }

    pub(super) async fn subscribe(&mut self, at: &S::Visitor) -> DriverResult<Option<Values>> {
        self.usable()?;
        let done = limited(self.limit, "subscribing", self.session.subscribe(at)).await;
        self.in_time(done)?
    }

    /// `false` when the limit was over first.
    pub(super) async fn close(self, limit: Duration) -> bool {
        tokio::time::timeout(limit, self.session.close()).await.is_ok()
    }

    fn usable(&self) -> DriverResult<()> {
        if self.interrupted {
            return Err(Failure::new(
                DriverKind::Disconnected,
                "using a session whose last call was dropped",
            ));
        }
        Ok(())
    }

    fn in_time<T>(&mut self, done: DriverResult<T>) -> DriverResult<T> {
        self.interrupted |= done.is_err() && !S::CANCEL_SAFE;
        done
    }
}

/// The outcome of a call of a driver, or [`DriverKind::Timeout`] when the call took too long and was dropped.
pub(super) async fn limited<T>(
    limit: Duration,
    doing: &'static str,
    call: impl Future<Output = T>,
) -> Result<T, DriverError> {
    let late = |_| Failure::new(DriverKind::Timeout, doing).on(format!("no answer within {limit:?}"));
    tokio::time::timeout(limit, call).await.map_err(late)
}
