//! What a module takes beside the messages that others send to it by name: groups of its own across the
//! link, MQTT topics, readings of devices. And how a message of a module is delivered across the link.
//!
//! A module says it in [`Module::routes`](crate::kernel::Module::routes). The kernel asks each module once,
//! when it is built, and settles the answers in the [`Bus`](crate::bus::Bus); both hubs, EventBus and
//! DeviceTwin read them there. The same value serves a module of cloudcore and one of edgecore.
//!
//! ```
//! use kubeedge_core::{name::{Group, ModuleName}, routes::{Routes, RoutingTable}};
//!
//! let acme = Group::of("acme");
//! let table = RoutingTable::new([
//!     (ModuleName::of("acme-orders"), Routes::new().group(acme.clone())),
//!     (ModuleName::of("acme-recipes"), Routes::new().resources(acme.clone(), "recipes")),
//! ])?;
//! assert_eq!(table.taker(&acme, "recipes/bread").unwrap(), &"acme-recipes");
//! assert_eq!(table.taker(&acme, "orders/7").unwrap(), &"acme-orders");
//! # Ok::<(), kubeedge_core::routes::RouteError>(())
//! ```
//!
//! # Who gets a message
//!
//! A message that crosses the link goes to the module that takes its group. Where several modules share a
//! group, the one with the longest prefix of the resource gets it; a prefix counts by whole elements
//! (`recipes` takes `recipes` and `recipes/bread`, not `recipes-old`). Groups of KubeEdge's own are taken
//! already and refused: [`owner`] names their modules. What is no answer and has nobody to take it is
//! answered with an error that says so.
//!
//! # What is promised on which side
//!
//! - Both sides: what is [`Reliable`](Delivery::Reliable) or [`Newest`](Delivery::Newest) is sent again over
//!   cuts and reconnects until the module on the other side answers the envelope. An error answer ends it
//!   too, and is told to the sender.
//! - The edge stores both: they outlive restarts of edgecore, and power cuts but for the last tenth of a
//!   second.
//! - The cloud keeps both in memory, for nodes that are away too. They end with cloudcore, and reply channels
//!   with them: a module of the cloud tells its nodes again what it must not forget, as a controller does.
//! - A Go core gets a plain message and confirms it by any response to it. One that never does, as one
//!   without a module for the group, is sent the message five times; then the sender learns that nobody
//!   confirmed it. A core of ours without the codec `Adaptive` cannot be told from Go's.

use std::{collections::BTreeMap, fmt, sync::Arc};

use crate::{
    device::DeviceId,
    message::json::MAX_TEXT,
    name::{Group, ModuleName},
};

/// How a message is delivered across the link; see [`Envelope::deliver`](crate::bus::Envelope::deliver).
///
/// It counts for messages of vendors' groups only: those of KubeEdge's own groups go by KubeEdge's rules.
/// Nothing of it is on the wire. A receiver confirms by an answer, which every KubeEdge understands.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[non_exhaustive]
pub enum Delivery {
    /// Sent once on the link that there is; a request fails with its link. The sender learns it when there
    /// is none.
    #[default]
    BestEffort,
    /// The newest of each resource, sent again until the module on the other side has answered it. An older
    /// one that waits is replaced.
    Newest,
    /// Each message, sent again until the module on the other side has answered it: at least once, and in
    /// the order of sending for each resource. A repetition has the same id.
    Reliable,
}

/// What one module takes; see the [module's text](self).
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Routes {
    patterns: Vec<(Group, String)>,
    topics: Vec<String>,
    readings: Vec<Option<DeviceId>>,
}

impl Routes {
    /// Nothing.
    pub fn new() -> Self {
        Self::default()
    }

    /// All messages of this group that come over the link, but for those that another module takes by prefix.
    #[must_use]
    pub fn group(self, group: Group) -> Self {
        self.resources(group, "")
    }

    /// The messages of this group whose resource is `prefix` or below it.
    #[must_use]
    pub fn resources(mut self, group: Group, prefix: impl Into<String>) -> Self {
        self.patterns.push((group, prefix.into()));
        self
    }

