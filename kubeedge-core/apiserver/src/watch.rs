//! Watches: the history from a version on, as a stream of events.

use std::{collections::VecDeque, sync::Arc, time::Duration};

use bytes::Bytes;
use futures::{Stream, stream};
use http_body::Frame;
use kubeedge_core::failure::BoxError;
use serde_json::{Value, json};

use tokio::{sync::watch, time::Instant};

use super::{
    Server,
    kinds::Kind,
    object::Object,
    selectors::Selector,
    status::Refusal,
    storage::{Change, Happened, ObjectKey, TooOld},
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
/// How many changes are read from the history at once.
const CHUNK: usize = 64;

/// What is watched, and how it is shown.
#[derive(Debug)]
pub(super) struct Watch {
    pub kind: Kind,
    pub key: ObjectKey,
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
    server: Arc<Server>,
    watch: Watch,
    newest: watch::Receiver<u64>,
    version: u64,
    ready: VecDeque<Bytes>,
    end: Instant,
    bookmark: Instant,
    over: bool,
    headed: bool,
}

/// The events of a watch.
pub(super) fn events(
    server: Arc<Server>,
    watch: Watch,
) -> Result<impl Stream<Item = Result<Frame<Bytes>, BoxError>> + Send + 'static, Refusal> {
    let newest = server.storage.subscribe_to(&watch.key.group, &watch.key.plural);
    let asked: Option<u64> = match watch.version.as_str() {
        "" | "0" => None,
        number => Some(
            number
                .parse()
                .map_err(|_| Refusal::bad_request(format!("invalid resource version {number:?}")))?,
        ),
    };
    let from_start = watch.initial || asked.is_none();
    let now = Instant::now();
    let seconds = if watch.seconds == 0 { DEFAULT_SECONDS } else { watch.seconds.min(LONGEST_SECONDS) };
    let end = now + Duration::from_secs(seconds);
    let mut cursor = Cursor {
        version: asked.unwrap_or(0),
        end,
        bookmark: next_bookmark(now, end),
        ready: VecDeque::new(),
        over: false,
        headed: false,
        server,
        watch,
        newest,
    };
    if from_start {
        cursor.begin();
    }
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
    fn begin(&mut self) {
        let key = &self.watch.key;
        let (objects, version) = self.server.storage.list(&key.group, &key.plural, &key.namespace);
        self.version = version;
        for object in objects {
            if self.watch.selector.matches(&object) {
                let line = self.line("ADDED", &object, || object.to_string().into());
                self.ready.push_back(line);
            }
        }
        if self.watch.initial {
            self.ready.push_back(self.bookmark_line(true));
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
            self.newest.borrow_and_update();
            self.read();
            if !self.ready.is_empty() || self.over {
                continue;
            }
            tokio::select! {
                changed = self.newest.changed() => if changed.is_err() { return None },
                () = tokio::time::sleep_until(self.end) => return None,
                () = tokio::time::sleep_until(self.bookmark), if self.watch.bookmarks => {
                    self.bookmark = next_bookmark(Instant::now(), self.end);
                    // Other kinds have gone on meanwhile.
                    self.read();
                    self.ready.push_back(self.bookmark_line(false));
                }
            }
        }
    }

    fn read(&mut self) {
        loop {
            let key = &self.watch.key;
            let read = self.server.storage.since_of(&key.group, &key.plural, self.version, CHUNK);
            let (changes, up_to) = match read {
                Ok(read) => read,
                Err(TooOld) => {
                    // The client was too slow; it must list again.
                    self.over = true;
                    let error = json!({"type": "ERROR", "object": Refusal::expired().to_json()});
                    self.ready.push_back(lined(&error));
                    return;
                }
            };
            self.version = up_to;
            if changes.is_empty() {
                return;
            }
            for change in &changes {
                if let Some(kind) = self.concerns(change) {
                    let line = self.line(kind, &change.object, || change.text().clone());
                    self.ready.push_back(line);
                }
            }
            if !self.ready.is_empty() {
                return;
            }
        }
    }

    /// What a change is to this watcher: an object that begins or ceases to match is added or deleted for it.
    fn concerns(&self, change: &Change) -> Option<&'static str> {
        let key = &self.watch.key;
        if !key.namespace.is_empty() && key.namespace != change.key.namespace {
            return None;
        }
        let selector = &self.watch.selector;
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
    fn line(&mut self, kind: &str, object: &Value, text: impl FnOnce() -> Bytes) -> Bytes {
        match self.shown(object) {
            Some(shown) => lined_object(kind, &shown),
            None => lined_text(kind, &text()),
        }
    }

    /// What is shown of an object; `None` for the object as it is.
    fn shown(&mut self, object: &Value) -> Option<Value> {
        let Some(include) = &self.watch.table else {
            return self.watch.metadata.then(|| {
                json!({"kind": "PartialObjectMetadata", "apiVersion": "meta.k8s.io/v1", "metadata": object.copy(&["metadata"])})
            });
        };
        let now = self.server.storage.moment();
        let version = self.version.to_string();
        let mut shown = table(&self.watch.kind, &[object], now, &version, include);
        // Kubernetes tells the columns once.
        if std::mem::replace(&mut self.headed, true) {
            shown.set(&["columnDefinitions"], Value::Null);
        }
        Some(shown)
    }

    fn bookmark_line(&self, initial: bool) -> Bytes {
        let mut meta = json!({"resourceVersion": self.version.to_string(), "creationTimestamp": null});
        if initial {
            meta.set(&["annotations"], json!({"k8s.io/initial-events-end": "true"}));
        }
        let kind = &self.watch.kind;
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
