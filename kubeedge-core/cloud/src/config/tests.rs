use kubeedge_config::conformance::variations;
use kubeedge_config::{self as config, ConfigFile};

use super::*;

fn host() -> Host {
    Host { name: "cloud".to_owned(), address: [192, 0, 2, 2].into() }
}

fn read(yaml: &str) -> CloudCoreConfig {
    config::read("cloudcore.yaml", yaml, &host()).unwrap().config
}

#[test]
fn the_defaults_give_what_go_listens_on() {
    let plan = CloudPlan::new(&CloudCoreConfig::defaults(&host())).unwrap();
    let settings = &plan.settings;
    assert_eq!(settings.listen, Endpoint::from("0.0.0.0:10000"));
    assert_eq!(settings.certs.listen.to_string(), "0.0.0.0:10002");
    assert_eq!(settings.certs.names, ["192.0.2.2"]);
    assert_eq!(settings.certs.token_refresh, Duration::from_secs(12 * 3600));
    assert_eq!(settings.objects.address, "192.0.2.2");
    assert_eq!(settings.hub.times.keepalive, Duration::from_secs(30));
    assert_eq!((settings.hub.node_limit, plan.settings.without.len()), (500, 0));
    assert!(plan.settings.stream.is_none());
}

#[test]
fn modules_that_are_off_are_left_out_and_the_tunnel_is_added() {
    let plan = CloudPlan::new(&read(
        "{modules: {syncController: {enable: false}, deviceController: {enable: false}, \
         cloudStream: {enable: true, tunnelPort: 20004}, cloudHub: {nodeLimit: 7}}}",
    ));
    let plan = plan.unwrap();
    let off = [ModuleName::DEVICE_CONTROLLER, ModuleName::SYNC_CONTROLLER];
    assert_eq!(plan.settings.without, off.into());
    let tunnel = plan.settings.stream.unwrap();
    assert_eq!((tunnel.listen, tunnel.node_limit), (Endpoint::from("0.0.0.0:20004"), 7));
}

#[test]
fn certificate_files_count_when_one_of_a_pair_is_there() {
    let folder = tempfile::tempdir().unwrap();
    let there = folder.path().join("ca.crt");
    std::fs::write(&there, "x").unwrap();
    let yaml = format!(
        "{{modules: {{cloudHub: {{tlsCAFile: {}, tlsCAKeyFile: /nowhere/ca.key, tlsCertFile: /nowhere/a, \
         tlsPrivateKeyFile: /nowhere/b}}}}}}",
        there.display()
    );
    let certs = CloudPlan::new(&read(&yaml)).unwrap().settings.certs;
    assert_eq!(certs.ca_files, Some((there, "/nowhere/ca.key".into())));
    assert_eq!(certs.server_files, None);
}

#[test]
fn an_ipv6_address_can_be_listened_on() {
    let yaml = "{modules: {cloudHub: {websocket: {address: '::1'}, https: {address: '::', port: 1}}}}";
    let settings = CloudPlan::new(&read(yaml)).unwrap().settings;
    assert_eq!(settings.listen, Endpoint::from("[::1]:10000"));
    assert_eq!(settings.certs.listen.to_string(), "[::]:1");
}

#[test]
fn quic_is_served_beside_websocket_or_alone_as_the_switches_say() {
    let of = |websocket: bool, quic: bool| {
        let yaml = format!(
            "{{modules: {{cloudHub: {{websocket: {{enable: {websocket}}}, quic: {{enable: {quic}, port: 7}}}}}}}}"
        );
        CloudPlan::new(&read(&yaml)).unwrap().quic
    };
    let door = |alone| QuicDoor { listen: Endpoint::from("0.0.0.0:7"), streams: 10_000, alone };
    assert_eq!(of(true, false), None);
    assert_eq!((of(true, true), of(false, true)), (Some(door(false)), Some(door(true))));
}

/// What becomes of a configuration, all in one text.
async fn outcome(config: &CloudCoreConfig) -> String {
    let plan = CloudPlan::new(config).map_err(|error| error.to_string());
    let kube = kube_config(&config.kube_api_config).await.map_err(|error| error.to_string());
    let authorization = &config.modules.cloud_hub.authorization;
    format!("{plan:?} {kube:?} {}", authorization.enable && !authorization.debug)
}

#[tokio::test]
async fn exactly_the_keys_said_to_be_acted_on_change_something() {
    // Some keys count only beside others.
    let base = read(
        "{modules: {cloudStream: {enable: true}, \
         cloudHub: {quic: {enable: true}, authorization: {enable: true, debug: false}}}}",
    );
    let changes = variations(&base, concat!(env!("CARGO_MANIFEST_DIR"), "/Cargo.toml"));
    assert!(changes.len() > 100, "{}", changes.len());
    let before = outcome(&base).await;
    for (path, changed) in changes {
        let told = not_acted_on(&changed, &host()).contains(&path);
        let acts = outcome(&changed).await != before;
        assert_eq!(acts, !told, "{path}");
    }
}

#[tokio::test]
async fn a_cluster_that_cannot_be_had_is_told_with_the_key_and_the_way_out() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("kubeconfig");
    let mut config = CloudCoreConfig::defaults(&host());
    if std::env::var_os("KUBERNETES_SERVICE_HOST").is_none() {
        let error = cluster(&config).await.unwrap_err().to_string();
        assert!(error.contains("set kubeAPIConfig.kubeConfig"), "{error}");
    }
    config.kube_api_config.kube_config = file.display().to_string();
    std::fs::write(&file, "clusters: 5\n").unwrap();
    let error = cluster(&config).await.unwrap_err().to_string();
    assert!(error.starts_with("kubeAPIConfig.kubeConfig: ") && error.contains("kubeconfig"), "{error}");
    let kubeconfig = "\
apiVersion: v1
kind: Config
current-context: c
contexts: [{name: c, context: {cluster: c, user: u}}]
users: [{name: u, user: {}}]
clusters: [{name: c, cluster: {server: 'https://198.51.100.7:6443', insecure-skip-tls-verify: true}}]
";
    std::fs::write(&file, kubeconfig).unwrap();
    assert!(matches!(cluster(&config).await, Err(ClusterError::Unverified)));
}
