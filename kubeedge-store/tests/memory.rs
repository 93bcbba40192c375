//! The memory store, under the kit every store must pass.

use std::sync::Arc;

use async_trait::async_trait;
use kubeedge_core::{conformance::store::StoreHarness, store::MetaStore};
use kubeedge_store::MemoryStore;

struct Direct(MemoryStore);

#[async_trait]
impl StoreHarness for Direct {
    type Store = MemoryStore;
    async fn open(&self) -> MemoryStore {
        self.0.reopened()
    }
    async fn open_after_crash(&self) -> MemoryStore {
        self.0.reopened()
    }
}

struct Shared(MemoryStore);

#[async_trait]
impl StoreHarness for Shared {
    type Store = Arc<dyn MetaStore>;
    async fn open(&self) -> Arc<dyn MetaStore> {
        Arc::new(self.0.reopened())
    }
    async fn open_after_crash(&self) -> Arc<dyn MetaStore> {
        Arc::new(self.0.reopened())
    }
}

mod direct {
    use super::*;
    kubeedge_core::meta_store_conformance!(async { Direct(MemoryStore::new()) });
}

mod shared {
    use super::*;
    kubeedge_core::meta_store_conformance!(async { Shared(MemoryStore::new()) });
}
