//! CloudHub: the links to edges.

use super::super::section::section;

section! {
    /// The links to edges, and the service through which they join.
    CloudHub {
        /// Whether it runs.
        enable: bool = true,
        /// How many nodes may be connected to one cloudcore.
        node_limit: u32 = 500,
        /// After how many seconds without keepalive a session ends.
        keepalive_interval: u32 = 30,
        /// How many seconds one message may wait for an edge that does not read.
        write_timeout: u32 = 30,
        /// The CA's certificate; with its key used instead of the secret, if both files are there.
        #[serde(rename = "tlsCAFile")]
        tls_ca_file: String = "/etc/kubeedge/ca/rootCA.crt".to_owned(),
        /// The CA's key.
        #[serde(rename = "tlsCAKeyFile")]
        tls_ca_key_file: String = "/etc/kubeedge/ca/rootCA.key".to_owned(),
        /// The hub's certificate; with its key used instead of the secret, if both files are there.
        tls_cert_file: String = "/etc/kubeedge/certs/server.crt".to_owned(),
        /// The hub's key.
        tls_private_key_file: String = "/etc/kubeedge/certs/server.key".to_owned(),
        /// IP addresses edges dial; they stand in the hub's certificate. Empty: the host's.
        advertise_address: Vec<String> = Vec::new(),
        /// Names edges dial; they stand in the hub's certificate. Empty ones do not count.
        dns_names: Vec<String> = vec![String::new()],
        /// How many days the certificate of a node holds.
        edge_cert_signing_duration: u32 = 365,
        /// After how many hours the join token is renewed.
        token_refresh_duration: u32 = 12,
        /// Links over WebSocket.
        websocket: CloudHubWebSocket = CloudHubWebSocket::default(),
        /// Links over QUIC as in RFC 9000, which Go's edgecore does not speak.
        quic: CloudHubQuic = CloudHubQuic::default(),
        /// The service through which edges join.
        https: CloudHubHttps = CloudHubHttps::default(),
        /// Messages from programs on this host, such as the CSI driver.
        unixsocket: CloudHubUnixSocket = CloudHubUnixSocket::default(),
        /// Who may do what over a link.
        authorization: Authorization = Authorization::default(),
    }
}

section! {
    /// Links over WebSocket.
    CloudHubWebSocket {
        /// Whether edges can connect so.
        enable: bool = true,
        /// The address it listens on.
        address: String = "0.0.0.0".to_owned(),
        /// The port it listens on.
        port: u32 = 10000,
    }
}

section! {
    /// Links over QUIC as in RFC 9000. What Go calls QUIC is Google's of 2018, another protocol: Go edges use
    /// WebSocket.
    CloudHubQuic {
        /// Whether edges can connect so.
        enable: bool = false,
        /// The address it listens on.
        address: String = "0.0.0.0".to_owned(),
        /// The port it listens on.
        port: u32 = 10001,
        /// How many streams one edge may open; it needs three, and with fewer its lanes share them.
        max_incoming_streams: u32 = 10000,
    }
}

section! {
    /// The service through which edges join.
    CloudHubHttps {
        /// Go does not look at it: the service always runs.
        enable: bool = true,
        /// The address it listens on.
        address: String = "0.0.0.0".to_owned(),
        /// The port it listens on.
        port: u32 = 10002,
    }
}

section! {
    /// Messages from programs on this host.
    CloudHubUnixSocket {
        /// Whether it listens.
        enable: bool = true,
        /// The socket, as `unix://` and a full path.
        address: String = "unix:///var/lib/kubeedge/kubeedge.sock".to_owned(),
    }
}

section! {
    /// Who may do what over a link.
    Authorization {
        /// Whether it is asked.
        enable: bool = false,
        /// Whether a refusal is only logged.
        debug: bool = true,
        /// Who decides; the first that says yes.
        modes: Vec<AuthorizationMode> = vec![AuthorizationMode {
            node: Some(ModeSwitch { enable: true }),
            ..AuthorizationMode::default()
        }],
    }
}

section! {
    /// One that decides.
    AuthorizationMode {}
    optional {
        /// A node may do what Kubernetes allows its kubelet.
        node: ModeSwitch,
        /// Everything is allowed.
        always_allow: ModeSwitch,
        /// Everything is refused.
        always_deny: ModeSwitch,
    }
}

section! {
    /// Whether something is on.
    ModeSwitch {
        /// Whether it is.
        enable: bool = false,
    }
}
