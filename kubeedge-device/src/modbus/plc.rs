//! A small Modbus TCP server to try mappers on: a boiler.

use std::{
    future::{self, Future},
    io,
    net::SocketAddr,
    sync::Arc,
    time::Duration,
};

use parking_lot::Mutex;
use tokio::{
    net::{TcpListener, TcpStream},
    sync::{OwnedSemaphorePermit, Semaphore},
    time::Instant,
};
use tokio_modbus::{
    ExceptionCode, Request, Response,
    server::{Service, tcp::Server},
};

/// How many clients it serves at a time; more are turned away.
const CLIENTS: usize = 32;
/// How fast the temperature follows the setpoint, in seconds.
const LAG: f64 = 5.0;
const AMBIENT: f64 = 20.0;

/// A simulated PLC: a boiler whose temperature follows a setpoint, within about fifteen seconds.
///
/// It answers as any slave. Numbers are in tenths of a degree Celsius unless the table says otherwise.
///
/// | registers | | value |
/// |---|---|---|
/// | holding 0 | read | temperature |
/// | holding 1 | read, write | setpoint, 0 to 1500; other values are refused with *illegal data value*; 600 at the start |
/// | holding 2 | read | heater power in percent |
/// | holding 3, 4 | read | temperature in degrees as a 32-bit float, high word first |
/// | input 0 | read | temperature |
/// | input 1 | read | ambient temperature, 200 |
/// | coil 0 | read, write | heater enabled; without it the temperature falls to the ambient one; set at the start |
/// | discrete 0 | read | whether the heater is heating now |
///
/// Everything else is refused with *illegal data address*, other functions with *illegal function*.
///
/// ```no_run
/// # async fn demo() -> std::io::Result<()> {
/// use kubeedge_device::modbus::SimulatedPlc;
///
/// let plc = SimulatedPlc::listen(([127, 0, 0, 1], 0).into()).await?;
/// println!("modbus at {}", plc.address());
/// plc.run(async { /* for example: a signal */ }).await
/// # }
/// ```
#[derive(Debug)]
pub struct SimulatedPlc {
    listener: TcpListener,
    address: SocketAddr,
}

impl SimulatedPlc {
    /// Listens; port 0 takes a free one.
    pub async fn listen(address: SocketAddr) -> io::Result<Self> {
        let listener = TcpListener::bind(address).await?;
        let address = listener.local_addr()?;
        Ok(Self { listener, address })
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Serves until `shutdown` completes or this is dropped; then all connections end.
    pub async fn run(self, shutdown: impl Future<Output = ()>) -> io::Result<()> {
        let boiler = Arc::new(Mutex::new(Boiler::new(Instant::now())));
        let room = Arc::new(Semaphore::new(CLIENTS));
        let connected = |stream: TcpStream, from: SocketAddr| {
            let desk = Arc::clone(&room).try_acquire_owned().ok();
            if desk.is_none() {
                tracing::warn!(%from, "too many clients, turned away");
            }
            let service = desk.map(|desk| Desk { boiler: Arc::clone(&boiler), _desk: desk });
            future::ready(Ok::<_, io::Error>(service.map(|service| (service, stream))))
        };
        let server = Server::new(self.listener);
        let failed = |error: io::Error| tracing::debug!(%error, "client of the simulated PLC lost");
        let mut shutdown = std::pin::pin!(shutdown);
        loop {
            tokio::select! {
                () = &mut shutdown => return Ok(()),
                served = server.serve(&connected, failed) => {
                    // Accepting fails for the moment only, such as for want of file descriptors.
                    if let Err(error) = served {
                        tracing::warn!(%error, "simulated PLC cannot accept a client");
                    }
                    tokio::time::sleep(Duration::from_millis(100)).await;
                }
            }
        }
    }
}

/// What one client is served by.
struct Desk {
    boiler: Arc<Mutex<Boiler>>,
    _desk: OwnedSemaphorePermit,
}

/// The state of the boiler, brought up to the present when somebody looks.
#[derive(Debug)]
struct Boiler {
    at: Instant,
    temperature: f64,
    setpoint: u16,
    enabled: bool,
}

impl Boiler {
    fn new(at: Instant) -> Self {
        Self { at, temperature: AMBIENT, setpoint: 600, enabled: true }
    }

    fn advance(&mut self, now: Instant) {
        let passed = now.saturating_duration_since(self.at).as_secs_f64();
        self.temperature += (self.target() - self.temperature) * (1.0 - (-passed / LAG).exp());
        self.at = now;
    }

    fn target(&self) -> f64 {
        if self.enabled { f64::from(self.setpoint) / 10.0 } else { AMBIENT }
    }

    /// In percent: how far the temperature is below its target, 20 degrees being full power.
    fn power(&self) -> u16 {
        if !self.enabled {
            return 0;
        }
        ((self.target() - self.temperature) * 5.0).clamp(0.0, 100.0).round() as u16
    }

