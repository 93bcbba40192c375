//! Whom a message of the cloud is for, and what waits for modules that read slowly.

use std::{collections::HashMap, sync::Arc};

use futures::{FutureExt, StreamExt, stream::FuturesUnordered};
use kubeedge_common::{
    digest,
    log::{Seldom, shown},
};
use kubeedge_core::{
    bus::{Bus, Envelope},
    message::{Content, Message, resource::ObjectPath},
    name::{Group, ModuleName, NodeName, Operation},
    routes::{self, NobodyTakes, RoutingTable},
};
use parking_lot::Mutex;
use tokio::{sync::Notify, task::JoinSet};

use super::outbox::Outbox;
use crate::{
    backlog::{self, Backlog},
    queue::Queue,
};

/// The modules messages of the cloud are for.
const RECEIVERS: [ModuleName; 5] = [
    ModuleName::META_MANAGER,
    ModuleName::TWIN,
    ModuleName::EVENT_BUS,
    ModuleName::SERVICE_BUS,
    ModuleName::TASK_MANAGER,
];

/// Operations Go's link layer keeps for itself: they are confirmed and go no further.
const LINK_OPERATIONS: [&str; 3] = ["config", "ping", "pong"];

/// What is to be done with a message nobody waits for.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Target {
    Module(ModuleName),
    /// For the vendor's module that takes its group.
    Vendors,
    /// For nobody here, and why.
    Nobody(&'static str),
}

/// The answer to a message of the link layer itself; `None` for any other message.
pub(crate) fn link_answer(message: &Message) -> Option<Message> {
    let is_ours = LINK_OPERATIONS.contains(&message.route.operation.as_str());
    is_ours.then(|| message.answer(Content::text("ack")))
}

/// Whom a message is for that answers no request that waits.
pub(crate) fn target(message: &Message) -> Target {
    let route = &message.route;
    match (route.group.as_str(), route.source.as_str()) {
        ("twin", _) => Target::Module(ModuleName::TWIN),
        ("taskmanager", _) => Target::Module(ModuleName::TASK_MANAGER),
        ("resource" | "func", _) if !message.is_answer() => Target::Module(ModuleName::META_MANAGER),
        // A late answer: MetaManager keeps the objects the cloud wants confirmed. What others answered it
        // would send back.
        ("resource" | "func", "edgecontroller" | "dynamiccontroller" | "synccontroller")
            if route.operation == Operation::RESPONSE =>
        {
            Target::Module(ModuleName::META_MANAGER)
        }
        _ if message.is_answer() => Target::Nobody("nobody waits for this answer any more"),
        ("user", "router_eventbus") => Target::Module(ModuleName::EVENT_BUS),
        ("user", "router_servicebus") => Target::Module(ModuleName::SERVICE_BUS),
        _ if routes::is_vendors(&route.group) => Target::Vendors,
        ("user", _) => Target::Nobody("user messages come from router_eventbus or router_servicebus only"),
        _ => Target::Nobody("this group is not known at the edge"),
    }
}

/// How many devices and models MetaManager has before it at a time, so that a pod does not wait until
/// thousands are stored.
const DEVICES_AT_ONCE: usize = 8;

#[derive(Debug, Default)]
struct OwnBacklog {
    /// What goes first, and devices.
    queues: Mutex<[Queue; 2]>,
    more: Notify,
    refused: Mutex<u64>,
}

impl OwnBacklog {
    fn push(&self, message: Message, is_device: bool) -> bool {
        let [first, devices] = &mut *self.queues.lock();
        if is_device { devices.push(message) } else { first.push(message) }
    }

    /// The next message, and whether it is about a device.
    fn pop(&self, room_for_devices: bool) -> Option<(Message, bool)> {
        let [first, devices] = &mut *self.queues.lock();
        let next = first.pop().map(|message| (message, false));
        if next.is_some() || !room_for_devices {
            return next;
        }
        devices.pop().map(|message| (message, true))
    }
}

fn is_device(module: &ModuleName, message: &Message) -> bool {
    let resource = message.route.resource.as_str();
    let kind = ObjectPath::parse(resource).map_or("", |path| path.kind);
    // A comparison comes after everything that came before it, or it would miss what is about to be taken
    // away.
    let comes_last = resource == digest::RESOURCE;
    *module == ModuleName::META_MANAGER && (comes_last || matches!(kind, "device" | "devicemodel"))
}

/// What waits for each module.
#[derive(Debug, Default)]
pub(super) struct Backlogs {
    node: NodeName,
    of: HashMap<ModuleName, Arc<OwnBacklog>>,
    routes: RoutingTable,
    vendors: HashMap<ModuleName, Arc<Backlog>>,
    /// Lines about messages for nobody.
    nobody: Seldom,
}

impl Backlogs {
    /// One task for each module there is, which delivers in order. Answers of vendors' modules go to the
    /// outbox.
    pub(super) fn start(bus: &Bus, node: &NodeName, outbox: &Arc<Outbox>, tasks: &mut JoinSet<()>) -> Self {
        let (mut of, mut vendors) = (HashMap::new(), HashMap::new());
        for module in RECEIVERS.into_iter().filter(|module| bus.has(module)) {
            let backlog = Arc::<OwnBacklog>::default();
            tasks.spawn(deliver(bus.clone(), module.clone(), backlog.clone()));
            of.insert(module, backlog);
        }
        for module in bus.routes().takers() {
            let backlog = Arc::<Backlog>::default();
            vendors.insert(module.clone(), backlog.clone());
            let (bus, outbox) = (bus.clone(), outbox.clone());
            tasks.spawn(async move {
                let answered = |answer| outbox.put(Envelope::new(answer));
                backlog.deliver(&bus, &module, answered).await;
            });
        }
        let (node, routes) = (node.clone(), bus.routes().clone());
        Self { node, of, routes, vendors, nobody: Seldom::default() }
    }

