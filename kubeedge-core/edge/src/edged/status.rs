//! The status of a pod as users read it: phase, conditions, container states. Pure.

use std::collections::HashMap;

use k8s_openapi::api::core::v1::{
    Container as ContainerSpec, ContainerState as State, ContainerStateRunning, ContainerStateTerminated,
    ContainerStateWaiting, ContainerStatus, HostIP, Pod, PodCondition, PodIP, PodStatus,
};
use kubeedge_core::{
    message::Millis,
    runtime::{Container, ContainerState},
};

use super::{
    env::PodFacts,
    view::{PodView, Policy, exit, init_containers, is_sidecar, main_containers, time},
};

/// Why a container does not run, as users see it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Waiting {
    /// One word: `ImagePullBackOff`, `CrashLoopBackOff`, `CreateContainerConfigError`, …
    pub reason: String,
    /// A sentence.
    pub message: String,
}

/// What a status is made from, beside the pod.
#[derive(Debug)]
pub(crate) struct Findings<'a> {
    /// What the runtime holds.
    pub view: &'a PodView,
    /// What keeps containers from running, by name.
    pub waiting: &'a HashMap<String, Waiting>,
    /// Addresses and node.
    pub facts: &'a PodFacts,
    /// The name of the runtime: the scheme of container ids.
    pub runtime: &'a str,
    /// Containers whose readiness probes fail, by name. Those without a probe are ready when they run.
    pub unready: &'a [String],
    /// Now.
    pub now: Millis,
}

/// The status of a pod. `before` is the last one: times of conditions that did not change are kept from it.
pub(crate) fn pod_status(pod: &Pod, findings: &Findings<'_>, before: Option<&PodStatus>) -> PodStatus {
    let inits: Vec<_> =
        init_containers(pod).map(|spec| container_status(pod, spec, findings, true)).collect();
    let mains: Vec<_> =
        main_containers(pod).map(|spec| container_status(pod, spec, findings, false)).collect();
    let phase = phase(pod, findings.view, &mains);
    let conditions = conditions(pod, &inits, &mains, phase, findings, before);
    let ips = &findings.facts.pod_ips;
    let host_ip = Some(findings.facts.host_ip.clone()).filter(|ip| !ip.is_empty());
    let started = before.and_then(|status| status.start_time.clone()).unwrap_or_else(|| time(findings.now));
    PodStatus {
        conditions: Some(conditions),
        container_statuses: Some(mains),
        init_container_statuses: Some(inits).filter(|list| !list.is_empty()),
        host_ips: host_ip.clone().map(|ip| vec![HostIP { ip }]),
        host_ip,
        phase: Some(phase.to_owned()),
        pod_ip: ips.first().cloned(),
        pod_ips: Some(ips.iter().map(|ip| PodIP { ip: ip.clone() }).collect::<Vec<_>>())
            .filter(|l| !l.is_empty()),
        qos_class: Some(qos_class(pod).to_owned()),
        start_time: Some(started),
        ..PodStatus::default()
    }
}

fn container_status(pod: &Pod, spec: &ContainerSpec, findings: &Findings<'_>, init: bool) -> ContainerStatus {
    let view = findings.view;
    let latest = view.latest(&spec.name);
    let waiting = findings.waiting.get(&spec.name);
    let state = state_of(pod, latest, waiting, findings, init);
    let running = state.running.is_some();
    // A container that waits to be restarted shows how it ended last; a running one how its predecessor did.
    let last = match (&state.waiting, latest) {
        (Some(_), Some(container)) if container.state.exit_code().is_some() => Some(container),
        (_, Some(container)) => view.previous(container),
        _ => None,
    };
    let done = init && latest.and_then(exit).is_some_and(|(_, code)| code == 0);
    let ready = done || (running && (!init || is_sidecar(spec)) && !findings.unready.contains(&spec.name));
    ContainerStatus {
        name: spec.name.clone(),
        image: spec.image.clone().unwrap_or_default(),
        image_id: latest.map(|container| container.image_id.clone()).unwrap_or_default(),
        container_id: latest.map(|container| id_of(container, findings.runtime)),
        ready,
        started: Some(running),
        restart_count: latest.map_or(0, |container| i32::try_from(container.attempt).unwrap_or(i32::MAX)),
        last_state: Some(last.map(|container| terminated(container, findings.runtime)).unwrap_or_default()),
        state: Some(state),
        ..ContainerStatus::default()
    }
}

