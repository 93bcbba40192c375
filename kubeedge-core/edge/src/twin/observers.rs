//! Vendors' modules that hear what devices report: the newest of each property, and DeviceTwin waits for
//! none of them.

use std::{collections::BTreeMap, sync::Arc};

use kubeedge_common::log::Seldom;
use kubeedge_core::{
    bus::{Bus, Envelope},
    message::{Content, Message},
    name::{Group, ModuleName, Operation},
    routes::{Observed, READINGS, Routes},
};
use parking_lot::Mutex;
use tokio::{sync::Notify, task::JoinSet};

/// What may wait for one module, in bytes of values and names; the newest of a property that waits already
/// is always taken.
const MOST_BYTES: usize = 8 << 20;
/// How many values go in one message, and from how many bytes on it takes no further one.
const MOST_AT_ONCE: usize = 256;
const BYTES_AT_ONCE: usize = 1 << 20;

#[derive(Debug, Default)]
struct Waiting {
    /// By device and property.
    values: BTreeMap<(String, String), Observed>,
    bytes: usize,
}

#[derive(Debug)]
struct Observer {
    module: ModuleName,
    routes: Routes,
    waiting: Mutex<Waiting>,
    more: Notify,
    drops: Seldom,
}

/// See the module's text.
#[derive(Debug, Default)]
pub(super) struct Observers(Vec<Arc<Observer>>);

impl Observers {
    /// One task for each module that wants readings.
    pub(super) fn start(bus: &Bus, tasks: &mut JoinSet<()>) -> Self {
        let wanting = bus.routes().modules().iter().filter(|(_, routes)| routes.wants_readings());
        let observers = wanting.map(|(module, routes)| {
            let (module, routes) = (module.clone(), routes.clone());
            let (waiting, more, drops) = (Mutex::default(), Notify::new(), Seldom::default());
            let observer = Arc::new(Observer { module, routes, waiting, more, drops });
            let (telling, bus) = (observer.clone(), bus.clone());
            tasks.spawn(async move { telling.tell(&bus).await });
            observer
        });
        Self(observers.collect())
    }

    /// Whether any module wants readings.
    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Leaves a value for the modules that want it; never waits.
    pub(super) fn observe(&self, observed: &Observed) {
        for observer in self.0.iter().filter(|observer| observer.routes.wants_readings_of(&observed.device)) {
            observer.leave(observed.clone());
        }
    }
}

impl Observer {
    fn leave(&self, observed: Observed) {
        if self.waiting.lock().put(observed) {
            self.more.notify_one();
        } else if let Some(unsaid) = self.drops.line("") {
            tracing::warn!(module = %self.module, unsaid, "module takes no readings, a value for it was dropped");
        }
    }

    /// Tells the module what waits, whenever it is done with what it was told before.
    async fn tell(&self, bus: &Bus) {
        loop {
            let values = self.waiting.lock().take();
            if values.is_empty() {
                self.more.notified().await;
                continue;
            }
            let message = Message::new(ModuleName::TWIN, Operation::UPDATE, READINGS)
                .in_group(Group::TWIN)
                .with(Content::json(&values).unwrap_or_default());
            let (envelope, done) = Envelope::with_reply(message);
            if let Err(error) = bus.forward(&self.module, envelope).await {
                tracing::debug!(%error, "a module was not told of readings");
            }
            // Answered or dropped: either way it is done.
            drop(done.await);
        }
    }
}

impl Waiting {
    /// Takes a value in the place of an older one of the property; says whether there was room.
    fn put(&mut self, observed: Observed) -> bool {
        let key = (observed.device.clone(), observed.property.clone());
        let freed = self.values.get(&key).map(weight);
        let bytes = self.bytes.saturating_sub(freed.unwrap_or(0)) + weight(&observed);
        if freed.is_none() && bytes > MOST_BYTES {
            return false;
        }
        self.bytes = bytes;
        self.values.insert(key, observed);
        true
    }

    fn take(&mut self) -> Vec<Observed> {
        let (mut taken, mut bytes) = (Vec::new(), 0);
        while taken.len() < MOST_AT_ONCE
            && bytes < BYTES_AT_ONCE
            && let Some((_, observed)) = self.values.pop_first()
        {
            bytes += weight(&observed);
            taken.push(observed);
        }
        self.bytes = self.bytes.saturating_sub(bytes);
        taken
    }
}

/// What a value weighs, in bytes.
fn weight(observed: &Observed) -> usize {
    const REST: usize = 128;
    REST + 2 * (observed.device.len() + observed.property.len()) + observed.value.len()
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use kubeedge_core::routes::RoutingTable;

    use super::*;

    const ACME: ModuleName = ModuleName::of("acme");

    #[tokio::test(start_paused = true)]
    async fn a_module_that_is_slow_hears_the_newest_of_each_property() {
        let (bus, mut inboxes) = Bus::new([(ACME, Group::of("acme"), 4)]);
        let routes = RoutingTable::new([(ACME, Routes::new().readings())]).unwrap();
        let (bus, mut tasks) = (bus.with_routes(routes), JoinSet::new());
        let observers = Observers::start(&bus, &mut tasks);
        let mut inbox = inboxes.remove(&ACME).unwrap();
        observers.observe(&Observed::new("default/t1", "temperature", "0", 0));
        let first = inbox.next().await.unwrap();
        for n in 1..1000 {
            for property in ["temperature", "pressure"] {
                observers.observe(&Observed::new("default/t1", property, &n.to_string(), n));
            }
        }
        tokio::time::sleep(Duration::from_secs(1)).await;
        assert!(inbox.try_next().is_none(), "the module is not done with the first");
        assert_eq!(first.message.content.decode::<Vec<Observed>>().unwrap()[0].value, "0");
        drop(first);
        let next: Vec<Observed> = inbox.next().await.unwrap().message.content.decode().unwrap();
        let newest = |property: &str| Observed::new("default/t1", property, "999", 999);
        assert_eq!(next, [newest("pressure"), newest("temperature")]);
    }

    #[test]
    fn what_waits_is_bounded_by_bytes_and_goes_in_messages_of_a_bounded_size() {
        let (mut waiting, value) = (Waiting::default(), "x".repeat(60 << 10));
        let put = |waiting: &mut Waiting, n: usize| {
            waiting.put(Observed::new("default/d", &format!("{n:04}"), &value, 0))
        };
        let taken = (0..1000).filter(|n| put(&mut waiting, *n)).count();
        assert!((100..200).contains(&taken), "{taken}");
        assert!(put(&mut waiting, 0), "a newer value of one that waits is taken");
        assert!(waiting.take().len() <= 18);
        while !waiting.take().is_empty() {}
        assert_eq!(waiting.bytes, 0);
    }
}
