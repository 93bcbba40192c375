//! What every [`DeviceMapper`] must do.
//!
//! ```
//! # use std::sync::Arc;
//! # use kubeedge_core::{conformance::mapper::MapperHarness, device::{Device, DeviceId, DeviceMapper}};
//! # struct Bench;
//! # #[async_trait::async_trait]
//! # impl MapperHarness for Bench {
//! #     fn mapper(&self) -> Arc<dyn DeviceMapper> { unimplemented!() }
//! #     fn device(&self, name: &str) -> Device { unimplemented!() }
//! #     fn spoil_config(&self, device: &mut Device) -> &'static str { "" }
//! #     fn spoil_visitor(&self, device: &mut Device) -> &'static str { "" }
//! #     async fn unplug(&self, device: &DeviceId) {}
//! #     async fn plug(&self, device: &DeviceId) {}
//! #     async fn stall(&self, device: &DeviceId) {}
//! #     async fn answer(&self, device: &DeviceId) {}
//! # }
//! // `Bench` is your `MapperHarness`.
//! kubeedge_core::mapper_conformance!(async { Bench });
//! # fn main() {}
//! ```
//!
//! Each case becomes a test; the crate's dev-dependencies need `tokio` with the features `macros` and
//! `rt-multi-thread`. The harness brings a mapper and devices to serve. Every device it makes has three
//! properties: [`NUMBER`], a whole number that may be written, from 0 to 1000; [`FIXED`], a whole number that
//! may not; and [`LABEL`], a text or number that may not. All are collected and reported at least every 100
//! ms. The mapper should give up a call of a driver after a second or less: one case waits for that three
//! times.

use std::{sync::Arc, time::Duration};

use async_trait::async_trait;
use parking_lot::Mutex;
use tokio::{
    sync::watch,
    time::{Instant, timeout},
};

use crate::{
    device::{
        Device, DeviceId, DeviceManager, DeviceMapper, DeviceState, DriverError, DriverKind, Reading,
        ReportResult, Value,
    },
    failure::{Advice, chain},
};

/// A writable whole number from 0 to 1000.
pub const NUMBER: &str = "number";
/// A whole number nobody may write.
pub const FIXED: &str = "fixed";
/// Something else nobody may write.
pub const LABEL: &str = "label";

/// How long anything may take on a loaded machine.
const PATIENCE: Duration = Duration::from_secs(60);

/// The implementation under test, and the world its devices are in.
#[async_trait]
pub trait MapperHarness: Send + Sync + 'static {
    /// The mapper; the same one at each call.
    fn mapper(&self) -> Arc<dyn DeviceMapper>;

    /// A device that can be served; devices of different names are different machines.
    fn device(&self, name: &str) -> Device;

    /// Spoils `protocol.configData` of a device; returns the name of the field that is wrong now.
    fn spoil_config(&self, device: &mut Device) -> &'static str;

    /// Spoils `visitors.configData` of a device's first property; returns the name of the field that is wrong
    /// now.
    fn spoil_visitor(&self, device: &mut Device) -> &'static str;

    /// Takes a device away, its memory kept, and drops its connections.
    async fn unplug(&self, device: &DeviceId);

    /// Brings it back.
    async fn plug(&self, device: &DeviceId);

    /// Has a device take requests and answer none. Its connections stay.
    async fn stall(&self, device: &DeviceId);

    /// Has a stalled device give all the answers that it owes, and go on as before.
    async fn answer(&self, device: &DeviceId);
}

/// Everything a mapper reported.
#[derive(Debug)]
pub struct Seen {
    heard: Mutex<Heard>,
    news: watch::Sender<u64>,
}

#[derive(Debug, Default)]
struct Heard {
    readings: Vec<Reading>,
    states: Vec<(DeviceId, DeviceState)>,
}

#[async_trait]
impl DeviceManager for Seen {
    async fn report(&self, readings: Vec<Reading>) -> ReportResult {
        self.heard.lock().readings.extend(readings);
        self.news.send_modify(|count| *count += 1);
        Ok(())
    }
    async fn report_state(&self, device: &DeviceId, state: DeviceState) -> ReportResult {
        self.heard.lock().states.push((device.clone(), state));
        self.news.send_modify(|count| *count += 1);
        Ok(())
    }
}

