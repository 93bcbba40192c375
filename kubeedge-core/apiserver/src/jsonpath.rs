//! The part of JSONPath that `additionalPrinterColumns` use: fields, escaped dots, quoted keys, indexes,
//! `[*]` and filters by equality such as `.status.conditions[?(@.type=="Ready")].status`.
//!
//! kubectl's dialect is none of RFC 9535, which crates such as `serde_json_path` read: names hold dashes,
//! slashes and escaped dots (`.metadata.annotations.acme\.io/a`), and braces may stand around. A path would
//! have to be taken apart here all the same, to be written anew for such a parser.
//!
//! A path that cannot be read finds nothing: a column must never keep a list from being shown.

use serde_json::Value;

/// The first value a path finds.
pub(super) fn first<'a>(object: &'a Value, path: &str) -> Option<&'a Value> {
    let path = path.trim().trim_start_matches('{').trim_end_matches('}').trim_start_matches('$');
    walk(vec![object], path)?.first().copied()
}

fn walk<'a>(mut found: Vec<&'a Value>, mut path: &str) -> Option<Vec<&'a Value>> {
    while !path.is_empty() {
        let rest;
        if let Some(inside) = path.strip_prefix('[') {
            let end = closing(inside)?;
            let step = inside.get(..end)?.trim();
            rest = inside.get(end + 1..)?;
            found = found.into_iter().flat_map(|value| bracket(value, step)).collect();
        } else {
            let (name, after) = name(path.strip_prefix('.').unwrap_or(path));
            rest = after;
            if !name.is_empty() {
                found = found.into_iter().filter_map(|value| value.get(&name)).collect();
            }
        }
        if rest.len() == path.len() {
            return None;
        }
        path = rest;
    }
    Some(found)
}

/// A field's name up to the next step; `\.` is a dot in it.
fn name(path: &str) -> (String, &str) {
    let mut name = String::new();
    let mut chars = path.char_indices();
    while let Some((at, c)) = chars.next() {
        match c {
            '\\' => name.extend(chars.next().map(|(_, escaped)| escaped)),
            '.' | '[' => return (name, path.get(at..).unwrap_or_default()),
            _ => name.push(c),
        }
    }
    (name, "")
}

/// Where the bracket ends, minding quotes and brackets within.
fn closing(inside: &str) -> Option<usize> {
    let (mut depth, mut quote) = (0_usize, None);
    for (at, c) in inside.char_indices() {
        match (quote, c) {
            (Some(open), c) if c == open => quote = None,
            (Some(_), _) => {}
            (None, '"' | '\'') => quote = Some(c),
            (None, '[') => depth += 1,
            (None, ']') if depth == 0 => return Some(at),
            (None, ']') => depth -= 1,
            _ => {}
        }
    }
    None
}

fn bracket<'a>(value: &'a Value, step: &str) -> Vec<&'a Value> {
    if let Some(test) = step.strip_prefix("?(").and_then(|test| test.strip_suffix(')')) {
        let items = value.as_array().into_iter().flatten();
        return items.filter(|item| holds(item, test)).collect();
    }
    if let Some(key) = unquoted(step) {
        return value.get(key).into_iter().collect();
    }
    match (value, step) {
        (Value::Array(list), "*") => list.iter().collect(),
        (Value::Object(fields), "*") => fields.values().collect(),
        (Value::Array(list), _) => {
            let at = step.parse::<i64>().ok().map(|at| if at < 0 { at + list.len() as i64 } else { at });
            at.and_then(|at| list.get(usize::try_from(at).ok()?)).into_iter().collect()
        }
        _ => Vec::new(),
    }
}

fn unquoted(text: &str) -> Option<&str> {
    let within = |quote: char| text.strip_prefix(quote)?.strip_suffix(quote);
    within('\'').or_else(|| within('"'))
}

/// Whether an item passes a filter such as `@.type=="Ready"`, or `@.type`: it is there.
fn holds(item: &Value, test: &str) -> bool {
    let (path, wanted, equal) = match (test.split_once("=="), test.split_once("!=")) {
        (Some((path, wanted)), _) => (path, Some(wanted), true),
        (None, Some((path, wanted))) => (path, Some(wanted), false),
        (None, None) => (test, None, true),
    };
    let found = path.trim().strip_prefix('@').and_then(|path| first(item, path));
    let Some(wanted) = wanted.map(str::trim) else { return found.is_some() };
    let same = found.is_some_and(|found| match (found, unquoted(wanted)) {
        (Value::String(found), Some(wanted)) => found == wanted,
        (Value::String(_), None) | (_, Some(_)) => false,
        (found, None) => serde_json::from_str::<Value>(wanted).is_ok_and(|wanted| wanted == *found),
    });
    same == equal
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn the_paths_of_printer_columns_find_what_they_name() {
        let object = json!({"metadata": {"annotations": {"acme.io/a": "dotted"}}, "spec": {"list": [1, 2, {"x": "deep"}]},
            "status": {"conditions": [{"type": "Other", "status": "False"}, {"type": "Ready", "status": "True", "n": 3}]}});
        for (path, expected) in [
            (".spec.list[0]", json!(1)),
            (".spec.list[-1].x", json!("deep")),
            (".spec.list[*].x", json!("deep")),
            ("{.spec.list[1]}", json!(2)),
            (r".metadata.annotations.acme\.io/a", json!("dotted")),
            (".metadata.annotations['acme.io/a']", json!("dotted")),
            (".status.conditions[?(@.type==\"Ready\")].status", json!("True")),
            (".status.conditions[?(@.type == 'Ready')].status", json!("True")),
            (".status.conditions[?(@.type!='Ready')].status", json!("False")),
            (".status.conditions[?(@.n==3)].type", json!("Ready")),
            (".status.conditions[?(@.n)].type", json!("Ready")),
        ] {
            assert_eq!(first(&object, path), Some(&expected), "{path}");
        }
    }

    #[test]
    fn a_path_that_fits_nothing_or_makes_no_sense_finds_nothing() {
        let object = json!({"a": [1], "b": "text"});
        for path in [".a[7]", ".a[", ".a[?(", ".a[?(@.x==1)]", ".b.c", ".b[0]", "..", ".a[-9]", "[]", ".a]["]
        {
            assert_eq!(first(&object, path).filter(|found| **found != object), None, "{path}");
        }
    }
}
