use std::{collections::BTreeMap, fs};

use serde_json::Value;

use super::{cloud::CloudCoreConfig, edge::EdgeCoreConfig, *};

fn host() -> Host {
    Host { name: "node-1".to_owned(), address: [192, 0, 2, 2].into() }
}

fn edge(yaml: &str) -> Result<Loaded<EdgeCoreConfig>, ConfigError> {
    read("edgecore.yaml", yaml, &host())
}

fn cloud(yaml: &str) -> Result<Loaded<CloudCoreConfig>, ConfigError> {
    read("cloudcore.yaml", yaml, &host())
}

fn problems<C: std::fmt::Debug>(read: Result<Loaded<C>, ConfigError>) -> Vec<String> {
    match read {
        Err(ConfigError::Invalid { problems, .. }) => problems.iter().map(Problem::to_string).collect(),
        other => panic!("{other:?}"),
    }
}

/// `a.b.c value` for every key, from a YAML document.
fn keys(yaml: &str) -> BTreeMap<String, Value> {
    fn walk(path: &str, value: &Value, keys: &mut BTreeMap<String, Value>) {
        match value.as_object() {
            Some(map) if !map.is_empty() => {
                for (key, value) in map {
                    let path = if path.is_empty() { key.clone() } else { format!("{path}.{key}") };
                    walk(&path, value, keys);
                }
            }
            _ => drop(keys.insert(path.to_owned(), value.clone())),
        }
    }
    let mut found = BTreeMap::new();
    walk("", &serde_saphyr::from_str(yaml).unwrap(), &mut found);
    found
}

fn expected(list: &str) -> BTreeMap<String, Value> {
    let pairs = list.lines().map(|line| line.split_once(' ').unwrap());
    pairs.map(|(key, value)| (key.to_owned(), serde_json::from_str(value).unwrap())).collect()
}

#[test]
fn the_default_cloudcore_file_has_gos_keys_and_values() {
    let printed = default_yaml::<CloudCoreConfig>(&host());
    assert_eq!(keys(&printed), expected(include_str!("tests/cloudcore-defaults.txt")));
}

#[test]
fn the_default_edgecore_file_has_gos_keys_and_values() {
    let printed = default_yaml::<EdgeCoreConfig>(&host());
    assert_eq!(keys(&printed), expected(include_str!("tests/edgecore-defaults.txt")));
}

#[test]
fn a_file_that_was_printed_gives_the_defaults_when_it_is_read() {
    for yaml in [default_yaml::<EdgeCoreConfig>(&host()), minimal_yaml::<EdgeCoreConfig>(&host())] {
        let loaded = edge(&yaml).unwrap();
        assert_eq!((loaded.config, loaded.warnings), (EdgeCoreConfig::defaults(&host()), vec![]));
    }
    for yaml in [default_yaml::<CloudCoreConfig>(&host()), minimal_yaml::<CloudCoreConfig>(&host())] {
        let loaded = cloud(&yaml).unwrap();
        assert_eq!((loaded.config, loaded.warnings), (CloudCoreConfig::defaults(&host()), vec![]));
    }
}

#[test]
fn the_minimal_file_shows_the_modules_as_enabled() {
    let minimal = keys(&minimal_yaml::<EdgeCoreConfig>(&host()));
    for module in ["edged", "edgeHub", "eventBus", "deviceTwin"] {
        assert_eq!(minimal[&format!("modules.{module}.enable")], true, "{module}");
    }
    assert_eq!(minimal["modules.edgeHub.websocket.server"], "192.0.2.2:10000");
    let minimal = keys(&minimal_yaml::<CloudCoreConfig>(&host()));
    assert_eq!(minimal["modules.cloudHub.enable"], true);
    assert_eq!(minimal["modules.cloudHub.unixsocket.address"], "unix:///var/lib/kubeedge/kubeedge.sock");
    assert!(!minimal.contains_key("modules.cloudHub.quic.port"), "minimal is not all");
}

