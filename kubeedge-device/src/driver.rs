//! What an author of a protocol writes.

use std::{fmt, future::Future};

use futures::stream::BoxStream;
use kubeedge_core::{
    device::{DriverKind, DriverResult, ModelProperty, Value},
    failure::Failure,
};
use serde::de::DeserializeOwned;

/// Values that arrive by themselves. An error ends the stream; the point is then polled, or the device
/// connected anew where the error says so.
pub type Values = BoxStream<'static, DriverResult<Value>>;

/// A protocol: how to reach devices that speak it.
pub trait Driver: fmt::Debug + Send + Sync + 'static {
    /// The protocol's name: `spec.protocol.protocolName` of a Device.
    const PROTOCOL: &'static str;

    /// How one device is reached: `spec.protocol.configData`.
    type Config: DeserializeOwned + Send + Sync + 'static;

    /// A connection to one device.
    type Session: Session;

    /// Connects to a device. Called anew after each loss; the mapper limits its time and makes the pauses.
    fn connect(&self, config: &Self::Config) -> impl Future<Output = DriverResult<Self::Session>> + Send;

    /// Checks a point against the property it serves, and completes it, when a device is registered:
    /// [`DriverKind::BadConfig`] with the field's name refuses the device. Accepts everything unless written.
    fn prepare(
        &self,
        property: &ModelProperty,
        at: <Self::Session as Session>::Visitor,
    ) -> DriverResult<<Self::Session as Session>::Visitor> {
        let _ = property;
        Ok(at)
    }
}

/// A connection to one device, used by one task: no locks needed.
///
/// A call that fails with an error whose advice is [`Reconnect`](kubeedge_core::failure::Advice::Reconnect)
/// ends the session. Any call may be dropped half-way, when the device is removed or the call takes longer
/// than [`MapperSettings::call_limit`](crate::MapperSettings::call_limit). Nothing but [`Session::close`] is
/// called then, unless the session says that it is [`CANCEL_SAFE`](Session::CANCEL_SAFE). A session that
/// gives up waiting by itself is used on after [`DriverKind::Timeout`]: where a late answer could be taken
/// for the next one, it returns [`DriverKind::Disconnected`].
pub trait Session: Send + 'static {
    /// Whether the session may be used on after a call was dropped half-way.
    ///
    /// It may when the protocol is framed so that an answer names its request, or when the session itself
    /// gives up what an unfinished request was sent on. It may not when the next answer that arrives is taken
    /// for the answer to the last request: an answer that comes late would be the value of another point. The
    /// mapper closes such a session and connects anew. The device stays in its state meanwhile: as ever,
    /// [`MapperSettings::strikes`](crate::MapperSettings::strikes) timeouts in a row make it offline.
    const CANCEL_SAFE: bool = false;

    /// Where a property is on the device: `visitors.configData`.
    type Visitor: DeserializeOwned + Send + Sync + 'static;

    /// Reads one point.
    fn read(&mut self, at: &Self::Visitor) -> impl Future<Output = DriverResult<Value>> + Send;

    /// Writes one point and returns once the device has taken the value, which is of the type of the
    /// property's model and within its range. Points cannot be written unless this is implemented.
    fn write(&mut self, at: &Self::Visitor, value: Value) -> impl Future<Output = DriverResult<()>> + Send {
        let _ = (at, value);
        async { Err(Failure::new(DriverKind::Unsupported, "writing to a device")) }
    }

    /// Reads many points, answers in the same order; one by one unless the protocol can do better.
    fn read_many(&mut self, at: &[&Self::Visitor]) -> impl Future<Output = Vec<DriverResult<Value>>> + Send {
        async move {
            let mut values = Vec::with_capacity(at.len());
            for at in at {
                values.push(self.read(at).await);
            }
            values
        }
    }

    /// Asks for the values of a point as they change; `None` (unless implemented) has the point polled.
    fn subscribe(&mut self, at: &Self::Visitor) -> impl Future<Output = DriverResult<Option<Values>>> + Send {
        let _ = at;
        async { Ok(None) }
    }

    /// Lets go of the device, as well as it can; its time is limited.
    fn close(self) -> impl Future<Output = ()> + Send
    where
        Self: Sized,
    {
        async {}
    }
}
