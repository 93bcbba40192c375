//! HTTP requests without end at the door edges join through.

use std::{
    io::{Read, Write},
    net::SocketAddr,
};

use kubeedge_core::pki::Identity;

use crate::{
    Place,
    raw::{ended, pour, tls},
};

/// The first line of the answer to a whole request.
fn asked(door: SocketAddr, identity: &Identity, request: &str) -> String {
    let mut raw = tls(door, identity, false);
    raw.write_all(request.as_bytes()).unwrap();
    let mut answer = Vec::new();
    let _ = raw.read_to_end(&mut answer);
    String::from_utf8_lossy(&answer).lines().next().unwrap_or_default().to_owned()
}

const GOOD: &str = "GET /ca.crt HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n";

#[test]
fn bodies_of_gigabytes_and_bodies_without_end_are_cut_at_the_limit() {
    let Some(mut place) = Place::start() else { return };
    let (said, join, identity) = (place.cloud.said(), place.cloud.doors()[1], place.identity("raw"));
    for (line, length) in [
        ("GET /edge.crt", "Content-Length: 4294967296"),
        ("POST /nodeupgrade", "Content-Length: 18446744073709551615"),
        ("GET /edge.crt", "Transfer-Encoding: chunked"),
        ("POST /task/upgrade/name/t/node/raw/status", "Transfer-Encoding: chunked"),
        ("POST /nowhere", "Transfer-Encoding: chunked"),
    ] {
        let mut raw = tls(join, &identity, false);
        write!(raw, "{line} HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer a.b.c\r\n{length}\r\n\r\n").unwrap();
        let piece = [&b"10000\r\n"[..], &[b'x'; 65_536], b"\r\n"].concat();
        let taken = pour(&mut raw, &piece, 64 << 20);
        assert!(taken < 64 << 20, "{line} with {length} took it all");
        assert!(ended(&mut raw), "{line} with {length} goes on");
        assert!(asked(join, &identity, GOOD).contains("200 OK"));
        place.memory_is_bounded(line);
    }
    place.bystander_is_served(10);
    place.few_lines(&said, 20, "endless bodies");
}

#[test]
fn bodies_that_crawl_and_heads_without_end_hold_up_nobody() {
    let Some(mut place) = Place::start() else { return };
    let (said, join, identity) = (place.cloud.said(), place.cloud.doors()[1], place.identity("raw"));
    let crawling: Vec<_> = (0..200)
        .map(|_| {
            let mut raw = tls(join, &identity, false);
            write!(raw, "GET /edge.crt HTTP/1.1\r\nHost: x\r\nContent-Length: 1000\r\n\r\nx").unwrap();
            raw
        })
        .collect();
    for _ in 0..20 {
        let mut raw = tls(join, &identity, false);
        write!(raw, "GET /ca.crt HTTP/1.1\r\nHost: x\r\n").unwrap();
        let taken = pour(
            &mut raw,
            "X-Padding: yyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyy\r\n".repeat(100).as_bytes(),
            16 << 20,
        );
        assert!(taken < 16 << 20, "a head of any length is taken");
        assert!(asked(join, &identity, GOOD).contains("200 OK"));
    }
    place.bystander_is_served(10);
    place.memory_is_bounded("crawling bodies");
    place.few_lines(&said, 20, "crawling bodies");
    drop(crawling);
}
