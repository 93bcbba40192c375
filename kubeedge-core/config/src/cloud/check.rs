//! The rules of `cloudcore.yaml`. A module that does not run is not looked at, nor a listener that is off.

use std::path::Path;

use super::{super::Checks, CloudCoreConfig, CloudHub, KubeApiConfig};

pub(super) fn check(config: &CloudCoreConfig, checks: &mut Checks) {
    checks.port("commonConfig.tunnelPort", config.common_config.tunnel_port);
    checks
        .socket("commonConfig.monitorServer.bindAddress", &config.common_config.monitor_server.bind_address);
    kube_api(&config.kube_api_config, checks);
    let modules = &config.modules;
    if modules.cloud_hub.enable {
        hub(&modules.cloud_hub, checks);
    }
    if modules.edge_controller.enable {
        let every = modules.edge_controller.node_update_frequency;
        checks.positive("modules.edgeController.nodeUpdateFrequency", every);
    }
    if modules.cloud_stream.enable {
        checks.port("modules.cloudStream.tunnelPort", modules.cloud_stream.tunnel_port);
        checks.port("modules.cloudStream.streamPort", modules.cloud_stream.stream_port);
    }
    if modules.router.enable {
        checks.ip("modules.router.address", &modules.router.address);
        checks.port("modules.router.port", modules.router.port);
        checks.positive("modules.router.restTimeout", modules.router.rest_timeout);
    }
    let mode = &modules.iptables_manager.mode;
    checks.one_of("modules.iptablesManager.mode", mode, &["internal", "external"]);
}

fn kube_api(api: &KubeApiConfig, checks: &mut Checks) {
    let path = "kubeAPIConfig.kubeConfig";
    if !api.kube_config.is_empty() {
        let file = Path::new(&api.kube_config);
        checks.absolute(path, &api.kube_config);
        checks.must(!file.is_absolute() || file.is_file(), path, || {
            format!("{} is not there; leave it empty to use the service account of the pod", file.display())
        });
    }
    let is_url = ["", "http://", "https://"].iter().any(|scheme| match *scheme {
        "" => api.master.is_empty(),
        scheme => api.master.len() > scheme.len() && api.master.starts_with(scheme),
    });
    checks.must(is_url, "kubeAPIConfig.master", || {
        format!("is {:?}, must be a URL such as https://192.0.2.1:6443", api.master)
    });
}

fn hub(hub: &CloudHub, checks: &mut Checks) {
    let key = |key: &str| format!("modules.cloudHub.{key}");
    checks.positive(&key("nodeLimit"), hub.node_limit);
    checks.positive(&key("keepaliveInterval"), hub.keepalive_interval);
    checks.positive(&key("writeTimeout"), hub.write_timeout);
    checks.positive(&key("edgeCertSigningDuration"), hub.edge_cert_signing_duration);
    checks.positive(&key("tokenRefreshDuration"), hub.token_refresh_duration);
    for (at, address) in hub.advertise_address.iter().enumerate() {
        checks.ip(&key(&format!("advertiseAddress[{at}]")), address);
    }
    checks.ip(&key("https.address"), &hub.https.address);
    checks.port(&key("https.port"), hub.https.port);
    if hub.websocket.enable {
        checks.ip(&key("websocket.address"), &hub.websocket.address);
        checks.port(&key("websocket.port"), hub.websocket.port);
    }
    if hub.quic.enable {
        checks.ip(&key("quic.address"), &hub.quic.address);
        checks.port(&key("quic.port"), hub.quic.port);
    }
    checks.must(hub.websocket.enable || hub.quic.enable, &key("websocket.enable"), || {
        "is false while quic.enable is false too: no edge could connect; set one of them to true".to_owned()
    });
    if hub.unixsocket.enable {
        let address = &hub.unixsocket.address;
        let path = address.strip_prefix("unix://").is_some_and(|path| Path::new(path).is_absolute());
        checks.must(path, &key("unixsocket.address"), || {
            format!("is {address:?}, must be unix:// and a full path such as unix:///run/kubeedge.sock")
        });
    }
}
