//! The task of one device: connect, serve, reconnect.

use std::{panic::AssertUnwindSafe, sync::Arc};

use futures::{
    FutureExt, StreamExt,
    stream::{self, BoxStream, SelectAll},
};
use kubeedge_core::{
    backoff::Backoff,
    device::{DeviceState, DriverError, DriverKind, DriverResult, Property, Reading, Value},
    failure::{Advice, Failure, chain},
    kernel::Shutdown,
};
use tokio::{
    sync::{mpsc, watch},
    time::Instant,
};

use super::{
    MapperSettings, Order, Up,
    calls::{LimitedSession, limited},
    plan::{Plan, Visitor},
    points::{self, Point},
};
use crate::{driver::Driver, value};

/// How many points are asked for in one call of a driver.
const BATCH: usize = 64;

type Items = SelectAll<BoxStream<'static, (usize, Option<DriverResult<Value>>)>>;

/// Everything one device needs.
pub(super) struct Task<D: Driver> {
    driver: Arc<D>,
    settings: Arc<MapperSettings>,
    up: Arc<Up>,
    plans: watch::Receiver<Arc<Plan<D>>>,
    orders: mpsc::Receiver<Order>,
    plan: Arc<Plan<D>>,
    points: Vec<Point>,
    session: Option<LimitedSession<D::Session>>,
    items: Items,
    readings: Vec<Reading>,
    state: DeviceState,
    strikes: u32,
    /// Whether the device has said anything in this session.
    answered: bool,
    backoff: Backoff,
}

/// What a serving task wakes up for.
enum Event {
    Described,
    Ordered(Order),
    Came(usize, Option<DriverResult<Value>>),
    Due,
}

impl<D: Driver> Task<D> {
    pub(super) fn new(
        driver: Arc<D>,
        settings: Arc<MapperSettings>,
        up: Arc<Up>,
        (mut plans, orders): (watch::Receiver<Arc<Plan<D>>>, mpsc::Receiver<Order>),
        seed: u64,
    ) -> Self {
        let plan = Arc::clone(&plans.borrow_and_update());
        let points = points::carry_over(Vec::new(), &plan.device, Instant::now());
        let backoff = Backoff::new(settings.reconnect_first, settings.reconnect_cap, seed);
        Self {
            driver,
            settings,
            up,
            plans,
            orders,
            plan,
            points,
            session: None,
            items: Items::new(),
            readings: Vec::new(),
            state: DeviceState::Unknown,
            strikes: 0,
            answered: false,
            backoff,
        }
    }

    /// Serves the device until told to stop, whatever it is doing then; lets go of it afterwards.
    pub(super) async fn tend(mut self, stop: Shutdown) {
        tokio::select! {
            biased;
            () = stop.requested() => {}
            () = self.live_on() => {}
        }
        self.let_go().await;
    }

    /// A driver that panics costs its device the session, not its place: the device is tried again like a
    /// lost one.
    async fn live_on(&mut self) {
        loop {
            if AssertUnwindSafe(self.live()).catch_unwind().await.is_ok() {
                return;
            }
            tracing::error!(device = %self.plan.device.id, protocol = D::PROTOCOL, "driver panicked");
            // Whatever state the session is in, nothing of it is called any more.
            self.session = None;
            self.items = Items::new();
            self.enter(DeviceState::Offline).await;
            let why =
                Failure::new(DriverKind::Disconnected, "serving a device").because("the driver panicked");
            self.pause(&why).await;
        }
    }

    async fn live(&mut self) {
        let mut resumes = false;
        loop {
            let end = match self.connect(&mut resumes).await {
                Ok(()) => self.serve().await,
                Err(error) => Err(error),
            };
            resumes |= self.is_interrupted();
            self.let_go().await;
            self.send_readings().await;
            let Err(error) = end else {
                resumes = false;
                continue;
            };
            resumes &= error.kind() == DriverKind::Timeout && !self.is_out_of_patience();
            if resumes {
                tracing::debug!(device = %self.plan.device.id, error = %chain(&error), "session given up, reconnecting");
                continue;
            }
            tracing::warn!(device = %self.plan.device.id, error = %chain(&error), "device lost, reconnecting");
            self.enter(DeviceState::Offline).await;
            self.pause(&error).await;
        }
    }

