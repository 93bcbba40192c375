use kubeedge_config::conformance::variations;
use kubeedge_config::{self as config, ConfigFile};

use super::*;

fn host() -> Host {
    Host { name: "node-1".to_owned(), address: [192, 0, 2, 2].into() }
}

fn read(yaml: &str) -> EdgeCoreConfig {
    config::read("edgecore.yaml", yaml, &host()).unwrap().config
}

fn join(plan: &EdgePlan) -> &JoinSettings {
    match &plan.settings.hub.identity {
        IdentitySource::Join(join) => join,
        other => panic!("{other:?}"),
    }
}

#[test]
fn the_defaults_give_what_go_does() {
    let plan = EdgePlan::new(&EdgeCoreConfig::defaults(&host()), &host()).unwrap();
    assert_eq!((plan.settings.hub.servers, plan.settings.hub.qps), (vec!["192.0.2.2:10000".to_owned()], 30));
    assert_eq!(plan.settings.node, "node-1");
    assert_eq!(plan.settings.edged.node_ip, "192.0.2.2");
    assert_eq!(plan.settings.eventbus.mode, MqttMode::External);
    assert_eq!(plan.database, PathBuf::from("/var/lib/kubeedge/edgecore.db"));
    assert_eq!(plan.runtime.runtime, "unix:///run/containerd/containerd.sock");
    assert_eq!((plan.runtime.images, plan.runtime.timeout), (None, Duration::from_secs(120)));
    assert!(plan.settings.without.is_empty(), "{:?}", plan.settings.without);
}

#[test]
fn nodes_do_not_share_their_random_numbers() {
    let of = |name: &str| {
        let yaml = format!("{{modules: {{edged: {{hostnameOverride: {name}}}}}}}");
        EdgePlan::new(&read(&yaml), &host()).unwrap().settings.hub.seed
    };
    assert_eq!(of("a"), of("a"));
    assert_ne!(of("a"), of("b"));
}

#[test]
fn taints_come_from_the_list_and_from_a_node_that_is_not_schedulable() {
    let plan = EdgePlan::new(
        &read(
            "{modules: {edged: {registerSchedulable: false, tailoredKubeletConfig: \
             {registerWithTaints: [{key: a, value: b, effect: NoExecute}]}}}}",
        ),
        &host(),
    );
    let taints = plan.unwrap().settings.edged.node_taints;
    let short: Vec<_> =
        taints.iter().map(|t| (t.key.as_str(), t.value.as_deref(), t.effect.as_str())).collect();
    assert_eq!(
        short,
        [("a", Some("b"), "NoExecute"), ("node.kubernetes.io/unschedulable", None, "NoSchedule")]
    );
}

#[test]
fn the_token_may_come_from_the_bootstrap_file_or_the_configuration() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("bootstrap-edgecore.conf");
    let mut plan = EdgePlan::new(&read("{modules: {edgeHub: {token: one}}}"), &host()).unwrap();
    assert_eq!(join(&plan).token_file, None);
    plan.bootstrap(&file);
    assert_eq!(join(&plan).token.as_deref(), Some("one"));
    assert_eq!(join(&plan).token_file, Some(file));
    let none = EdgePlan::new(&read(""), &host()).unwrap();
    assert_eq!(join(&none).token, None);
}

#[test]
fn everything_can_be_kept_in_one_folder() {
    let mut plan = EdgePlan::new(&EdgeCoreConfig::defaults(&host()), &host()).unwrap();
    plan.keep_in(Path::new("/data"));
    let join = join(&plan);
    let edged = &plan.settings.edged;
    for path in [&plan.database, &join.ca_file, &join.cert_file, &join.key_file, &edged.root, &edged.logs] {
        assert!(path.starts_with("/data"), "{}", path.display());
    }
}

#[test]
fn what_cannot_be_done_safely_is_refused_with_the_key() {
    let yaml = "{modules: {eventBus: {eventBusTLS: {enable: true}}}}";
    let path = "modules.eventBus.eventBusTLS.enable";
    assert_eq!(EdgePlan::new(&read(yaml), &host()).unwrap_err().path, path);
}

#[test]
fn quic_is_dialled_alone_or_before_websocket_as_the_switches_say() {
    let of = |websocket: bool, quic: bool| {
        let yaml = format!(
            "{{modules: {{edgeHub: {{websocket: {{enable: {websocket}, writeDeadline: 1}}, quic: {{enable: {quic}}}}}}}}}"
        );
        let plan = EdgePlan::new(&read(&yaml), &host()).unwrap();
        let hub = &plan.settings.hub;
        let servers = hub.servers.join(" ");
        (servers, hub.handshake.as_secs(), hub.write.as_secs(), plan.quic.map(|quic| quic.falls_back))
    };
    assert_eq!(of(true, false), ("192.0.2.2:10000".to_owned(), 30, 1, None));
    assert_eq!(of(true, true), ("192.0.2.2:10000".to_owned(), 60, 15, Some(true)));
    assert_eq!(of(false, true), ("192.0.2.2:10001".to_owned(), 30, 15, Some(false)));
}

#[test]
fn several_cloudcores_can_be_named() {
    let config = read(
        "{modules: {edgeHub: {websocket: {server: 'a:10000, b:10000'}}, edgeStream: {enable: true, server: 'a:10004,b:10004'}}}",
    );
    let plan = EdgePlan::new(&config, &host()).unwrap();
    assert_eq!(plan.settings.hub.servers, ["a:10000", "b:10000"]);
    assert_eq!(plan.settings.stream.unwrap().servers, ["a:10004", "b:10004"].map(Into::into));
}

#[test]
fn how_many_uploads_may_wait_can_be_set() {
    let of = |yaml: &str| {
        let hub = EdgePlan::new(&read(yaml), &host()).unwrap().settings.hub;
        (hub.uploads, hub.upload_bytes)
    };
    assert_eq!(of(""), (8192, 32 << 20));
    let yaml = "{modules: {edgeHub: {uploadQueueSize: 100000, uploadQueueBytes: 5000000000}}}";
    assert_eq!(of(yaml), (100_000, 5_000_000_000));
}

/// What becomes of a configuration, all in one text, with the secrets that are not printed for debugging.
fn outcome(config: &EdgeCoreConfig) -> String {
    let plan = EdgePlan::new(config, &host());
    let mut secrets = String::new();
    if let Ok(plan) = &plan {
        secrets = format!("{:?} {}", join(plan).token, plan.settings.eventbus.password);
    }
    format!("{plan:?} {secrets}")
}

#[test]
fn exactly_the_keys_said_to_be_acted_on_change_something() {
    // Keys without a default are not varied: here they have one. One more than mode 2 would be no mode.
    let base = read(
        "{modules: {eventBus: {mqttMode: 1}, edgeHub: {quic: {enable: true}, uploadQueueSize: 1, uploadQueueBytes: 1}, edgeStream: {enable: true}, edged: {nodeIP: 192.0.2.9, nodeLabels: {a: b}, \
         tailoredKubeletConfig: {clusterDNS: [192.0.2.10], registerWithTaints: [{key: a, effect: NoExecute}]}}}}",
    );
    let changes = variations(&base, "/another/file");
    assert!(changes.len() > 150, "{}", changes.len());
    let before = outcome(&base);
    for (path, changed) in changes {
        let told = not_acted_on(&changed, &host()).contains(&path);
        assert_eq!(outcome(&changed) != before, !told, "{path}");
    }
}