    /// What is published on MQTT topics of this filter on the node, at most 256 of them and 4 MiB in one
    /// publish. Each comes as a message of source `bus`, operation `publish`, with the topic as resource and
    /// the payload as text. A broker may hand over twice what two filters of a module take, and with both of
    /// EventBus' brokers each is heard. What goes to the cloud is not changed by it. On the cloud it has no
    /// meaning.
    #[must_use]
    pub fn topic(mut self, filter: impl Into<String>) -> Self {
        self.topics.push(filter.into());
        self
    }

    /// Reported values of all devices of the node, the newest of each property; see [`Observed`].
    #[must_use]
    pub fn readings(mut self) -> Self {
        self.readings.push(None);
        self
    }

    /// Reported values of one device of the node.
    #[must_use]
    pub fn readings_of(mut self, device: DeviceId) -> Self {
        self.readings.push(Some(device));
        self
    }

    /// The MQTT filters.
    pub fn topics(&self) -> &[String] {
        &self.topics
    }

    /// Whether readings of any device are wanted.
    pub fn wants_readings(&self) -> bool {
        !self.readings.is_empty()
    }

    /// Whether readings of this device (`namespace/name`) are wanted.
    pub fn wants_readings_of(&self, device: &str) -> bool {
        self.readings.iter().any(|wanted| wanted.as_ref().is_none_or(|id| id.to_string() == device))
    }

    fn check(&self) -> Result<(), (String, &'static str)> {
        for (group, prefix) in &self.patterns {
            let shape = match prefix.as_str() {
                _ if group.is_empty() => Some("a group needs a name"),
                _ if group.as_str().len() > MAX_TEXT || prefix.len() > MAX_TEXT => Some("it is too long"),
                "" => None,
                prefix if prefix.split('/').any(str::is_empty) => {
                    Some("a prefix consists of elements with one / between them")
                }
                _ => None,
            };
            if let Some(why) = shape {
                return Err((pattern(group, prefix), why));
            }
        }
        if self.topics.len() > MAX_TOPICS {
            return Err((format!("{} MQTT topic filters", self.topics.len()), "at most 256 are taken"));
        }
        let wrong = self.topics.iter().find(|filter| !is_filter(filter));
        wrong.map_or(Ok(()), |filter| Err((filter.clone(), "it is no MQTT topic filter")))
    }
}

/// What a message of readings holds, as JSON: a list of these in a message of source `twin`, operation
/// `update`, resource [`READINGS`]. A module that is slow gets the newest of each property; DeviceTwin
/// never waits for it. The next message comes when the module is done with the envelope before.
#[derive(Clone, Debug, PartialEq, serde::Serialize, serde::Deserialize)]
#[non_exhaustive]
pub struct Observed {
    /// The device: `namespace/name`.
    pub device: String,
    /// The property.
    pub property: String,
    /// The reported value, as text.
    pub value: String,
    /// When it was reported, in milliseconds since the Unix epoch; 0 where nobody said.
    pub timestamp: i64,
}

impl Observed {
    /// A value of a property.
    pub fn new(device: &str, property: &str, value: &str, timestamp: i64) -> Self {
        let [device, property, value] = [device, property, value].map(str::to_owned);
        Self { device, property, value, timestamp }
    }
}

/// The resource of messages with readings.
pub const READINGS: &str = "readings";

/// How many MQTT filters one module may have.
const MAX_TOPICS: usize = 256;
/// The longest MQTT filter, in bytes.
const MAX_FILTER: usize = 65_535;

fn is_filter(filter: &str) -> bool {
    let fits = !filter.is_empty() && filter.len() <= MAX_FILTER && !filter.contains('\0');
    let mut levels = filter.split('/').peekable();
    let mut well_formed = fits;
    while let Some(level) = levels.next() {
        well_formed &= match level {
            "#" => levels.peek().is_none(),
            "+" => true,
            level => !level.contains(['#', '+']),
        };
    }
    well_formed
}

