//! Where the edge keeps what must survive a restart: implementations of
//! [`MetaStore`](kubeedge_core::store::MetaStore).
//!
//! | store | feature | when |
//! |---|---|---|
//! | [`SqliteStore`] | `sqlite` (default) | products: a file support can look into |
//! | [`RedbStore`] | `redb` | where no C may be linked |
//! | [`MemoryStore`] | | tests, simulations |
//! | [`FaultyStore`] | | tests of what must happen when storage fails |
//!
//! The stores on disk share their threads' design: commits that wait at the same time become one transaction
//! with one fsync, and each is answered after it. So a thousand callers at once commit ten times (SQLite) to
//! fifty times (redb) faster than one after the other, and the slower the disk's fsync the more;
//! `cargo bench -p kubeedge-store --all-features` has the numbers of a machine.
//!
//! ```
//! use kubeedge_core::store::{Batch, Bucket, Key, MetaStore, MetaStoreExt, Scan};
//! use kubeedge_store::MemoryStore;
//!
//! # #[tokio::main(flavor = "current_thread")]
//! # async fn main() -> Result<(), kubeedge_core::store::StoreError> {
//! const PODS: Bucket = Bucket("acme-pods");
//! let store = MemoryStore::new();
//! // Both or none; on disk when this returns, with a store that has a disk.
//! let batch = Batch::new().put(Key::new(PODS, "default/a"), "1").put(Key::new(PODS, "default/b"), "2");
//! store.commit(batch).await?;
//!
//! assert_eq!(store.reopened().list_as::<u32>(Scan::new(PODS, "default/")).await?, [1, 2]);
//! # Ok(()) }
//! ```

#[cfg(any(feature = "sqlite", feature = "redb"))]
mod actor;
mod check;
mod faulty;
mod memory;
#[cfg(feature = "redb")]
mod redb;
#[cfg(feature = "sqlite")]
mod sqlite;

pub use faulty::{Fault, FaultyStore};
pub use memory::MemoryStore;
#[cfg(feature = "redb")]
pub use redb::{RedbOptions, RedbStore};
#[cfg(feature = "sqlite")]
pub use sqlite::{SqliteOptions, SqliteStore};
