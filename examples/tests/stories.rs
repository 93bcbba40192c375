//! The integrators' programs, run against a site.
#![allow(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing)]

use std::{
    io::{BufRead, BufReader, Write},
    net::TcpListener,
    process::Command,
    sync::{Arc, Mutex},
    thread,
};

use kubeedge_tests::{Background, PATIENCE, Site, skipped};

/// Starts an example as a further node of the site.
fn join(site: &Site, program: &str, node: &str) -> Background {
    let token = site.join_token();
    let folder = site.folder().join(node);
    std::fs::create_dir_all(&folder).unwrap();
    let cloud = ["CloudHub", "join", "tunnel"].map(|server| site.address(server).to_string());
    let mut command = Command::new(program);
    command.arg(node).args(cloud).arg(&token).arg(folder).current_dir(site.folder());
    let running = Background::start(&mut command);
    site.until(&["get", "node", node], |said| said.contains(" Ready "));
    running
}

#[test]
fn a_vendors_edgecore_with_its_own_store_and_module_runs_pods_over_a_restart() {
    if skipped(&["kubectl"]) {
        return;
    }
    let site = Site::start(&[]);
    let program = env!("CARGO_BIN_EXE_custom-edgecore");
    let mut edge = join(&site, program, "vendor-1");
    edge.until_said("acme watchdog said=cloud_connected", PATIENCE);
    let pod = "{apiVersion: v1, kind: Pod, metadata: {name: own}, spec: {nodeName: vendor-1, containers: [{name: c, image: localhost/host, command: [sh, -c, 'echo started; exec sleep 100000']}]}}";
    site.apply(pod).unwrap();
    site.kubectl(&["wait", "--for=condition=Ready", "pod/own", "--timeout=60s"]);
    let id = |site: &Site| site.object("pod", "own")["status"]["containerStatuses"][0]["containerID"].clone();
    let before = id(&site);
    site.until(&["logs", "own"], |said| said.contains("started"));
    assert_eq!(edge.stop(), Some(0));
    let journal = std::fs::read_to_string(site.folder().join("vendor-1/journal")).unwrap();
    assert!(journal.contains("core/pod/default/own"), "{journal}");
    let _edge = join(&site, program, "vendor-1");
    site.until(&["get", "pod", "own"], |said| said.contains("1/1"));
    assert_eq!(id(&site), before, "the container was started anew");
    site.kubectl(&["delete", "pod", "own", "--grace-period=1", "--timeout=60s"]);
}

/// A scale that answers until the test ends.
fn scale(tare: &Arc<Mutex<String>>) -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let (port, tare) = (listener.local_addr().unwrap().port(), Arc::clone(tare));
    thread::spawn(move || {
        for stream in listener.incoming().map_while(Result::ok) {
            let mut answers = stream.try_clone().unwrap();
            for line in BufReader::new(stream).lines().map_while(Result::ok) {
                let words: Vec<_> = line.split(' ').collect();
                let answer = match words[..] {
                    ["GET", "weight"] => "12.5".to_owned(),
                    ["GET", "tare"] => tare.lock().unwrap().clone(),
                    ["SET", "tare", value] => {
                        value.clone_into(&mut tare.lock().unwrap());
                        "OK".to_owned()
                    }
                    _ => "?".to_owned(),
                };
                if writeln!(answers, "{answer}").is_err() {
                    break;
                }
            }
        }
    });
    port
}