/// The module of KubeEdge whose group this is, on either side; `None` for a vendor's group, and for no
/// group at all.
pub fn owner(group: &Group) -> Option<ModuleName> {
    const OWNERS: [(&str, ModuleName); 22] = [
        ("hub", ModuleName::EDGE_HUB),
        ("meta", ModuleName::META_MANAGER),
        ("resource", ModuleName::META_MANAGER),
        ("func", ModuleName::META_MANAGER),
        ("metaserver", ModuleName::of("metaserver")),
        ("edged", ModuleName::EDGED),
        ("edgedServer", ModuleName::of("edgedServer")),
        ("twin", ModuleName::TWIN),
        ("bus", ModuleName::EVENT_BUS),
        ("servicebus", ModuleName::SERVICE_BUS),
        ("user", ModuleName::of("router")),
        ("router", ModuleName::of("router")),
        ("taskmanager", ModuleName::TASK_MANAGER),
        ("edgestream", ModuleName::EDGE_STREAM),
        ("cloudStream", ModuleName::of("cloudStream")),
        ("cloudhub", ModuleName::CLOUD_HUB),
        ("edgecontroller", ModuleName::EDGE_CONTROLLER),
        ("devicecontroller", ModuleName::DEVICE_CONTROLLER),
        ("synccontroller", ModuleName::SYNC_CONTROLLER),
        ("dynamiccontroller", ModuleName::DYNAMIC_CONTROLLER),
        ("policycontroller", ModuleName::POLICY_CONTROLLER),
        ("nodeupgradejobcontroller", ModuleName::of("nodeupgradejobcontroller")),
    ];
    OWNERS.iter().find(|(name, _)| group == name).map(|(_, owner)| owner.clone())
}

/// Whether a group is a vendor's: it has a name, and no module of KubeEdge's own has it.
pub fn is_vendors(group: &Group) -> bool {
    !group.is_empty() && owner(group).is_none()
}

/// Why modules cannot take what they want.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum RouteError {
    /// The group is one of KubeEdge's own.
    #[error("module {module} wants group {group}, which is {owner}'s")]
    Reserved {
        /// Who wants it.
        module: ModuleName,
        /// The group.
        group: Group,
        /// Whose it is.
        owner: ModuleName,
    },
    /// Two modules want the same.
    #[error("modules {first} and {second} both want {what}")]
    Twice {
        /// The module that was added first.
        first: ModuleName,
        /// The other.
        second: ModuleName,
        /// The group, and the prefix where there is one.
        what: String,
    },
    /// Nothing can be taken by this.
    #[error("module {module} wants \"{what}\": {why}")]
    Invalid {
        /// Who wants it.
        module: ModuleName,
        /// What it wants.
        what: String,
        /// What is wrong with it.
        why: &'static str,
    },
}

/// Who takes what, of all modules of one process. Cheap to clone.
#[derive(Clone, Debug, Default)]
pub struct RoutingTable(Arc<Table>);

#[derive(Debug, Default)]
struct Table {
    /// For each group the prefixes and their modules.
    takers: BTreeMap<Group, BTreeMap<String, ModuleName>>,
    modules: Vec<(ModuleName, Routes)>,
}

impl RoutingTable {
    /// The table of these modules; an error where two want the same, one wants what is KubeEdge's, or what
    /// it wants is malformed.
    pub fn new(modules: impl IntoIterator<Item = (ModuleName, Routes)>) -> Result<Self, RouteError> {
        let mut table = Table::default();
        for (module, routes) in modules {
            let invalid = |(what, why)| RouteError::Invalid { module: module.clone(), what, why };
            routes.check().map_err(invalid)?;
            for (group, prefix) in &routes.patterns {
                if let Some(owner) = owner(group) {
                    return Err(RouteError::Reserved { module, group: group.clone(), owner });
                }
                let of_group = table.takers.entry(group.clone()).or_default();
                if let Some(first) = of_group.insert(prefix.clone(), module.clone()) {
                    let what = pattern(group, prefix);
                    return Err(RouteError::Twice { first, second: module, what });
                }
            }
            if routes != Routes::default() {
                table.modules.push((module, routes));
            }
        }
        Ok(Self(Arc::new(table)))
    }

    /// The module that takes a message of this group about this resource, as it is on the wire.
    pub fn taker(&self, group: &Group, resource: &str) -> Option<&ModuleName> {
        let of_group = self.0.takers.get(group)?;
        let mut prefix = resource;
        loop {
            if let Some(module) = of_group.get(prefix) {
                return Some(module);
            }
            match prefix.rsplit_once('/') {
                Some((shorter, _)) => prefix = shorter,
                None if prefix.is_empty() => return None,
                None => prefix = "",
            }
        }
    }