#[test]
fn every_path_of_the_minimal_file_is_a_key() {
    fn missing<C: ConfigFile>(optional: &[&str]) -> Vec<&'static str> {
        let all = keys(&default_yaml::<C>(&host()));
        let is = |path: &str| all.keys().any(|key| key == path || key.starts_with(&format!("{path}.")));
        C::MINIMAL.iter().copied().filter(|path| !is(path) && !optional.contains(path)).collect()
    }
    let dns = "modules.edged.tailoredKubeletConfig.clusterDNS";
    assert_eq!(missing::<EdgeCoreConfig>(&[dns]), Vec::<&str>::new());
    assert_eq!(missing::<CloudCoreConfig>(&[]), Vec::<&str>::new());
}

#[test]
fn an_empty_file_or_one_of_comments_gives_the_defaults() {
    for yaml in ["", "# nothing yet\n", "---\n", "{}\n", "modules:\n"] {
        assert_eq!(edge(yaml).unwrap().config, EdgeCoreConfig::defaults(&host()), "{yaml:?}");
    }
}

#[test]
fn keys_are_read_without_regard_to_case_and_null_leaves_the_default() {
    let yaml = "modules:\n  EDGEHUB: {Heartbeat: 7, messageqps: null}\n  eventBus: ~\n";
    let loaded = edge(yaml).unwrap();
    assert_eq!(loaded.warnings, vec![]);
    assert_eq!(loaded.config.modules.edge_hub.heartbeat, 7);
    assert_eq!(loaded.config.modules.edge_hub.message_qps, 30);
    assert_eq!(loaded.config.modules.event_bus.mqtt_mode, 2);
}

#[test]
fn a_bound_of_uploads_that_is_none_is_told_with_its_key() {
    let yaml = "{modules: {edgeHub: {uploadQueueSize: 0, uploadQueueBytes: 0}}}";
    let found = problems(edge(yaml)).join("; ");
    for key in ["modules.edgeHub.uploadQueueSize", "modules.edgeHub.uploadQueueBytes"] {
        assert!(found.contains(key) && found.contains("must be 1 or more"), "{found}");
    }
    assert!(edge("{modules: {edgeHub: {uploadQueueSize: -1}}}").is_err());
    let one = edge("{modules: {edgeHub: {uploadQueueSize: 1, uploadQueueBytes: 1}}}").unwrap();
    assert_eq!(one.warnings, vec![]);
}

#[test]
fn every_kind_of_value_is_read() {
    let yaml = r#"
edgecoreVersion: v1.23.0
featureGates: {requireAuthorization: yes}
modules:
  edged:
    nodeLabels: {zone: "7", a.b/c: d}
    minimumGCAge: 1h30m
    tailoredKubeletConfig:
      clusterDNS: [169.254.96.16]
      memoryThrottlingFactor: 1
      maxPods: 30.0
      logging: {flushFrequency: 5000000000, vmodule: [{filePattern: x, verbosity: 3}]}
      shutdownGracePeriodByPodPriority: [{priority: 10, shutdownGracePeriodSeconds: 20}]
      registerWithTaints: [{key: edge, value: "1", effect: NoSchedule}]
      reservedMemory: [{numaNode: 0, limits: {memory: 1Gi}}]
"#;
    let loaded = edge(yaml).unwrap();
    assert_eq!(loaded.warnings, vec![]);
    let edged = &loaded.config.modules.edged;
    assert_eq!(edged.node_labels.as_ref().unwrap()["a.b/c"], "d");
    assert_eq!(edged.minimum_gc_age, GoDuration::secs(5400));
    assert_eq!(edged.tailored_kubelet_config.max_pods, 30);
    assert_eq!(edged.tailored_kubelet_config.register_with_taints.as_ref().unwrap()[0].key, "edge");
    assert!(Gate::RequireAuthorization.is_on(loaded.config.feature_gates.as_ref().unwrap()));
    assert!(!Gate::ModuleRestart.is_on(&FeatureGates::new()));
}

#[test]
fn broken_yaml_names_file_line_and_column() {
    for (yaml, line) in [
        ("modules:\n  edgeHub: {heartbeat: 15\n  edged: {}\n", 3),
        ("modules:\n\tedgeHub: {}\n", 2),
        ("a: 1\nb: \"unclosed\n", 2),
        ("a: 1\na: 2\n", 2),
        ("modules:\n  edged: *nowhere\n", 2),
    ] {
        let error = edge(yaml).unwrap_err();
        let ConfigError::Yaml { place: Some(place), .. } = &error else { panic!("{yaml:?}: {error:?}") };
        assert!(place.line.abs_diff(line) <= 1 && place.column > 0, "{yaml:?}: {place}");
        let text = error.to_string();
        assert!(text.starts_with(&format!("edgecore.yaml: {place}: not valid YAML: ")), "{text}");
        assert!(!text.contains(" at line "), "{text}");
    }
}

