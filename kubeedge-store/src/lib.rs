//! Where the edge keeps what must survive a restart: implementations of
//! [`MetaStore`](kubeedge_core::store::MetaStore).
//!
//! | store | when |
//! |---|---|
//! | [`MemoryStore`] | tests, simulations |

mod check;
mod memory;

pub use memory::MemoryStore;
