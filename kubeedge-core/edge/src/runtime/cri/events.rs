//! Hints that containers changed, from runtimes that give them: containerd 1.7 and newer, CRI-O 1.26 and newer.

use std::time::Duration;

use futures::{
    StreamExt,
    stream::{self, BoxStream},
};
use kubeedge_core::{
    failure::chain,
    runtime::{ContainerId, Event, RuntimeKind},
};
use tonic::Streaming;

use super::{
    client::{Client, EVENTS},
    messages as cri,
};

/// How long to wait before following again after the runtime went away.
const AGAIN: Duration = Duration::from_secs(1);

/// Follows the runtime's events across its restarts. Ends when the runtime has none.
pub(crate) fn follow(client: Client) -> BoxStream<'static, Event> {
    let events = stream::unfold((client, None), |(client, mut open)| async move {
        loop {
            let stream = match &mut open {
                Some(stream) => stream,
                none => none.insert(begin(&client).await?),
            };
            match stream.message().await {
                Ok(Some(event)) => {
                    let event = Event { container: ContainerId(event.container_id) };
                    return Some((event, (client, open)));
                }
                Ok(None) | Err(_) => {
                    open = None;
                    tokio::time::sleep(AGAIN).await;
                }
            }
        }
    });
    events.boxed()
}

/// The stream of events, once the runtime answers; `None` when it has none.
async fn begin(client: &Client) -> Option<Streaming<cri::ContainerEvent>> {
    loop {
        match client.follow(EVENTS, cri::Empty {}).await {
            Ok(stream) => return Some(stream),
            Err(error) if error.kind() == RuntimeKind::Unsupported => {
                tracing::debug!(error = %chain(&error), "the runtime has no container events: looking regularly instead");
                return None;
            }
            Err(_) => tokio::time::sleep(AGAIN).await,
        }
    }
}
