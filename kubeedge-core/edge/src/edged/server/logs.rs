//! `/containerLogs`: which log, which part of it, and the kubelet's words when there is none.

use std::path::PathBuf;

use futures::StreamExt;
use http::{HeaderValue, StatusCode, header};
use http_body_util::{BodyExt, StreamBody};
use k8s_openapi::{
    api::core::v1::{ContainerStatus, Pod},
    jiff::{SignedDuration, Timestamp},
};
use kubeedge_common::http::Query;
use kubeedge_core::{
    failure::{BoxError, chain},
    runtime::{Container, ContainerState},
};

use super::{
    Answer, Local, Refusal,
    cri_log::{Printer, Show, Wanted},
    tail::{Follow, Log},
};
use crate::edged::view::{PodView, init_containers, main_containers};

/// What of a log is asked for.
#[derive(Debug)]
struct Options {
    follow: bool,
    previous: bool,
    tail: Option<u64>,
    show: Show,
}

impl Options {
    fn read(query: &Query, now: Timestamp) -> Result<Self, Refusal> {
        let tail = match query.first("tail") {
            Some("all") => None,
            // An older name of the same.
            Some(lines) => Some(number(lines)?),
            None => query.first("tailLines").map(number).transpose()?,
        };
        let limit = query.first("limitBytes").map(number).transpose()?;
        let seconds = query.first("sinceSeconds").map(number).transpose()?;
        let time = query.first("sinceTime").map(|time| time.parse::<Timestamp>().map_err(|_| undecodable()));
        let time = time.transpose()?;
        let wanted = match query.first("stream") {
            None | Some("" | "All") => Wanted::All,
            Some("Stdout") => Wanted::Stdout,
            Some("Stderr") => Wanted::Stderr,
            Some(_) => return Err(invalid()),
        };
        let wrong = tail.is_some_and(|lines| lines < 0)
            || limit.is_some_and(|bytes| bytes < 1)
            || seconds.is_some_and(|seconds| seconds < 1)
            || (seconds.is_some() && time.is_some())
            || (tail.is_some() && wanted != Wanted::All);
        if wrong {
            return Err(invalid());
        }
        let ago = |seconds| now.checked_sub(SignedDuration::from_secs(seconds)).unwrap_or(Timestamp::MIN);
        let since = time.or_else(|| seconds.map(ago));
        let limit = limit.and_then(|bytes| u64::try_from(bytes).ok());
        Ok(Self {
            follow: query.is_set("follow"),
            previous: query.is_set("previous"),
            tail: tail.and_then(|lines| u64::try_from(lines).ok()),
            show: Show { since, timestamps: query.is_set("timestamps"), limit, wanted },
        })
    }
}

fn number(text: &str) -> Result<i64, Refusal> {
    text.parse().map_err(|_| undecodable())
}

fn undecodable() -> Refusal {
    Refusal::new(StatusCode::BAD_REQUEST, r#"{"message": "Unable to decode query."}"#)
}

fn invalid() -> Refusal {
    Refusal::new(StatusCode::UNPROCESSABLE_ENTITY, r#"{"message": "Invalid request."}"#)
}

/// Answers with the log of a container.
pub(super) async fn logs(local: &Local, parts: [&str; 3], query: &Query) -> Answer {
    let [namespace, name, container] = parts;
    let missing = || Refusal::new(StatusCode::NOT_FOUND, format!("pod {name:?} does not exist"));
    let pod = local.pods.find(namespace, name, None).ok_or_else(missing)?;
    if !has_container(&pod, container) {
        let why = format!("container {container:?} not found in pod {name:?}");
        return Err(Refusal::new(StatusCode::NOT_FOUND, why));
    }
    let options = Options::read(query, local.now())?;
    let view = local.view(&pod).await?;
    let chosen = choose(&pod, &view, container, options.previous)
        .map_err(|why| Refusal::new(StatusCode::BAD_REQUEST, why))?;
    let path = path(local, &pod, chosen);
    let running = chosen.state.is_running();
    let follow = (options.follow && running)
        .then(|| Follow { runtime: local.runtime.clone(), container: chosen.id.clone() });
    let opened = Log::open(&path, options.tail, Printer::new(options.show), follow).await;
    let log = opened.map_err(|error| {
        let why = format!("failed to open log file {:?}: {error}", path.display().to_string());
        Refusal::new(StatusCode::BAD_REQUEST, why)
    })?;
    let frames = log.text().map(|text| text.map(http_body::Frame::data).map_err(BoxError::from));
    let mut response = http::Response::new(BodyExt::boxed_unsync(StreamBody::new(frames)));
    response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static("text/plain"));
    Ok(response)
}

/// Whether the pod has a container of this name, of whatever kind.
pub(super) fn has_container(pod: &Pod, name: &str) -> bool {
    let short_lived = pod.spec.iter().flat_map(|spec| spec.ephemeral_containers.iter().flatten());
    main_containers(pod).chain(init_containers(pod)).any(|container| container.name == name)
        || short_lived.into_iter().any(|container| container.name == name)
}

/// Where the runtime writes a container's log; where Edged told it to when the runtime does not say.
fn path(local: &Local, pod: &Pod, container: &Container) -> PathBuf {
    if container.log_path.is_absolute() {
        return container.log_path.clone();
    }
    let part = |text: &Option<String>| text.clone().unwrap_or_default();
    let meta = &pod.metadata;
    let folder = format!("{}_{}_{}", part(&meta.namespace), part(&meta.name), part(&meta.uid));
    let file = format!("{}.log", container.attempt);
    local.settings.logs.join(folder).join(&container.name).join(file)
}

fn status_of<'a>(pod: &'a Pod, container: &str) -> Option<&'a ContainerStatus> {
    let status = pod.status.as_ref()?;
    let lists =
        [&status.container_statuses, &status.init_container_statuses, &status.ephemeral_container_statuses];
    lists.into_iter().flatten().flatten().find(|status| status.name == container)
}

