//! Devices as they are kept: in memory for speed, in the store for good.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use async_trait::async_trait;
use futures::TryStreamExt;
use kubeedge_core::store::{Batch, Bucket, Change, Expect, Key, MetaStore, Scan, StoreError};
use serde::{Deserialize, Serialize};

use super::{
    rules::{TwinRow, Twins},
    wire::{Attribute, WireDevice},
};
use crate::meta::DeviceInventory;

/// A row for each device, under its id.
const DEVICES: Bucket = Bucket("device");
const TWINS: Bucket = Bucket("twin");

/// A device without its twins.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub(super) struct DeviceRow {
    pub(super) name: String,
    #[serde(default)]
    pub(super) description: String,
    #[serde(default)]
    pub(super) state: String,
    #[serde(default)]
    pub(super) last_online: String,
    #[serde(default)]
    pub(super) attributes: BTreeMap<String, Attribute>,
}

impl DeviceRow {
    /// As it stands in membership messages.
    pub(super) fn wire(&self, id: &str) -> WireDevice {
        WireDevice {
            id: id.to_owned(),
            name: self.name.clone(),
            description: self.description.clone(),
            state: self.state.clone(),
            last_online: self.last_online.clone(),
            attributes: self.attributes.clone(),
        }
    }
}

/// A device.
#[derive(Clone, Debug, Default)]
pub(super) struct Known {
    pub(super) row: DeviceRow,
    pub(super) twins: Twins,
}

/// All devices, and what of them is not in the store yet.
#[derive(Debug, Default)]
pub(super) struct Rows {
    devices: BTreeMap<String, Known>,
    /// The newest row of every key touched since the last commit.
    changes: BTreeMap<Key, Option<Vec<u8>>>,
    touched: BTreeSet<String>,
}

fn device_key(id: &str) -> Key {
    Key::new(DEVICES, id)
}

fn twin_key(id: &str, property: &str) -> Key {
    Key::new(TWINS, format!("{id}/{property}"))
}

impl Rows {
    /// Reads everything; a row that cannot be read is skipped and named in the log.
    pub(super) async fn load(store: &dyn MetaStore) -> Result<Self, StoreError> {
        let mut rows = Self::default();
        let mut devices = store.scan(Scan::new(DEVICES, ""));
        while let Some(entry) = devices.try_next().await? {
            if let Some(row) = read(&entry.key, &entry.value) {
                rows.devices.insert(entry.key.name, Known { row, twins: Twins::new() });
            }
        }
        let mut twins = store.scan(Scan::new(TWINS, ""));
        while let Some(entry) = twins.try_next().await? {
            let Some((id, property)) = split_twin(&entry.key.name) else { continue };
            if let (Some(known), Some(row)) = (rows.devices.get_mut(id), read(&entry.key, &entry.value)) {
                known.twins.insert(property.to_owned(), row);
            }
        }
        Ok(rows)
    }

    pub(super) fn get(&self, id: &str) -> Option<&Known> {
        self.devices.get(id)
    }

    pub(super) fn all(&self) -> impl Iterator<Item = (&String, &Known)> {
        self.devices.iter()
    }

    /// Sets a device's row; its twins stay.
    pub(super) fn put(&mut self, id: &str, row: DeviceRow) {
        self.note(id, device_key(id), Some(&row));
        self.devices.entry(id.to_owned()).or_default().row = row;
    }

    /// Sets twins of a known device.
    pub(super) fn put_twins(&mut self, id: &str, twins: Twins) {
        for (property, row) in &twins {
            self.note(id, twin_key(id, property), Some(row));
        }
        if let Some(known) = self.devices.get_mut(id) {
            known.twins.extend(twins);
        }
    }

    /// Forgets a device with all its twins; what it was.
    pub(super) fn remove(&mut self, id: &str) -> Option<Known> {
        let known = self.devices.remove(id)?;
        self.note::<DeviceRow>(id, device_key(id), None);
        for property in known.twins.keys() {
            self.note::<TwinRow>(id, twin_key(id, property), None);
        }
        Some(known)
    }

    fn note<T: Serialize>(&mut self, id: &str, key: Key, row: Option<&T>) {
        self.touched.insert(id.to_owned());
        // Rows have text keys only, so they can always be written as JSON.
        self.changes.insert(key, row.map(|row| serde_json::to_vec(row).unwrap_or_default()));
    }

    /// What is to be stored now; empty when nothing changed.
    pub(super) fn batch(&self) -> Batch {
        let change = |(key, row): (&Key, &Option<Vec<u8>>)| match row {
            Some(row) => Change::Put { key: key.clone(), value: row.clone().into(), expect: Expect::Any },
            None => Change::Delete { key: key.clone(), expect: Expect::Any },
        };
        Batch(self.changes.iter().map(change).collect())
    }

    /// The changes are stored.
    pub(super) fn stored(&mut self) {
        self.changes.clear();
        self.touched.clear();
    }

    /// The changes could not be stored: the touched devices are again what the store says.
    pub(super) async fn reload(&mut self, store: &dyn MetaStore) -> Result<(), StoreError> {
        let mut fresh = Self::load(store).await?;
        for id in std::mem::take(&mut self.touched) {
            match fresh.devices.remove(&id) {
                Some(known) => self.devices.insert(id, known),
                None => self.devices.remove(&id),
            };
        }
        self.changes.clear();
        Ok(())
    }
}

/// The devices of a store.
#[derive(Debug)]
pub(super) struct StoredDevices(pub(super) Arc<dyn MetaStore>);

#[async_trait]
impl DeviceInventory for StoredDevices {
    async fn devices(&self) -> Result<Vec<String>, StoreError> {
        self.0.scan(Scan::new(DEVICES, "")).map_ok(|row| row.key.name).try_collect().await
    }
}

/// `namespace/name/property`, where the property may hold slashes itself.
fn split_twin(key: &str) -> Option<(&str, &str)> {
    let (second, _) = key.match_indices('/').nth(1)?;
    Some((key.get(..second)?, key.get(second + 1..)?))
}

fn read<T: serde::de::DeserializeOwned>(key: &Key, value: &[u8]) -> Option<T> {
    let row = serde_json::from_slice(value);
    row.inspect_err(|error| tracing::error!(%key, %error, "unreadable row skipped")).ok()
}