fn state_of(
    pod: &Pod,
    latest: Option<&Container>,
    waiting: Option<&Waiting>,
    findings: &Findings<'_>,
    init: bool,
) -> State {
    if let Some(container) = latest {
        match &container.state {
            ContainerState::Running { started_at } => {
                let started_at = Some(time(*started_at));
                return State { running: Some(ContainerStateRunning { started_at }), ..State::default() };
            }
            ContainerState::Exited { .. } if waiting.is_none() => {
                return terminated(container, findings.runtime);
            }
            _ => {}
        }
    }
    let initialising =
        !init && init_containers(pod).any(|spec| !is_sidecar(spec) && !succeeded(findings.view, &spec.name));
    let default = if initialising { "PodInitializing" } else { "ContainerCreating" };
    let reason = waiting.map_or(default, |waiting| waiting.reason.as_str());
    let message = waiting.map(|waiting| waiting.message.clone()).filter(|text| !text.is_empty());
    State {
        waiting: Some(ContainerStateWaiting { reason: Some(reason.to_owned()), message }),
        ..State::default()
    }
}

fn succeeded(view: &PodView, name: &str) -> bool {
    view.latest(name).and_then(exit).is_some_and(|(_, code)| code == 0)
}

fn id_of(container: &Container, runtime: &str) -> String {
    format!("{runtime}://{}", container.id)
}

fn terminated(container: &Container, runtime: &str) -> State {
    let ContainerState::Exited { started_at, finished_at, code, reason, message } = &container.state else {
        return State::default();
    };
    let fallback = if *code == 0 { "Completed" } else { "Error" };
    let terminated = ContainerStateTerminated {
        container_id: Some(id_of(container, runtime)),
        exit_code: *code,
        started_at: Some(time(*started_at)),
        finished_at: Some(time(*finished_at)),
        message: Some(message.clone()).filter(|text| !text.is_empty()),
        reason: Some(if reason.is_empty() { fallback } else { reason }.to_owned()),
        signal: None,
    };
    State { terminated: Some(terminated), ..State::default() }
}

/// The kubelet's phase: Pending until all have started once, Running while anything runs or will, then
/// Succeeded or Failed.
fn phase(pod: &Pod, view: &PodView, mains: &[ContainerStatus]) -> &'static str {
    let policy = Policy::of(pod);
    let init_failed = init_containers(pod).filter(|spec| !is_sidecar(spec)).any(|spec| {
        let code = view.latest(&spec.name).and_then(exit).map(|(_, code)| code);
        policy == Policy::Never && code.is_some_and(|code| code != 0)
    });
    if init_failed {
        return "Failed";
    }
    let has = |pick: fn(&State) -> bool| mains.iter().any(|status| status.state.as_ref().is_some_and(pick));
    let never_ran = |status: &ContainerStatus| {
        let waits = status.state.as_ref().is_some_and(|state| state.waiting.is_some());
        waits && status.last_state.as_ref().is_none_or(|last| last.terminated.is_none())
    };
    if mains.is_empty() || mains.iter().any(never_ran) {
        return "Pending";
    }
    if has(|state| state.running.is_some() || state.waiting.is_some()) {
        return "Running";
    }
    let failed = has(|state| state.terminated.as_ref().is_some_and(|end| end.exit_code != 0));
    match (policy, failed) {
        (Policy::Always, _) | (Policy::OnFailure, true) => "Running",
        (Policy::Never, true) => "Failed",
        (_, false) => "Succeeded",
    }
}

