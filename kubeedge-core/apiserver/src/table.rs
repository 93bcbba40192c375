//! Objects as tables, with the columns kubectl's users know.

use std::{borrow::Borrow, iter};

use serde_json::{Value, json};
use time::OffsetDateTime;

use super::{
    jsonpath,
    kinds::{CustomColumn, Kind, NAME_AND_AGE, Row},
    times,
};
use crate::object::Object;

/// A `Table` of these objects.
pub(crate) fn table(
    kind: &Kind,
    objects: &[impl Borrow<Value>],
    now: OffsetDateTime,
    version: &str,
    include: &str,
) -> Value {
    let rows: Vec<_> = objects.iter().map(|object| row(kind, object.borrow(), now, include)).collect();
    json!({"kind": "Table", "apiVersion": "meta.k8s.io/v1", "metadata": {"resourceVersion": version}, "columnDefinitions": definitions(kind), "rows": rows})
}

fn definitions(kind: &Kind) -> Vec<Value> {
    let custom = kind.custom_columns();
    if !custom.is_empty() {
        let own = custom.iter().map(|column| definition(&column.name, &column.of, column.priority));
        return iter::once(definition("Name", "string", 0)).chain(own).collect();
    }
    let columns = kind.built_in().map_or(NAME_AND_AGE, |kind| kind.columns);
    columns.iter().map(|column| definition(column.name, "string", column.priority)).collect()
}

fn definition(name: &str, of: &str, priority: i64) -> Value {
    let format = if name == "Name" { "name" } else { "" };
    json!({"name": name, "type": of, "format": format, "description": name, "priority": priority})
}

fn row(kind: &Kind, object: &Value, now: OffsetDateTime, include: &str) -> Value {
    let cells = cells(kind, &Row { object, now });
    let object = match include {
        "Object" => object.clone(),
        "None" => Value::Null,
        _ => {
            json!({"kind": "PartialObjectMetadata", "apiVersion": "meta.k8s.io/v1", "metadata": object.get("metadata")})
        }
    };
    json!({"cells": cells, "object": object})
}

fn cells(kind: &Kind, row: &Row<'_>) -> Vec<Value> {
    let custom = kind.custom_columns();
    if !custom.is_empty() {
        let own = custom.iter().map(|column| custom_cell(column, row));
        return iter::once(row.object.name().into()).chain(own).collect();
    }
    let columns = kind.built_in().map_or(NAME_AND_AGE, |kind| kind.columns);
    columns.iter().map(|column| (column.cell)(row)).collect()
}

fn custom_cell(column: &CustomColumn, row: &Row<'_>) -> Value {
    let value = jsonpath::first(row.object, &column.json_path).cloned().unwrap_or_default();
    match (column.of.as_str(), &value) {
        ("date", Value::String(time)) => times::since(time, row.now).into(),
        (_, Value::Array(_) | Value::Object(_)) => value.to_string().into(),
        _ => value,
    }
}
