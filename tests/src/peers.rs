//! Peers from elsewhere: mosquitto's clients, pymodbus.

use std::{
    net::{SocketAddr, TcpListener, UdpSocket},
    path::{Path, PathBuf},
    process::{Command, Stdio},
    sync::atomic::{AtomicU32, Ordering},
    time::Duration,
};

use crate::process::{Background, repository, run, run_with_input, tool};

/// The kubectl 1.20 of Debian, if `tests/run` has fetched it; says loudly when it has not.
pub fn old_kubectl() -> Option<PathBuf> {
    let found = std::env::var_os("KUBEEDGE_OLD_KUBECTL").map(PathBuf::from).filter(|file| file.is_file());
    if found.is_none() {
        println!("SKIPPED: not tested for want of kubectl 1.20; tests/run fetches it where Debian has it");
    }
    found
}

/// A port, of TCP and UDP, that nobody listens on and nobody is given by chance: below those that systems
/// give to whoever asks for any, and another one for each caller.
pub fn free_port() -> u16 {
    const LEAST: u32 = 10_240;
    const COUNT: u32 = 32_768 - LEAST;
    static GIVEN: AtomicU32 = AtomicU32::new(0);
    loop {
        // Other test programs begin elsewhere.
        let number = std::process::id().wrapping_mul(101).wrapping_add(GIVEN.fetch_add(1, Ordering::Relaxed));
        let port = u16::try_from(LEAST + number % COUNT).unwrap();
        if TcpListener::bind(("127.0.0.1", port)).is_ok() && UdpSocket::bind(("127.0.0.1", port)).is_ok() {
            return port;
        }
    }
}

/// A mosquitto of the caller's own, its file in this folder.
pub fn mosquitto(folder: &Path) -> (Background, SocketAddr) {
    let (port, file) = (free_port(), folder.join("mosquitto.conf"));
    std::fs::write(&file, format!("listener {port} 127.0.0.1\nallow_anonymous true\n")).unwrap();
    let program = tool("mosquitto").unwrap();
    let broker = Background::start(Command::new(program).arg("-v").arg("-c").arg(file));
    broker.until_said("running", crate::PATIENCE);
    (broker, SocketAddr::from(([127, 0, 0, 1], port)))
}

/// Subscribes with mosquitto_sub.
pub fn subscribe(broker: SocketAddr, topic: &str) -> Background {
    let (host, port) = (broker.ip().to_string(), broker.port().to_string());
    // Line by line, though nobody sits at a terminal.
    let mut command = Command::new("stdbuf");
    let watched = Background::start(command.args([
        "-oL",
        "mosquitto_sub",
        "-h",
        &host,
        "-p",
        &port,
        "-v",
        "-d",
        "-t",
        topic,
    ]));
    watched.until_said("Subscribed", Duration::from_secs(20));
    watched
}

/// Publishes with mosquitto_pub.
pub fn publish(broker: SocketAddr, topic: &str, payload: &str) {
    let (host, port) = (broker.ip().to_string(), broker.port().to_string());
    let mut command = Command::new("mosquitto_pub");
    let done = run(command.args(["-h", &host, "-p", &port, "-q", "1", "-t", topic, "-m", payload]));
    assert!(done.status.success(), "{done:?}");
}

/// Publishes each of these with mosquitto_pub, one after the other; returns when the broker has them all.
pub fn publish_all(broker: SocketAddr, topic: &str, payloads: impl IntoIterator<Item = String>) {
    let (host, port) = (broker.ip().to_string(), broker.port().to_string());
    let mut command = Command::new("mosquitto_pub");
    command.args(["-h", &host, "-p", &port, "-q", "1", "-t", topic, "-l"]);
    let lines: String = payloads.into_iter().map(|payload| payload + "\n").collect();
    let done = run_with_input(&mut command, lines.as_bytes());
    assert!(done.status.success(), "{done:?}");
}

/// pymodbus: a PLC of somebody else's making.
#[derive(Clone, Debug)]
pub struct Pymodbus {
    python: String,
    /// Where its server listens.
    pub port: u16,
}

impl Pymodbus {
    /// If this machine has it; says so loudly if not.
    pub fn find() -> Option<Self> {
        let named = std::env::var("KUBEEDGE_PEERS_PYTHON").ok();
        let known = ["/opt/kubeedge-peers/bin/python3", "python3"].map(str::to_owned);
        let has = |python: &String| {
            let tried = Command::new(python).args(["-c", "import pymodbus"]).stderr(Stdio::null()).status();
            tried.is_ok_and(|status| status.success())
        };
        let found = named.into_iter().chain(known).find(has);
        if found.is_none() {
            println!(
                "SKIPPED: not tested against pymodbus, which no Python here has; tests/run installs it where it may"
            );
        }
        found.map(|python| Self { python, port: free_port() })
    }

    /// Starts the server; all holding registers are 17.
    pub fn serve(&self) -> Background {
        let script = repository().join("kubeedge-device/tests/peers/modbus_server.py");
        let server = Background::start(Command::new(&self.python).arg(script).arg(self.port.to_string()));
        server.until_said("ready", Duration::from_secs(30));
        server
    }

    /// What a client of pymodbus reads from a holding register.
    pub fn read(&self, register: u16) -> u16 {
        let code = format!("print(client.read_holding_registers({register}, count=1).registers[0])");
        self.client(&code).trim().parse().unwrap()
    }

    /// Writes a holding register with a client of pymodbus.
    pub fn write(&self, register: u16, value: u16) {
        self.client(&format!("client.write_register({register}, {value})"));
    }

    fn client(&self, code: &str) -> String {
        let port = self.port;
        let program = format!(
            "from pymodbus.client import ModbusTcpClient\nclient = ModbusTcpClient('127.0.0.1', port={port})\nclient.connect()\n{code}\nclient.close()"
        );
        let done = run(Command::new(&self.python).args(["-c", &program]));
        assert!(done.status.success(), "{done:?}");
        String::from_utf8_lossy(&done.stdout).into_owned()
    }
}