fn conditions(
    pod: &Pod,
    inits: &[ContainerStatus],
    mains: &[ContainerStatus],
    phase: &str,
    findings: &Findings<'_>,
    before: Option<&PodStatus>,
) -> Vec<PodCondition> {
    let over = matches!(phase, "Succeeded" | "Failed");
    let unready = |list: &[ContainerStatus]| -> Vec<String> {
        list.iter().filter(|status| !status.ready).map(|status| status.name.clone()).collect()
    };
    let main_began = mains.iter().any(|status| status.container_id.is_some());
    let not_initialised = if main_began || phase == "Succeeded" { vec![] } else { unready(inits) };
    let not_ready = unready(mains);
    let incomplete = |names: &[String]| {
        ("ContainersNotInitialized", format!("containers with incomplete status: [{}]", names.join(" ")))
    };
    let initialised = (!not_initialised.is_empty()).then(|| incomplete(&not_initialised));
    let containers_ready = match phase {
        "Succeeded" => Some(("PodCompleted", String::new())),
        "Failed" => Some(("PodFailed", String::new())),
        _ if !not_ready.is_empty() => {
            Some(("ContainersNotReady", format!("containers with unready status: [{}]", not_ready.join(" "))))
        }
        _ => None,
    };
    let sandbox_up = findings.view.sandbox().is_some_and(|sandbox| sandbox.ready) && !over;
    let from_before = |kind: &str| {
        let lists = [
            before.and_then(|s| s.conditions.as_ref()),
            pod.status.as_ref().and_then(|s| s.conditions.as_ref()),
        ];
        lists.into_iter().flatten().flatten().find(|condition| condition.type_ == kind)
    };
    let condition = |kind: &str, holds: bool, why: Option<(&str, String)>| {
        let status = if holds { "True" } else { "False" };
        let same = from_before(kind).filter(|condition| condition.status == status);
        let since = same.and_then(|condition| condition.last_transition_time.clone());
        let (reason, message) = why.unzip();
        PodCondition {
            type_: kind.to_owned(),
            status: status.to_owned(),
            last_transition_time: Some(since.unwrap_or_else(|| time(findings.now))),
            reason: reason.map(str::to_owned),
            message: message.filter(|text| !text.is_empty()),
            ..PodCondition::default()
        }
    };
    vec![
        condition("PodReadyToStartContainers", sandbox_up, None),
        condition("Initialized", initialised.is_none(), initialised),
        condition("Ready", containers_ready.is_none(), containers_ready.clone()),
        condition("ContainersReady", containers_ready.is_none(), containers_ready),
        condition("PodScheduled", true, None),
    ]
}

/// Guaranteed, Burstable or BestEffort, by the requests and limits of CPU and memory.
pub(crate) fn qos_class(pod: &Pod) -> &'static str {
    let (mut any, mut all_guaranteed) = (false, true);
    for spec in init_containers(pod).chain(main_containers(pod)) {
        let resources = spec.resources.clone().unwrap_or_default();
        let (limits, requests) =
            (resources.limits.unwrap_or_default(), resources.requests.unwrap_or_default());
        for name in ["cpu", "memory"] {
            let (limit, request) = (limits.get(name), requests.get(name));
            any |= limit.is_some() || request.is_some();
            all_guaranteed &= limit.is_some() && (request.is_none() || request == limit);
        }
    }
    match (any, all_guaranteed) {
        (false, _) => "BestEffort",
        (true, true) => "Guaranteed",
        (true, false) => "Burstable",
    }
}

#[cfg(test)]
mod tests {
    use kubeedge_core::runtime::{ContainerId, ContainerSpec as RuntimeContainer, Sandbox, SandboxSpec};
    use serde_json::json;

    use super::*;

    fn pod(policy: &str) -> Pod {
        serde_json::from_value(json!({"metadata": {"name": "p"}, "spec": {"restartPolicy": policy,
            "initContainers": [{"name": "i", "image": "x"}], "containers": [{"name": "a", "image": "x"}]}}))
        .unwrap()
    }

    fn container(name: &str, attempt: u32, state: ContainerState) -> Container {
        let id = ContainerId(format!("{name}{attempt}"));
        let spec = RuntimeContainer::new(name, "x").attempt(attempt);
        Container::new(id, "s".into(), &spec, Millis(0)).image_id("sha256:1").state(state)
    }

    fn exited(code: i32) -> ContainerState {
        ContainerState::Exited {
            started_at: Millis(1000),
            finished_at: Millis(2000),
            code,
            reason: String::new(),
            message: String::new(),
        }
    }

    fn status_of(pod: &Pod, containers: Vec<Container>, waiting: &[(&str, &str)]) -> PodStatus {
        let sandbox = Sandbox::new("s".into(), &SandboxSpec::new("p", "d", "u"), Millis(0));
        let view = PodView { sandboxes: vec![sandbox], containers };
        let waiting = waiting
            .iter()
            .map(|(name, reason)| {
                ((*name).to_owned(), Waiting { reason: (*reason).to_owned(), message: "m".into() })
            })
            .collect();
        let facts =
            PodFacts { host_ip: "10.0.0.1".into(), pod_ips: vec!["10.1.0.2".into()], ..PodFacts::default() };
        let findings = Findings {
            view: &view,
            waiting: &waiting,
            facts: &facts,
            runtime: "containerd",
            unready: &[],
            now: Millis(9000),
        };
        pod_status(pod, &findings, None)
    }

