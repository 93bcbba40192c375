//! What to do next for a pod: a pure function of what it should be and what the runtime holds.
//!
//! The rules are the kubelet's: init containers one after the other, then all main containers; restarts by
//! policy with a pause that doubles from 10 s to 5 min and is forgotten after 10 quiet minutes; a sandbox
//! that died takes its containers with it.

use std::{collections::HashMap, time::Duration};

use k8s_openapi::api::core::v1::{Container as ContainerSpec, Pod};
use kubeedge_core::{
    message::Millis,
    runtime::{ContainerId, ContainerState, SandboxId},
};

use super::view::{
    HASH, PodView, Policy, container_hash, exit, init_containers, is_sidecar, main_containers, remaining,
};

/// One step towards what should be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Action {
    /// Make a sandbox, counting from 0.
    CreateSandbox { attempt: u32 },
    /// Stop a sandbox and what is in it.
    StopSandbox { id: SandboxId },
    /// Make and start a container; `init` ones run alone.
    Start { name: String, attempt: u32 },
    /// Stop a container, for a reason people read.
    Stop { id: ContainerId, name: String, why: &'static str },
    /// Remove what is no longer needed to tell the pod's story.
    RemoveContainer { id: ContainerId },
    /// Remove a dead sandbox that a newer one replaced.
    RemoveSandbox { id: SandboxId },
}

/// What to do now, and when to look again at the latest.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Plan {
    /// In this order.
    pub actions: Vec<Action>,
    /// The end of the nearest pause.
    pub again: Option<Duration>,
    /// Containers that wait for their pause to end.
    pub backing_off: Vec<(String, Duration)>,
    /// Whether all is over: nothing runs and nothing will.
    pub finished: bool,
}

/// Pauses between restarts, per container.
#[derive(Clone, Debug, Default)]
pub(crate) struct Pauses(HashMap<String, Pause>);

#[derive(Clone, Copy, Debug)]
struct Pause {
    length: Duration,
    started: Millis,
}

impl Pauses {
    const FIRST: Duration = Duration::from_secs(10);
    const LONGEST: Duration = Duration::from_secs(300);
    const FORGET: Duration = Duration::from_secs(600);

    /// Notes that something is tried now; the next failure of it waits longer.
    pub(crate) fn tried(&mut self, what: &str, now: Millis) {
        let next = match self.0.get(what) {
            Some(pause) if remaining(pause.started, Self::FORGET.max(pause.length * 2), now).is_some() => {
                (pause.length * 2).clamp(Self::FIRST, Self::LONGEST)
            }
            Some(_) => Self::FIRST,
            None => Self::FIRST,
        };
        self.0.insert(what.to_owned(), Pause { length: next, started: now });
    }

    /// Forgets the failures of something that went well.
    pub(crate) fn succeeded(&mut self, what: &str) {
        self.0.remove(what);
    }

    /// How long to wait after a failure at `failed`, and the whole length of that pause.
    pub(crate) fn left(&self, what: &str, failed: Millis, now: Millis) -> Option<(Duration, Duration)> {
        let pause = self.0.get(what)?;
        remaining(failed, pause.length, now).map(|left| (left, pause.length))
    }
}

/// Plans the next steps.
pub(crate) fn plan(pod: &Pod, view: &PodView, pauses: &Pauses, now: Millis) -> Plan {
    let mut plan = Planner { pod, view, pauses, now, out: Plan::default() };
    plan.run();
    plan.out
}

struct Planner<'a> {
    pod: &'a Pod,
    view: &'a PodView,
    pauses: &'a Pauses,
    now: Millis,
    out: Plan,
}

/// How far the init containers are.
enum Init {
    Done,
    Running,
    Failed,
}

