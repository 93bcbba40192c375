//! One worker per pod: takes it from what it is to what it should be, one planned step after the other.

use std::{collections::HashMap, io, sync::Arc, time::Duration};

use k8s_openapi::api::core::v1::{Pod, PodStatus};
use kubeedge_core::{
    clock::Clock,
    failure::chain,
    kernel::Shutdown,
    message::Millis,
    name::NodeName,
    runtime::{ContainerId, ContainerRuntime},
};
use tokio::sync::watch;

use super::{
    EdgedSettings,
    book::PodBook,
    env::PodFacts,
    events::Recorder,
    observer::Observer,
    plan::{Action, Pauses, plan},
    reporter::{Reporter, status_patch},
    spec::{log_folder, pod_folder},
    status::{Findings, Waiting, pod_status},
    view::{PodView, Views},
};
use crate::meta::Client;

/// How often a pod is looked at when nothing happens: the kubelet's syncFrequency. ConfigMap and Secret
/// volumes are brought up to date then.
const RESYNC: Duration = Duration::from_secs(60);
/// How soon a failed step is tried again.
const RETRY: Duration = Duration::from_secs(3);
/// Steps taken without looking at new wishes; more than any pod needs in one go.
const STEPS: usize = 64;

/// What all workers share.
#[derive(Debug)]
pub(crate) struct Shared {
    pub node: NodeName,
    pub clock: Clock,
    pub settings: EdgedSettings,
    pub runtime: Arc<dyn ContainerRuntime>,
    pub runtime_name: String,
    pub client: Client,
    pub observer: Observer,
    pub recorder: Recorder,
    pub reporter: Reporter,
    pub pods: PodBook,
    pub facts: PodFacts,
    /// Counts changes of ConfigMaps and Secrets, so that workers look at theirs again.
    pub references: watch::Sender<u64>,
}

/// What is wished of a pod.
#[derive(Clone, Debug)]
pub(crate) struct Wish {
    /// The pod as the cluster has it.
    pub pod: Arc<Pod>,
    /// Whether the cluster has forgotten it.
    pub removed: bool,
}

impl Wish {
    fn ends(&self) -> bool {
        self.removed || self.pod.metadata.deletion_timestamp.is_some()
    }
}

/// The worker of one pod.
#[derive(Debug)]
pub(crate) struct Worker {
    pub(super) shared: Arc<Shared>,
    pub(super) uid: String,
    wishes: watch::Receiver<Wish>,
    pub(super) pauses: Pauses,
    pub(super) failed_pulls: HashMap<String, Millis>,
    pub(super) waiting: HashMap<String, Waiting>,
    pub(super) pod_ips: Vec<String>,
    seen: PodView,
    /// Whether something was done since the runtime was looked at: a plan would be made on what was before.
    blind: bool,
    status: Option<PodStatus>,
}

impl Worker {
    pub(crate) fn new(shared: Arc<Shared>, uid: String, wishes: watch::Receiver<Wish>) -> Self {
        let status = wishes.borrow().pod.status.clone().filter(|status| status.start_time.is_some());
        let (pauses, failed_pulls, waiting) = (Pauses::default(), HashMap::new(), HashMap::new());
        Self {
            shared,
            uid,
            wishes,
            pauses,
            failed_pulls,
            waiting,
            pod_ips: Vec::new(),
            seen: PodView::default(),
            blind: false,
            status,
        }
    }

    /// Works until the pod is gone (then returns its uid) or shutdown is requested. What runs goes on
    /// running.
    pub(crate) async fn run(mut self, shutdown: Shutdown) -> Option<String> {
        let mut views = self.shared.observer.subscribe();
        let mut references = self.shared.references.subscribe();
        loop {
            let wish = self.wishes.borrow_and_update().clone();
            let mut newer = self.wishes.clone();
            let step =
                async { if wish.ends() { self.end(&wish).await } else { Some(self.sync(&wish.pod).await) } };
            let again = tokio::select! {
                () = shutdown.requested() => return None,
                // A wish to end interrupts whatever is under way, such as a long pull.
                () = ended(&mut newer), if !wish.ends() => continue,
                again = step => again,
            };
            let Some(again) = again else { return Some(self.uid) };
            tokio::select! {
                () = shutdown.requested() => return None,
                changed = self.wishes.changed() => if changed.is_err() { return None },
                () = changed(&self.uid, &self.seen, &mut views) => {}
                _ = references.changed() => {}
                () = tokio::time::sleep(again) => {}
            }
        }
    }