#[test]
fn an_unknown_key_is_a_warning_with_its_place_and_the_nearest_key() {
    let yaml = "\
modules:
  edgeHub:
    hartbeat: 15
  edged:
    maxPods: 3
    whatIsThis: {a: 1}
  edgHub: {}
";
    let loaded = edge(yaml).unwrap();
    let warnings: Vec<_> = loaded.warnings.iter().map(Warning::to_string).collect();
    assert_eq!(
        warnings,
        [
            "line 7, column 3: modules.edgHub: no such key, it is ignored; did you mean edgeHub?",
            "line 3, column 5: modules.edgeHub.hartbeat: no such key, it is ignored; did you mean heartbeat?",
            "line 5, column 5: modules.edged.maxPods: no such key, it is ignored; \
             did you mean modules.edged.tailoredKubeletConfig.maxPods?",
            "line 6, column 5: modules.edged.whatIsThis: no such key, it is ignored",
        ]
    );
}

#[test]
fn values_of_a_wrong_type_are_all_named_with_their_places() {
    let yaml = "\
modules:
  edgeHub:
    heartbeat: often
    enable: 1
    projectID: 42
    messageQPS: -1
    websocket: []
  eventBus: {mqttQOS: 300}
  metaManager: 5
  edged: {minimumGCAge: 5, tailoredKubeletConfig: {clusterDNS: [1, 10.0.0.1], syncFrequency: soon}}
";
    let mut found = problems(edge(yaml));
    found.sort();
    let mut wanted = [
        "line 3, column 16: modules.edgeHub.heartbeat: is the text \"often\", must be a whole number, 0 or more",
        "line 4, column 13: modules.edgeHub.enable: is 1, must be true or false",
        "line 5, column 16: modules.edgeHub.projectID: is 42, must be text; put it in quotes",
        "line 6, column 17: modules.edgeHub.messageQPS: is -1, must be a whole number, 0 or more",
        "line 7, column 16: modules.edgeHub.websocket: is a list, must be a block of keys",
        "line 8, column 23: modules.eventBus.mqttQOS: is 300, must be a whole number from 0 to 255",
        "line 9, column 16: modules.metaManager: is 5, must be a block of keys",
        "line 10, column 25: modules.edged.minimumGCAge: is 5, must be a duration such as 30s, 5m or 1h30m",
        "line 10, column 65: modules.edged.tailoredKubeletConfig.clusterDNS[0]: is 1, must be text; put it in quotes",
        "line 10, column 94: modules.edged.tailoredKubeletConfig.syncFrequency: is the text \"soon\", \
         must be a duration such as 30s, 5m or 1h30m",
    ];
    wanted.sort_unstable();
    assert_eq!(found, wanted);
}

#[test]
fn a_document_that_is_no_map_is_refused() {
    assert_eq!(problems(edge("- 1\n")), ["line 1, column 1: is a list, must be a block of keys"]);
    assert_eq!(
        problems(edge("hello\n")),
        ["line 1, column 1: is the text \"hello\", must be a block of keys"]
    );
}

#[test]
fn the_file_of_the_other_component_is_refused_and_another_version_is_a_warning() {
    let found = problems(edge("apiVersion: v1\nkind: CloudCore\n"));
    assert_eq!(
        found,
        ["line 2, column 7: kind: is \"CloudCore\", must be EdgeCore: this is another program's file"]
    );
    // The Helm chart of Go's KubeEdge writes this version.
    let loaded = cloud("apiVersion: cloudcore.config.kubeedge.io/v1alpha2\nkind: CloudCore\n").unwrap();
    assert_eq!(
        loaded.warnings[0].to_string(),
        "line 1, column 13: apiVersion: is \"cloudcore.config.kubeedge.io/v1alpha2\", \
         read as cloudcore.config.kubeedge.io/v1alpha1"
    );
}

