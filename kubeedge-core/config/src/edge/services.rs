//! The modules of edgecore other than Edged and the links.

use super::super::section::section;

section! {
    /// Devices.
    DeviceTwin {
        /// Whether it runs.
        enable: bool = true,
        /// The folder of `dmi.sock`, through which mappers call; of a path that ends in `.sock` the folder is
        /// meant.
        dmi_sock_path: String = "/etc/kubeedge/".to_owned(),
    }
}

section! {
    /// MQTT.
    EventBus {
        /// Whether it runs.
        enable: bool = true,
        /// 0: the internal broker; 1: both; 2: an external broker.
        mqtt_mode: u8 = 2,
        /// QoS of what is published on the internal broker.
        #[serde(rename = "mqttQOS")]
        mqtt_qos: u8 = 0,
        /// Whether what is published on the internal broker is retained.
        mqtt_retain: bool = false,
        /// How many messages the internal broker keeps for one client.
        mqtt_session_queue_size: u32 = 100,
        /// Where the internal broker listens, as URL.
        mqtt_server_internal: String = "tcp://127.0.0.1:1884".to_owned(),
        /// The external broker, as URL.
        mqtt_server_external: String = "tcp://127.0.0.1:1883".to_owned(),
        /// The client id of the reading connection; empty: one is made up. With one of its own the external
        /// broker keeps for the node what is published while edgecore is away, and until it is stored.
        #[serde(rename = "mqttSubClientID")]
        mqtt_sub_client_id: String = String::new(),
        /// The client id of the publishing connection; empty: one is made up.
        #[serde(rename = "mqttPubClientID")]
        mqtt_pub_client_id: String = String::new(),
        /// The user at the external broker.
        mqtt_username: String = String::new(),
        /// The password at the external broker.
        mqtt_password: String = String::new(),
        /// TLS to the external broker.
        #[serde(rename = "eventBusTLS")]
        event_bus_tls: EventBusTls = EventBusTls::default(),
    }
}

section! {
    /// TLS to the external broker.
    EventBusTls {
        /// Whether it is used.
        enable: bool = false,
        /// The CA that the broker is verified with.
        #[serde(rename = "tlsMqttCAFile")]
        tls_mqtt_ca_file: String = "/etc/kubeedge/ca/rootCA.crt".to_owned(),
        /// The certificate shown to the broker.
        tls_mqtt_cert_file: String = "/etc/kubeedge/certs/server.crt".to_owned(),
        /// Its key.
        tls_mqtt_private_key_file: String = "/etc/kubeedge/certs/server.key".to_owned(),
    }
}

section! {
    /// This node's copy of what the cluster says.
    MetaManager {
        /// Whether it runs.
        enable: bool = true,
        /// The group that messages for the cloud go to.
        context_send_group: String = "hub".to_owned(),
        /// The module that messages for the cloud go to.
        context_send_module: String = "websocket".to_owned(),
        /// How many seconds the cloud may take to answer.
        remote_query_timeout: u32 = 60,
        /// The Kubernetes API for programs on this node.
        meta_server: MetaServer = MetaServer::default(),
    }
}

section! {
    /// The Kubernetes API for programs on this node.
    MetaServer {
        /// Whether it runs.
        enable: bool = false,
        /// IP address and port to listen on.
        server: String = "127.0.0.1:10550".to_owned(),
        /// IP address and port of the second one, with the gate requireAuthorization.
        dummy_server: String = "169.254.30.10:10550".to_owned(),
        /// The CA's certificate.
        tls_ca_file: String = "/etc/kubeedge/ca/rootCA.crt".to_owned(),
        /// The certificate.
        tls_cert_file: String = "/etc/kubeedge/certs/server.crt".to_owned(),
        /// Its key.
        tls_private_key_file: String = "/etc/kubeedge/certs/server.key".to_owned(),
        /// Issuers of tokens that are believed; the first one issues.
        service_account_issuers: Vec<String> = vec!["https://kubernetes.default.svc.cluster.local".to_owned()],
        /// Audiences of tokens that are believed; none: the issuers.
        api_audiences: Option<Vec<String>> = None,
        /// Files with keys that tokens are verified with; none: those this node has stored are believed.
        service_account_key_files: Option<Vec<String>> = None,
    }
}

section! {
    /// HTTP from the cloud to programs on this node.
    ServiceBus {
        /// Whether it runs.
        enable: bool = false,
        /// The address it listens on.
        server: String = "127.0.0.1".to_owned(),
        /// The port it listens on.
        port: u32 = 9060,
        /// How many seconds the cloud may take to answer.
        timeout: u32 = 60,
        /// The certificate; with a key it speaks HTTPS.
        tls_cert_file: String = String::new(),
        /// Its key.
        tls_private_key_file: String = String::new(),
    }
}

section! {
    /// A test of Go's.
    DbTest {
        /// Whether it runs.
        enable: bool = false,
    }
}

section! {
    /// Node jobs.
    TaskManager {
        /// Whether it runs.
        enable: bool = false,
    }
}