#[test]
fn a_mapper_of_a_few_lines_brings_a_new_protocol_to_kubectl() {
    if skipped(&["kubectl"]) {
        return;
    }
    let site = Site::start(&[]);
    let _edge = join(&site, env!("CARGO_BIN_EXE_custom-mapper"), "shop-floor");
    let tare = Arc::new(Mutex::new("0".to_owned()));
    let port = scale(&tare);
    let property = |name: &str, more: &str| {
        format!(
            "{{name: {name}, collectCycle: 100, reportCycle: 100, reportToCloud: true, {more} visitors: {{protocolName: acme-scale, configData: {{quantity: {name}}}}}}}"
        )
    };
    let document = format!(
        "apiVersion: devices.kubeedge.io/v1beta1\nkind: DeviceModel\nmetadata: {{name: scale}}\nspec:\n  protocol: acme-scale\n  properties: [{{name: weight, type: FLOAT, accessMode: ReadOnly}}, {{name: tare, type: INT, accessMode: ReadWrite}}]\n---\napiVersion: devices.kubeedge.io/v1beta1\nkind: Device\nmetadata: {{name: scale}}\nspec:\n  deviceModelRef: {{name: scale}}\n  nodeName: shop-floor\n  protocol: {{protocolName: acme-scale, configData: {{host: '127.0.0.1:{port}'}}}}\n  properties: [{}, {}]\n",
        property("weight", ""),
        property("tare", "desired: {value: '3'},")
    );
    site.apply(&document).unwrap();
    let status = ["get", "devicestatus", "scale", "-o", "jsonpath={.status.twins[*].reported.value}"];
    site.until(&status, |said| said.contains("12.5") && said.split(' ').any(|word| word == "3"));
    assert_eq!(*tare.lock().unwrap(), "3");
}

#[test]
fn a_vendors_module_in_two_halves_talks_across_the_link() {
    let folder = tempfile::TempDir::new().unwrap();
    let mut command = Command::new(env!("CARGO_BIN_EXE_custom-module"));
    command.arg(folder.path()).current_dir(folder.path());
    let mut both = Background::start(&mut command);
    for said in [
        "oven: baking recipe=\"rye, 220 degrees\"",
        "kitchen: the oven has its recipe node=oven-1",
        "kitchen: the oven is hot node=oven-1 degrees=220",
        "kitchen: baked node=oven-1 said=\"12 loaves\"",
        "kitchen: humidity node=oven-1 said=\"44 %\"",
        "oven: door state=closed",
    ] {
        both.until_said(said, PATIENCE);
    }
    assert_eq!(both.stop(), Some(0));
}

#[test]
fn a_wrong_token_is_told_by_an_edgecore_of_a_vendors() {
    if skipped(&["kubectl"]) {
        return;
    }
    let site = Site::start(&[]);
    let cloud = ["CloudHub", "join", "tunnel"].map(|server| site.address(server).to_string());
    let mut command = Command::new(env!("CARGO_BIN_EXE_custom-mapper"));
    command.arg("stranger").args(cloud).args(["no.such.to.ken", "stranger"]).current_dir(site.folder());
    let edge = Background::start(&mut command);
    edge.until_said("token", PATIENCE);
}

#[test]
fn a_metered_link_says_what_it_took() {
    if skipped(&["kubectl"]) {
        return;
    }
    let site = Site::start(&[]);
    let mut edge = join(&site, env!("CARGO_BIN_EXE_custom-transport"), "metered");
    assert_eq!(edge.stop(), Some(0));
    edge.until_said("bytes of messages sent=", PATIENCE);
}

#[test]
fn a_vendors_site_is_ready_for_kubectl() {
    let folder = tempfile::tempdir().unwrap();
    let mut site =
        Background::start(Command::new(env!("CARGO_BIN_EXE_custom-site")).arg(folder.path().join("site")));
    site.until_said("the site is ready", PATIENCE);
    assert!(folder.path().join("site/kubeconfig").exists());
    assert_eq!(site.stop(), Some(0));
}

#[test]
fn a_vendors_cloudcore_runs_its_module() {
    let folder = tempfile::tempdir().unwrap();
    let mut cloud =
        Background::start(Command::new(env!("CARGO_BIN_EXE_custom-cloudcore")).arg(folder.path()));
    cloud.until_said("acme census nodes=0", PATIENCE);
    assert_eq!(cloud.stop(), Some(0));
}