    /// Brings the pod closer to what it should be; says when to look again.
    async fn sync(&mut self, pod: &Pod) -> Duration {
        for _ in 0..STEPS {
            if self.blind && !self.look().await {
                return RETRY;
            }
            let view = self.view();
            self.learn_addresses(&view);
            let plan = plan(pod, &view, &self.pauses, self.shared.clock.now());
            self.note_pauses(pod, &plan.backing_off).await;
            if plan.actions.is_empty() {
                let stale = if plan.finished { None } else { self.refresh_volumes(pod).await };
                self.report(pod, &view);
                self.seen = view;
                return [plan.again, stale].into_iter().flatten().fold(RESYNC, Duration::min);
            }
            let mut retry = None;
            self.blind = true;
            for action in plan.actions {
                if let Err(again) = self.act(pod, &view, action).await {
                    retry = Some(retry.map_or(again, |other: Duration| other.min(again)));
                }
            }
            if !self.look().await {
                retry = Some(RETRY);
            }
            let view = self.view();
            self.report(pod, &view);
            self.seen = view;
            if let Some(again) = retry {
                return again;
            }
        }
        Duration::from_millis(100)
    }

    /// Looks at the runtime; says whether it answered.
    async fn look(&mut self) -> bool {
        let looked = self.shared.observer.refresh().await;
        self.blind &= looked.is_err();
        if let Err(error) = &looked {
            tracing::warn!(pod = %self.uid, error = %chain(error), "cannot look at the runtime");
        }
        looked.is_ok()
    }

    pub(super) fn view(&self) -> PodView {
        self.shared.observer.view(&self.uid)
    }

    async fn act(&mut self, pod: &Pod, view: &PodView, action: Action) -> Result<(), Duration> {
        let runtime = self.shared.runtime.clone();
        let done = match action {
            Action::CreateSandbox { attempt } => return self.create_sandbox(pod, attempt).await,
            Action::Start { name, attempt } => return self.start(pod, &name, attempt).await,
            Action::Stop { id, name, why } => {
                let message = format!("Stopping container {name}: {why}");
                self.shared.recorder.normal(pod, "Killing", message).await;
                runtime.stop_container(&id, grace_of(pod)).await
            }
            Action::StopSandbox { id } => runtime.stop_sandbox(&id).await,
            Action::RemoveContainer { id } => runtime.remove_container(&id).await,
            Action::RemoveSandbox { id } => {
                debug_assert!(view.sandboxes.len() > 1);
                runtime.remove_sandbox(&id).await
            }
        };
        done.map_err(|error| {
            tracing::warn!(pod = %self.uid, error = %chain(&error), "a step failed and will be tried again");
            RETRY
        })
    }

    /// Tells of each new pause once: as the state of its container and as an event.
    async fn note_pauses(&mut self, pod: &Pod, backing_off: &[(String, Duration)]) {
        self.waiting.retain(|name, waiting| {
            waiting.reason != "CrashLoopBackOff" || backing_off.iter().any(|(waiting, _)| waiting == name)
        });
        let (namespace, name) = (pod.metadata.namespace.as_deref(), pod.metadata.name.as_deref());
        let whole = format!("{}_{}({})", name.unwrap_or_default(), namespace.unwrap_or_default(), self.uid);
        for (container, pause) in backing_off {
            let message =
                format!("back-off {}s restarting failed container={container} pod={whole}", pause.as_secs());
            let waiting = Waiting { reason: "CrashLoopBackOff".to_owned(), message };
            if self.waiting.get(container) != Some(&waiting) {
                self.waiting.insert(container.clone(), waiting);
                let message = format!("Back-off restarting failed container {container} in pod {whole}");
                self.shared.recorder.warning(pod, "BackOff", message).await;
            }
        }
    }

    fn learn_addresses(&mut self, view: &PodView) {
        let Some(sandbox) = view.sandbox().filter(|sandbox| sandbox.ready) else { return };
        if !self.pod_ips.is_empty() {
            return;
        }
        self.pod_ips = sandbox.addresses.iter().map(ToString::to_string).collect();
        if self.pod_ips.is_empty() {
            self.pod_ips.push(self.shared.facts.host_ip.clone());
        }
    }

    pub(super) fn facts(&self) -> PodFacts {
        PodFacts { pod_ips: self.pod_ips.clone(), ..self.shared.facts.clone() }
    }

    fn status_now(&self, pod: &Pod, view: &PodView) -> PodStatus {
        let facts = self.facts();
        let findings = Findings {
            view,
            waiting: &self.waiting,
            facts: &facts,
            runtime: &self.shared.runtime_name,
            unready: &[],
            now: self.shared.clock.now(),
        };
        pod_status(pod, &findings, self.status.as_ref())
    }

    /// Tells the cluster when the status has changed.
    pub(super) fn report(&mut self, pod: &Pod, view: &PodView) {
        let status = self.status_now(pod, view);
        if self.status.as_ref() != Some(&status) {
            self.shared.reporter.report(pod, &status);
            self.shared.pods.note(&self.uid, &status);
            self.status = Some(status);
        }
    }