    /// The modules that take messages over the link, each once.
    pub fn takers(&self) -> Vec<ModuleName> {
        let takes = self.0.modules.iter().filter(|(_, routes)| !routes.patterns.is_empty());
        takes.map(|(module, _)| module.clone()).collect()
    }

    /// The modules that take anything at all, and what.
    pub fn modules(&self) -> &[(ModuleName, Routes)] {
        &self.0.modules
    }
}

/// A group, and a prefix where there is one, as a text for people.
fn pattern(group: &Group, prefix: &str) -> String {
    if prefix.is_empty() { format!("group {group}") } else { format!("{prefix} of group {group}") }
}

/// Why a message comes back to its sender: nobody takes it. To be shown to people.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NobodyTakes<'a> {
    /// Where nobody takes it: the name of a node, or `the cloud`.
    pub place: &'a str,
    /// The message's group.
    pub group: &'a Group,
}

impl fmt::Display for NobodyTakes<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "no module of {} takes group {}", self.place, self.group)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const A: ModuleName = ModuleName::of("a");
    const B: ModuleName = ModuleName::of("b");
    const ACME: Group = Group::of("acme");

    #[test]
    fn the_longest_prefix_by_whole_elements_gets_a_message() {
        let modules = [
            (A, Routes::new().group(ACME)),
            (B, Routes::new().resources(ACME, "x/y")),
            (ModuleName::of("c"), Routes::new().resources(Group::of("other"), "x")),
        ];
        let table = RoutingTable::new(modules).unwrap();
        for (group, resource, taker) in [
            ("acme", "x/y", Some("b")),
            ("acme", "x/y/z", Some("b")),
            ("acme", "x/yz", Some("a")),
            ("acme", "x", Some("a")),
            ("acme", "", Some("a")),
            ("other", "x/1", Some("c")),
            ("other", "y", None),
            ("", "x", None),
        ] {
            let found = table.taker(&group.into(), resource).map(ModuleName::as_str);
            assert_eq!(found, taker, "{group} {resource}");
        }
        assert_eq!(table.takers().len(), 3);
    }

    #[test]
    fn groups_of_our_own_and_those_taken_twice_are_refused_by_name() {
        let refused =
            |modules: Vec<(ModuleName, Routes)>| RoutingTable::new(modules).unwrap_err().to_string();
        assert_eq!(
            refused(vec![(A, Routes::new().group(Group::RESOURCE))]),
            "module a wants group resource, which is metamanager's"
        );
        let both = vec![(A, Routes::new().group(ACME)), (B, Routes::new().group(ACME))];
        assert_eq!(refused(both), "modules a and b both want group acme");
        let prefix = Routes::new().resources(ACME, "x");
        assert_eq!(
            refused(vec![(A, prefix.clone()), (B, prefix)]),
            "modules a and b both want x of group acme"
        );
    }

    #[test]
    fn malformed_patterns_and_filters_are_refused() {
        let long = "x".repeat(MAX_TEXT + 1);
        for routes in [
            Routes::new().group(Group::of("")),
            Routes::new().group(long.into()),
            Routes::new().resources(ACME, "/x"),
            Routes::new().resources(ACME, "x//y"),
            Routes::new().topic(""),
            Routes::new().topic("a/#/b"),
            Routes::new().topic("a+/b"),
            Routes::new().topic("a\0b"),
        ] {
            let refused = RoutingTable::new([(A, routes.clone())]);
            assert!(matches!(refused, Err(RouteError::Invalid { .. })), "{routes:?}");
        }
        let many = (0..257).fold(Routes::new(), |routes, n| routes.topic(n.to_string()));
        assert!(RoutingTable::new([(A, many)]).is_err());
        let good = Routes::new().topic("#").topic("+/a/+").topic("$hw/events/#").topic("/");
        assert!(RoutingTable::new([(A, good)]).is_ok());
    }

    #[test]
    fn readings_are_wanted_of_all_devices_or_of_those_named() {
        let one = Routes::new().readings_of(DeviceId { namespace: "default".into(), name: "t1".into() });
        assert!(one.wants_readings_of("default/t1") && !one.wants_readings_of("default/t2"));
        assert!(Routes::new().readings().wants_readings_of("default/t2"));
        assert!(!Routes::new().wants_readings() && !Routes::new().wants_readings_of("default/t1"));
    }
}