fn has_ended(container: &Container) -> bool {
    matches!(container.state, ContainerState::Exited { .. })
}

/// The container whose log is meant, or why there is none, in the kubelet's words.
fn choose<'a>(pod: &Pod, view: &'a PodView, name: &str, previous: bool) -> Result<&'a Container, String> {
    let pod_name = pod.metadata.name.as_deref().unwrap_or_default();
    let waiting = status_of(pod, name).and_then(|status| status.state.as_ref()?.waiting.as_ref());
    let mut ended = view.containers.iter().rev().filter(|found| found.name == name && has_ended(found));
    let latest = view.latest(name);
    if previous {
        // While a container waits for its restart, the one that ended last is the previous one.
        let skipped = latest.is_some_and(has_ended) && waiting.is_none();
        let found = if skipped { ended.nth(1) } else { ended.next() };
        return found
            .ok_or_else(|| format!("previous terminated container {name:?} in pod {pod_name:?} not found"));
    }
    if let Some(latest) = latest.filter(|found| found.state.is_running() || has_ended(found)) {
        return Ok(latest);
    }
    if let Some(before) = ended.next() {
        return Ok(before);
    }
    let why = match waiting.and_then(|waiting| waiting.reason.as_deref()) {
        Some("ErrImagePull") => "image can't be pulled",
        Some("ImagePullBackOff") => "trying and failing to pull image",
        Some(reason) => reason,
        None if status_of(pod, name).is_none() => {
            return Err(format!("container {name:?} in pod {pod_name:?} is not available"));
        }
        None => "ContainerCreating",
    };
    Err(format!("container {name:?} in pod {pod_name:?} is waiting to start: {why}"))
}

/// The running container that is meant for a command.
pub(super) async fn running(local: &Local, pod: &Pod, name: &str) -> Result<Container, Refusal> {
    let view = local.view(pod).await?;
    let found = view.latest(name).filter(|container| container.state.is_running()).cloned();
    found.ok_or_else(|| Refusal::new(StatusCode::NOT_FOUND, format!("container not found ({name:?})")))
}

impl Local {
    /// What the runtime holds of a pod now.
    async fn view(&self, pod: &Pod) -> Result<PodView, Refusal> {
        let listed = self.runtime.list_all().await;
        let (sandboxes, containers) = listed.map_err(|error| {
            let why = format!("the container runtime does not answer: {}", chain(&error));
            Refusal::new(StatusCode::INTERNAL_SERVER_ERROR, why)
        })?;
        let uid = pod.metadata.uid.as_deref().unwrap_or_default();
        Ok(crate::edged::view::by_pod(sandboxes, containers).remove(uid).unwrap_or_default())
    }
}

#[cfg(test)]
mod tests {
    use kubeedge_core::{message::Millis, runtime::ContainerId};
    use serde_json::json;

