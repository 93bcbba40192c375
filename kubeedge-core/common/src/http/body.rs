//! The one reader of bodies: nothing is kept beyond a limit.

use std::pin::Pin;

use bytes::Bytes;
use http_body::Body;
use http_body_util::{BodyExt, LengthLimitError, Limited};
use kubeedge_core::failure::BoxError;

/// A body that was not read.
#[derive(Debug, thiserror::Error)]
pub enum BodyError {
    /// It is larger than allowed.
    #[error("the body exceeds {limit} bytes")]
    TooLarge {
        /// The most bytes that are allowed.
        limit: usize,
    },
    /// Its sender or the connection failed.
    #[error("cannot read the body: {0}")]
    Broken(#[source] BoxError),
}

/// The whole of a body of `limit` bytes at most. A body that announces more is refused before anything is
/// read.
// Boxed: of a future that is generic over errors that become boxed errors, the compiler does not find that it
// is Send.
pub fn read_body<'a, B>(
    body: B,
    limit: usize,
) -> Pin<Box<dyn Future<Output = Result<Bytes, BodyError>> + Send + 'a>>
where
    B: Body<Data = Bytes> + Send + 'a,
    B::Error: Into<BoxError>,
{
    Box::pin(read(body, limit))
}

async fn read<B>(body: B, limit: usize) -> Result<Bytes, BodyError>
where
    B: Body<Data = Bytes>,
    B::Error: Into<BoxError>,
{
    if body.size_hint().lower() > u64::try_from(limit).unwrap_or(u64::MAX) {
        return Err(BodyError::TooLarge { limit });
    }
    match Limited::new(body, limit).collect().await {
        Ok(whole) => Ok(whole.to_bytes()),
        Err(error) if error.is::<LengthLimitError>() => Err(BodyError::TooLarge { limit }),
        Err(error) => Err(BodyError::Broken(error)),
    }
}

#[cfg(test)]
mod tests {
    use std::io;

    use futures::stream;
    use http_body::Frame;
    use http_body_util::{Full, StreamBody};

    use super::*;

    fn pieces(pieces: Vec<io::Result<&'static [u8]>>) -> impl Body<Data = Bytes, Error = io::Error> {
        let frame =
            |piece: io::Result<&'static [u8]>| piece.map(|bytes| Frame::data(Bytes::from_static(bytes)));
        StreamBody::new(stream::iter(pieces.into_iter().map(frame)))
    }

    #[tokio::test]
    async fn a_body_within_the_limit_is_read_whole() {
        let body = pieces(vec![Ok(b"abc"), Ok(b""), Ok(b"de")]);
        assert_eq!(read_body(body, 5).await.unwrap(), "abcde");
        assert_eq!(read_body(Full::new(Bytes::new()), 0).await.unwrap(), "");
    }

    #[tokio::test]
    async fn a_body_beyond_the_limit_is_refused_announced_or_not() {
        let announced = read_body(Full::new(Bytes::from_static(b"abcdef")), 5).await;
        assert!(matches!(announced, Err(BodyError::TooLarge { limit: 5 })), "{announced:?}");
        let endless = stream::repeat_with(|| Ok::<_, io::Error>(Frame::data(Bytes::from_static(b"abc"))));
        let unannounced = read_body(StreamBody::new(endless), 5).await;
        assert!(matches!(unannounced, Err(BodyError::TooLarge { limit: 5 })), "{unannounced:?}");
    }

    #[tokio::test]
    async fn a_body_that_breaks_off_is_an_error_with_its_cause() {
        let broken = read_body(pieces(vec![Ok(b"abc"), Err(io::ErrorKind::ConnectionReset.into())]), 5).await;
        assert_eq!(broken.unwrap_err().to_string(), "cannot read the body: connection reset");
    }
}