impl Planner<'_> {
    fn run(&mut self) {
        if self.is_finished() {
            self.out.finished = true;
            let ready = self.view.sandboxes.iter().filter(|sandbox| sandbox.ready);
            self.out.actions.extend(ready.map(|sandbox| Action::StopSandbox { id: sandbox.id.clone() }));
            return;
        }
        self.sweep();
        match self.view.sandbox() {
            Some(sandbox) if sandbox.ready => self.containers(),
            newest => {
                let attempt = newest.map_or(0, |sandbox| sandbox.attempt + 1);
                self.out.actions.push(Action::CreateSandbox { attempt });
            }
        }
    }

    /// Everything has ended and the policy restarts nothing.
    fn is_finished(&self) -> bool {
        let policy = Policy::of(self.pod);
        let over = |spec: &ContainerSpec| {
            let exit = self.view.latest(&spec.name).and_then(exit);
            exit.is_some_and(|(_, code)| !policy.restarts(code))
        };
        let mut inits = init_containers(self.pod).filter(|spec| !is_sidecar(spec));
        let init_failed = policy == Policy::Never
            && inits
                .any(|spec| self.view.latest(&spec.name).and_then(exit).is_some_and(|(_, code)| code != 0));
        let mut mains = main_containers(self.pod).peekable();
        init_failed || (mains.peek().is_some() && mains.all(over))
    }

    fn containers(&mut self) {
        if !self.main_begun() {
            match self.inits() {
                Init::Done => {}
                Init::Running | Init::Failed => return,
            }
        } else {
            for spec in init_containers(self.pod).filter(|spec| is_sidecar(spec)) {
                self.keep_running(spec, Policy::Always);
            }
        }
        let policy = Policy::of(self.pod);
        for spec in main_containers(self.pod) {
            self.keep_running(spec, policy);
        }
    }

    fn main_begun(&self) -> bool {
        main_containers(self.pod).any(|spec| self.view.current(&spec.name).is_some())
    }

    fn inits(&mut self) -> Init {
        // A failed init container is tried again unless the pod's policy is Never.
        let policy = if Policy::of(self.pod) == Policy::Never { Policy::Never } else { Policy::OnFailure };
        for spec in init_containers(self.pod) {
            if is_sidecar(spec) {
                self.keep_running(spec, Policy::Always);
                match self.view.current(&spec.name) {
                    Some(container) if container.state.is_running() => continue,
                    _ => return Init::Running,
                }
            }
            match self.view.current(&spec.name).map(|container| (exit(container), container)) {
                Some((Some((_, 0)), _)) => {}
                Some((Some((_, code)), _)) if !policy.restarts(code) => return Init::Failed,
                _ => {
                    self.keep_running(spec, policy);
                    return Init::Running;
                }
            }
        }
        Init::Done
    }

    fn keep_running(&mut self, spec: &ContainerSpec, policy: Policy) {
        let attempt = self.view.latest(&spec.name).map_or(0, |container| container.attempt + 1);
        let Some(container) = self.view.current(&spec.name) else {
            return self.start(&spec.name, attempt, None);
        };
        match &container.state {
            ContainerState::Running { .. } => {
                let made_as = container.annotations.get(HASH);
                if made_as.is_some_and(|hash| *hash != container_hash(spec)) {
                    let (id, name) = (container.id.clone(), spec.name.clone());
                    self.out.actions.push(Action::Stop { id, name, why: "its definition changed" });
                }
            }
            ContainerState::Exited { finished_at, code, .. } if policy.restarts(*code) => {
                self.start(&spec.name, attempt, Some(*finished_at));
            }
            ContainerState::Exited { .. } => {}
            // Made but never started: a start that failed or was cut off. Its place is taken by the next
            // attempt.
            _ => {
                self.out.actions.push(Action::RemoveContainer { id: container.id.clone() });
                self.start(&spec.name, container.attempt, Some(container.created_at));
            }
        }
    }

    fn start(&mut self, name: &str, attempt: u32, failed: Option<Millis>) {
        let since = failed.unwrap_or(self.now);
        match self.pauses.left(name, since, self.now) {
            Some((left, whole)) if failed.is_some() => {
                self.out.backing_off.push((name.to_owned(), whole));
                self.out.again = Some(self.out.again.map_or(left, |again| again.min(left)));
            }
            _ => self.out.actions.push(Action::Start { name: name.to_owned(), attempt }),
        }
    }

    /// Keeps one dead container per name for its story, and no dead sandbox but the newest.
    fn sweep(&mut self) {
        let newest = self.view.sandbox().map(|sandbox| sandbox.id.clone());
        for container in &self.view.containers {
            let dead = container.state.exit_code().is_some();
            let newer = self
                .view
                .containers
                .iter()
                .filter(|c| c.name == container.name && c.attempt > container.attempt);
            if dead && newer.filter(|c| c.state.exit_code().is_some()).count() > 0 {
                self.out.actions.push(Action::RemoveContainer { id: container.id.clone() });
            }
        }
        for sandbox in &self.view.sandboxes {
            let in_use = |c: &kubeedge_core::runtime::Container| c.sandbox == sandbox.id && self.is_story(c);
            if Some(&sandbox.id) != newest.as_ref() && !self.view.containers.iter().any(in_use) {
                self.out.actions.push(Action::RemoveSandbox { id: sandbox.id.clone() });
            }
        }
    }

    fn is_story(&self, container: &kubeedge_core::runtime::Container) -> bool {
        let newest_dead = self
            .view
            .containers
            .iter()
            .rev()
            .find(|c| c.name == container.name && c.state.exit_code().is_some());
        newest_dead.is_some_and(|newest| newest.id == container.id)
    }
}