    use super::*;

    fn pod(state: serde_json::Value) -> Pod {
        serde_json::from_value(json!({
            "metadata": {"name": "web", "namespace": "default", "uid": "u"},
            "spec": {"containers": [{"name": "c"}]},
            "status": {"containerStatuses": [{"name": "c", "image": "i", "imageID": "", "ready": false, "restartCount": 0, "state": state}]},
        }))
        .unwrap()
    }

    fn container(attempt: u32, state: ContainerState) -> Container {
        let mut container: Container = serde_json::from_value(json!({
            "id": format!("c{attempt}"), "sandbox": "s", "name": "c", "attempt": attempt, "image": "i", "image_id": "",
            "state": "Created", "created_at": 0, "log_path": "", "labels": {}, "annotations": {},
        }))
        .unwrap();
        container.state = state;
        container
    }

    fn exited() -> ContainerState {
        let (started_at, finished_at) = (Millis(1), Millis(2));
        let (reason, message) = (String::new(), String::new());
        ContainerState::Exited { started_at, finished_at, code: 1, reason, message }
    }

    fn chosen(
        state: serde_json::Value,
        containers: Vec<Container>,
        previous: bool,
    ) -> Result<String, String> {
        let view = PodView { sandboxes: Vec::new(), containers };
        choose(&pod(state), &view, "c", previous).map(|found| found.id.0.clone())
    }

    #[test]
    fn the_log_is_that_of_the_newest_start_or_of_the_one_before() {
        let running = || ContainerState::Running { started_at: Millis(3) };
        let both = || vec![container(0, exited()), container(1, running())];
        assert_eq!(chosen(json!({"running": {}}), both(), false).unwrap(), "c1");
        assert_eq!(chosen(json!({"running": {}}), both(), true).unwrap(), "c0");
        let crashed = || vec![container(0, exited()), container(1, exited())];
        let backing_off = json!({"waiting": {"reason": "CrashLoopBackOff"}});
        assert_eq!(chosen(backing_off.clone(), crashed(), false).unwrap(), "c1");
        assert_eq!(chosen(backing_off, crashed(), true).unwrap(), "c1");
        assert_eq!(chosen(json!({"terminated": {"exitCode": 1}}), crashed(), true).unwrap(), "c0");
        let created = vec![container(0, exited()), container(1, ContainerState::Created)];
        assert_eq!(chosen(json!({"waiting": {}}), created, false).unwrap(), "c0");
        let id = ContainerId::from("c0");
        assert_eq!(container(0, exited()).id, id);
    }

    #[test]
    fn a_log_that_is_not_there_is_refused_in_the_kubelets_words() {
        let waiting = |reason: &str| json!({"waiting": {"reason": reason}});
        assert_eq!(
            chosen(waiting("ContainerCreating"), Vec::new(), false).unwrap_err(),
            r#"container "c" in pod "web" is waiting to start: ContainerCreating"#
        );
        assert_eq!(
            chosen(waiting("ImagePullBackOff"), Vec::new(), false).unwrap_err(),
            r#"container "c" in pod "web" is waiting to start: trying and failing to pull image"#
        );
        assert_eq!(
            chosen(json!({"running": {}}), Vec::new(), true).unwrap_err(),
            r#"previous terminated container "c" in pod "web" not found"#
        );
    }

    #[test]
    fn options_out_of_range_or_unreadable_are_refused_as_kubernetes_does() {
        let status = |query: &str| {
            Options::read(&Query::read(query), Timestamp::UNIX_EPOCH).map_err(|refusal| refusal.status)
        };
        for bad in ["tailLines=x", "sinceTime=yesterday"] {
            assert_eq!(status(bad).unwrap_err(), StatusCode::BAD_REQUEST, "{bad}");
        }
        for bad in
            ["tailLines=-1", "limitBytes=0", "sinceSeconds=0", "stream=Stdin", "stream=Stdout&tailLines=1"]
        {
            assert_eq!(status(bad).unwrap_err(), StatusCode::UNPROCESSABLE_ENTITY, "{bad}");
        }
        let options = status("tailLines=3&sinceSeconds=10&follow=true&limitBytes=9").unwrap();
        assert_eq!((options.tail, options.show.limit, options.follow), (Some(3), Some(9), true));
        assert_eq!(options.show.since.unwrap().as_second(), -10);
        assert_eq!(status("tail=all").unwrap().tail, None);
    }
}
