//! One connection, shared by the devices behind its address.

use std::fmt;

use kubeedge_core::{
    device::{DriverError, DriverKind, DriverResult},
    failure::Failure,
};
use tokio::{net::TcpStream, sync::Mutex, time::Instant};
use tokio_modbus::{
    ExceptionCode, Slave,
    client::{Context, Reader, Writer, tcp},
    slave::SlaveContext,
};

use super::config::{ModbusConfig, Register};

/// Registers or bits as they travel.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Raw {
    Words(Vec<u16>),
    Bits(Vec<bool>),
}

impl Raw {
    pub(super) fn len(&self) -> usize {
        match self {
            Self::Words(words) => words.len(),
            Self::Bits(bits) => bits.len(),
        }
    }

    /// Some of them; `None` when there are not so many.
    pub(super) fn part(&self, from: u16, count: u16) -> Option<Self> {
        let range = usize::from(from)..usize::from(from) + usize::from(count);
        match self {
            Self::Words(words) => words.get(range).map(|words| Self::Words(words.to_vec())),
            Self::Bits(bits) => bits.get(range).map(|bits| Self::Bits(bits.to_vec())),
        }
    }
}

/// See the module's text. Requests queue in the order in which they come.
pub(super) struct Line {
    address: String,
    wire: Mutex<Option<Context>>,
}

impl fmt::Debug for Line {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Line").field("address", &self.address).finish_non_exhaustive()
    }
}

/// What tokio-modbus answers: a failed exchange, or an exception of the device, or the answer.
type Answer<T> = Result<Result<T, ExceptionCode>, tokio_modbus::Error>;

impl Line {
    pub(super) fn new(address: String) -> Self {
        Self { address, wire: Mutex::new(None) }
    }

    /// Connects unless connected.
    pub(super) async fn open(&self, config: &ModbusConfig) -> DriverResult<()> {
        let mut wire = self.wire.lock().await;
        if wire.is_none() {
            *wire = Some(self.dial(config).await?);
        }
        Ok(())
    }

    async fn dial(&self, config: &ModbusConfig) -> DriverResult<Context> {
        let failed = |kind| DriverError::new(kind, "connecting to a Modbus device").on(&self.address);
        match tokio::time::timeout(config.timeout, TcpStream::connect(&self.address)).await {
            Err(_) => {
                Err(failed(DriverKind::Disconnected)
                    .because(format!("no answer within {:?}", config.timeout)))
            }
            Ok(Err(error)) => Err(failed(DriverKind::Disconnected).because(error)),
            Ok(Ok(stream)) => {
                // One small request at a time: waiting for more to send only adds delay.
                stream.set_nodelay(true).map_err(|error| failed(DriverKind::Disconnected).because(error))?;
                Ok(tcp::attach(stream))
            }
        }
    }

    /// Reads registers of one kind.
    pub(super) async fn read(
        &self,
        config: &ModbusConfig,
        register: Register,
        offset: u16,
        count: u16,
    ) -> DriverResult<Raw> {
        let what = || format!("{}, slave {}, {register:?} {offset}+{count}", self.address, config.slave);
        self.exchange(config, "reading registers", what, async |wire: &mut Context| {
            Ok(match register {
                Register::Coil => wire.read_coils(offset, count).await?.map(Raw::Bits),
                Register::Discrete => wire.read_discrete_inputs(offset, count).await?.map(Raw::Bits),
                Register::Holding => wire.read_holding_registers(offset, count).await?.map(Raw::Words),
                Register::Input => wire.read_input_registers(offset, count).await?.map(Raw::Words),
            })
        })
        .await
    }

    /// Writes registers of one kind.
    pub(super) async fn write(
        &self,
        config: &ModbusConfig,
        register: Register,
        offset: u16,
        raw: Raw,
    ) -> DriverResult<()> {
        if !register.is_writable() {
            return Err(
                Failure::new(DriverKind::Unsupported, "writing registers").on(format!("{register:?}"))
            );
        }
        let what =
            || format!("{}, slave {}, {register:?} {offset}+{}", self.address, config.slave, raw.len());
        self.exchange(config, "writing registers", what, async |wire: &mut Context| match &raw {
            Raw::Bits(bits) => match bits.as_slice() {
                [bit] => wire.write_single_coil(offset, *bit).await,
                bits => wire.write_multiple_coils(offset, bits).await,
            },
            Raw::Words(words) => match words.as_slice() {
                [word] => wire.write_single_register(offset, *word).await,
                words => wire.write_multiple_registers(offset, words).await,
            },
        })
        .await
    }

    /// One request and its answer, on a connection that is made if there is none.
    async fn exchange<T>(
        &self,
        config: &ModbusConfig,
        doing: &'static str,
        what: impl Fn() -> String,
        work: impl AsyncFnOnce(&mut Context) -> Answer<T>,
    ) -> DriverResult<T> {
        let mut place = self.wire.lock().await;
        // Taken out while in use: a request that is dropped half-way takes the connection with it, and no
        // late answer can be taken for that of the next request.
        let mut wire = match place.take() {
            Some(wire) => wire,
            None => self.dial(config).await?,
        };
        wire.set_slave(Slave(config.slave));
        let until = Instant::now() + config.timeout;
        let failed = |kind| DriverError::new(kind, doing).on(what());
        match tokio::time::timeout_at(until, work(&mut wire)).await {
            Err(_) => {
                Err(failed(DriverKind::Timeout).because(format!("no answer within {:?}", config.timeout)))
            }
            Ok(Err(error)) => Err(failed(kind_of_error(&error)).because(error)),
            Ok(Ok(answer)) => {
                *place = Some(wire);
                answer.map_err(|exception| failed(kind_of_exception(exception)).because(exception))
            }
        }
    }
}

fn kind_of_error(error: &tokio_modbus::Error) -> DriverKind {
    match error {
        tokio_modbus::Error::Transport(_) => DriverKind::Disconnected,
        tokio_modbus::Error::Protocol(_) => DriverKind::Protocol,
    }
}

fn kind_of_exception(exception: ExceptionCode) -> DriverKind {
    match exception {
        ExceptionCode::IllegalFunction => DriverKind::Unsupported,
        ExceptionCode::IllegalDataAddress => DriverKind::NotFound,
        ExceptionCode::IllegalDataValue => DriverKind::BadValue,
        // The gateway is there, the device behind it is not.
        ExceptionCode::GatewayPathUnavailable | ExceptionCode::GatewayTargetDevice => DriverKind::Timeout,
        ExceptionCode::Custom(_) => DriverKind::Unsupported,
        _ => DriverKind::Busy,
    }
}
