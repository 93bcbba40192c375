//! Where mappers leave their readings: the newest of each property waits for DeviceTwin to take it.

use std::collections::BTreeMap;

use async_trait::async_trait;
use kubeedge_core::device::{DeviceId, DeviceManager, DeviceState, Reading, ReportResult};
use parking_lot::Mutex;
use tokio::sync::Notify;

/// How many properties may wait; mappers wait beyond that.
const ROOM: usize = 65_536;

/// What waits to be taken.
#[derive(Debug, Default)]
pub(super) struct Reported {
    /// The newest reading of each device and property.
    pub(super) readings: BTreeMap<(String, String), Reading>,
    /// The newest state of each device.
    pub(super) states: BTreeMap<String, DeviceState>,
}

/// DeviceTwin as mappers see it.
#[derive(Debug, Default)]
pub(super) struct Intake {
    waiting: Mutex<Reported>,
    more: Notify,
    room: Notify,
}

impl Intake {
    /// Completes when there is something to take. Cancel-safe.
    pub(super) async fn ready(&self) {
        self.more.notified().await;
    }

    /// Takes everything.
    pub(super) fn take(&self) -> Reported {
        let reported = std::mem::take(&mut *self.waiting.lock());
        self.room.notify_waiters();
        reported
    }

    /// Leaves readings while there is room; the rest.
    fn offer(&self, readings: Vec<Reading>) -> Vec<Reading> {
        let mut waiting = self.waiting.lock();
        let mut rest = Vec::new();
        for reading in readings {
            let key = (reading.device.to_string(), reading.property.clone());
            if waiting.readings.len() < ROOM || waiting.readings.contains_key(&key) {
                waiting.readings.insert(key, reading);
            } else {
                rest.push(reading);
            }
        }
        self.more.notify_one();
        rest
    }
}

#[async_trait]
impl DeviceManager for Intake {
    async fn report(&self, mut readings: Vec<Reading>) -> ReportResult {
        loop {
            let room = self.room.notified();
            readings = self.offer(readings);
            if readings.is_empty() {
                return Ok(());
            }
            room.await;
        }
    }

    async fn report_state(&self, device: &DeviceId, state: DeviceState) -> ReportResult {
        self.waiting.lock().states.insert(device.to_string(), state);
        self.more.notify_one();
        Ok(())
    }
}
