//! Doors for fuzzers: what reads bytes of the cloud and of clients, without the sockets around it. No stable
//! interface.

use bytes::Bytes;
use futures::stream;
use k8s_openapi::api::core::v1::Pod;
use kubeedge_core::{
    message::{Message, Millis},
    runtime::{ExecSpec, Resize, TerminalSize},
};
use tokio::sync::Notify;
use tokio_tungstenite::tungstenite::{Error, Message as Frame};

use crate::{
    edged::{
        EdgedSettings, plan,
        server::{exec::Task, parts, remote},
        spec, status,
        view::PodView,
    },
    hub::dispatch,
    stream::request::Local,
};

/// The head of the request that a tunnel's connector becomes, if it becomes one: as for a command, and as for
/// a body.
pub fn tunnel_request(connector: &[u8]) -> Option<[Vec<u8>; 2]> {
    let command = Local::read(connector).ok()?;
    let body = Local::read(connector).ok()?.plain();
    Some([command.head(), body.head()])
}

/// What a command hears of its client's messages: its input, and the sizes of its terminal.
pub async fn channels(messages: Vec<Vec<u8>>, half_closes: bool) -> (Vec<u8>, Vec<(u16, u16)>) {
    let what = ExecSpec::default().stdin(true).tty(true);
    let task = Task { attach: false, what, stdout: true, stderr: false, half_closes };
    let total = messages.iter().map(Vec::len).sum::<usize>();
    let (input, mut heard) = tokio::io::duplex(total.max(1));
    let (resize, mut sizes) = Resize::channel();
    let frames = messages.into_iter().map(|data| Ok::<_, Error>(Frame::Binary(data.into())));
    let listening = async move {
        let (mut frames, idle) = (stream::iter(frames), Notify::new());
        remote::listen(&mut frames, &task, Some(Box::new(input)), &resize, &idle).await;
    };
    let sizing = async {
        let mut all = Vec::new();
        while let Some(TerminalSize { columns, rows }) = sizes.next().await {
            all.push((columns, rows));
        }
        all
    };
    let ((), all) = tokio::join!(listening, sizing);
    let mut text = Vec::new();
    // A pipe in memory does not fail.
    let _ = tokio::io::AsyncReadExt::read_to_end(&mut heard, &mut text).await;
    (text, all)
}

/// What the node's API reads of a path and a query.
pub fn request_line(path: &str, query: &str) -> (Vec<String>, Vec<String>) {
    let query = kubeedge_common::http::Query::read(query);
    let _ = query.is_set("follow");
    (parts(path), query.all("command").map(str::to_owned).collect())
}

/// Where a message of the cloud goes: the module, or nowhere.
pub fn target(message: &Message) -> Option<String> {
    let _ = dispatch::link_answer(message);
    match dispatch::target(message) {
        dispatch::Target::Module(module) => Some(module.as_str().to_owned()),
        dispatch::Target::Nobody(_) | dispatch::Target::Vendors => None,
    }
}

/// Reads a pod and plans for it as if nothing of it ran; whether it is one.
pub fn pod(content: &Bytes) -> bool {
    let Ok(pod) = serde_json::from_slice::<Pod>(content) else { return false };
    let now = Millis(1_800_000_000_000);
    let settings = EdgedSettings::default();
    let view = PodView::default();
    let _ = plan::plan(&pod, &view, &plan::Pauses::default(), now);
    let _ = spec::sandbox(&settings, &pod, 0);
    let _ = status::qos_class(&pod);
    true
}