#[cfg(test)]
mod tests {
    use kubeedge_core::runtime::{Container, ContainerSpec as RuntimeContainer, Sandbox, SandboxSpec};
    use serde_json::json;

    use super::*;

    fn pod(policy: &str, inits: &[&str], mains: &[&str]) -> Pod {
        let spec = |name: &&str| json!({"name": name, "image": "i"});
        serde_json::from_value(json!({"metadata": {"name": "p"}, "spec": {
            "restartPolicy": policy,
            "initContainers": inits.iter().map(spec).collect::<Vec<_>>(),
            "containers": mains.iter().map(spec).collect::<Vec<_>>(),
        }}))
        .unwrap()
    }

    fn sandbox(n: u32, ready: bool) -> Sandbox {
        let spec = SandboxSpec::new("p", "d", "u").attempt(n);
        Sandbox::new(SandboxId(format!("s{n}")), &spec, Millis(0)).ready(ready)
    }

    fn container(name: &str, attempt: u32, state: ContainerState) -> Container {
        let id = ContainerId(format!("{name}{attempt}"));
        let spec = RuntimeContainer::new(name, "i").attempt(attempt);
        Container::new(id, "s0".into(), &spec, Millis(0)).state(state)
    }

    fn running() -> ContainerState {
        ContainerState::Running { started_at: Millis(0) }
    }

    fn exited(code: i32, at: i64) -> ContainerState {
        ContainerState::Exited {
            started_at: Millis(0),
            finished_at: Millis(at),
            code,
            reason: String::new(),
            message: String::new(),
        }
    }

    fn start(name: &str, attempt: u32) -> Action {
        Action::Start { name: name.into(), attempt }
    }

    fn planned(pod: &Pod, containers: Vec<Container>) -> Plan {
        let view = PodView { sandboxes: vec![sandbox(0, true)], containers };
        plan(pod, &view, &Pauses::default(), Millis(1000))
    }

    #[test]
    fn a_new_pod_gets_a_sandbox_then_inits_in_order_then_all_mains() {
        let pod = pod("Always", &["i1", "i2"], &["a", "b"]);
        let nothing = plan(&pod, &PodView::default(), &Pauses::default(), Millis(0));
        assert_eq!(nothing.actions, [Action::CreateSandbox { attempt: 0 }]);
        assert_eq!(planned(&pod, vec![]).actions, [start("i1", 0)]);
        assert_eq!(planned(&pod, vec![container("i1", 0, running())]).actions, []);
        let one = vec![container("i1", 0, exited(0, 1))];
        assert_eq!(planned(&pod, one.clone()).actions, [start("i2", 0)]);
        let both = [one, vec![container("i2", 0, exited(0, 2))]].concat();
        assert_eq!(planned(&pod, both).actions, [start("a", 0), start("b", 0)]);
    }

