//! Hints that containers changed: from the interface where the runtime has them there (containerd 1.7 and
//! newer, CRI-O 1.26 and newer), else from containerd's own service, which listens on the same socket.

use std::time::Duration;

use futures::{
    FutureExt, StreamExt, TryStreamExt,
    stream::{self, BoxStream, FuturesUnordered},
};
use kubeedge_core::{
    failure::chain,
    runtime::{ContainerId, Event, RuntimeError, RuntimeKind},
};
use prost::Message;
use tokio::sync::mpsc;
use tokio_util::task::AbortOnDropHandle;
use tonic::Status;

use super::{
    client::{CONTAINERD_EVENTS, Client, EVENTS},
    messages::{GetEventsRequest, containerd},
};

/// How long to wait before following again after the runtime went away.
const AGAIN: Duration = Duration::from_secs(1);
/// How many hints wait for a slow reader. More say nothing that these do not: look.
const HINTS: usize = 64;
/// containerd tells its interface of an end and everyone else at the same time: a look at once is too early,
/// and the second hint is for when the first was too.
const DELAYS: [Duration; 2] = [Duration::from_millis(50), Duration::from_millis(500)];

type Ids = BoxStream<'static, Result<String, Status>>;

/// Follows the runtime's events from now on, across its restarts. Ends when the runtime has none.
pub(crate) fn follow(client: Client) -> BoxStream<'static, Event> {
    let (hints, mut hinted) = mpsc::channel(HINTS);
    // It ends with the stream.
    let following = AbortOnDropHandle::new(tokio::spawn(async move { pass_on(&client, &hints).await }));
    stream::poll_fn(move |context| {
        let _ = &following;
        hinted.poll_recv(context)
    })
    .boxed()
}

async fn pass_on(client: &Client, hints: &mpsc::Sender<Event>) {
    while let Some(mut ids) = begin(client).await {
        while let Some(Ok(id)) = ids.next().await {
            // A reader that is behind looks anyway.
            let _ = hints.try_send(Event::new(ContainerId(id)));
        }
        tokio::time::sleep(AGAIN).await;
    }
}

/// The containers that change, once the runtime answers; `None` when it does not tell.
async fn begin(client: &Client) -> Option<Ids> {
    loop {
        match open(client).await {
            Ok(ids) => return Some(ids),
            Err(error) if error.kind() == RuntimeKind::Unsupported => {
                tracing::debug!(error = %chain(&error), "the runtime does not tell of changes");
                return None;
            }
            Err(_) => tokio::time::sleep(AGAIN).await,
        }
    }
}

async fn open(client: &Client) -> Result<Ids, RuntimeError> {
    match client.follow(EVENTS, GetEventsRequest {}).await {
        Ok(events) => return Ok(events.map_ok(|event| event.container_id).boxed()),
        Err(error) if error.kind() != RuntimeKind::Unsupported => return Err(error),
        Err(_) => {}
    }
    let topics = "namespace==k8s.io,topic~=^/tasks/(start|exit|oom)$";
    let request = containerd::SubscribeRequest { filters: vec![topics.to_owned()] };
    let events = client.follow(CONTAINERD_EVENTS, request).await?;
    Ok(later(events.map_ok(about).boxed()))
}

/// The container a containerd event is about: the first field of each of these.
fn about(event: containerd::Envelope) -> String {
    let told = event.event.unwrap_or_default().value;
    containerd::TaskEvent::decode(told).unwrap_or_default().container_id
}

/// The same, after the delays.
fn later(ids: Ids) -> Ids {
    let state = (ids, FuturesUnordered::new());
    let delayed = stream::unfold(state, |(mut ids, mut waiting)| async move {
        loop {
            tokio::select! {
                Some(id) = waiting.next() => return Some((Ok(id), (ids, waiting))),
                next = ids.next() => match next? {
                    Ok(_) if waiting.len() >= HINTS => {}
                    Ok(id) => waiting.extend(DELAYS.map(|delay| {
                        let id = id.clone();
                        tokio::time::sleep(delay).map(move |()| id)
                    })),
                    Err(error) => return Some((Err(error), (ids, waiting))),
                },
            }
        }
    });
    delayed.boxed()
}
