//! The head of the kubelet's answer to an upgrade, as it comes through the tunnel.

use http::{HeaderName, HeaderValue, Response, StatusCode, response::Parts};
use tokio::io::{AsyncRead, AsyncReadExt};

/// The largest head; a kubelet's is a few hundred bytes.
const MAX_HEAD: usize = 16 * 1024;

/// Reads up to the empty line and not a byte further; `None` when the stream ends before it or holds no HTTP/1.1 answer.
pub(super) async fn read(from: &mut (impl AsyncRead + Unpin)) -> Option<Parts> {
    let mut head = Vec::with_capacity(512);
    while !head.ends_with(b"\r\n\r\n") {
        if head.len() >= MAX_HEAD {
            return None;
        }
        // The stream is memory, so single bytes are cheap.
        head.push(from.read_u8().await.ok()?);
    }
    parse(std::str::from_utf8(&head).ok()?)
}

fn parse(head: &str) -> Option<Parts> {
    let mut lines = head.split("\r\n");
    let mut status = lines.next()?.splitn(3, ' ');
    let version = status.next()?;
    if !version.starts_with("HTTP/1.") {
        return None;
    }
    let mut response = Response::new(());
    *response.status_mut() = StatusCode::from_bytes(status.next()?.as_bytes()).ok()?;
    for line in lines.take_while(|line| !line.is_empty()) {
        let (name, value) = line.split_once(':')?;
        let name = HeaderName::from_bytes(name.trim().as_bytes()).ok()?;
        response.headers_mut().append(name, HeaderValue::from_str(value.trim()).ok()?);
    }
    Some(response.into_parts().0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn the_head_is_read_and_what_follows_it_left() {
        let mut bytes = &b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: SPDY/3.1\r\nX-A: b\r\n\r\nrest"[..];
        let head = read(&mut bytes).await.unwrap();
        assert_eq!(head.status, StatusCode::SWITCHING_PROTOCOLS);
        assert_eq!(head.headers["upgrade"], "SPDY/3.1");
        assert_eq!(bytes, b"rest");
    }

    #[tokio::test]
    async fn what_is_no_answer_is_refused() {
        for bad in [&b"HTTP/1.1 101"[..], b"nonsense\r\n\r\n", b"HTTP/1.1 x\r\n\r\n", &[b'a'; 20_000]] {
            assert!(read(&mut &*bad).await.is_none());
        }
    }
}
