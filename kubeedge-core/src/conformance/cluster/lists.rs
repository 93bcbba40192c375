//! Lists: selected, paged, as tables.

use serde_json::{Value, json};

use super::{
    Bench, ClusterHarness,
    bench::{names, text, version},
};

async fn coloured(bench: &Bench) -> String {
    for (name, labels) in [
        ("a", json!({"colour": "red", "kit": "1"})),
        ("b", json!({"colour": "green", "kit": "1"})),
        ("c", json!({"kit": "1"})),
        ("d", json!({"colour": "blue", "kit": "1"})),
        ("e", json!({"colour": "red", "kit": "1", "extra": ""})),
    ] {
        bench.config_map(name, labels).await;
    }
    bench.core("configmaps")
}

/// Equality, sets and existence.
pub async fn labels_select(harness: impl ClusterHarness) {
    let bench = Bench::of(&harness).await;
    let path = coloured(&bench).await;
    for (selector, expected) in [
        ("kit=1,colour=red", "ae"),
        ("kit=1,colour==green", "b"),
        ("kit=1,colour!=red", "bcd"),
        ("kit,colour%20in%20(red,%20blue)", "ade"),
        ("kit,colour%20notin%20(red,blue)", "bc"),
        ("kit,!colour", "c"),
        ("colour,kit", "abde"),
        ("kit,extra=", "e"),
    ] {
        let list = bench.get(&format!("{path}?labelSelector={selector}")).await.with(200);
        assert_eq!(names(&list).concat(), expected, "{selector}");
    }
    bench.get(&format!("{path}?labelSelector=a%20b%20c")).await.refused(400, "BadRequest");
}

/// The fields a kind offers; others are refused, not ignored.
pub async fn fields_select(harness: impl ClusterHarness) {
    let bench = Bench::of(&harness).await;
    let (one, two) = (format!("{}-1", bench.namespace), format!("{}-2", bench.namespace));
    bench.pod("p", &one).await;
    bench.pod("q", &two).await;
    for (selector, expected) in [
        (format!("spec.nodeName={one}"), "p"),
        (format!("spec.nodeName!={one}"), "q"),
        ("metadata.name=q,status.phase=Pending".to_owned(), "q"),
        ("status.phase=Running".to_owned(), ""),
    ] {
        let list = bench.get(&format!("{}?fieldSelector={selector}", bench.core("pods"))).await.with(200);
        assert_eq!(names(&list).concat(), expected, "{selector}");
    }
    for path in
        ["pods?fieldSelector=spec.nodename=x", "configmaps?fieldSelector=data.k=1", "pods?fieldSelector=x"]
    {
        bench.get(&bench.core(path)).await.refused(400, "BadRequest");
    }
}

/// `limit` and `continue`: every object once.
pub async fn a_list_comes_in_pages(harness: impl ClusterHarness) {
    let bench = Bench::of(&harness).await;
    let path = format!("{}?labelSelector=kit&limit=2", coloured(&bench).await);
    let (mut seen, mut token) = (Vec::new(), String::new());
    for pages in 1.. {
        let page = bench.get(&format!("{path}&continue={token}")).await.with(200);
        assert!(names(&page).len() <= 2 && !version(&page).is_empty(), "{page}");
        seen.extend(names(&page));
        token = text(&page, "/metadata/continue");
        if token.is_empty() {
            assert_eq!(pages, 3);
            break;
        }
    }
    assert_eq!(seen, ["a", "b", "c", "d", "e"]);
    assert_eq!(bench.get(&format!("{path}&continue=nonsense")).await.code, 400);
}

/// What kubectl prints.
pub async fn a_table_comes_to_who_asks_for_it(harness: impl ClusterHarness) {
    let bench = Bench::of(&harness).await;
    let path = coloured(&bench).await;
    let accept = [("accept", "application/json;as=Table;v=v1;g=meta.k8s.io,application/json")];
    let table =
        bench.call("GET", &format!("{path}?labelSelector=kit&limit=2"), &accept, vec![]).await.with(200);
    assert_eq!((&table["kind"], &table["apiVersion"]), (&json!("Table"), &json!("meta.k8s.io/v1")));
    let columns: Vec<_> =
        table["columnDefinitions"].as_array().unwrap().iter().map(|c| text(c, "/name")).collect();
    assert_eq!(columns, ["Name", "Data", "Age"]);
    let rows = table["rows"].as_array().unwrap();
    assert_eq!((rows.len(), &rows[0]["cells"][0], &rows[0]["cells"][1]), (2, &json!("a"), &json!(1)));
    assert_eq!(rows[0]["object"]["kind"], "PartialObjectMetadata");
    assert!(!text(&table, "/metadata/continue").is_empty());
    let one = bench.call("GET", &format!("{path}/a?includeObject=None"), &accept, vec![]).await.with(200);
    assert_eq!(
        (one["rows"].as_array().map(Vec::len), one["rows"][0].get("object").unwrap_or(&Value::Null)),
        (Some(1), &Value::Null)
    );
}

/// What garbage collectors read.
pub async fn metadata_alone_comes_to_who_asks_for_it(harness: impl ClusterHarness) {
    let bench = Bench::of(&harness).await;
    let path = coloured(&bench).await;
    let accept =
        [("accept", "application/json;as=PartialObjectMetadataList;v=v1;g=meta.k8s.io,application/json")];
    let list = bench.call("GET", &format!("{path}?labelSelector=extra"), &accept, vec![]).await.with(200);
    assert_eq!((&list["kind"], names(&list)), (&json!("PartialObjectMetadataList"), vec!["e".to_owned()]));
    assert_eq!(list["items"][0].get("data"), None);
}