    /// Ends the pod: containers, sandboxes, word to the cluster, files. `None` when all is done.
    async fn end(&mut self, wish: &Wish) -> Option<Duration> {
        let pod = &wish.pod;
        let view = self.view();
        self.stop_all(pod, &view).await;
        if !self.look().await {
            return Some(RETRY);
        }
        let view = self.view();
        self.seen.clone_from(&view);
        if !view.is_stopped() {
            return Some(RETRY);
        }
        if !wish.removed && !self.confirm(pod, &view).await {
            return Some(RETRY);
        }
        self.clean_up(pod, &view).await
    }

    async fn stop_all(&self, pod: &Pod, view: &PodView) {
        let grace = grace_of(pod);
        let running = view.containers.iter().filter(|container| container.state.is_running());
        let stops = running.map(|container| async move {
            let message = format!("Stopping container {}", container.name);
            self.shared.recorder.normal(pod, "Killing", message).await;
            self.stop_one(&container.id, grace).await;
        });
        futures::future::join_all(stops).await;
        for sandbox in view.sandboxes.iter().filter(|sandbox| sandbox.ready) {
            if let Err(error) = self.shared.runtime.stop_sandbox(&sandbox.id).await {
                tracing::warn!(pod = %self.uid, error = %chain(&error), "cannot stop a sandbox");
            }
        }
    }

    async fn stop_one(&self, id: &ContainerId, grace: Duration) {
        if let Err(error) = self.shared.runtime.stop_container(id, grace).await {
            tracing::warn!(pod = %self.uid, container = %id, error = %chain(&error), "cannot stop a container");
        }
    }

    /// Sends the last status and asks for the object's removal; whether the cluster agreed.
    async fn confirm(&mut self, pod: &Pod, view: &PodView) -> bool {
        self.shared.reporter.forget(&self.uid);
        let (namespace, name) = (pod.metadata.namespace.as_deref(), pod.metadata.name.as_deref());
        let (namespace, name) = (namespace.unwrap_or_default(), name.unwrap_or_default());
        let patch = status_patch(&self.uid, &self.status_now(pod, view));
        if let Err(error) = self.shared.client.patch_pod_status(namespace, name, &patch).await {
            tracing::debug!(pod = %self.uid, error = %error, "last status of a pod not taken");
        }
        match self.shared.client.delete_pod(namespace, name, &self.uid).await {
            Ok(()) => true,
            Err(error) => {
                tracing::debug!(pod = %self.uid, error = %error, "removal of a pod not confirmed yet");
                false
            }
        }
    }

    /// Does something with files.
    pub(super) async fn files<T: Send + 'static>(
        &self,
        work: impl FnOnce() -> io::Result<T> + Send + 'static,
    ) -> io::Result<T> {
        self.shared.settings.files.run(work).await.unwrap_or_else(|error| Err(io::Error::other(error)))
    }

    async fn clean_up(&mut self, pod: &Pod, view: &PodView) -> Option<Duration> {
        for sandbox in &view.sandboxes {
            if let Err(error) = self.shared.runtime.remove_sandbox(&sandbox.id).await {
                tracing::warn!(pod = %self.uid, error = %chain(&error), "cannot remove a sandbox");
                return Some(RETRY);
            }
        }
        self.shared.reporter.forget(&self.uid);
        let folders = [pod_folder(&self.shared.settings, &self.uid), log_folder(&self.shared.settings, pod)];
        for folder in folders {
            let unwanted = folder.clone();
            match self.files(move || std::fs::remove_dir_all(unwanted)).await {
                Err(error) if error.kind() != io::ErrorKind::NotFound => {
                    tracing::warn!(pod = %self.uid, folder = %folder.display(), error = %error, "cannot remove a folder");
                }
                _ => {}
            }
        }
        let _ = self.shared.observer.refresh().await;
        None
    }
}

/// Completes when the view of this pod differs from the one that was acted on.
async fn changed(uid: &str, seen: &PodView, views: &mut watch::Receiver<Arc<Views>>) {
    let differs = |views: &Arc<Views>| *views.get(uid).unwrap_or(&PodView::default()) != *seen;
    if views.wait_for(differs).await.is_err() {
        std::future::pending().await
    }
}

async fn ended(wishes: &mut watch::Receiver<Wish>) {
    if wishes.wait_for(Wish::ends).await.is_err() {
        std::future::pending().await
    }
}

/// How long containers may take to end: as the deletion says, else as the pod says, else 30 s.
fn grace_of(pod: &Pod) -> Duration {
    let spec = pod.spec.as_ref().and_then(|spec| spec.termination_grace_period_seconds);
    let seconds = pod.metadata.deletion_grace_period_seconds.or(spec).unwrap_or(30);
    Duration::from_secs(u64::try_from(seconds).unwrap_or(0))
}