    #[test]
    fn restarts_follow_the_policy() {
        for (policy, code, restarted) in
            [("Always", 0, true), ("OnFailure", 0, false), ("OnFailure", 1, true), ("Never", 1, false)]
        {
            let plan = planned(&pod(policy, &[], &["a"]), vec![container("a", 0, exited(code, 1))]);
            assert_eq!(plan.actions.contains(&start("a", 1)), restarted, "{policy} {code}");
            assert_eq!(plan.finished, !restarted);
        }
    }

    #[test]
    fn a_crashing_container_waits_twice_as_long_each_time() {
        let pod = pod("Always", &[], &["a"]);
        let view = PodView {
            sandboxes: vec![sandbox(0, true)],
            containers: vec![container("a", 3, exited(1, 1000))],
        };
        let mut pauses = Pauses::default();
        assert_eq!(
            plan(&pod, &view, &pauses, Millis(1000)).actions,
            [start("a", 4)],
            "the first restart is at once"
        );
        for (expected, now) in [(10, 1000), (20, 2000), (40, 3000)] {
            pauses.tried("a", Millis(now));
            let next = plan(&pod, &view, &pauses, Millis(1000));
            assert_eq!(next.actions, []);
            assert_eq!(next.again, Some(Duration::from_secs(expected)));
        }
        let later = plan(&pod, &view, &pauses, Millis(41_001));
        assert_eq!(later.actions, [start("a", 4)]);
        pauses.tried("a", Millis(2_000_000));
        let forgotten = pauses.left("a", Millis(2_000_000), Millis(2_000_000));
        assert_eq!(
            forgotten.map(|(left, _)| left),
            Some(Duration::from_secs(10)),
            "ten quiet minutes forget"
        );
    }

    #[test]
    fn a_dead_sandbox_is_replaced_and_its_containers_come_back_with_the_next_attempt() {
        let pod = pod("Always", &[], &["a"]);
        let dead = PodView {
            sandboxes: vec![sandbox(0, false)],
            containers: vec![container("a", 2, exited(137, 1))],
        };
        let next = plan(&pod, &dead, &Pauses::default(), Millis(1000));
        assert_eq!(next.actions, [Action::CreateSandbox { attempt: 1 }]);
        let replaced = PodView { sandboxes: vec![sandbox(0, false), sandbox(1, true)], ..dead };
        assert_eq!(plan(&pod, &replaced, &Pauses::default(), Millis(1000)).actions, [start("a", 3)]);
    }

    #[test]
    fn a_changed_image_stops_the_container() {
        let pod = pod("Always", &[], &["a"]);
        let mut old = container("a", 0, running());
        old.annotations.insert(HASH.into(), "other".into());
        assert!(matches!(planned(&pod, vec![old]).actions[..], [Action::Stop { .. }]));
        let mut same = container("a", 0, running());
        same.annotations.insert(HASH.into(), container_hash(&pod.spec.as_ref().unwrap().containers[0]));
        assert_eq!(planned(&pod, vec![same]).actions, []);
    }

    #[test]
    fn a_failed_init_ends_the_pod_only_when_nothing_restarts() {
        let failed = vec![container("i", 0, exited(3, 1))];
        assert_eq!(planned(&pod("Always", &["i"], &["a"]), failed.clone()).actions, [start("i", 1)]);
        assert!(planned(&pod("Never", &["i"], &["a"]), failed).finished);
    }

    #[test]
    fn a_finished_pod_stops_its_sandbox_and_old_dead_containers_are_swept() {
        let done = planned(&pod("Never", &[], &["a"]), vec![container("a", 0, exited(0, 1))]);
        assert!(done.finished);
        assert_eq!(done.actions, [Action::StopSandbox { id: SandboxId("s0".into()) }]);
        let old = vec![
            container("a", 0, exited(1, 1)),
            container("a", 1, exited(1, 2)),
            container("a", 2, running()),
        ];
        assert_eq!(
            planned(&pod("Always", &[], &["a"]), old).actions,
            [Action::RemoveContainer { id: ContainerId("a0".into()) }]
        );
    }
}