    /// One attempt to connect, begun anew when the device is described anew.
    ///
    /// `resumes`: the last session was given up for a call that took too long, which alone says nothing of
    /// the device. The new session goes on where the last one stopped: timeouts are counted on, and nothing
    /// is written again. It ends with a description of other addresses.
    async fn connect(&mut self, resumes: &mut bool) -> DriverResult<()> {
        loop {
            if self.plans.has_changed().unwrap_or(false) && !self.adopt() {
                *resumes = false;
            }
            let plan = Arc::clone(&self.plan);
            let driver = Arc::clone(&self.driver);
            let attempt =
                limited(self.settings.call_limit, "connecting to a device", driver.connect(&plan.config));
            let session = tokio::select! {
                biased;
                Ok(()) = self.plans.changed() => {
                    self.plans.mark_changed();
                    continue;
                }
                session = attempt => session,
            };
            let session = session.flatten().inspect_err(|error| self.count(error))?;
            self.session = Some(LimitedSession::new(session, self.settings.call_limit));
            let now = Instant::now();
            if *resumes {
                points::resume_session(&mut self.points, now);
                return Ok(());
            }
            self.strikes = 0;
            // With nothing to ask it, that it let us connect is all there is to know.
            self.answered = self.plan.visitors.is_empty();
            points::begin_session(&mut self.points, &self.plan.device, now);
            return Ok(());
        }
    }

    /// Works with a session: `Ok` when the device's addresses changed, an error when the session is lost.
    async fn serve(&mut self) -> DriverResult<()> {
        self.subscribe().await?;
        self.judge().await;
        loop {
            if self.plans.has_changed().unwrap_or(false) && !self.adopt() {
                return Ok(());
            }
            match self.next_event().await {
                Event::Described => {}
                Event::Ordered(order) => self.obey(order).await?,
                Event::Came(at, item) => self.came(at, item)?,
                Event::Due => self.collect().await?,
            }
            self.send_readings().await;
            self.judge().await;
        }
    }

