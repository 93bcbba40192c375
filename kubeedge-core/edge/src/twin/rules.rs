//! What an update does to a device's twins: pure, so that every rule is a table row in a test.

use std::collections::BTreeMap;

use kubeedge_core::routes::Observed;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use super::wire::{
    Body, Change, Patches, SidePatch, TwinPatch, ValueMeta, Version, WireTwin, WireTwins, WireValue,
};

/// The type of a twin that was deleted; its row stays for its versions.
const DELETED: &str = "deleted";

/// One side of a twin as it is kept.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub(super) struct Side {
    #[serde(default, skip_serializing_if = "Option::is_none")]
    value: Option<String>,
    #[serde(default)]
    timestamp: i64,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    version: Option<Version>,
}

/// A twin as it is kept.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(super) struct TwinRow {
    #[serde(default)]
    expected: Side,
    #[serde(default)]
    actual: Side,
    optional: bool,
    kind: String,
    #[serde(default, skip_serializing_if = "Map::is_empty")]
    metadata: Map<String, Value>,
}

/// All twins of a device.
pub(super) type Twins = BTreeMap<String, TwinRow>;

/// Who wants the change.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Origin {
    /// An app or mapper over MQTT: always newer than what is there, checked against the twin's type.
    Local,
    /// A mapper over the device seam: as `Local`, but the model has the say about the type.
    Mapper,
    /// Twins that came with a membership message: versions stay.
    Detail,
    /// The cloud: accepted when its versions are not behind.
    Cloud,
}

/// What came of an update.
#[derive(Debug, Default, PartialEq)]
pub(super) struct Outcome {
    /// The rows that changed.
    pub(super) rows: Twins,
    /// The changed parts, for `update/result`.
    pub(super) result: WireTwins,
    /// Before and after, for `update/document`.
    pub(super) document: BTreeMap<String, Change>,
    /// What the cloud wanted and did not get: it is told what is.
    pub(super) rejected: Vec<String>,
}

impl Side {
    fn wire(&self) -> Option<WireValue> {
        let value = self.value.clone().filter(|value| !value.is_empty())?;
        Some(WireValue { value, metadata: ValueMeta { timestamp: self.timestamp } })
    }

    fn text(&self) -> &str {
        self.value.as_deref().unwrap_or_default()
    }

    /// Takes a value over. `false` when the cloud's is out of date.
    fn take(&mut self, patch: &SidePatch, origin: Origin, now: i64) -> bool {
        let mut version = self.version.unwrap_or_default();
        match origin {
            // A peer may have sent the largest number there is.
            Origin::Local | Origin::Mapper => version.edge = version.edge.saturating_add(1),
            Origin::Detail => {}
            Origin::Cloud => match patch.version {
                Some(wanted) if version.cloud <= wanted.cloud && version.edge <= wanted.edge => {
                    version = wanted;
                }
                _ => return false,
            },
        }
        *self = Self { value: Some(patch.value.clone()), timestamp: now, version: Some(version) };
        true
    }

    fn clear(&mut self) {
        self.value = None;
        self.timestamp = 0;
        if let Some(version) = &mut self.version {
            version.edge = version.edge.saturating_add(1);
        }
    }
}

impl TwinRow {
    fn new(kind: &str) -> Self {
        Self {
            expected: Side::default(),
            actual: Side::default(),
            optional: true,
            kind: kind.to_owned(),
            metadata: Map::new(),
        }
    }

    /// What was reported last, if anything.
    pub(super) fn observed(&self, device: &str, property: &str) -> Option<Observed> {
        let value = self.actual.value.as_ref().filter(|_| !self.is_deleted())?;
        Some(Observed::new(device, property, value, self.actual.timestamp))
    }

    /// Whether it was deleted.
    pub(super) fn is_deleted(&self) -> bool {
        self.kind == DELETED
    }