    /// Leaves a message for the module it is for; never waits. What the cloud is to be answered at once, if
    /// anything.
    pub(super) fn leave(&self, message: Message) -> Option<Message> {
        let (resource, group) = (message.route.resource.clone(), message.route.group.clone());
        let module = match target(&message) {
            Target::Module(module) => module,
            Target::Vendors => return self.leave_to_vendor(message),
            Target::Nobody(why) => return ignored(&resource, &group, why),
        };
        let Some(backlog) = self.of.get(&module) else {
            return ignored(&resource, &group, "the module it is for is not part of this edgecore");
        };
        let is_device = is_device(&module, &message);
        if backlog.push(message, is_device) {
            *backlog.refused.lock() = 0;
            backlog.more.notify_one();
        } else {
            refused(&module, &mut backlog.refused.lock());
        }
        None
    }

    /// What finds no room is not answered: a sender that asked for it sends it again.
    fn leave_to_vendor(&self, message: Message) -> Option<Message> {
        let route = &message.route;
        let taker = self.routes.taker(&route.group, route.resource.as_str());
        if let Some((module, backlog)) = taker.and_then(|module| Some((module, self.vendors.get(module)?))) {
            backlog.push(module, message);
            return None;
        }
        let nobody = NobodyTakes { place: self.node.as_str(), group: &route.group };
        if let Some(unsaid) = self.nobody.line(route.group.as_str()) {
            let (group, resource) = (shown(route.group.as_str()), shown(route.resource.as_str()));
            tracing::warn!(%group, %resource, unsaid, "no module takes this group of the cloud's");
        }
        Some(backlog::of_group(&message, message.error_answer(nobody)))
    }
}

fn ignored(resource: &kubeedge_core::name::Resource, group: &Group, why: &str) -> Option<Message> {
    tracing::debug!(%resource, %group, why, "ignored a message of the cloud");
    None
}

fn refused(module: &ModuleName, count: &mut u64) {
    *count += 1;
    if *count % 1000 == 1 {
        tracing::error!(%module, refused = *count, "module does not read its mailbox, messages of the cloud dropped; objects are sent again until confirmed");
    }
}

async fn deliver(bus: Bus, module: ModuleName, backlog: Arc<OwnBacklog>) {
    // Completes for each device when the module is done with it and drops the envelope.
    let mut devices = FuturesUnordered::new();
    loop {
        while let Some(Some(_)) = devices.next().now_or_never() {}
        let Some((message, is_device)) = backlog.pop(devices.len() < DEVICES_AT_ONCE) else {
            tokio::select! {
                () = backlog.more.notified() => {}
                Some(_) = devices.next() => {}
            }
            continue;
        };
        let envelope = if is_device {
            let (envelope, done) = Envelope::with_reply(message);
            devices.push(done);
            envelope
        } else {
            Envelope::new(message)
        };
        if let Err(error) = bus.forward(&module, envelope).await {
            tracing::debug!(%error, "a message of the cloud was not delivered");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(source: &str, group: &str, operation: &str) -> Message {
        Message::new(source.into(), operation.into(), "default/pod/web").in_group(group.into())
    }

    #[test]
    fn messages_go_where_go_sends_them() {
        for (source, group, to) in [
            ("edgecontroller", "resource", Some(ModuleName::META_MANAGER)),
            ("anything", "func", Some(ModuleName::META_MANAGER)),
            ("devicecontroller", "twin", Some(ModuleName::TWIN)),
            ("router_eventbus", "user", Some(ModuleName::EVENT_BUS)),
            ("router_servicebus", "user", Some(ModuleName::SERVICE_BUS)),
            ("taskmanager", "taskmanager", Some(ModuleName::TASK_MANAGER)),
            ("router", "user", None),
            ("cloudhub", "hub", None),
            ("cloudhub", "", None),
        ] {
            let found = match target(&of(source, group, "update")) {
                Target::Module(module) => Some(module),
                Target::Nobody(_) | Target::Vendors => None,
            };
            assert_eq!(found, to, "{source} {group}");
        }
    }

    #[test]
    fn groups_that_are_not_ours_are_for_vendors_modules_and_their_late_answers_for_nobody() {
        assert_eq!(target(&of("acme", "acme", "update")), Target::Vendors);
        let late = of("acme", "acme", "response").answering("q".into());
        assert!(matches!(target(&late), Target::Nobody(_)));
    }

    #[test]
    fn what_is_here_is_told_after_everything_that_came_before() {
        let is_last = |resource: &str| {
            let message = Message::new(ModuleName::SYNC_CONTROLLER, Operation::GET, resource);
            is_device(&ModuleName::META_MANAGER, &message)
        };
        assert!(is_last("digest") && is_last("default/device/d") && !is_last("default/pod/digest"));
    }

    #[test]
    fn answers_nobody_waits_for_never_travel_back_to_the_cloud() {
        let answer = |source, group, operation| target(&of(source, group, operation).answering("q".into()));
        assert_eq!(
            answer("edgecontroller", "resource", "response"),
            Target::Module(ModuleName::META_MANAGER)
        );
        assert_eq!(answer("devicecontroller", "twin", "response"), Target::Module(ModuleName::TWIN));
        for (source, group, operation) in [
            ("cloudhub", "resource", "response"),
            ("edgecontroller", "resource", "error"),
            ("router_servicebus", "user", "response"),
            ("", "", "error"),
        ] {
            assert!(matches!(answer(source, group, operation), Target::Nobody(_)), "{source} {group}");
        }
    }
}