    fn condition<'a>(status: &'a PodStatus, kind: &str) -> &'a PodCondition {
        status.conditions.as_ref().unwrap().iter().find(|c| c.type_ == kind).unwrap()
    }

    #[test]
    fn a_pod_is_pending_while_it_initialises_and_running_and_ready_when_all_run() {
        let pod = pod("Always");
        let starting = status_of(&pod, vec![], &[]);
        assert_eq!(starting.phase.as_deref(), Some("Pending"));
        assert_eq!(condition(&starting, "Initialized").status, "False");
        let waiting = starting.container_statuses.unwrap()[0].state.clone().unwrap().waiting.unwrap();
        assert_eq!(waiting.reason.as_deref(), Some("PodInitializing"));

        let running = ContainerState::Running { started_at: Millis(3000) };
        let up = status_of(&pod, vec![container("i", 0, exited(0)), container("a", 0, running)], &[]);
        assert_eq!(up.phase.as_deref(), Some("Running"));
        assert_eq!(condition(&up, "Ready").status, "True");
        assert_eq!(up.pod_ip.as_deref(), Some("10.1.0.2"));
        let main = &up.container_statuses.unwrap()[0];
        assert_eq!(main.container_id.as_deref(), Some("containerd://a0"));
        assert!(main.ready && up.init_container_statuses.unwrap()[0].ready);
    }

    #[test]
    fn a_crash_loop_shows_why_it_waits_and_how_it_ended() {
        let pod = pod("Always");
        let crashed = vec![container("i", 0, exited(0)), container("a", 2, exited(7))];
        let status = status_of(&pod, crashed, &[("a", "CrashLoopBackOff")]);
        assert_eq!(status.phase.as_deref(), Some("Running"));
        let main = &status.container_statuses.as_ref().unwrap()[0];
        assert_eq!(main.restart_count, 2);
        assert_eq!(
            main.state.as_ref().unwrap().waiting.as_ref().unwrap().reason.as_deref(),
            Some("CrashLoopBackOff")
        );
        assert_eq!(main.last_state.as_ref().unwrap().terminated.as_ref().unwrap().exit_code, 7);
        assert_eq!(condition(&status, "Ready").reason.as_deref(), Some("ContainersNotReady"));
    }

    #[test]
    fn an_image_that_cannot_be_had_keeps_the_pod_pending() {
        let status =
            status_of(&pod("Always"), vec![container("i", 0, exited(0))], &[("a", "ImagePullBackOff")]);
        assert_eq!(status.phase.as_deref(), Some("Pending"));
    }

    #[test]
    fn ended_pods_succeed_or_fail_by_exit_code() {
        let ended = |code| vec![container("i", 0, exited(0)), container("a", 0, exited(code))];
        let ok = status_of(&pod("Never"), ended(0), &[]);
        assert_eq!(ok.phase.as_deref(), Some("Succeeded"));
        assert_eq!(condition(&ok, "Ready").reason.as_deref(), Some("PodCompleted"));
        let failed = status_of(&pod("Never"), ended(3), &[]);
        assert_eq!(failed.phase.as_deref(), Some("Failed"));
        let end = failed.container_statuses.unwrap()[0].state.clone().unwrap().terminated.unwrap();
        assert_eq!((end.exit_code, end.reason.as_deref()), (3, Some("Error")));
        assert_eq!(
            status_of(&pod("Never"), vec![container("i", 0, exited(1))], &[]).phase.as_deref(),
            Some("Failed")
        );
    }

    #[test]
    fn the_quality_of_service_class_follows_requests_and_limits() {
        let class = |resources: serde_json::Value| {
            let pod = serde_json::from_value(
                json!({"spec": {"containers": [{"name": "a", "resources": resources}]}}),
            )
            .unwrap();
            qos_class(&pod)
        };
        assert_eq!(class(json!({})), "BestEffort");
        assert_eq!(class(json!({"requests": {"cpu": "1"}})), "Burstable");
        assert_eq!(class(json!({"limits": {"cpu": "1", "memory": "1Gi"}})), "Guaranteed");
    }
}