    fn kind_metadata(&self) -> Map<String, Value> {
        let mut metadata = self.metadata.clone();
        metadata.insert("type".to_owned(), Value::String(self.kind.clone()));
        metadata
    }

    /// The whole twin, without versions.
    pub(super) fn wire(&self) -> WireTwin {
        WireTwin {
            expected: self.expected.wire(),
            actual: self.actual.wire(),
            optional: Some(self.optional),
            metadata: Some(self.kind_metadata()),
            ..WireTwin::default()
        }
    }

    /// The whole twin with versions, for the cloud; `None` when it was deleted.
    pub(super) fn for_cloud(&self) -> Option<WireTwin> {
        let version = |side: &Side| side.value.as_ref().and(side.version);
        (!self.is_deleted()).then(|| WireTwin {
            expected_version: version(&self.expected),
            actual_version: version(&self.actual),
            ..self.wire()
        })
    }
}

/// What an update does. Nothing is changed yet; an error is the reason of a 400, and nothing changes at all.
pub(super) fn apply(twins: &Twins, patches: &Patches, origin: Origin, now: i64) -> Result<Outcome, String> {
    let mut outcome = Outcome::default();
    for (name, patch) in patches {
        let old = twins.get(name);
        match patch {
            None => delete(name, old, &mut outcome),
            Some(patch) if origin == Origin::Cloud && patch.kind.as_deref() == Some(DELETED) => {
                delete(name, old, &mut outcome);
            }
            Some(patch) => set(name, old, patch, origin, now, &mut outcome)?,
        }
    }
    Ok(outcome)
}

fn delete(name: &str, old: Option<&TwinRow>, outcome: &mut Outcome) {
    // One that must be there, one that is gone and one that never was: nothing to do.
    let Some(old) = old.filter(|row| row.optional && !row.is_deleted()) else { return };
    let mut row = old.clone();
    row.kind = DELETED.to_owned();
    row.metadata = Map::new();
    row.expected.clear();
    row.actual.clear();
    outcome.result.insert(name.to_owned(), None);
    outcome.document.insert(name.to_owned(), Change { last: Some(old.wire()), current: None });
    outcome.rows.insert(name.to_owned(), row);
}

fn set(
    name: &str,
    old: Option<&TwinRow>,
    patch: &TwinPatch,
    origin: Origin,
    now: i64,
    outcome: &mut Outcome,
) -> Result<(), String> {
    let living = old.filter(|row| !row.is_deleted());
    let asked = patch.kind.as_deref().unwrap_or("string");
    let mut row = old.cloned().unwrap_or_else(|| TwinRow::new(asked));
    if living.is_none() || (origin == Origin::Mapper && patch.kind.is_some()) {
        asked.clone_into(&mut row.kind);
    }
    if origin != Origin::Mapper {
        let first_wish = living.is_some() && row.expected.value.is_none();
        if let Some(wanted) = patch.expected.as_ref().filter(|_| !first_wish) {
            check(&row.kind, &wanted.value)?;
        }
        if let Some(wanted) = &patch.actual {
            check(&row.kind, &wanted.value)?;
        }
    }
    row.optional = match (living, patch.optional) {
        (Some(_), Some(false)) => false,
        (Some(_), _) => row.optional,
        (None, asked) => asked.unwrap_or(true),
    };
    if let Some(metadata) = &patch.metadata {
        row.metadata.extend(metadata.clone());
    }
    let mut part =
        WireTwin { optional: Some(row.optional), metadata: Some(row.kind_metadata()), ..WireTwin::default() };
    let mut accepted = true;
    if let Some(wanted) = &patch.expected {
        accepted &= row.expected.take(wanted, origin, now);
        part.expected = row.expected.wire();
    }
    if let Some(wanted) = &patch.actual {
        accepted &= row.actual.take(wanted, origin, now);
        part.actual = row.actual.wire();
    }
    if !accepted {
        outcome.rejected.push(name.to_owned());
        return Ok(());
    }
    outcome.result.insert(name.to_owned(), Some(part));
    let change = Change { last: living.map(TwinRow::wire), current: Some(row.wire()) };
    outcome.document.insert(name.to_owned(), change);
    outcome.rows.insert(name.to_owned(), row);
    Ok(())
}

