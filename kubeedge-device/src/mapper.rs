//! Any driver as a mapper: one task per device.

mod calls;
mod plan;
mod points;
mod task;

use std::{
    collections::HashMap,
    fmt,
    hash::{DefaultHasher, Hash, Hasher},
    sync::Arc,
    time::Duration,
};

use async_trait::async_trait;
use kubeedge_core::{
    clock::Clock,
    device::{
        Device, DeviceId, DeviceManager, DeviceMapper, DeviceState, DriverError, DriverKind, DriverResult,
        Reading, Value,
    },
    failure::{Failure, chain},
    kernel::Shutdown,
};
use parking_lot::{Mutex, RwLock};
use tokio::{
    sync::{
        mpsc::{self, error::TrySendError},
        oneshot, watch,
    },
    task::JoinHandle,
};

use self::{plan::Plan, task::Task};
use crate::driver::Driver;

/// Limits and pauses of a [`Mapper`].
#[derive(Clone, Debug)]
pub struct MapperSettings {
    /// How long one call of a driver may take: connecting, a write, a batch of at most 64 reads. A call that
    /// takes longer is dropped, and with it the session, unless its [`Session`](crate::Session) is
    /// cancel-safe.
    pub call_limit: Duration,
    /// How long [`DeviceMapper::read`] and [`DeviceMapper::write`] wait in all, queue included.
    pub answer_limit: Duration,
    /// How long a session may take to close.
    pub close_limit: Duration,
    /// The pause before the first attempt to reconnect; doubles up to [`MapperSettings::reconnect_cap`].
    pub reconnect_first: Duration,
    /// The longest pause between two attempts to reconnect.
    pub reconnect_cap: Duration,
    /// How many reads and writes may wait for one device; more are refused with [`DriverKind::Busy`].
    pub queue: usize,
    /// How many timeouts in a row make a device offline.
    pub strikes: u32,
    /// Makes the jitter of the pauses repeatable; each device gets its own from it and its name.
    pub seed: u64,
    /// The time readings are stamped with.
    pub clock: Clock,
}

impl Default for MapperSettings {
    fn default() -> Self {
        Self {
            call_limit: Duration::from_secs(10),
            answer_limit: Duration::from_secs(30),
            close_limit: Duration::from_secs(2),
            reconnect_first: Duration::from_secs(1),
            reconnect_cap: Duration::from_secs(60),
            queue: 32,
            strikes: 3,
            seed: 0,
            clock: Clock::wall(),
        }
    }
}

/// Makes a [`DeviceMapper`] of any [`Driver`].
///
/// Every device has a task, a session and a queue of its own, so a slow device stalls only itself. The task
/// reads each property every `collect_every`, reports it when its text changed and every `report_every`
/// (never by time when that is zero), and writes desired values: after registration, after an update that
/// changes them, and after every reconnect, since the device may have forgotten them. Go's mapper framework
/// restarts the device on every update and writes even empty desired values; here a session survives an
/// update that leaves addresses alone, and an empty desired value is none.
pub struct Mapper<D: Driver> {
    driver: Arc<D>,
    settings: Arc<MapperSettings>,
    up: Arc<Up>,
    devices: Mutex<Devices<D>>,
}

struct Devices<D: Driver> {
    served: HashMap<DeviceId, Tended<D>>,
    open: bool,
}

/// A device's task, as the mapper holds it. Dropping it ends the task.
struct Tended<D: Driver> {
    plan: watch::Sender<Arc<Plan<D>>>,
    orders: mpsc::Sender<Order>,
    stop: Shutdown,
    task: Option<JoinHandle<()>>,
}

impl<D: Driver> Drop for Tended<D> {
    fn drop(&mut self) {
        self.stop.request();
    }
}

/// Something asked of a device.
enum Order {
    Read { property: String, reply: oneshot::Sender<DriverResult<Value>> },
    Write { property: String, value: Value, reply: oneshot::Sender<DriverResult<()>> },
}

/// Where readings and states go, once somebody is attached.
#[derive(Debug, Default)]
struct Up(RwLock<Option<Arc<dyn DeviceManager>>>);

impl Up {
    fn manager(&self) -> Option<Arc<dyn DeviceManager>> {
        self.0.read().clone()
    }

    /// Whether the readings were taken.
    async fn report(&self, readings: Vec<Reading>) -> bool {
        let Some(manager) = self.manager() else { return false };
        let taken = manager.report(readings).await;
        taken.inspect_err(|error| tracing::warn!(error = %chain(error), "readings were not taken")).is_ok()
    }

    /// Whether the state was taken.
    async fn report_state(&self, device: &DeviceId, state: DeviceState) -> bool {
        let Some(manager) = self.manager() else { return false };
        let taken = manager.report_state(device, state).await;
        taken
            .inspect_err(|error| tracing::warn!(%device, error = %chain(error), "device state was not taken"))
            .is_ok()
    }
}

