//! The rules that values must keep.

use std::{
    net::{IpAddr, SocketAddr},
    path::Path,
};

use super::problem::Problem;

/// Collects what is wrong with a configuration; a rule that does not hold adds a problem and the others go
/// on.
#[derive(Debug, Default)]
pub struct Checks(Vec<Problem>);

impl Checks {
    /// What was found.
    pub fn into_problems(self) -> Vec<Problem> {
        self.0
    }

    /// `what` is wrong with the key at `path` unless `holds`.
    pub fn must(&mut self, holds: bool, path: &str, what: impl FnOnce() -> String) {
        if !holds {
            self.0.push(Problem::new(path, what()));
        }
    }

    /// A port that can be dialled and listened on.
    pub fn port(&mut self, path: &str, port: u32) {
        let fits = (1..=65535).contains(&port);
        self.must(fits, path, || format!("is {port}, must be a port from 1 to 65535"));
    }

    /// An IP address.
    pub fn ip(&mut self, path: &str, address: &str) {
        let is = address.parse::<IpAddr>().is_ok();
        self.must(is, path, || format!("is {address:?}, must be an IP address such as 0.0.0.0"));
    }

    /// An IP address with a port.
    pub fn socket(&mut self, path: &str, address: &str) {
        let is = address.parse::<SocketAddr>().is_ok_and(|address| address.port() != 0);
        let what = || format!("is {address:?}, must be an IP address and a port such as 127.0.0.1:9091");
        self.must(is, path, what);
    }

    /// A host or address with a port, to dial.
    pub fn endpoint(&mut self, path: &str, endpoint: &str) {
        let parts = endpoint.rsplit_once(':');
        let is = parts.is_some_and(|(host, port)| {
            let open = host.contains(':') && !host.starts_with('[');
            let clean = !host.is_empty() && !open && !host.contains(['/', ' ', '@']);
            clean && port.parse::<u16>().is_ok_and(|port| port != 0)
        });
        self.must(is, path, || format!("is {endpoint:?}, must be host:port such as 192.0.2.2:10000"));
    }

    /// One endpoint, or several with commas between them.
    pub fn endpoints(&mut self, path: &str, endpoints: &str) {
        for endpoint in endpoints.split(',') {
            self.endpoint(path, endpoint.trim());
        }
    }

    /// A number that must not be nothing.
    pub fn positive(&mut self, path: &str, value: impl Into<u64>) {
        self.must(value.into() > 0, path, || "is 0, must be 1 or more".to_owned());
    }

    /// One of these texts.
    pub fn one_of(&mut self, path: &str, value: &str, of: &[&str]) {
        let what = || format!("is {value:?}, must be one of {}", of.join(", "));
        self.must(of.contains(&value), path, what);
    }

    /// A full path of a file or folder.
    pub fn absolute(&mut self, path: &str, file: &str) {
        let what = || format!("is {file:?}, must be a full path that begins with /");
        self.must(Path::new(file).is_absolute(), path, what);
    }

    /// A name that Kubernetes takes for objects (RFC 1123 subdomain).
    pub fn subdomain(&mut self, path: &str, name: &str) {
        let inside = |c: u8| c.is_ascii_lowercase() || c.is_ascii_digit();
        let label = |label: &str| {
            let ends =
                label.bytes().next().is_some_and(inside) && label.bytes().next_back().is_some_and(inside);
            ends && label.bytes().all(|c| inside(c) || c == b'-')
        };
        let is = name.len() <= 253 && name.split('.').all(label);
        let what = || {
            format!(
                "is {name:?}, must be a name of small letters, digits, '-' and '.', as Kubernetes names nodes"
            )
        };
        self.must(is, path, what);
    }
}