#[test]
fn an_unknown_feature_gate_is_refused() {
    let list = "requireAuthorization, moduleRestart, disableNodeTaskV1alpha2";
    let wanted = format!("line 1, column 16: featureGates.foo: unknown feature gate; there are {list}");
    assert_eq!(
        problems(edge("featureGates: {foo: true, moduleRestart: true}\n")),
        std::slice::from_ref(&wanted)
    );
    assert_eq!(problems(cloud("featureGates: {foo: false}\n")), [wanted]);
}

/// Sets one key by its path, in a document of its own.
fn with(path: &str, value: &str) -> String {
    let open: String = path.split('.').map(|part| format!("{{{part}: ")).collect();
    format!("{open}{value}{}\n", "}".repeat(path.split('.').count()))
}

#[test]
fn every_rule_of_edgecore_is_kept() {
    for (path, value, what) in [
        ("database.dataSource", "edge.db", "must be a full path"),
        ("modules.edged.hostnameOverride", "Node_1", "must be a name of small letters"),
        ("modules.edged.nodeIP", "edge", "must be an IP address"),
        ("modules.edged.rootDirectory", "kubelet", "must be a full path"),
        ("modules.edged.tailoredKubeletConfig.cgroupDriver", "docker", "must be one of cgroupfs, systemd"),
        ("modules.edged.tailoredKubeletConfig.readOnlyPort", "99999", "must be a port"),
        ("modules.edged.tailoredKubeletConfig.address", "here", "must be an IP address"),
        ("modules.edged.tailoredKubeletConfig.podLogsDir", "logs", "must be a full path"),
        ("modules.edged.tailoredKubeletConfig.nodeLeaseDurationSeconds", "0", "must be 1 or more"),
        ("modules.edged.tailoredKubeletConfig.oomScoreAdj", "-1001", "must be from -1000 to 1000"),
        ("modules.edged.tailoredKubeletConfig.imageGCHighThresholdPercent", "101", "must be from 0 to 100"),
        ("modules.edged.tailoredKubeletConfig.imageGCLowThresholdPercent", "85", "must be less than"),
        ("modules.edgeHub.heartbeat", "0", "must be 1 or more"),
        ("modules.edgeHub.httpServer", "http://192.0.2.1:10002", "must be a URL such as https://"),
        ("modules.edgeHub.httpServer", "https://192.0.2.1", "must be host:port"),
        ("modules.edgeHub.websocket.enable", "false", "one of them must be true"),
        ("modules.edgeHub.websocket.server", "cloud", "must be host:port"),
        ("modules.edgeHub.websocket.server", "user@cloud:1", "must be host:port"),
        ("modules.edgeHub.websocket.handshakeTimeout", "0", "must be 1 or more"),
        ("modules.edgeHub.websocket.writeDeadline", "0", "must be 1 or more"),
        ("modules.eventBus.mqttMode", "3", "must be 0 (internal broker), 1 (both) or 2 (external broker)"),
        ("modules.eventBus.mqttQOS", "3", "must be 0, 1 or 2"),
        ("modules.eventBus.mqttServerExternal", "127.0.0.1:1883", "must be a URL such as tcp://"),
        ("modules.eventBus.mqttServerExternal", "tcp://127.0.0.1", "must be host:port"),
        ("modules.eventBus.mqttServerExternal", "ssl://127.0.0.1:8883", "MQTT over TLS is not spoken yet"),
        ("modules.eventBus.mqttServerExternal", "wss://127.0.0.1:8883", "MQTT over TLS is not spoken yet"),
        ("modules.metaManager.remoteQueryTimeout", "0", "must be 1 or more"),
        ("modules.deviceTwin.dmiSockPath", "dmi.sock", "must be a full path"),
    ] {
        let found = problems(edge(&with(path, value)));
        assert_eq!(found.len(), 1, "{path}: {found:?}");
        assert!(found[0].contains(what) && found[0].contains(&format!("{path}: ")), "{path}: {found:?}");
        assert!(found[0].starts_with("line 1, column "), "{path}: {found:?}");
    }
}

