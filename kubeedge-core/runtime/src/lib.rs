//! Container runtimes: processes of the host, CRI, memory.

#[cfg(feature = "cri")]
pub mod cri;
pub mod log_format;
pub mod memory;
#[cfg(feature = "process")]
pub mod process;

use futures::{StreamExt, stream, stream::BoxStream};
use kubeedge_core::runtime::Event;
use tokio::sync::broadcast;

/// What happens from now on. A hint that comes too late is lost: others follow, and the regular look.
fn hints(from: &broadcast::Sender<Event>) -> BoxStream<'static, Event> {
    let hints = stream::unfold(from.subscribe(), |mut hints| async {
        loop {
            match hints.recv().await {
                Ok(hint) => return Some((hint, hints)),
                Err(broadcast::error::RecvError::Lagged(_)) => {}
                Err(broadcast::error::RecvError::Closed) => return None,
            }
        }
    });
    hints.boxed()
}