    async fn next_event(&mut self) -> Event {
        let due = self.points.iter().filter_map(Point::next).min();
        let due = async move {
            match due {
                Some(due) => tokio::time::sleep_until(due).await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            Ok(()) = self.plans.changed() => {
                self.plans.mark_changed();
                Event::Described
            }
            Some(order) = self.orders.recv() => Event::Ordered(order),
            Some((at, item)) = self.items.next(), if !self.items.is_empty() => Event::Came(at, item),
            () = due => Event::Due,
        }
    }

    /// Takes over the newest description. `false` when the session does not fit it.
    fn adopt(&mut self) -> bool {
        let new = Arc::clone(&self.plans.borrow_and_update());
        let fits = self.plan.same_addresses(&new);
        let names = self.plan.device.properties.iter().map(|property| property.model.name.clone());
        let old = names.zip(std::mem::take(&mut self.points)).collect();
        self.points = points::carry_over(old, &new.device, Instant::now());
        self.plan = new;
        fits
    }

    async fn subscribe(&mut self) -> DriverResult<()> {
        let plan = Arc::clone(&self.plan);
        for (at, visitor) in plan.visitors.iter().enumerate() {
            if self.points.get(at).is_some_and(|point| point.polled) {
                continue;
            }
            match self.session()?.subscribe(visitor).await {
                Ok(Some(values)) => {
                    let end = stream::once(async { None });
                    self.items.push(values.map(Some).chain(end).map(move |item| (at, item)).boxed());
                    if let Some(point) = self.points.get_mut(at) {
                        point.subscribed = true;
                    }
                }
                Ok(None) => {}
                Err(error) if error.advice() == Advice::Reconnect => return Err(error),
                // Polled instead; a point that is wrong altogether says so when it is read.
                Err(error) => {
                    tracing::debug!(device = %plan.device.id, error = %chain(&error), "subscribing refused");
                    if let Some(point) = self.points.get_mut(at) {
                        point.polled = true;
                    }
                    if self.is_interrupted() {
                        return Err(error);
                    }
                }
            }
        }
        Ok(())
    }

    fn came(&mut self, at: usize, item: Option<DriverResult<Value>>) -> DriverResult<()> {
        let ended = !matches!(item, Some(Ok(_)));
        if let Some(point) = self.points.get_mut(at).filter(|_| ended) {
            point.subscribed = false;
            point.due = Instant::now();
        }
        match item {
            Some(result) => self.took(at, result).map(drop),
            None => Ok(()),
        }
    }

    async fn obey(&mut self, order: Order) -> DriverResult<()> {
        let plan = Arc::clone(&self.plan);
        match order {
            Order::Read { property, reply } => {
                let at = match plan.find(&property) {
                    Ok(at) => at,
                    Err(error) => return answer(reply, Err(error)),
                };
                let value = self.read_one(&plan, at).await;
                match value {
                    Ok(value) => answer(reply, self.took(at, Ok(value))?),
                    Err(error) => self.refused(error, |error| answer(reply, Err(error))),
                }
            }
            Order::Write { property, value, reply } => {
                let checked = plan.find(&property).and_then(|at| {
                    let known = plan.device.properties.get(at);
                    let known = known.ok_or_else(|| vanished(&property))?;
                    Ok((at, value::check_write(&known.model, value)?))
                });
                let (at, value) = match checked {
                    Ok(checked) => checked,
                    Err(error) => return answer(reply, Err(error)),
                };
                match self.write_one(&plan, at, value).await {
                    Ok(()) => {
                        if let Some(point) = self.points.get_mut(at) {
                            point.due = Instant::now();
                            point.forget_reported();
                        }
                        answer(reply, Ok(()))
                    }
                    Err(error) => self.refused(error, |error| answer(reply, Err(error))),
                }
            }
        }
    }

    /// Tells the asker of a failure, and the task when it cost the session.
    fn refused(
        &mut self,
        error: DriverError,
        tell: impl FnOnce(DriverError) -> DriverResult<()>,
    ) -> DriverResult<()> {
        let lost = self.ends_session(&error).then(|| echo(&error));
        tell(error)?;
        lost.map_or(Ok(()), Err)
    }

    async fn read_one(&mut self, plan: &Plan<D>, at: usize) -> DriverResult<Value> {
        let visitor = plan.visitors.get(at).ok_or_else(|| vanished("to read"))?;
        self.session()?.read(visitor).await
    }

    async fn write_one(&mut self, plan: &Plan<D>, at: usize, value: Value) -> DriverResult<()> {
        let visitor = plan.visitors.get(at).ok_or_else(|| vanished("to write"))?;
        self.session()?.write(visitor, value).await?;
        (self.strikes, self.answered) = (0, true);
        Ok(())
    }

    /// Writes and reads what is due. An error means the session is lost.
    async fn collect(&mut self) -> DriverResult<()> {
        let (plan, now) = (Arc::clone(&self.plan), Instant::now());
        for (at, property) in plan.device.properties.iter().enumerate() {
            let pending = self.points.get(at).and_then(|point| point.pending.clone());
            if let Some((text, _)) = pending.filter(|(_, not_before)| *not_before <= now) {
                self.write_desired(&plan, at, property, text).await?;
            }
        }
        let now = Instant::now();
        let due = self.points.iter().enumerate().filter(|(_, point)| point.wants_read(now));
        let due: Vec<usize> = due.map(|(at, _)| at).collect();
        for batch in due.chunks(BATCH) {
            let visitors: Vec<&Visitor<D>> = batch.iter().filter_map(|at| plan.visitors.get(*at)).collect();
            let values = match self.session()?.read_many(&visitors).await {
                Ok(values) if values.len() == batch.len() => values,
                Ok(values) => {
                    let what = format!("{} answers to {} reads", values.len(), batch.len());
                    return Err(Failure::new(DriverKind::Protocol, "reading a device").on(what));
                }
                Err(error) if self.costs_session(&error) => return Err(error),
                // Nobody knows where in the batch it hung: all of it waits for its next turn.
                Err(error) => {
                    batch.iter().for_each(|at| self.missed(*at, &waiting(&error)));
                    if self.is_interrupted() {
                        return Err(error);
                    }
                    continue;
                }
            };
            for (at, value) in batch.iter().zip(values) {
                self.took(*at, value).map(drop)?;
            }
        }
        Ok(())
    }

    async fn write_desired(
        &mut self,
        plan: &Plan<D>,
        at: usize,
        property: &Property,
        text: String,
    ) -> DriverResult<()> {
        let value =
            value::parse(&property.model, &text).and_then(|value| value::check_write(&property.model, value));
        let written = match value {
            Ok(value) => self.write_one(plan, at, value).await,
            Err(error) => Err(error),
        };
        let (device, name, now) = (&plan.device.id, &property.model.name, Instant::now());
        let Some(point) = self.points.get_mut(at) else { return Ok(()) };
        match written {
            Ok(()) => {
                tracing::debug!(%device, property = %name, value = %text, "desired value written");
                point.wrote(text, now);
                Ok(())
            }
            Err(error) => {
                let for_good = error.advice() == Advice::GiveUp;
                if point.write_failed(property, chain(&error), for_good, now) {
                    tracing::warn!(%device, property = %name, value = %text, error = %chain(&error), "desired value not written");
                }
                if self.ends_session(&error) { Err(error) } else { Ok(()) }
            }
        }
    }

    /// Takes in what a read brought. The inner result is for whoever asked; the outer one tells of a lost
    /// session.
    fn took(&mut self, at: usize, result: DriverResult<Value>) -> DriverResult<DriverResult<Value>> {
        let plan = Arc::clone(&self.plan);
        let (Some(property), Some(point)) = (plan.device.properties.get(at), self.points.get_mut(at)) else {
            return Ok(Err(vanished("to report")));
        };
        let now = Instant::now();
        match result.and_then(|value| value::conform(&property.model, value)) {
            Ok(value) => {
                self.strikes = 0;
                self.answered = true;
                self.backoff.reset();
                let at = self.settings.clock.now();
                self.readings.extend(point.take(&plan.device, property, value.clone(), (now, at)));
                Ok(Ok(value))
            }
            Err(error) => {
                self.missed(at, &error);
                if self.costs_session(&error) { Err(error) } else { Ok(Err(error)) }
            }
        }
    }

    /// Notes that a property could not be read.
    fn missed(&mut self, at: usize, error: &DriverError) {
        let device = &self.plan.device;
        let (Some(property), Some(point)) = (device.properties.get(at), self.points.get_mut(at)) else {
            return;
        };
        let for_good = error.advice() == Advice::GiveUp;
        self.answered |= for_good;
        if point.read_failed(property, chain(error), for_good, Instant::now()) {
            tracing::warn!(device = %device.id, property = %property.model.name, error = %chain(error), "property not read");
        }
    }

    /// Whether the device is lost with an error: the error says so, or it is one timeout too many.
    fn costs_session(&mut self, error: &DriverError) -> bool {
        self.count(error);
        error.advice() == Advice::Reconnect || self.is_out_of_patience()
    }

    /// Whether the session is of no more use: the device is lost, or the call that failed was dropped
    /// half-way.
    fn ends_session(&mut self, error: &DriverError) -> bool {
        self.costs_session(error) || self.is_interrupted()
    }

    fn count(&mut self, error: &DriverError) {
        if error.kind() == DriverKind::Timeout {
            self.strikes += 1;
        }
    }

    /// Whether there were as many timeouts in a row as make a device offline.
    fn is_out_of_patience(&self) -> bool {
        self.strikes >= self.settings.strikes.max(1)
    }

    fn is_interrupted(&self) -> bool {
        self.session.as_ref().is_some_and(LimitedSession::is_interrupted)
    }

    async fn send_readings(&mut self) {
        if self.readings.is_empty() {
            return;
        }
        let readings = std::mem::take(&mut self.readings);
        let names: Vec<String> = readings.iter().map(|reading| reading.property.clone()).collect();
        if !self.up.report(readings).await {
            for name in names {
                let point = self.plan.find(&name).ok().and_then(|at| self.points.get_mut(at));
                if let Some(point) = point {
                    point.forget_reported();
                }
            }
        }
    }

    /// Says how the device is, once it has said anything itself: a connection alone may be that of a gateway.
    async fn judge(&mut self) {
        if self.answered {
            let sound = self.points.iter().all(Point::is_sound);
            self.enter(if sound { DeviceState::Online } else { DeviceState::Unhealthy }).await;
        }
    }

    async fn enter(&mut self, state: DeviceState) {
        if self.state != state && self.up.report_state(&self.plan.device.id, state).await {
            self.state = state;
        }
    }

    /// Waits before the next attempt, turning down whoever asks meanwhile.
    async fn pause(&mut self, why: &DriverError) {
        let until = Instant::now() + self.backoff.next_pause();
        loop {
            tokio::select! {
                () = tokio::time::sleep_until(until) => return,
                Ok(()) = self.plans.changed() => {
                    self.plans.mark_changed();
                    return;
                }
                Some(order) = self.orders.recv() => match order {
                    Order::Read { reply, .. } => drop(reply.send(Err(echo(why)))),
                    Order::Write { reply, .. } => drop(reply.send(Err(echo(why)))),
                },
            }
        }
    }

    async fn let_go(&mut self) {
        self.items = Items::new();
        if let Some(session) = self.session.take()
            && !session.close(self.settings.close_limit).await
        {
            tracing::debug!(device = %self.plan.device.id, "session did not close in time");
        }
    }

    fn session(&mut self) -> DriverResult<&mut LimitedSession<D::Session>> {
        self.session.as_mut().ok_or_else(no_session)
    }
}

fn no_session() -> DriverError {
    Failure::new(DriverKind::Disconnected, "using a session")
}

/// What a hung batch means for one of its points; it is one timeout, not one for each point.
fn waiting(error: &DriverError) -> DriverError {
    Failure::new(DriverKind::Busy, "reading a device").on(chain(error))
}

fn vanished(what: &str) -> DriverError {
    Failure::new(DriverKind::NotFound, "finding a property").on(what)
}

/// The same failure once more, for a second listener; its sources become text.
fn echo(error: &DriverError) -> DriverError {
    Failure::new(error.kind(), "talking to a device").on(chain(error))
}

fn answer<T>(reply: tokio::sync::oneshot::Sender<T>, with: T) -> DriverResult<()> {
    // An asker that no longer waits has no use for the answer.
    let _ = reply.send(with);
    Ok(())
}