    fn tenths(degrees: f64) -> u16 {
        (degrees * 10.0).round().clamp(0.0, f64::from(u16::MAX)) as u16
    }

    fn holding(&self) -> [u16; 5] {
        let bits = (self.temperature as f32).to_bits();
        let (high, low) = ((bits >> 16) as u16, (bits & 0xffff) as u16);
        [Self::tenths(self.temperature), self.setpoint, self.power(), high, low]
    }

    fn input(&self) -> [u16; 2] {
        [Self::tenths(self.temperature), Self::tenths(AMBIENT)]
    }

    fn answer(&mut self, request: &Request<'_>, now: Instant) -> Result<Response, ExceptionCode> {
        self.advance(now);
        match request {
            Request::ReadHoldingRegisters(from, count) => {
                Ok(Response::ReadHoldingRegisters(part(&self.holding(), *from, *count)?))
            }
            Request::ReadInputRegisters(from, count) => {
                Ok(Response::ReadInputRegisters(part(&self.input(), *from, *count)?))
            }
            Request::ReadCoils(from, count) => Ok(Response::ReadCoils(part(&[self.enabled], *from, *count)?)),
            Request::ReadDiscreteInputs(from, count) => {
                Ok(Response::ReadDiscreteInputs(part(&[self.power() > 0], *from, *count)?))
            }
            Request::WriteSingleRegister(at, word) => {
                self.set(*at, &[*word])?;
                Ok(Response::WriteSingleRegister(*at, *word))
            }
            Request::WriteMultipleRegisters(at, words) => {
                self.set(*at, words)?;
                Ok(Response::WriteMultipleRegisters(*at, words.len() as u16))
            }
            Request::WriteSingleCoil(0, on) => {
                self.enabled = *on;
                Ok(Response::WriteSingleCoil(0, *on))
            }
            Request::WriteMultipleCoils(0, on) if on.len() == 1 => {
                self.enabled = on.first().copied().unwrap_or(self.enabled);
                Ok(Response::WriteMultipleCoils(0, 1))
            }
            Request::WriteSingleCoil(..) | Request::WriteMultipleCoils(..) => {
                Err(ExceptionCode::IllegalDataAddress)
            }
            _ => Err(ExceptionCode::IllegalFunction),
        }
    }

    fn set(&mut self, at: u16, words: &[u16]) -> Result<(), ExceptionCode> {
        match (at, words) {
            (1, [setpoint @ 0..=1500]) => {
                self.setpoint = *setpoint;
                Ok(())
            }
            (1, [_]) => Err(ExceptionCode::IllegalDataValue),
            _ => Err(ExceptionCode::IllegalDataAddress),
        }
    }
}

fn part<T: Clone>(all: &[T], from: u16, count: u16) -> Result<Vec<T>, ExceptionCode> {
    if count == 0 {
        return Err(ExceptionCode::IllegalDataValue);
    }
    let range = usize::from(from)..usize::from(from) + usize::from(count);
    all.get(range).map(<[T]>::to_vec).ok_or(ExceptionCode::IllegalDataAddress)
}

impl Service for Desk {
    type Request = Request<'static>;
    type Response = Response;
    type Exception = ExceptionCode;
    type Future = future::Ready<Result<Response, ExceptionCode>>;

    fn call(&self, request: Self::Request) -> Self::Future {
        future::ready(self.boiler.lock().answer(&request, Instant::now()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_temperature_follows_the_setpoint() {
        let start = Instant::now();
        let mut boiler = Boiler::new(start);
        boiler.set(1, &[1000]).unwrap();
        boiler.advance(start + Duration::from_secs(5));
        assert!((60.0..85.0).contains(&boiler.temperature), "{}", boiler.temperature);
        assert!(boiler.power() > 0);
        boiler.advance(start + Duration::from_secs(60));
        assert_eq!(boiler.holding()[0], 1000);
        boiler.enabled = false;
        boiler.advance(start + Duration::from_secs(120));
        assert_eq!((boiler.input()[0], boiler.power()), (200, 0));
    }

    #[test]
    fn what_is_not_in_the_map_is_refused_by_its_exception() {
        let (now, mut boiler) = (Instant::now(), Boiler::new(Instant::now()));
        for (request, exception) in [
            (Request::ReadHoldingRegisters(4, 2), ExceptionCode::IllegalDataAddress),
            (Request::ReadCoils(0, 0), ExceptionCode::IllegalDataValue),
            (Request::WriteSingleRegister(0, 1), ExceptionCode::IllegalDataAddress),
            (Request::WriteSingleRegister(1, 1501), ExceptionCode::IllegalDataValue),
            (Request::WriteSingleCoil(1, true), ExceptionCode::IllegalDataAddress),
            (Request::ReportServerId, ExceptionCode::IllegalFunction),
        ] {
            assert_eq!(boiler.answer(&request, now).unwrap_err(), exception, "{request:?}");
        }
    }
}
