//! Edgecore, started as users start it, on a cloudcore that does not want it.

use std::{
    path::{Path, PathBuf},
    process::Command,
};

use kubeedge_tests::{Background, PATIENCE, Site, binary, free_port, skipped};

use crate::runs_a_pod;

fn config(site: &Site, node: &str, token: &str) -> String {
    format!(
        "apiVersion: edgecore.config.kubeedge.io/v1alpha2\nkind: EdgeCore\nmodules:\n  edgeHub:\n    httpServer: https://{}\n    \
         token: '{token}'\n    websocket: {{server: '{}'}}\n  eventBus: {{mqttMode: 0, mqttServerInternal: 'tcp://127.0.0.1:{}'}}\n  \
         edged: {{hostnameOverride: {node}}}\n",
        site.address("join"),
        site.address("CloudHub"),
        free_port()
    )
}

/// An edgecore of a test's own.
fn edgecore(site: &Site, data: &Path, node: &str, token: &str) -> Background {
    let file: PathBuf = data.with_extension("yaml");
    std::fs::write(&file, config(site, node, token)).unwrap();
    let mut command = Command::new(binary("edgecore"));
    command.args(["--runtime", "process", "--data-dir"]).arg(data).arg("--config").arg(file);
    Background::start(&mut command)
}

#[test]
fn a_wrong_token_is_named_with_the_way_to_a_right_one_and_a_right_one_joins() {
    if skipped(&["kubectl"]) {
        return;
    }
    let (site, other) = (Site::start(&[]), Site::start(&[]));
    let data = site.folder().join("second");
    let good = site.join_token();
    let foreign = other.join_token();
    let hash = good.split_once('.').unwrap().0;
    let forged = format!("{hash}.{}", foreign.split_once('.').unwrap().1);
    for (wrong, why) in [
        ("nonsense".to_owned(), "modules.edgeHub.token"),
        (foreign, "the token is of another cloudcore"),
        (forged, "take a fresh one with keadm gettoken"),
    ] {
        let mut edge = edgecore(&site, &data, "edge-2", &wrong);
        let said = edge.until_said(why, PATIENCE);
        assert!(!said.contains(&wrong), "the token stands in the log:\n{said}");
        assert_eq!(edge.stop(), Some(0), "{}", edge.said());
    }
    assert!(site.try_kubectl(&["get", "node", "edge-2"]).unwrap_err().contains("NotFound"));
    let _edge = edgecore(&site, &data, "edge-2", &good);
    site.until(&["get", "node", "edge-2"], |said| said.contains(" Ready "));
}

#[test]
fn certificates_of_another_cloud_are_named_and_the_node_joins_this_one_when_it_has_a_token_for_it() {
    if skipped(&["kubectl"]) {
        return;
    }
    let (home, away) = (Site::start(&[]), Site::start(&[]));
    let data = home.folder().join("second");
    let mut edge = edgecore(&home, &data, "edge-2", &home.join_token());
    home.until(&["get", "node", "edge-2"], |said| said.contains(" Ready "));
    edge.stop();
    // The node is moved, with its old token: nothing of the new cloud is believed, and the old certificates
    // stay.
    let kept = std::fs::read(data.join("certs/server.crt")).unwrap();
    let mut edge = edgecore(&away, &data, "edge-2", &home.join_token());
    let said = edge.until_said("do not trust each other", PATIENCE);
    assert!(said.contains("is to join another one") && said.contains("keadm gettoken"), "{said}");
    assert_eq!(std::fs::read(data.join("certs/server.crt")).unwrap(), kept);
    edge.stop();
    assert!(away.try_kubectl(&["get", "node", "edge-2"]).unwrap_err().contains("NotFound"));
    let mut edge = edgecore(&away, &data, "edge-2", &away.join_token());
    away.until(&["get", "node", "edge-2"], |said| said.contains(" Ready "));
    runs_a_pod(&away, "undisturbed");
    edge.stop();
}

#[test]
fn a_node_that_takes_another_name_says_that_its_certificate_is_not_of_that_name() {
    if skipped(&["kubectl"]) {
        return;
    }
    let site = Site::start(&[]);
    let data = site.folder().join("second");
    let mut edge = edgecore(&site, &data, "edge-2", &site.join_token());
    site.until(&["get", "node", "edge-2"], |said| said.contains(" Ready "));
    edge.stop();
    let edge = edgecore(&site, &data, "edge-3", "");
    let said = edge.until_said("system:node:edge-2", PATIENCE);
    assert!(said.contains("not of node edge-3") && said.contains("modules.edgeHub.token"), "{said}");
}
