//! The ports: taken by others, fed with garbage, held open by people who say nothing.

use std::{
    io::{Read, Write},
    net::{SocketAddr, TcpListener, TcpStream},
    time::{Duration, Instant},
};

use kubeedge_tests::{PATIENCE, Site, publish, skipped, subscribe};

use crate::{refused, runs_a_pod};

const ROWS: [&str; 6] = ["Kubernetes API", "CloudHub", "join", "tunnel", "MQTT broker", "simulated PLC"];

/// A base below which and its followers nobody listens just now.
fn free_base() -> u16 {
    let free =
        |base: &u16| [0, 2, 4, 6, 8, 12].iter().all(|n| TcpListener::bind(("127.0.0.1", base + n)).is_ok());
    let start = 20_000 + (std::process::id() % 900) as u16 * 20;
    (start..60_000).step_by(20).find(free).unwrap()
}

#[test]
fn a_taken_port_is_named_with_the_way_to_others() {
    let folder = tempfile::tempdir().unwrap();
    let base = free_base();
    for distance in [0, 2, 4, 6, 8, 12] {
        let taken = TcpListener::bind(("127.0.0.1", base + distance)).unwrap();
        let started = Instant::now();
        let error = refused(&folder.path().join("data"), &["--demo", "--port-base", &base.to_string()]);
        assert!(error.contains(&format!("127.0.0.1:{}", base + distance)), "{error}");
        assert!(error.contains("in use") && error.contains("--port-base"), "{error}");
        assert!(started.elapsed() < Duration::from_secs(45), "said after {:?}", started.elapsed());
        drop(taken);
    }
}

fn garbage() -> Vec<Vec<u8>> {
    let mut state = 0x2545_f491_4f6c_dd1d_u64;
    let mut random = |len: usize| -> Vec<u8> {
        std::iter::repeat_with(|| {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            state as u8
        })
        .take(len)
        .collect()
    };
    vec![
        random(1),
        random(200),
        random(200_000),
        b"GET / HTTP/1.1\r\nHost: x\r\n\r\n".to_vec(),
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".to_vec(),
        b"SSH-2.0-OpenSSH_9.6\r\n".to_vec(),
        // The beginning of a TLS record that promises 16 KiB and does not keep it.
        b"\x16\x03\x01\x40\x00\x01".to_vec(),
        // MQTT: CONNECT with a remaining length of 256 MiB; PUBLISH before CONNECT.
        b"\x10\xff\xff\xff\x7f\x00\x04MQTT".to_vec(),
        b"\x30\x05\x00\x01a\x01\x02".to_vec(),
        // Modbus: a length of 65535, and one of nothing.
        b"\x00\x01\x00\x00\xff\xff\x01\x03\x00\x00\x00\x01".to_vec(),
        b"\x00\x01\x00\x00\x00\x00".to_vec(),
        vec![0; 65_536],
    ]
}

/// Sends something, closes this direction or not, and reads whatever comes back.
fn feed(address: SocketAddr, bytes: &[u8], finish: bool) {
    let mut socket = TcpStream::connect(address).unwrap();
    socket.set_read_timeout(Some(Duration::from_millis(100))).unwrap();
    socket.set_write_timeout(Some(Duration::from_secs(5))).unwrap();
    // The peer may well have left.
    let _ = socket.write_all(bytes);
    if finish {
        let _ = socket.shutdown(std::net::Shutdown::Write);
    }
    let _ = socket.read(&mut [0; 4096]);
}

fn everything_works(site: &Site, round: &str) {
    runs_a_pod(site, round);
    let broker = site.address("MQTT broker");
    let heard = subscribe(broker, "still/here");
    publish(broker, "still/here", round);
    heard.until_said(round, PATIENCE);
    let log = site.until(&["get", "--raw", "/readyz"], |said| said.contains("ok"));
    assert!(log.contains("ok"));
}

#[test]
fn garbage_half_open_and_idle_connections_on_every_port_do_not_stop_the_service() {
    if skipped(&["kubectl", "mosquitto_sub", "mosquitto_pub"]) {
        return;
    }
    let site = Site::start(&["--demo"]);
    let addresses = ROWS.map(|row| site.address(row));
    for address in addresses {
        for bytes in garbage() {
            feed(address, &bytes, true);
            feed(address, &bytes, false);
        }
    }
    everything_works(&site, "fed");
    // Some leave without a word, some stay and say nothing.
    let mut idle = Vec::new();
    for address in addresses {
        for _ in 0..100 {
            drop(TcpStream::connect(address).unwrap());
        }
        for _ in 0..150 {
            idle.push(TcpStream::connect_timeout(&address, PATIENCE).unwrap());
        }
    }
    assert_eq!(idle.len(), 900);
    everything_works(&site, "crowded");
    drop(idle);
    assert!(!site.said().contains("panicked"), "{}", site.said());
}

#[test]
fn a_thousand_idle_connections_to_one_port_keep_nobody_out() {
    if skipped(&["kubectl"]) {
        return;
    }
    let site = Site::start(&[]);
    for row in ["Kubernetes API", "join", "CloudHub", "tunnel"] {
        let address = site.address(row);
        let idle: Vec<_> =
            (0..1000).filter_map(|_| TcpStream::connect_timeout(&address, PATIENCE).ok()).collect();
        assert!(idle.len() > 900, "{row}: {}", idle.len());
        let since = Instant::now();
        assert!(site.kubectl(&["get", "nodes"]).contains(" Ready "));
        assert!(tls_answers(address), "{row} answers nobody while {} say nothing", idle.len());
        assert!(since.elapsed() < Duration::from_secs(30), "{row} answered after {:?}", since.elapsed());
    }
}

/// Whether a TLS server answers a ClientHello within a while.
fn tls_answers(address: SocketAddr) -> bool {
    let shown = std::process::Command::new("timeout")
        .args(["28", "openssl", "s_client", "-connect", &address.to_string()])
        .stdin(std::process::Stdio::null())
        .output()
        .unwrap();
    String::from_utf8_lossy(&shown.stdout).contains("BEGIN CERTIFICATE")
}