/// A mapper with somebody attached.
#[derive(Debug)]
pub struct Bench {
    mapper: Arc<dyn DeviceMapper>,
    seen: Arc<Seen>,
}

impl Bench {
    async fn of(harness: &impl MapperHarness) -> Self {
        let seen = Arc::new(Seen { heard: Mutex::default(), news: watch::Sender::new(0) });
        let mapper = harness.mapper();
        mapper.attach(Arc::clone(&seen) as Arc<dyn DeviceManager>).await;
        Self { mapper, seen }
    }

    async fn serve(&self, device: &Device) {
        must(self.mapper.register(device.clone()).await, "registering a good device");
    }

    async fn until(&self, what: &str, is_so: impl Fn(&Heard) -> bool + Send) {
        let mut news = self.seen.news.subscribe();
        let wait = async {
            loop {
                news.borrow_and_update();
                if is_so(&self.seen.heard.lock()) {
                    return;
                }
                if news.changed().await.is_err() {
                    return;
                }
            }
        };
        let done = timeout(PATIENCE, wait).await.is_ok();
        assert!(done, "not seen within {PATIENCE:?}: {what}; heard {:?}", self.seen.heard.lock());
    }

    async fn until_state(&self, device: &DeviceId, state: DeviceState) {
        let last = |heard: &Heard| heard.states.iter().rfind(|(id, _)| id == device).map(|(_, s)| *s);
        self.until(&format!("{device} {state}"), |heard| last(heard) == Some(state)).await;
    }

    async fn until_read(&self, device: &DeviceId, property: &str, value: i64) {
        let is_it = |reading: &Reading| {
            reading.device == *device && reading.property == property && reading.value == Value::Int(value)
        };
        let what = format!("{property} of {device} is {value}");
        self.until(&what, |heard| heard.readings.iter().any(is_it)).await;
    }

    /// Reads until it works, as a user would after the device came back.
    async fn read_soon(&self, device: &DeviceId, property: &str) -> Value {
        let until = Instant::now() + PATIENCE;
        loop {
            match self.mapper.read(device, property).await {
                Ok(value) => return value,
                Err(error) => {
                    assert!(error.advice() != Advice::GiveUp, "{}", chain(&error));
                    assert!(Instant::now() < until, "never readable: {}", chain(&error));
                    tokio::time::sleep(Duration::from_millis(20)).await;
                }
            }
        }
    }

