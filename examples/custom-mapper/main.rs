//! A mapper for scales that speak lines of text over TCP, in an edgecore of its own:
//! `custom-mapper NODE CLOUDHUB JOIN TUNNEL TOKEN FOLDER`
//!
//! The scale answers `GET weight` with `12.5`, and `SET tare 3` with `OK`.

use std::{io, path::Path, process::ExitCode};

use kubeedge_core::failure::Failure;
use kubeedge_device::{Driver, DriverKind, DriverResult, Mapper, Session, Value};
use kubeedge_edge::{CloudAddress, EdgeCore, EdgeCoreSettings};
use kubeedge_runtime::memory::MemoryRuntime;
use kubeedge_store::MemoryStore;
use kubeedge_transport::WebSocket;
use serde::Deserialize;
use tokio::{
    io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader},
    net::TcpStream,
};

/// The longest answer that is read, in bytes.
const LONGEST: u64 = 256;

/// The protocol.
#[derive(Debug)]
struct Scales;

/// Where a scale is: `spec.protocol.configData` of its Device.
#[derive(Deserialize)]
struct Address {
    host: String,
}

/// What is read or written: `visitors.configData` of a property.
#[derive(Deserialize)]
struct Quantity {
    quantity: String,
}

/// A connection to one scale.
struct Scale(BufReader<TcpStream>);

impl Driver for Scales {
    const PROTOCOL: &'static str = "acme-scale";
    type Config = Address;
    type Session = Scale;

    async fn connect(&self, at: &Address) -> DriverResult<Scale> {
        let stream = TcpStream::connect(&at.host).await.map_err(lost)?;
        Ok(Scale(BufReader::new(stream)))
    }
}

impl Session for Scale {
    type Visitor = Quantity;

    async fn read(&mut self, at: &Quantity) -> DriverResult<Value> {
        let answer = self.ask(&format!("GET {}\n", at.quantity)).await.map_err(lost)?;
        Ok(answer.trim_end().into())
    }

    async fn write(&mut self, at: &Quantity, value: Value) -> DriverResult<()> {
        self.ask(&format!("SET {} {value}\n", at.quantity)).await.map_err(lost)?;
        Ok(())
    }
}

impl Scale {
    async fn ask(&mut self, line: &str) -> io::Result<String> {
        self.0.write_all(line.as_bytes()).await?;

        let mut answer = String::new();
        match (&mut self.0).take(LONGEST).read_line(&mut answer).await? {
            0 => Err(io::ErrorKind::UnexpectedEof.into()),
            _ => Ok(answer),
        }
    }
}

/// The mapper connects anew, and says why in the device's status.
fn lost(error: io::Error) -> Failure<DriverKind> {
    Failure::new(DriverKind::Disconnected, "talking to a scale").because(error)
}

fn main() -> ExitCode {
    kubeedge_bin::run(serve())
}

async fn serve() -> anyhow::Result<()> {
    let args: Vec<_> = std::env::args().skip(1).collect();
    let [node, hub, join, tunnel, token, folder] = &args[..] else {
        anyhow::bail!("NODE CLOUDHUB JOIN TUNNEL TOKEN FOLDER")
    };

    let settings = EdgeCoreSettings::for_node(node.as_str()).in_folder(Path::new(folder)).on_free_ports();
    let settings = settings.joining(CloudAddress::new(hub, join, tunnel), token);
    let pods = MemoryRuntime::new(Default::default());
    let edge = EdgeCore::assemble(settings, WebSocket::default(), MemoryStore::new(), pods);
    let edge = edge.mapper(Mapper::new(Scales)).build()?;
    Ok(edge.run(kubeedge_bin::shutdown_signal()).await?)
}