impl<D: Driver> Mapper<D> {
    /// A mapper with the default settings. Needs a Tokio runtime once devices are registered.
    pub fn new(driver: D) -> Self {
        Self::with_settings(driver, MapperSettings::default())
    }

    /// A mapper with limits and pauses of one's own.
    pub fn with_settings(driver: D, settings: MapperSettings) -> Self {
        Self {
            driver: Arc::new(driver),
            settings: Arc::new(settings),
            up: Arc::default(),
            devices: Mutex::new(Devices { served: HashMap::new(), open: true }),
        }
    }

    fn start(&self, id: &DeviceId, plan: Plan<D>) -> Tended<D> {
        let (plan, plans) = watch::channel(Arc::new(plan));
        let (orders, queue) = mpsc::channel(self.settings.queue.max(1));
        let stop = Shutdown::new();
        let mut hasher = DefaultHasher::new();
        (self.settings.seed, id).hash(&mut hasher);
        let task = Task::new(
            Arc::clone(&self.driver),
            Arc::clone(&self.settings),
            Arc::clone(&self.up),
            (plans, queue),
            hasher.finish(),
        );
        let task = tokio::spawn(task.tend(stop.clone()));
        Tended { plan, orders, stop, task: Some(task) }
    }

    async fn ask<T>(
        &self,
        device: &DeviceId,
        order: impl FnOnce(oneshot::Sender<DriverResult<T>>) -> Order,
    ) -> DriverResult<T> {
        const DOING: &str = "asking a device";
        let failed = |kind| DriverError::new(kind, DOING).on(device.to_string());
        let orders = self.devices.lock().served.get(device).map(|tended| tended.orders.clone());
        let orders = orders.ok_or_else(|| failed(DriverKind::NotFound))?;
        let (reply, answer) = oneshot::channel();
        orders.try_send(order(reply)).map_err(|error| match error {
            TrySendError::Full(_) => failed(DriverKind::Busy),
            TrySendError::Closed(_) => failed(DriverKind::NotFound),
        })?;
        match tokio::time::timeout(self.settings.answer_limit, answer).await {
            Ok(Ok(answer)) => answer,
            // Dropped with the task, or by a driver that panicked.
            Ok(Err(_)) if self.devices.lock().served.contains_key(device) => {
                Err(failed(DriverKind::Disconnected))
            }
            Ok(Err(_)) => Err(failed(DriverKind::NotFound)),
            Err(_) => Err(failed(DriverKind::Timeout)),
        }
    }
}

impl<D: Driver> fmt::Debug for Mapper<D> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let devices = self.devices.lock().served.len();
        f.debug_struct("Mapper").field("driver", &self.driver).field("devices", &devices).finish()
    }
}

async fn end<D: Driver>(mut tended: Tended<D>) {
    tended.stop.request();
    if let Some(task) = tended.task.take() {
        // The task limits its own closing; a panic in a driver has been its end already.
        let _ = task.await;
    }
}

#[async_trait]
impl<D: Driver> DeviceMapper for Mapper<D> {
    fn protocol(&self) -> &str {
        D::PROTOCOL
    }

    async fn attach(&self, up: Arc<dyn DeviceManager>) {
        *self.up.0.write() = Some(up);
        self.devices.lock().open = true;
    }

    async fn register(&self, device: Device) -> DriverResult<()> {
        let id = device.id.clone();
        let plan = Plan::read(&*self.driver, device)?;
        let mut devices = self.devices.lock();
        if !devices.open {
            return Err(
                Failure::new(DriverKind::Unsupported, "registering at a closed mapper").on(id.to_string())
            );
        }
        match devices.served.get(&id) {
            Some(tended) if tended.task.as_ref().is_some_and(|task| !task.is_finished()) => {
                tended.plan.send_replace(Arc::new(plan));
            }
            _ => {
                let tended = self.start(&id, plan);
                devices.served.insert(id, tended);
            }
        }
        Ok(())
    }

    async fn update(&self, device: Device) -> DriverResult<()> {
        self.register(device).await
    }

    async fn remove(&self, device: &DeviceId) -> DriverResult<()> {
        let removed = self.devices.lock().served.remove(device);
        if let Some(tended) = removed {
            end(tended).await;
        }
        Ok(())
    }

    async fn read(&self, device: &DeviceId, property: &str) -> DriverResult<Value> {
        let property = property.to_owned();
        self.ask(device, |reply| Order::Read { property, reply }).await
    }

    async fn write(&self, device: &DeviceId, property: &str, value: Value) -> DriverResult<()> {
        let property = property.to_owned();
        self.ask(device, |reply| Order::Write { property, value, reply }).await
    }

    async fn close(&self) {
        let served = {
            let mut devices = self.devices.lock();
            devices.open = false;
            std::mem::take(&mut devices.served)
        };
        futures::future::join_all(served.into_values().map(end)).await;
    }
}