/// Whether a text is a value of a type.
fn check(kind: &str, value: &str) -> Result<(), String> {
    let why = match kind {
        "" | "string" | DELETED => return Ok(()),
        "int" | "integer" if value.parse::<i64>().is_ok() => return Ok(()),
        "float" if value.parse::<f64>().is_ok() => return Ok(()),
        "boolean" if value == "true" || value == "false" => return Ok(()),
        "int" | "integer" => "the value is not int or integer",
        "float" => "the value is not float",
        "boolean" => "the bool value must be true or false",
        _ => "the value type is not allowed",
    };
    Err(why.to_owned())
}

/// `update/delta`: what is wished for and not so; `None` when all wishes are fulfilled.
pub(super) fn delta(twins: &Twins) -> Option<Body> {
    let wished = twins.iter().filter(|(_, row)| !row.is_deleted() && !row.expected.text().is_empty());
    let (mut twin, mut delta) = (BTreeMap::new(), BTreeMap::new());
    for (name, row) in wished {
        twin.insert(name.clone(), row.wire());
        if row.expected.text() != row.actual.text() {
            delta.insert(name.clone(), row.expected.text().to_owned());
        }
    }
    (!delta.is_empty()).then_some(Body::Delta { twin, delta })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::twin::wire;

    fn run(twins: &mut Twins, json: &str, origin: Origin) -> Result<Outcome, String> {
        let update = wire::update(json.as_bytes())?;
        let outcome = apply(twins, &update.twin, origin, 9)?;
        twins.extend(outcome.rows.clone());
        Ok(outcome)
    }

    fn json(twins: &WireTwins) -> String {
        serde_json::to_string(twins).unwrap()
    }

    const SET: &str = r#"{"twin":{"t":{"actual":{"value":"27"},"metadata":{"type":"int"}}}}"#;

    #[test]
    fn a_reported_value_is_a_change_each_time_and_counts_the_edge_version() {
        let mut twins = Twins::new();
        let first = run(&mut twins, SET, Origin::Local).unwrap();
        let part = r#"{"t":{"actual":{"value":"27","metadata":{"timestamp":9}},"optional":true,"metadata":{"type":"int"}}}"#;
        assert_eq!(json(&first.result), part);
        assert_eq!(first.document["t"].last, None);
        let second = run(&mut twins, SET, Origin::Local).unwrap();
        assert_eq!(json(&second.result), part);
        assert!(second.document["t"].last.is_some());
        let cloud = serde_json::to_string(&twins["t"].for_cloud()).unwrap();
        assert_eq!(
            cloud,
            r#"{"actual":{"value":"27","metadata":{"timestamp":9}},"optional":true,"metadata":{"type":"int"},"actual_version":{"cloud":0,"edge":2}}"#
        );
    }

    #[test]
    fn a_version_at_its_end_stays_there() {
        let mut twins = Twins::new();
        let largest = format!(r#"{{"cloud":{0},"edge":{0}}}"#, i64::MAX);
        let wish =
            format!(r#"{{"twin":{{"t":{{"expected":{{"value":"1"}},"expected_version":{largest}}}}}}}"#);
        run(&mut twins, &wish, Origin::Cloud).unwrap();
        run(&mut twins, r#"{"twin":{"t":{"expected":{"value":"2"}}}}"#, Origin::Local).unwrap();
        run(&mut twins, r#"{"twin":{"t":null}}"#, Origin::Local).unwrap();
        assert_eq!(twins["t"].expected.version, Some(Version { cloud: i64::MAX, edge: i64::MAX }));
    }

    #[test]
    fn a_value_of_the_wrong_type_changes_nothing_at_all() {
        let mut twins = Twins::new();
        run(&mut twins, SET, Origin::Local).unwrap();
        let before = twins.clone();
        let both = r#"{"twin":{"a":{"actual":{"value":"1"}},"t":{"actual":{"value":"warm"}}}}"#;
        assert_eq!(run(&mut twins, both, Origin::Local).unwrap_err(), "the value is not int or integer");
        assert_eq!(twins, before);
    }

    #[test]
    fn types_are_checked_as_go_does() {
        for (kind, value, fits) in [
            ("int", "-4", true),
            ("integer", "4.0", false),
            ("float", "1e3", true),
            ("float", "x", false),
            ("boolean", "true", true),
            ("boolean", "True", false),
            ("string", "any", true),
            ("double", "1.0", false),
        ] {
            assert_eq!(check(kind, value).is_ok(), fits, "{kind} {value}");
        }
    }

    #[test]
    fn a_deleted_twin_is_null_hidden_and_can_come_back() {
        let mut twins = Twins::new();
        run(&mut twins, SET, Origin::Local).unwrap();
        let gone = run(&mut twins, r#"{"twin":{"t":null}}"#, Origin::Local).unwrap();
        assert_eq!(json(&gone.result), r#"{"t":null}"#);
        assert!(twins["t"].is_deleted() && gone.document["t"].current.is_none());
        let again = run(&mut twins, r#"{"twin":{"t":{"actual":{"value":"a"}}}}"#, Origin::Local).unwrap();
        assert_eq!(again.document["t"].last, None);
        assert_eq!(twins["t"].actual.version, Some(Version { cloud: 0, edge: 3 }));
    }

    #[test]
    fn a_twin_that_is_not_optional_stays() {
        let mut twins = Twins::new();
        run(&mut twins, r#"{"twin":{"t":{"optional":false,"actual":{"value":"1"}}}}"#, Origin::Local)
            .unwrap();
        assert_eq!(run(&mut twins, r#"{"twin":{"t":null}}"#, Origin::Local).unwrap(), Outcome::default());
        assert_eq!(
            run(&mut twins, r#"{"twin":{"unknown":null}}"#, Origin::Local).unwrap(),
            Outcome::default()
        );
    }

    #[test]
    fn a_delta_names_what_is_wished_for_and_not_so() {
        let mut twins = Twins::new();
        run(&mut twins, SET, Origin::Local).unwrap();
        assert!(delta(&twins).is_none());
        run(&mut twins, r#"{"twin":{"t":{"expected":{"value":"30"}}}}"#, Origin::Local).unwrap();
        let text = wire::text("e", 1, delta(&twins).unwrap());
        assert!(text.ends_with(r#""delta":{"t":"30"}}"#), "{text}");
        run(&mut twins, r#"{"twin":{"t":{"actual":{"value":"30"}}}}"#, Origin::Local).unwrap();
        assert!(delta(&twins).is_none());
    }

    #[test]
    fn the_cloud_is_accepted_when_its_versions_are_not_behind() {
        let mut twins = Twins::new();
        run(&mut twins, SET, Origin::Local).unwrap();
        for (version, accepted) in [
            (r#"{"cloud":0,"edge":0}"#, false),
            ("null", false),
            (r#"{"cloud":1,"edge":1}"#, true),
            (r#"{"cloud":0,"edge":1}"#, false),
        ] {
            let sync =
                format!(r#"{{"twin":{{"t":{{"actual":{{"value":"5"}},"actual_version":{version}}}}}}}"#);
            let outcome = run(&mut twins, &sync, Origin::Cloud).unwrap();
            assert_eq!(outcome.rejected.is_empty(), accepted, "{version}");
            assert_eq!(outcome.rows.is_empty(), !accepted, "{version}");
        }
        assert_eq!(twins["t"].actual.version, Some(Version { cloud: 1, edge: 1 }));
    }
}