    async fn write_soon(&self, device: &DeviceId, property: &str, value: i64) {
        let until = Instant::now() + PATIENCE;
        while let Err(error) = self.mapper.write(device, property, Value::Int(value)).await {
            assert!(error.advice() != Advice::GiveUp, "{}", chain(&error));
            assert!(Instant::now() < until, "never writable: {}", chain(&error));
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    fn clear(&self) {
        *self.seen.heard.lock() = Heard::default();
    }
}

fn must<T>(result: Result<T, DriverError>, doing: &str) -> Option<T> {
    let failed = result.as_ref().err().map(|error| chain(error));
    assert!(failed.is_none(), "{doing}: {}", failed.unwrap_or_default());
    result.ok()
}

fn refused<T>(result: Result<T, DriverError>, kind: DriverKind, named: &str) {
    let found = result.err().map(|error| (error.kind(), chain(&error)));
    let fits = found.as_ref().is_some_and(|(k, text)| *k == kind && text.contains(named));
    assert!(fits, "{kind:?} naming {named:?} expected, got {found:?}");
}

fn wish(device: &mut Device, property: &str, value: &str) {
    let wished = device.properties.iter_mut().find(|known| known.model.name == property);
    assert!(wished.is_some(), "the harness' device lacks property {property}");
    if let Some(property) = wished {
        property.desired = Some(value.to_owned());
    }
}

/// A configuration that cannot be read is refused, and the error names the field.
pub async fn a_wrong_config_is_refused_naming_the_field(harness: impl MapperHarness) {
    let (bench, mut device) = (Bench::of(&harness).await, harness.device("spoilt"));
    let field = harness.spoil_config(&mut device);
    refused(bench.mapper.register(device).await, DriverKind::BadConfig, field);
}

/// A visitor that cannot be read is refused, and the error names the field.
pub async fn a_wrong_visitor_is_refused_naming_the_field(harness: impl MapperHarness) {
    let (bench, mut device) = (Bench::of(&harness).await, harness.device("spoilt"));
    let field = harness.spoil_visitor(&mut device);
    refused(bench.mapper.register(device).await, DriverKind::BadConfig, field);
}

/// Once registered, every property is reported, with the model's type.
pub async fn every_property_of_a_device_is_reported(harness: impl MapperHarness) {
    let (bench, device) = (Bench::of(&harness).await, harness.device("one"));
    bench.serve(&device).await;
    for property in &device.properties {
        let (name, kind) = (property.model.name.clone(), property.model.kind);
        let what = format!("{name} reported");
        bench.until(&what, |heard| heard.readings.iter().any(|r| r.property == name && r.kind == kind)).await;
    }
}

/// A device that answers is online.
pub async fn a_device_that_answers_is_online(harness: impl MapperHarness) {
    let (bench, device) = (Bench::of(&harness).await, harness.device("one"));
    bench.serve(&device).await;
    bench.until_state(&device.id, DeviceState::Online).await;
}

/// What was written is read.
pub async fn a_written_value_is_read_back(harness: impl MapperHarness) {
    let (bench, device) = (Bench::of(&harness).await, harness.device("one"));
    bench.serve(&device).await;
    bench.write_soon(&device.id, NUMBER, 321).await;
    assert_eq!(bench.read_soon(&device.id, NUMBER).await, Value::Int(321));
}

/// A change is reported.
pub async fn a_changed_value_is_reported(harness: impl MapperHarness) {
    let (bench, device) = (Bench::of(&harness).await, harness.device("one"));
    bench.serve(&device).await;
    bench.write_soon(&device.id, NUMBER, 77).await;
    bench.until_read(&device.id, NUMBER, 77).await;
}

/// A value is reported every cycle though it does not change.
pub async fn an_unchanged_value_is_reported_every_cycle(harness: impl MapperHarness) {
    let (bench, device) = (Bench::of(&harness).await, harness.device("one"));
    bench.serve(&device).await;
    let times = |heard: &Heard| heard.readings.iter().filter(|reading| reading.property == FIXED).count();
    bench.until("three reports of one value", |heard| times(heard) >= 3).await;
}

/// A property its model calls read-only is not written.
pub async fn a_read_only_property_is_not_written(harness: impl MapperHarness) {
    let (bench, device) = (Bench::of(&harness).await, harness.device("one"));
    bench.serve(&device).await;
    bench.read_soon(&device.id, FIXED).await;
    refused(bench.mapper.write(&device.id, FIXED, Value::Int(1)).await, DriverKind::Unsupported, FIXED);
}

/// A value outside the model's range never reaches the device.
pub async fn a_value_beyond_its_range_is_not_written(harness: impl MapperHarness) {
    let (bench, device) = (Bench::of(&harness).await, harness.device("one"));
    bench.serve(&device).await;
    bench.write_soon(&device.id, NUMBER, 5).await;
    refused(bench.mapper.write(&device.id, NUMBER, Value::Int(1001)).await, DriverKind::BadValue, "1000");
    assert_eq!(bench.read_soon(&device.id, NUMBER).await, Value::Int(5));
}

/// A value of the wrong type is refused.
pub async fn a_value_of_the_wrong_type_is_not_written(harness: impl MapperHarness) {
    let (bench, device) = (Bench::of(&harness).await, harness.device("one"));
    bench.serve(&device).await;
    bench.read_soon(&device.id, NUMBER).await;
    let written = bench.mapper.write(&device.id, NUMBER, Value::from("warm")).await;
    refused(written, DriverKind::BadValue, NUMBER);
}

/// A property the device does not have is named.
pub async fn an_unknown_property_is_not_found(harness: impl MapperHarness) {
    let (bench, device) = (Bench::of(&harness).await, harness.device("one"));
    bench.serve(&device).await;
    bench.read_soon(&device.id, NUMBER).await;
    refused(bench.mapper.read(&device.id, "nowhere").await, DriverKind::NotFound, "nowhere");
    let written = bench.mapper.write(&device.id, "nowhere", Value::Int(1)).await;
    refused(written, DriverKind::NotFound, "nowhere");
}

/// A device nobody registered is named.
pub async fn an_unknown_device_is_not_found(harness: impl MapperHarness) {
    let (bench, device) = (Bench::of(&harness).await, harness.device("stranger"));
    refused(bench.mapper.read(&device.id, NUMBER).await, DriverKind::NotFound, "stranger");
}

/// A device that cannot be reached is registered all the same, offline, and served when it comes.
pub async fn an_unreachable_device_is_offline_until_it_comes(harness: impl MapperHarness) {
    let (bench, device) = (Bench::of(&harness).await, harness.device("late"));
    harness.unplug(&device.id).await;
    bench.serve(&device).await;
    bench.until_state(&device.id, DeviceState::Offline).await;
    harness.plug(&device.id).await;
    bench.until_state(&device.id, DeviceState::Online).await;
    bench.read_soon(&device.id, NUMBER).await;
}

/// A device that goes away and comes back is served again without anybody's doing.
pub async fn a_lost_device_is_served_again_when_it_is_back(harness: impl MapperHarness) {
    let (bench, device) = (Bench::of(&harness).await, harness.device("one"));
    bench.serve(&device).await;
    bench.until_state(&device.id, DeviceState::Online).await;
    harness.unplug(&device.id).await;
    bench.until_state(&device.id, DeviceState::Offline).await;
    let lost = bench.mapper.read(&device.id, NUMBER).await;
    assert!(lost.is_err_and(|error| error.advice() != Advice::GiveUp), "a device that is away was read");
    harness.plug(&device.id).await;
    bench.until_state(&device.id, DeviceState::Online).await;
    bench.clear();
    bench.write_soon(&device.id, NUMBER, 12).await;
    bench.until_read(&device.id, NUMBER, 12).await;
}

/// A desired value is written, read back and reported as the one that was wished for.
pub async fn a_desired_value_is_written_and_reported(harness: impl MapperHarness) {
    let (bench, mut device) = (Bench::of(&harness).await, harness.device("one"));
    wish(&mut device, NUMBER, "42");
    bench.serve(&device).await;
    let is_it =
        |reading: &Reading| reading.value == Value::Int(42) && reading.desired.as_deref() == Some("42");
    bench.until("42 wished for and there", |heard| heard.readings.iter().any(is_it)).await;
}

/// A desired value that comes with an update is written.
pub async fn an_updated_desired_value_is_written(harness: impl MapperHarness) {
    let (bench, mut device) = (Bench::of(&harness).await, harness.device("one"));
    wish(&mut device, NUMBER, "1");
    bench.serve(&device).await;
    bench.until_read(&device.id, NUMBER, 1).await;
    wish(&mut device, NUMBER, "2");
    must(bench.mapper.update(device.clone()).await, "updating a device");
    bench.until_read(&device.id, NUMBER, 2).await;
}

/// A desired value for a device that is away is written when it is back.
pub async fn a_desired_value_waits_for_its_device(harness: impl MapperHarness) {
    let (bench, mut device) = (Bench::of(&harness).await, harness.device("away"));
    harness.unplug(&device.id).await;
    wish(&mut device, NUMBER, "640");
    bench.serve(&device).await;
    bench.until_state(&device.id, DeviceState::Offline).await;
    harness.plug(&device.id).await;
    bench.until_read(&device.id, NUMBER, 640).await;
}

/// A desired value out of range is not written, and the device is unhealthy for it.
pub async fn a_desired_value_beyond_its_range_makes_the_device_unhealthy(harness: impl MapperHarness) {
    let (bench, mut device) = (Bench::of(&harness).await, harness.device("one"));
    wish(&mut device, NUMBER, "5000");
    bench.serve(&device).await;
    bench.until_state(&device.id, DeviceState::Unhealthy).await;
    assert_ne!(bench.read_soon(&device.id, NUMBER).await, Value::Int(5000));
}

/// Registering a known device describes it anew.
pub async fn registering_twice_is_an_update(harness: impl MapperHarness) {
    let (bench, mut device) = (Bench::of(&harness).await, harness.device("one"));
    bench.serve(&device).await;
    wish(&mut device, NUMBER, "9");
    bench.serve(&device).await;
    bench.until_read(&device.id, NUMBER, 9).await;
}

/// Updating an unknown device registers it.
pub async fn updating_an_unknown_device_registers_it(harness: impl MapperHarness) {
    let (bench, device) = (Bench::of(&harness).await, harness.device("one"));
    must(bench.mapper.update(device.clone()).await, "updating an unknown device");
    bench.until_state(&device.id, DeviceState::Online).await;
}

/// An update that cannot be read leaves the device as it was.
pub async fn a_wrong_update_leaves_the_old_description_in_force(harness: impl MapperHarness) {
    let (bench, device) = (Bench::of(&harness).await, harness.device("one"));
    bench.serve(&device).await;
    bench.write_soon(&device.id, NUMBER, 8).await;
    let mut spoilt = device.clone();
    let field = harness.spoil_config(&mut spoilt);
    refused(bench.mapper.update(spoilt).await, DriverKind::BadConfig, field);
    assert_eq!(bench.read_soon(&device.id, NUMBER).await, Value::Int(8));
}

/// A removed device is unknown and silent; removing it again is no error.
pub async fn a_removed_device_is_unknown_and_silent(harness: impl MapperHarness) {
    let (bench, device) = (Bench::of(&harness).await, harness.device("one"));
    let other = harness.device("other");
    bench.serve(&device).await;
    bench.serve(&other).await;
    bench.until_state(&device.id, DeviceState::Online).await;
    must(bench.mapper.remove(&device.id).await, "removing a device");
    must(bench.mapper.remove(&device.id).await, "removing it again");
    bench.clear();
    refused(bench.mapper.read(&device.id, NUMBER).await, DriverKind::NotFound, "one");
    let others = |heard: &Heard| heard.readings.iter().filter(|r| r.device == other.id).count();
    bench.until("the other device goes on", |heard| others(heard) >= 5).await;
    assert!(
        bench.seen.heard.lock().readings.iter().all(|r| r.device != device.id),
        "a removed device reported"
    );
}

/// A removed device can be registered again.
pub async fn a_removed_device_can_come_back(harness: impl MapperHarness) {
    let (bench, device) = (Bench::of(&harness).await, harness.device("one"));
    bench.serve(&device).await;
    bench.read_soon(&device.id, NUMBER).await;
    must(bench.mapper.remove(&device.id).await, "removing a device");
    bench.clear();
    bench.serve(&device).await;
    bench.until_state(&device.id, DeviceState::Online).await;
}

/// A device that is away does not hold up another.
pub async fn a_device_that_is_away_delays_no_other(harness: impl MapperHarness) {
    let (bench, away) = (Bench::of(&harness).await, harness.device("away"));
    let near = harness.device("near");
    harness.unplug(&away.id).await;
    bench.serve(&away).await;
    bench.serve(&near).await;
    bench.until_state(&near.id, DeviceState::Online).await;
    assert_eq!(bench.read_soon(&near.id, FIXED).await, bench.read_soon(&near.id, FIXED).await);
}

/// An answer that comes when nobody waits for it any longer is the value of no other property.
pub async fn a_late_answer_is_no_other_propertys_value(harness: impl MapperHarness) {
    let (bench, device) = (Bench::of(&harness).await, harness.device("one"));
    bench.serve(&device).await;
    bench.write_soon(&device.id, NUMBER, 5).await;
    bench.until_read(&device.id, NUMBER, 5).await;
    let mut expected = Vec::new();
    for property in &device.properties {
        let name = property.model.name.as_str();
        expected.push((name, bench.read_soon(&device.id, name).await));
    }
    bench.clear();
    for _ in 0..3 {
        harness.stall(&device.id).await;
        while bench.mapper.read(&device.id, FIXED).await.is_ok() {}
        harness.answer(&device.id).await;
        for (name, value) in &expected {
            assert_eq!(bench.read_soon(&device.id, name).await, *value, "{name} after a late answer");
        }
    }
    let heard = bench.seen.heard.lock();
    for (name, value) in &expected {
        let wrong =
            heard.readings.iter().find(|reading| reading.property == *name && reading.value != *value);
        assert!(wrong.is_none(), "{value:?} reported as {wrong:?}");
    }
}

/// Values of one property arrive in the order in which they were taken.
pub async fn values_of_a_property_arrive_in_order(harness: impl MapperHarness) {
    let (bench, device) = (Bench::of(&harness).await, harness.device("one"));
    bench.serve(&device).await;
    bench.write_soon(&device.id, NUMBER, 0).await;
    bench.until_read(&device.id, NUMBER, 0).await;
    bench.clear();
    for value in 1..=20 {
        bench.write_soon(&device.id, NUMBER, value).await;
    }
    bench.until_read(&device.id, NUMBER, 20).await;
    let heard = bench.seen.heard.lock();
    let values = heard.readings.iter().filter(|reading| reading.property == NUMBER);
    let values: Vec<i64> =
        values.filter_map(|r| if let Value::Int(value) = r.value { Some(value) } else { None }).collect();
    assert!(values.is_sorted(), "{values:?}");
}

/// Closing lets go of everything, and may be done twice.
pub async fn closing_lets_go_of_all_devices(harness: impl MapperHarness) {
    let (bench, device) = (Bench::of(&harness).await, harness.device("one"));
    bench.serve(&device).await;
    bench.until_state(&device.id, DeviceState::Online).await;
    bench.mapper.close().await;
    bench.mapper.close().await;
    bench.clear();
    refused(bench.mapper.read(&device.id, NUMBER).await, DriverKind::NotFound, "one");
    assert!(bench.seen.heard.lock().readings.is_empty(), "a closed mapper reported");
}

/// Makes a test of every case; the argument is a future that gives a fresh [`MapperHarness`].
#[macro_export]
macro_rules! mapper_conformance {
    ($make:expr) => {
        $crate::mapper_conformance!(@cases $make;
            a_wrong_config_is_refused_naming_the_field
            a_wrong_visitor_is_refused_naming_the_field
            every_property_of_a_device_is_reported
            a_device_that_answers_is_online
            a_written_value_is_read_back
            a_changed_value_is_reported
            an_unchanged_value_is_reported_every_cycle
            a_read_only_property_is_not_written
            a_value_beyond_its_range_is_not_written
            a_value_of_the_wrong_type_is_not_written
            an_unknown_property_is_not_found
            an_unknown_device_is_not_found
            an_unreachable_device_is_offline_until_it_comes
            a_lost_device_is_served_again_when_it_is_back
            a_desired_value_is_written_and_reported
            an_updated_desired_value_is_written
            a_desired_value_waits_for_its_device
            a_desired_value_beyond_its_range_makes_the_device_unhealthy
            registering_twice_is_an_update
            updating_an_unknown_device_registers_it
            a_wrong_update_leaves_the_old_description_in_force
            a_removed_device_is_unknown_and_silent
            a_removed_device_can_come_back
            a_device_that_is_away_delays_no_other
            a_late_answer_is_no_other_propertys_value
            values_of_a_property_arrive_in_order
            closing_lets_go_of_all_devices
        );
    };
    (@cases $make:expr; $($case:ident)*) => { $(
        #[::tokio::test(flavor = "multi_thread", worker_threads = 2)]
        async fn $case() {
            $crate::conformance::mapper::$case($make.await).await;
        }
    )* };
}
