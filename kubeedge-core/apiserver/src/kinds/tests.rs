use std::{fs, path::Path};

use serde_json::{Value, json};
use time::OffsetDateTime;

use super::*;
use crate::table::table;

fn all() -> impl Iterator<Item = &'static BuiltIn> {
    BUILT_IN.into_iter().chain(REVIEWS)
}

fn cells(kind: &'static BuiltIn, object: Value) -> Vec<Value> {
    let shown = table(&Kind::BuiltIn(kind), &[object], OffsetDateTime::UNIX_EPOCH, "1", "None");
    let (columns, cells) = (&shown["columnDefinitions"], &shown["rows"][0]["cells"]);
    assert_eq!(columns.as_array().unwrap().len(), cells.as_array().unwrap().len(), "{}", kind.plural);
    cells.as_array().unwrap().clone()
}

#[test]
fn every_kind_has_discovery_columns_and_an_empty_object() {
    for built_in in all() {
        let kind = Kind::BuiltIn(built_in);
        assert_eq!(kind.discovery()[0]["name"], built_in.plural);
        assert!(built_in.columns.iter().any(|column| column.name == "Name"), "{}", built_in.plural);
        cells(built_in, Value::Null);
        let mut object = json!({"metadata": {"name": "a"}, "spec": {}});
        kind.fill(&mut object);
        let same = kind.check_update(&object, &object).map(|problem| problem.why);
        assert_eq!(same, None, "{}", built_in.plural);
        if let Some(types) = &built_in.types {
            (types.through)(&object).unwrap();
        }
    }
}

#[test]
fn no_two_kinds_share_group_and_plural() {
    let mut names: Vec<_> = all().map(|kind| (kind.group, kind.version, kind.plural)).collect();
    names.sort_unstable();
    let count = names.len();
    names.dedup();
    assert_eq!(names.len(), count);
    for (group, version, plural) in names {
        assert_eq!(built_in(group, version, plural).unwrap().plural(), plural);
    }
}

#[test]
fn jobs_volumes_and_requests_show_what_kubectl_users_know() {
    let job = json!({"metadata": {"name": "j"}, "spec": {"completions": 3}, "status": {"succeeded": 3, "startTime": "2026-01-01T00:00:00Z", "completionTime": "2026-01-01T00:00:07Z", "conditions": [{"type": "Complete", "status": "True"}]}});
    assert_eq!(cells(&workloads::JOB, job)[..5], ["j", "Complete", "3/3", "7s", "<unknown>"]);
    let volume = json!({"metadata": {"name": "v"}, "spec": {"capacity": {"storage": "1Gi"}, "accessModes": ["ReadWriteOnce", "ReadOnlyMany"]}, "status": {"phase": "Bound"}});
    let row = cells(&core_v1::PERSISTENT_VOLUME, volume);
    assert_eq!(row[..5], ["v", "1Gi", "RWO,ROX", "Retain", "Bound"]);
    let request = json!({"metadata": {"name": "r"}, "spec": {"signerName": "s", "username": "u"}});
    let row = cells(&other_groups::CERTIFICATE_SIGNING_REQUEST, request);
    assert_eq!(row[..5], ["r", "<unknown>", "s", "u", "<none>"]);
}

/// The code of all files but those of kinds, without tests.
fn code_elsewhere(folder: &Path, out: &mut Vec<(String, String)>) {
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        let name = path.file_name().unwrap().to_string_lossy().into_owned();
        if path.is_dir() {
            if name != "kinds" && name != "tests" && name != "conformance" {
                code_elsewhere(&path, out);
            }
        } else if name != "tests.rs" {
            let text = fs::read_to_string(&path).unwrap();
            out.push((path.display().to_string(), text.split("\n#[cfg(test)]").next().unwrap().to_owned()));
        }
    }
}

/// Files that may say a plural, which means something else there.
const MEANS_ELSE: [(&str, &str); 2] = [("scheduler.rs", "\"pods\""), ("target.rs", "\"namespaces\"")];

#[test]
fn no_other_file_names_a_kind_by_its_plural() {
    let mut files = Vec::new();
    code_elsewhere(&Path::new(env!("CARGO_MANIFEST_DIR")).join("src"), &mut files);
    assert!(files.len() > 20);
    for built_in in all() {
        let literal = format!("\"{}\"", built_in.plural);
        let means_else =
            |path: &str| MEANS_ELSE.iter().any(|(file, word)| path.ends_with(file) && *word == literal);
        for (path, code) in files.iter().filter(|(path, _)| !means_else(path)) {
            let line = code.lines().find(|line| line.contains(&literal) && !line.trim().starts_with("//"));
            assert_eq!(line, None, "{path} knows {literal}: what is said of a kind stands in its descriptor");
        }
    }
}