#[test]
fn rules_of_edgecore_that_take_more_than_one_key_are_kept() {
    for (yaml, path) in [
        ("{modules: {edgeHub: {websocket: {enable: false}}}}", "modules.edgeHub.websocket.enable"),
        (
            "{modules: {edgeHub: {quic: {enable: true, handshakeTimeout: 0}}}}",
            "modules.edgeHub.quic.handshakeTimeout",
        ),
        (
            "{modules: {edgeHub: {websocket: {enable: false}, quic: {enable: true, server: x}}}}",
            "modules.edgeHub.quic.server",
        ),
        ("{modules: {edgeStream: {enable: true, server: x}}}", "modules.edgeStream.server"),
        (
            "{modules: {edgeStream: {enable: true, handshakeTimeout: 0}}}",
            "modules.edgeStream.handshakeTimeout",
        ),
        ("{modules: {serviceBus: {enable: true, server: x}}}", "modules.serviceBus.server"),
        ("{modules: {serviceBus: {enable: true, port: 0}}}", "modules.serviceBus.port"),
        (
            "{modules: {metaManager: {metaServer: {enable: true, server: x}}}}",
            "modules.metaManager.metaServer.server",
        ),
        (
            "{modules: {metaManager: {metaServer: {enable: true, dummyServer: x}}}}",
            "modules.metaManager.metaServer.dummyServer",
        ),
        (
            "{modules: {eventBus: {mqttMode: 0, mqttServerInternal: x}}}",
            "modules.eventBus.mqttServerInternal",
        ),
        (
            "{modules: {edged: {tailoredKubeletConfig: {clusterDNS: [10.0.0.1, x]}}}}",
            "modules.edged.tailoredKubeletConfig.clusterDNS[1]",
        ),
        (
            "{modules: {edged: {tailoredKubeletConfig: {registerWithTaints: [{key: a, effect: Never}]}}}}",
            "modules.edged.tailoredKubeletConfig.registerWithTaints[0].effect",
        ),
        (
            "{modules: {edged: {tailoredKubeletConfig: {registerWithTaints: [{effect: NoExecute}]}}}}",
            "modules.edged.tailoredKubeletConfig.registerWithTaints[0].key",
        ),
    ] {
        let found = problems(edge(yaml));
        assert_eq!(found.len(), 1, "{yaml}: {found:?}");
        assert!(found[0].contains(&format!("{path}: ")), "{yaml}: {found:?}");
    }
}

#[test]
fn every_rule_of_cloudcore_is_kept() {
    for (path, value, what) in [
        ("commonConfig.tunnelPort", "0", "must be a port"),
        ("commonConfig.monitorServer.bindAddress", "localhost", "must be an IP address and a port"),
        ("kubeAPIConfig.kubeConfig", "kube/config", "must be a full path"),
        ("kubeAPIConfig.kubeConfig", "/nowhere/config", "is not there"),
        ("kubeAPIConfig.master", "192.0.2.1", "must be a URL"),
        ("modules.cloudHub.nodeLimit", "0", "must be 1 or more"),
        ("modules.cloudHub.keepaliveInterval", "0", "must be 1 or more"),
        ("modules.cloudHub.writeTimeout", "0", "must be 1 or more"),
        ("modules.cloudHub.edgeCertSigningDuration", "0", "must be 1 or more"),
        ("modules.cloudHub.tokenRefreshDuration", "0", "must be 1 or more"),
        ("modules.cloudHub.https.address", "all", "must be an IP address"),
        ("modules.cloudHub.https.port", "99999", "is 99999, must be a port from 1 to 65535"),
        ("modules.cloudHub.websocket.address", "all", "must be an IP address"),
        ("modules.cloudHub.websocket.port", "0", "must be a port"),
        ("modules.cloudHub.websocket.enable", "false", "no edge could connect"),
        ("modules.cloudHub.unixsocket.address", "/tmp/x", "must be unix:// and a full path"),
        ("modules.edgeController.nodeUpdateFrequency", "0", "must be 1 or more"),
        ("modules.iptablesManager.mode", "both", "must be one of internal, external"),
    ] {
        let found = problems(cloud(&with(path, value)));
        assert_eq!(found.len(), 1, "{path}: {found:?}");
        assert!(found[0].contains(what) && found[0].contains(&format!("{path}: ")), "{path}: {found:?}");
    }
    for (yaml, path) in [
        (
            "{modules: {cloudHub: {advertiseAddress: [192.0.2.1, me]}}}",
            "modules.cloudHub.advertiseAddress[1]",
        ),
        ("{modules: {cloudHub: {quic: {enable: true, port: 0}}}}", "modules.cloudHub.quic.port"),
        ("{modules: {cloudHub: {quic: {enable: true, address: x}}}}", "modules.cloudHub.quic.address"),
        ("{modules: {cloudStream: {enable: true, tunnelPort: 0}}}", "modules.cloudStream.tunnelPort"),
        ("{modules: {cloudStream: {enable: true, streamPort: 0}}}", "modules.cloudStream.streamPort"),
        ("{modules: {router: {enable: true, address: x}}}", "modules.router.address"),
        ("{modules: {router: {enable: true, port: 0}}}", "modules.router.port"),
        ("{modules: {router: {enable: true, restTimeout: 0}}}", "modules.router.restTimeout"),
    ] {
        let found = problems(cloud(yaml));
        assert_eq!(found.len(), 1, "{yaml}: {found:?}");
        assert!(found[0].contains(&format!("{path}: ")), "{yaml}: {found:?}");
    }
}

