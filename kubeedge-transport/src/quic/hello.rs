//! What a dialler says of itself, and how frames begin.

use bytes::{BufMut, Bytes, BytesMut};
use kubeedge_core::{
    failure::Failure,
    transport::{Credentials, Endpoint, TransportError, TransportKind},
};

/// The longest hello, and the longest answer to it.
pub(super) const MAX_HELLO: usize = 8 << 10;
/// The longest reason of a refusal.
const MAX_REASON: usize = 4 << 10;

/// The kind of a frame and its length.
pub(super) const HEAD: usize = 5;
pub(super) const BINARY: u8 = 0;
pub(super) const TEXT: u8 = 1;
pub(super) const HELLO: u8 = 2;
pub(super) const WELCOME: u8 = 3;
pub(super) const REFUSAL: u8 = 4;
pub(super) const PING: u8 = 5;
pub(super) const PONG: u8 = 6;
pub(super) const HEARD: u8 = 7;

/// The claim in which a dialler says what it can beyond the first version; a listener answers in its welcome.
const CAN: &str = "transport-can";
/// The word for pings.
const PINGS: &str = "ping";

/// What a peer can beyond the first version.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Abilities {
    /// Answers pings.
    pub(super) pings: bool,
}

impl Abilities {
    /// From words with spaces between them. Those that are not known are of later versions.
    pub(super) fn of(words: &[u8]) -> Self {
        Self { pings: words.split(|byte| *byte == b' ').any(|word| word == PINGS.as_bytes()) }
    }

    /// What both of us can, for a dialler that said what it can.
    pub(super) fn welcome(self) -> Bytes {
        framed(WELCOME, if self.pings { PINGS.as_bytes() } else { b"" })
    }
}

/// The beginning of a frame. Nothing that is sent is longer than the length can say: limits are checked
/// before.
pub(super) fn head(kind: u8, length: usize) -> [u8; HEAD] {
    let [a, b, c, d] = u32::try_from(length).unwrap_or(u32::MAX).to_be_bytes();
    [kind, a, b, c, d]
}

/// A whole frame in one piece.
pub(super) fn framed(kind: u8, payload: &[u8]) -> Bytes {
    let mut bytes = BytesMut::with_capacity(HEAD + payload.len());
    bytes.put_slice(&head(kind, payload.len()));
    bytes.put_slice(payload);
    bytes.freeze()
}

/// A ping: its number, and how many frames were sent before it in the streams of twins and bulk.
pub(super) fn ping(number: u64, [twins, bulk]: [u64; 2]) -> Bytes {
    framed(PING, [number, twins, bulk].map(u64::to_be_bytes).as_flattened())
}

/// An answer to a ping.
pub(super) fn answer(kind: u8, number: u64) -> Bytes {
    framed(kind, &number.to_be_bytes())
}

/// The number in an answer.
pub(super) fn number(payload: &[u8]) -> Option<u64> {
    payload.try_into().map(u64::from_be_bytes).ok()
}

/// The dialler's hello.
pub(super) fn say(to: &Endpoint, who: &Credentials) -> Result<Bytes, TransportError> {
    let wrong =
        |what: &str| Failure::new(TransportKind::Misconfigured, "dialling").on(format!("{}: {what}", to.0));
    let mut text = to.path().to_owned();
    if text.contains('\n') {
        return Err(wrong("the path holds a line break"));
    }
    text.push_str(&format!("\n{CAN}: {PINGS}"));
    for (name, value) in &who.claims {
        if name.eq_ignore_ascii_case(CAN) {
            return Err(wrong("a claim has the name of one of the transport's own"));
        }
        if name.is_empty() || name.contains([':', '\n']) || value.contains('\n') {
            return Err(wrong("a claim has no name, or holds a line break, or its name a colon"));
        }
        text.push('\n');
        text.push_str(name);
        text.push_str(": ");
        text.push_str(value);
    }
    if text.len() > MAX_HELLO {
        return Err(wrong("path and claims are longer than 8 KiB"));
    }
    Ok(framed(HELLO, text.as_bytes()))
}

