//! Rows of the layout of old are taken over into today's.
//!
//! Up to now the copy was one bucket by resource, `namespace/kind/name`, as Go's table `meta` has it; rows of
//! Go's database are copied there when its file is opened for the first time. Each batch moves some rows:
//! what is taken away in one place stands in the other in the same commit, so that a process that dies goes
//! on where it was. A bucket that is empty is one that was taken over.

use bytes::Bytes;
use futures::TryStreamExt;
use kubeedge_core::{
    message::resource::ObjectPath,
    store::{Batch, Bucket, Key, MetaStore, Scan, StoreError},
};

use super::{
    head::Head,
    key::ObjectKey,
    objects::{key, token_key},
};

/// Rows by KubeEdge's resources, as Go's table `meta` and the first layout of this copy have them. Rows that
/// are put here before MetaManager is first used are taken over into [`super::BUCKET`].
pub const BY_RESOURCE: Bucket = Bucket("meta");

/// Rows that are moved in one commit.
const MAX_ROWS: usize = 256;
/// Bytes of values that are moved in one commit, except for a single row.
const MAX_BYTES: usize = 4 << 20;

/// Where a row belongs today.
fn place_of(resource: &str, value: &[u8]) -> Key {
    let token = |rest: &str| {
        let (namespace, rest) = rest.split_once("/serviceaccounttoken/")?;
        let (account, request) = rest.split_once('?')?;
        (!namespace.contains('/')).then(|| token_key(namespace, account, request))
    };
    token(resource).unwrap_or_else(|| {
        let is_path = ObjectPath::parse(resource).is_some();
        let stated = is_path.then(|| Head::of(value).group).flatten();
        key(&ObjectKey::of_object(resource, stated.as_deref(), false))
    })
}

/// Moves all rows. May be run again whatever became of an earlier run.
pub(super) async fn run(store: &dyn MetaStore) -> Result<(), StoreError> {
    let moved = move_rows(store, MAX_ROWS, MAX_BYTES).await?;
    if moved > 0 {
        tracing::info!(rows = moved, "rows of MetaManager have their keys by group, kind and namespace now");
    }
    Ok(())
}

async fn move_rows(store: &dyn MetaStore, max_rows: usize, max_bytes: usize) -> Result<usize, StoreError> {
    let mut rows = store.scan(Scan::new(BY_RESOURCE, ""));
    let (mut waiting, mut bytes, mut moved) = (Vec::new(), 0, 0);
    while let Some(row) = rows.try_next().await? {
        if waiting.len() >= max_rows || bytes + row.value.len() > max_bytes {
            moved += commit(store, std::mem::take(&mut waiting)).await?;
            bytes = 0;
        }
        bytes += row.value.len();
        waiting.push((row.key, row.value));
    }
    Ok(moved + commit(store, waiting).await?)
}

/// Moves some rows. What is deleted first makes room for what is put, also where a store is full.
async fn commit(store: &dyn MetaStore, rows: Vec<(Key, Bytes)>) -> Result<usize, StoreError> {
    let count = rows.len();
    if count == 0 {
        return Ok(0);
    }
    let deletes = rows.iter().fold(Batch::new(), |batch, (row, _)| batch.delete(row.clone()));
    let puts = rows.into_iter().map(|(row, value)| (place_of(&row.name, &value), value));
    store.commit(puts.fold(deletes, |batch, (place, value)| batch.put(place, value))).await?;
    Ok(count)
}

#[cfg(test)]
mod tests;
