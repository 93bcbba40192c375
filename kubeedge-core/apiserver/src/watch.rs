//! Watches: the history from a version on, as a stream of events.

use std::{collections::VecDeque, sync::Arc, time::Duration};

use bytes::Bytes;
use futures::{Stream, stream};
use http_body::Frame;
use kubeedge_core::failure::BoxError;
use serde_json::{Value, json};
use tokio::time::Instant;

use super::{
    key::Collection,
    kinds::Kind,
    object::Object,
    registry::Registry,
    selectors::Selector,
    status::Refusal,
    storage::{Change, Happened, ListQuery, StorageError, StorageKind, Watcher},
    table::table,
};

/// How often a watcher that wants bookmarks gets one.
const BOOKMARK: Duration = Duration::from_secs(60);
/// How long before its end a watch brings its last bookmark, so that the next one starts from there.
const BEFORE_END: Duration = Duration::from_secs(2);
/// How long a watch lasts when its client does not say.
const DEFAULT_SECONDS: u64 = 1800;
/// How long a watch lasts at most, whatever its client says.
const LONGEST_SECONDS: u64 = 86_400;
/// What is watched, and how it is shown.
#[derive(Debug)]
pub(super) struct WatchRequest {
    pub kind: Kind,
    pub collection: Collection,
    pub selector: Selector,
    /// Whether tables are wanted, and with how much of the object in each row.
    pub table: Option<String>,
    pub metadata: bool,
    pub version: String,
    pub bookmarks: bool,
    pub initial: bool,
    pub seconds: u64,
}

struct Cursor {
    registry: Arc<Registry>,
    request: WatchRequest,
    watcher: Box<dyn Watcher>,
    ready: VecDeque<Bytes>,
    end: Instant,
    bookmark: Instant,
    over: bool,
    headed: bool,
}

/// The events of a watch.
pub(super) async fn events(
    registry: Arc<Registry>,
    request: WatchRequest,
) -> Result<impl Stream<Item = Result<Frame<Bytes>, BoxError>> + Send + 'static, Refusal> {
    let asked: Option<u64> = match request.version.as_str() {
        "" | "0" => None,
        number => Some(
            number
                .parse()
                .map_err(|_| Refusal::bad_request(format!("invalid resource version {number:?}")))?,
        ),
    };
    let (there, version) = match asked.filter(|_| !request.initial) {
        Some(version) => (Vec::new(), version),
        None => {
            let query = ListQuery::all(request.collection.clone()).matching(request.selector.clone());
            let listed = registry.list(&query).await?;
            (listed.objects, listed.version)
        }
    };
    let watcher = registry.watch(&request.collection, version).await?;
    let now = Instant::now();
    let seconds = if request.seconds == 0 { DEFAULT_SECONDS } else { request.seconds.min(LONGEST_SECONDS) };
    let end = now + Duration::from_secs(seconds);
    let mut cursor = Cursor {
        end,
        bookmark: next_bookmark(now, end),
        ready: VecDeque::new(),
        over: false,
        headed: false,
        registry,
        request,
        watcher,
    };
    cursor.begin(&there, version);
    Ok(stream::unfold(cursor, |mut cursor| async move {
        let bytes = cursor.next().await?;
        Some((Ok(Frame::data(bytes)), cursor))
    }))
}

fn next_bookmark(now: Instant, end: Instant) -> Instant {
    let last = end.checked_sub(BEFORE_END).filter(|last| *last > now);
    last.map_or(now + BOOKMARK, |last| last.min(now + BOOKMARK))
}

impl Cursor {
    /// What there is already, as additions.
    fn begin(&mut self, there: &[Arc<Value>], version: u64) {
        for object in there {
            let line = self.line("ADDED", object, version, || object.to_string().into());
            self.ready.push_back(line);
        }
        if self.request.initial {
            self.ready.push_back(self.bookmark_line(version, true));
        }
    }