/// What a dialler said.
#[derive(Debug)]
pub(super) struct Hello {
    /// What it asks for.
    pub(super) path: String,
    /// Names in lower case.
    pub(super) claims: Vec<(String, String)>,
    pub(super) can: Abilities,
}

/// Reads a hello.
pub(super) fn parse(payload: &[u8]) -> Result<Hello, &'static str> {
    let text = std::str::from_utf8(payload).map_err(|_| "the hello is not UTF-8")?;
    let mut lines = text.split('\n');
    let path = lines.next().unwrap_or_default();
    if !path.starts_with('/') {
        return Err("the hello does not begin with a path");
    }
    let claim = |line: &str| {
        let (name, value) = line.split_once(':')?;
        Some((name.trim().to_ascii_lowercase(), value.trim().to_owned()))
    };
    let claims: Option<Vec<_>> = lines.map(claim).collect();
    let mut claims = claims.ok_or("a claim of the hello has no colon")?;
    let can = claims.iter().find(|(name, _)| name == CAN);
    let can = can.map_or_else(Abilities::default, |(_, words)| Abilities::of(words.as_bytes()));
    claims.retain(|(name, _)| name != CAN);
    Ok(Hello { path: path.to_owned(), claims, can })
}

/// The answer to a dialler that is turned away.
pub(super) fn refusal(why: &str) -> Bytes {
    framed(REFUSAL, why.get(..why.floor_char_boundary(MAX_REASON)).unwrap_or_default().as_bytes())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn said(path: &str, claims: &[(&str, &str)]) -> Result<Bytes, TransportError> {
        let claims = claims.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned()));
        say(&Endpoint::from(format!("cloud:1{path}")), &Credentials::default().with_claims(claims))
    }

    #[test]
    fn what_is_said_is_understood() {
        let said = said("/p/edge-1/events", &[("Node_id", "edge-1"), ("x", "a: b"), ("empty", "")]).unwrap();
        assert_eq!(said[..HEAD], head(HELLO, said.len() - HEAD));
        let Hello { path, claims, can } = parse(&said[HEAD..]).unwrap();
        assert_eq!((path.as_str(), can), ("/p/edge-1/events", Abilities { pings: true }));
        let expected = [("node_id", "edge-1"), ("x", "a: b"), ("empty", "")];
        assert_eq!(claims, expected.map(|(name, value)| (name.to_owned(), value.to_owned())));
    }

    #[test]
    fn no_claim_can_smuggle_in_another() {
        for claim in [
            ("a", "b\nnode_id: other"),
            ("a\nnode_id", "other"),
            ("a:b", "c"),
            ("", "x"),
            ("Transport-Can", "x"),
        ] {
            assert_eq!(said("/", &[claim]).unwrap_err().kind(), TransportKind::Misconfigured, "{claim:?}");
        }
        assert!(said("/\nnode_id: other", &[]).is_err());
        assert!(said("/", &[("a", &"x".repeat(MAX_HELLO))]).is_err());
    }

    #[test]
    fn what_is_no_hello_is_told() {
        for wrong in [&b""[..], b"events", b"/\nnode_id", b"/\n", b"/\xff"] {
            assert!(parse(wrong).is_err(), "{wrong:?}");
        }
        assert_eq!(parse(b"/").unwrap().claims, []);
    }

    #[test]
    fn a_peer_of_another_version_is_asked_for_no_more_than_it_can() {
        assert_eq!(parse(b"/\nnode_id: edge-1").unwrap().can, Abilities::default());
        assert_eq!(parse(b"/\ntransport-can: fly swim").unwrap().can, Abilities::default());
        assert!(parse(b"/\nTransport-Can: fly ping swim").unwrap().can.pings);
        assert_eq!(
            Abilities::default().welcome(),
            framed(WELCOME, b""),
            "an older dialler expects nothing in it"
        );
        assert!(Abilities::of(&Abilities { pings: true }.welcome()[HEAD..]).pings);
    }

    #[test]
    fn a_long_reason_is_cut_between_characters() {
        let reason = refusal(&"ü".repeat(MAX_REASON));
        assert_eq!(reason.len(), HEAD + MAX_REASON);
        assert!(std::str::from_utf8(&reason[HEAD..]).is_ok());
    }
}