#[test]
fn a_module_that_is_off_is_not_looked_at() {
    edge("{modules: {eventBus: {enable: false, mqttMode: 9}, edgeHub: {enable: false, heartbeat: 0}}}")
        .unwrap();
    cloud("{modules: {cloudHub: {enable: false, nodeLimit: 0, https: {port: 0}}}}").unwrap();
}

#[test]
fn keys_set_away_from_their_default_and_not_acted_on_are_told() {
    let yaml = "\
modules:
  edgeHub: {heartbeat: 7, messageQPS: 30, messageBurst: 1}
  edged: {nodeLabels: {zone: a}, tailoredKubeletConfig: {maxPods: 3, evictionHard: {memory.available: 1Gi}}}
";
    let config = edge(yaml).unwrap().config;
    assert_eq!(
        not_acted_on(&config, &host(), &["modules.edgeHub.heartbeat", "modules.edged.nodeLabels"]),
        [
            "modules.edgeHub.messageBurst",
            "modules.edged.tailoredKubeletConfig.evictionHard.imagefs.available",
            "modules.edged.tailoredKubeletConfig.evictionHard.imagefs.inodesFree",
            "modules.edged.tailoredKubeletConfig.evictionHard.memory.available",
            "modules.edged.tailoredKubeletConfig.evictionHard.nodefs.available",
            "modules.edged.tailoredKubeletConfig.evictionHard.nodefs.inodesFree",
            "modules.edged.tailoredKubeletConfig.maxPods",
        ]
    );
    assert_eq!(away_from_default(&EdgeCoreConfig::defaults(&host()), &host()), Vec::<String>::new());
}

#[test]
fn a_file_too_large_or_not_there_is_told() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("edgecore.yaml");
    let error = load::<EdgeCoreConfig>(&path, &host()).unwrap_err().to_string();
    assert!(error.contains(path.to_str().unwrap()) && error.contains("--minconfig"), "{error}");
    fs::write(&path, vec![b'#'; MAX_FILE as usize + 1]).unwrap();
    let error = load::<EdgeCoreConfig>(&path, &host()).unwrap_err();
    assert!(matches!(error, ConfigError::TooLarge { .. }), "{error:?}");
    fs::write(&path, vec![b'#'; MAX_FILE as usize]).unwrap();
    load::<EdgeCoreConfig>(&path, &host()).unwrap();
    fs::write(&path, b"\xff\xfe\x00").unwrap();
    assert!(matches!(load::<EdgeCoreConfig>(&path, &host()), Err(ConfigError::File { .. })));
}

#[test]
fn a_bomb_of_aliases_and_endless_nesting_are_refused() {
    let mut bomb = "a0: &a0 [x, x, x, x, x, x, x, x, x]\n".to_owned();
    for level in 1..12 {
        let inner = vec![format!("*a{}", level - 1); 9].join(", ");
        bomb.push_str(&format!("a{level}: &a{level} [{inner}]\n"));
    }
    assert!(matches!(edge(&bomb), Err(ConfigError::Yaml { .. })));
    assert!(matches!(edge(&format!("a: {}", "[".repeat(10_000))), Err(ConfigError::Yaml { .. })));
}

#[test]
fn many_problems_do_not_take_for_ever() {
    let labels: String = (0..5000).map(|n| format!("k{n}: {n}, ")).collect();
    let found = problems(edge(&format!("{{modules: {{edged: {{nodeLabels: {{{labels}}}}}}}}}\n")));
    assert_eq!(found.len(), MAX_PROBLEMS);
}
