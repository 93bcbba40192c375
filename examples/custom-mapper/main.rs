//! A mapper for scales that speak lines of text over TCP (`GET weight` is answered with `12.5`), in an edgecore of its
//! own: `custom-mapper NODE CLOUDHUB JOIN TUNNEL TOKEN FOLDER`
use std::path::Path;

use kubeedge_core::failure::Failure;
use kubeedge_device::{Driver, DriverKind, DriverResult, Mapper, Session, Value};
use kubeedge_edge::{CloudAddress, EdgeCore, EdgeCoreSettings};
use kubeedge_runtime::memory::MemoryRuntime;
use tokio::{io::*, net::TcpStream};
#[derive(Debug)]
struct Scales;
#[derive(serde::Deserialize)]
struct Address {
    host: String,
}
#[derive(serde::Deserialize)]
struct Quantity {
    quantity: String,
}
struct Scale(BufReader<TcpStream>);

impl Driver for Scales {
    const PROTOCOL: &'static str = "acme-scale";
    type Config = Address;
    type Session = Scale;
    async fn connect(&self, at: &Address) -> DriverResult<Scale> {
        TcpStream::connect(&at.host).await.map(|stream| Scale(BufReader::new(stream))).map_err(lost)
    }
}
impl Session for Scale {
    type Visitor = Quantity;
    async fn read(&mut self, at: &Quantity) -> DriverResult<Value> {
        Ok(self.ask(format!("GET {}\n", at.quantity)).await.map_err(lost)?.trim_end().into())
    }
    async fn write(&mut self, at: &Quantity, value: Value) -> DriverResult<()> {
        self.ask(format!("SET {} {value}\n", at.quantity)).await.map_err(lost).map(drop)
    }
}
impl Scale {
    async fn ask(&mut self, line: String) -> Result<String> {
        let mut answer = String::new();
        self.0.write_all(line.as_bytes()).await?;
        let read = (&mut self.0).take(256).read_line(&mut answer).await?;
        if read == 0 { Err(ErrorKind::UnexpectedEof.into()) } else { Ok(answer) }
    }
}
fn lost(error: Error) -> Failure<DriverKind> {
    Failure::new(DriverKind::Disconnected, "talking to a scale").because(error)
}
fn main() -> std::process::ExitCode {
    kubeedge_bin::run(serve())
}
async fn serve() -> anyhow::Result<()> {
    let args: Vec<_> = std::env::args().skip(1).collect();
    let [node, hub, join, tunnel, token, folder] = &args[..] else {
        anyhow::bail!("NODE CLOUDHUB JOIN TUNNEL TOKEN FOLDER")
    };
    let settings = EdgeCoreSettings::for_node(node.as_str()).in_folder(Path::new(folder)).on_free_ports();
    let settings = settings.joining(CloudAddress::new(hub, join, tunnel), token);
    let (link, store) = (kubeedge_transport::WebSocket::default(), kubeedge_store::MemoryStore::new());
    let edge = EdgeCore::assemble(settings, link, store, MemoryRuntime::new(Default::default()));
    Ok(edge.mapper(Mapper::new(Scales)).build()?.run(kubeedge_bin::shutdown_signal()).await?)
}
