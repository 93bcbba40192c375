//! EdgeHub and EdgeStream: the links to the cloud.

use super::super::section::section;

section! {
    /// The link to the cloud.
    EdgeHub {
        /// Whether it runs.
        enable: bool = true,
        /// How many seconds lie between two keepalives.
        heartbeat: u32 = 15,
        /// Messages a second to the cloud.
        #[serde(rename = "messageQPS")]
        message_qps: u32 = 30,
        /// Messages at once to the cloud.
        message_burst: u32 = 60,
        /// Part of the path that is dialled.
        #[serde(rename = "projectID")]
        project_id: String = "e632aba927ea4ac2b575ec1603d56f10".to_owned(),
        /// Where certificates are had: `https://host:port`. Empty: this host, port 10002.
        http_server: String = String::new(),
        /// The CA's certificate; written when the node joins.
        tls_ca_file: String = "/etc/kubeedge/ca/rootCA.crt".to_owned(),
        /// The node's certificate; written when the node joins.
        tls_cert_file: String = "/etc/kubeedge/certs/server.crt".to_owned(),
        /// Its key.
        tls_private_key_file: String = "/etc/kubeedge/certs/server.key".to_owned(),
        /// The token that lets the node join.
        token: String = String::new(),
        /// Whether the certificate is renewed before it ends.
        rotate_certificates: bool = true,
        /// The link over WebSocket. With QUIC on too, the way that is taken where QUIC leads nowhere; Go
        /// refuses both.
        websocket: EdgeHubWebSocket = EdgeHubWebSocket::default(),
        /// The link over QUIC as in RFC 9000, which Go's cloudcore does not speak.
        quic: EdgeHubQuic = EdgeHubQuic::default(),
    }
    optional {
        /// How many uploads of programs on the node may wait for the cloud; what comes beyond that is
        /// refused, and they are told over MQTT. Ours: Go ignores it. Without: 8192.
        upload_queue_size: u32,
        /// How many bytes these may have together. Ours: Go ignores it. Without: 33554432, which is 32 MiB.
        upload_queue_bytes: u64,
    }
}

section! {
    /// The link over WebSocket.
    EdgeHubWebSocket {
        /// Whether it is used.
        enable: bool = true,
        /// How many seconds the handshake may take.
        handshake_timeout: u32 = 30,
        /// How many seconds the peer may be silent.
        read_deadline: u32 = 15,
        /// How many seconds one message may take to be written.
        write_deadline: u32 = 15,
        /// The hub, as host and port; several with commas between them are tried in turn. Empty: this host,
        /// port 10000.
        server: String = String::new(),
    }
}

section! {
    /// The link over QUIC as in RFC 9000. What Go calls QUIC is Google's of 2018, another protocol: a Go
    /// cloudcore is dialled over WebSocket.
    EdgeHubQuic {
        /// Whether it is used.
        enable: bool = false,
        /// How many seconds the handshake may take.
        handshake_timeout: u32 = 30,
        /// How many seconds the peer may be silent.
        read_deadline: u32 = 15,
        /// How many seconds one message may take to be written.
        write_deadline: u32 = 15,
        /// The hub, as host and port. Empty: this host, port 10001.
        server: String = String::new(),
    }
}

section! {
    /// Logs, exec and metrics for the cloud.
    EdgeStream {
        /// Whether it runs.
        enable: bool = false,
        /// The tunnel's end in the cloud, as host and port.
        server: String = "127.0.0.1:10004".to_owned(),
        /// How many seconds the handshake may take.
        handshake_timeout: u32 = 30,
        /// How many seconds the peer may be silent; Go does not look at it.
        read_deadline: u32 = 15,
        /// How many seconds one message may take to be written; Go does not look at it.
        write_deadline: u32 = 15,
        /// The CA the cloud is verified with; Go does not verify it.
        #[serde(rename = "tlsTunnelCAFile")]
        tls_tunnel_ca_file: String = "/etc/kubeedge/ca/rootCA.crt".to_owned(),
        /// The node's certificate.
        tls_tunnel_cert_file: String = "/etc/kubeedge/certs/server.crt".to_owned(),
        /// Its key.
        tls_tunnel_private_key_file: String = "/etc/kubeedge/certs/server.key".to_owned(),
    }
}
