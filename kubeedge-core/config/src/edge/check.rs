//! The rules of `edgecore.yaml`. A module that does not run is not looked at.

use super::{super::Checks, EdgeCoreConfig, EdgeHub, EventBus, MetaServer, TailoredKubeletConfig};

pub(super) fn check(config: &EdgeCoreConfig, checks: &mut Checks) {
    checks.absolute("database.dataSource", &config.database.data_source);
    let modules = &config.modules;
    // The node's name is EdgeHub's too.
    checks.subdomain("modules.edged.hostnameOverride", &modules.edged.hostname_override);
    if modules.edged.enable {
        if let Some(address) = modules.edged.node_ip.as_deref().filter(|address| !address.is_empty()) {
            checks.ip("modules.edged.nodeIP", address);
        }
        checks.absolute("modules.edged.rootDirectory", &modules.edged.root_directory);
        kubelet(&modules.edged.tailored_kubelet_config, checks);
    }
    if modules.edge_hub.enable {
        hub(&modules.edge_hub, checks);
    }
    if modules.event_bus.enable {
        bus(&modules.event_bus, checks);
    }
    if modules.meta_manager.enable {
        let seconds = modules.meta_manager.remote_query_timeout;
        checks.positive("modules.metaManager.remoteQueryTimeout", seconds);
        meta_server(&modules.meta_manager.meta_server, checks);
    }
    if modules.service_bus.enable {
        checks.ip("modules.serviceBus.server", &modules.service_bus.server);
        checks.port("modules.serviceBus.port", modules.service_bus.port);
    }
    if modules.edge_stream.enable {
        checks.endpoints("modules.edgeStream.server", &modules.edge_stream.server);
        checks.positive("modules.edgeStream.handshakeTimeout", modules.edge_stream.handshake_timeout);
    }
    if modules.device_twin.enable {
        checks.absolute("modules.deviceTwin.dmiSockPath", &modules.device_twin.dmi_sock_path);
    }
}

fn hub(hub: &EdgeHub, checks: &mut Checks) {
    let key = |key: &str| format!("modules.edgeHub.{key}");
    checks.positive(&key("heartbeat"), hub.heartbeat);
    hub.upload_queue_size.into_iter().for_each(|size| checks.positive(&key("uploadQueueSize"), size));
    hub.upload_queue_bytes.into_iter().for_each(|bytes| checks.positive(&key("uploadQueueBytes"), bytes));
    let server = hub.http_server.strip_prefix("https://");
    checks.must(server.is_some(), &key("httpServer"), || {
        format!("is {:?}, must be a URL such as https://192.0.2.2:10002", hub.http_server)
    });
    if let Some(server) = server {
        checks.endpoint(&key("httpServer"), server.trim_end_matches('/'));
    }
    checks.must(hub.websocket.enable || hub.quic.enable, &key("websocket.enable"), || {
        "is false, and so is quic.enable; one of them must be true, or both for QUIC that falls back to WebSocket"
            .to_owned()
    });
    if hub.websocket.enable {
        checks.endpoints(&key("websocket.server"), &hub.websocket.server);
        checks.positive(&key("websocket.handshakeTimeout"), hub.websocket.handshake_timeout);
        checks.positive(&key("websocket.writeDeadline"), hub.websocket.write_deadline);
    }
    if hub.quic.enable {
        checks.endpoint(&key("quic.server"), &hub.quic.server);
        checks.positive(&key("quic.handshakeTimeout"), hub.quic.handshake_timeout);
        checks.positive(&key("quic.writeDeadline"), hub.quic.write_deadline);
    }
}

fn bus(bus: &EventBus, checks: &mut Checks) {
    let key = |key: &str| format!("modules.eventBus.{key}");
    checks.must(bus.mqtt_mode <= 2, &key("mqttMode"), || {
        format!("is {}, must be 0 (internal broker), 1 (both) or 2 (external broker)", bus.mqtt_mode)
    });
    checks.must(bus.mqtt_qos <= 2, &key("mqttQOS"), || format!("is {}, must be 0, 1 or 2", bus.mqtt_qos));
    let mut url = |name: &str, url: &str, schemes: &[&str]| {
        let is_tls = ["ssl", "tls", "mqtts", "wss"].iter().any(|&tls| url.split("://").next() == Some(tls));
        if is_tls {
            return checks.must(false, &key(name), || {
                format!(
                    "is {url:?}, and MQTT over TLS is not spoken yet: name a broker on this host by tcp://"
                )
            });
        }
        let rest = schemes.iter().find_map(|scheme| url.strip_prefix(scheme)?.strip_prefix("://"));
        match rest {
            Some(rest) => checks.endpoint(&key(name), rest.trim_end_matches('/')),
            None => checks.must(false, &key(name), || {
                format!("is {url:?}, must be a URL such as {}://127.0.0.1:1883", schemes.join(":// or "))
            }),
        }
    };
    if bus.mqtt_mode >= 1 {
        url("mqttServerExternal", &bus.mqtt_server_external, &["tcp", "mqtt"]);
    }
    if bus.mqtt_mode <= 1 {
        url("mqttServerInternal", &bus.mqtt_server_internal, &["tcp"]);
    }
}

fn meta_server(server: &MetaServer, checks: &mut Checks) {
    if server.enable {
        checks.socket("modules.metaManager.metaServer.server", &server.server);
        checks.socket("modules.metaManager.metaServer.dummyServer", &server.dummy_server);
    }
}

fn kubelet(kubelet: &TailoredKubeletConfig, checks: &mut Checks) {
    let key = |key: &str| format!("modules.edged.tailoredKubeletConfig.{key}");
    checks.one_of(&key("cgroupDriver"), &kubelet.cgroup_driver, &["cgroupfs", "systemd"]);
    if kubelet.read_only_port != 0 {
        checks.port(&key("readOnlyPort"), kubelet.read_only_port);
    }
    checks.ip(&key("address"), &kubelet.address);
    checks.absolute(&key("podLogsDir"), &kubelet.pod_logs_dir);
    checks.positive(&key("nodeLeaseDurationSeconds"), kubelet.node_lease_duration_seconds);
    for (at, server) in kubelet.cluster_dns.iter().flatten().enumerate() {
        checks.ip(&key(&format!("clusterDNS[{at}]")), server);
    }
    let score = kubelet.oom_score_adj;
    checks.must((-1000..=1000).contains(&score), &key("oomScoreAdj"), || {
        format!("is {score}, must be from -1000 to 1000")
    });
    let (low, high) = (kubelet.image_gc_low_threshold_percent, kubelet.image_gc_high_threshold_percent);
    checks.must(high <= 100, &key("imageGCHighThresholdPercent"), || {
        format!("is {high}, must be from 0 to 100")
    });
    checks.must(low < high, &key("imageGCLowThresholdPercent"), || {
        format!("is {low}, must be less than imageGCHighThresholdPercent, {high}")
    });
    let effects = ["NoSchedule", "PreferNoSchedule", "NoExecute"];
    for (at, taint) in kubelet.register_with_taints.iter().flatten().enumerate() {
        let taint_key = key(&format!("registerWithTaints[{at}]"));
        checks.must(!taint.key.is_empty(), &format!("{taint_key}.key"), || "is empty".to_owned());
        checks.one_of(&format!("{taint_key}.effect"), &taint.effect, &effects);
    }
}