    async fn next(&mut self) -> Option<Bytes> {
        loop {
            if let Some(line) = self.ready.pop_front() {
                return Some(line);
            }
            if self.over {
                return None;
            }
            tokio::select! {
                changes = self.watcher.next() => self.take(changes),
                () = tokio::time::sleep_until(self.end) => return None,
                () = tokio::time::sleep_until(self.bookmark), if self.request.bookmarks => {
                    self.bookmark = next_bookmark(Instant::now(), self.end);
                    let version = self.watcher.version();
                    self.ready.push_back(self.bookmark_line(version, false));
                }
            }
        }
    }

    fn take(&mut self, changes: Result<Vec<Arc<Change>>, StorageError>) {
        match changes {
            Ok(changes) => {
                for change in &changes {
                    if let Some(kind) = self.concerns(change) {
                        let line = self.line(kind, &change.object, change.version, || change.text().clone());
                        self.ready.push_back(line);
                    }
                }
            }
            Err(error) => {
                self.over = true;
                // The client was too slow; it must list again. All else ends the watch as time does.
                if error.kind() == StorageKind::Expired {
                    let error = json!({"type": "ERROR", "object": Refusal::expired().to_json()});
                    self.ready.push_back(lined(&error));
                } else {
                    tracing::debug!(error = %error, "a watch ended early");
                }
            }
        }
    }

    /// What a change is to this watcher: an object that begins or ceases to match is added or deleted for it.
    fn concerns(&self, change: &Change) -> Option<&'static str> {
        let selector = &self.request.selector;
        let did =
            change.before.as_deref().is_some_and(|before| selector.is_empty() || selector.matches(before));
        let does = change.happened != Happened::Deleted && selector.matches(&change.object);
        match (did, does) {
            (false, true) => Some("ADDED"),
            (true, true) => Some("MODIFIED"),
            (true, false) => Some("DELETED"),
            (false, false) => None,
        }
    }

    /// An event; `text` makes the JSON of an object that is shown as it is.
    fn line(&mut self, kind: &str, object: &Value, version: u64, text: impl FnOnce() -> Bytes) -> Bytes {
        match self.shown(object, version) {
            Some(shown) => lined_object(kind, &shown),
            None => lined_text(kind, &text()),
        }
    }

    /// What is shown of an object; `None` for the object as it is.
    fn shown(&mut self, object: &Value, version: u64) -> Option<Value> {
        let Some(include) = &self.request.table else {
            return self.request.metadata.then(|| {
                json!({"kind": "PartialObjectMetadata", "apiVersion": "meta.k8s.io/v1", "metadata": object.copy(&["metadata"])})
            });
        };
        let now = self.registry.moment();
        let mut shown = table(&self.request.kind, &[object], now, &version.to_string(), include);
        // Kubernetes tells the columns once.
        if std::mem::replace(&mut self.headed, true) {
            shown.set(&["columnDefinitions"], Value::Null);
        }
        Some(shown)
    }

    fn bookmark_line(&self, version: u64, initial: bool) -> Bytes {
        let mut meta = json!({"resourceVersion": version.to_string(), "creationTimestamp": null});
        if initial {
            meta.set(&["annotations"], json!({"k8s.io/initial-events-end": "true"}));
        }
        let kind = &self.request.kind;
        lined_object(
            "BOOKMARK",
            &json!({"kind": kind.name(), "apiVersion": kind.api_version(), "metadata": meta}),
        )
    }
}

fn lined_object(kind: &str, object: &Value) -> Bytes {
    lined_text(kind, object.to_string().as_bytes())
}

/// The same for an object that is JSON already.
fn lined_text(kind: &str, object: &[u8]) -> Bytes {
    [br#"{"type":""#, kind.as_bytes(), br#"","object":"#, object, b"}\n"].concat().into()
}

fn lined(value: &Value) -> Bytes {
    format!("{value}\n").into()
}
