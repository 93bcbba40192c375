//! Who gets a certificate, and for what. Statuses and texts are Go's where Go refuses as well.

use std::sync::Arc;

use http::{HeaderMap, StatusCode, header};
use kubeedge_core::{
    clock::Clock,
    pki::{Authority, Leaf, Names, Usage, node_of, verify_token},
};

use super::{
    service::{Caller, header_text, read},
    unix,
};
use crate::denylist::{Denylist, Mark};

/// The largest certificate signing request.
const MAX_CSR: usize = 1 << 20;

/// Status and text of a refusal.
pub(super) type Refused = (StatusCode, String);

/// Signs certificates of nodes, and knows them again.
#[derive(Debug)]
pub(crate) struct Signer {
    pub(crate) authority: Arc<Authority>,
    pub(crate) clock: Clock,
    /// How long a certificate holds.
    pub(crate) days: u32,
    /// Names that no node gets a certificate for.
    pub(crate) reserved: Names,
    pub(crate) denied: Denylist,
}

impl Signer {
    /// A certificate for a node, in DER: authorised by the one it has, or by a token.
    pub(super) async fn certify<B>(
        &self,
        caller: &Caller,
        headers: &HeaderMap,
        node: &str,
        body: B,
    ) -> Result<Vec<u8>, Refused>
    where
        B: http_body::Body<Data = bytes::Bytes> + Send,
        B::Error: Into<kubeedge_core::failure::BoxError>,
    {
        // Before the request is read: who may have nothing is not listened to.
        let mark = if caller.certificate.is_some() {
            Some(self.certified(caller, node)?)
        } else {
            let authorization = header_text(headers, header::AUTHORIZATION.as_str());
            check_token(&self.authority, authorization, unix(self.clock.now()))
                .map_err(|why| (StatusCode::UNAUTHORIZED, why))?;
            None
        };
        self.allowed(node, mark.as_ref())?;
        let failed = |why: String| {
            (
                StatusCode::INTERNAL_SERVER_ERROR,
                format!("failed to sign certs for edgenode {node}, err: {why}"),
            )
        };
        let usage = usage(headers, failed)?;
        let csr = read(body, MAX_CSR)
            .await
            .map_err(|why| failed(format!("fail to read file when signing the cert, err: {why}")))?;
        self.sign(node, &csr, usage, failed)
    }

    /// The mark of the certificate shown, if it is this node's; `401` otherwise.
    pub(super) fn certified(&self, caller: &Caller, node: &str) -> Result<Mark, Refused> {
        let wrong = |why: &str| {
            let text = format!("failed to verify the certificate for edgenode: {node}, err: {why}");
            (StatusCode::UNAUTHORIZED, text)
        };
        let shown = caller.certificate.as_ref().ok_or_else(|| wrong("none is shown"))?;
        if !Leaf::is_client_of(shown, self.authority.certificate(), unix(self.clock.now())) {
            return Err(wrong("it is not of this CA, not for clients, or not valid now"));
        }
        let leaf = Leaf::read(shown).map_err(|error| wrong(&error.to_string()))?;
        if leaf.organizations.first().is_none_or(|name| name != "system:nodes")
            || node_of(&leaf.common_name) != Some(node)
        {
            return Err(wrong("request node name does not match the certificate subject"));
        }
        Ok(Mark::from(&leaf))
    }

    /// Whether the deny list lets this node through.
    pub(super) fn allowed(&self, node: &str, mark: Option<&Mark>) -> Result<(), Refused> {
        self.denied.why(node, mark).map_or(Ok(()), |why| Err((StatusCode::FORBIDDEN, why.to_owned())))
    }

    fn sign(
        &self,
        node: &str,
        csr: &[u8],
        usage: Usage,
        failed: impl Fn(String) -> Refused,
    ) -> Result<Vec<u8>, Refused> {
        let bad = |why: String| (StatusCode::BAD_REQUEST, why);
        let now = unix(self.clock.now());
        let signed = self.authority.sign(csr, usage, now, self.days.into());
        let signed = signed.map_err(|error| failed(format!("fail to signCerts, err: {error}")))?;
        let leaf = Leaf::read(&signed).map_err(|error| failed(error.to_string()))?;
        if node_of(&leaf.common_name) != Some(node) {
            let name = leaf.common_name;
            return Err(bad(format!("the request is for {name:?}, the header NodeName says {node:?}")));
        }
        if poses_as_cloudcore(&leaf.names, &self.reserved) {
            return Err(bad(
                "the request is for addresses that are cloudcore's, or for a wildcard".to_owned()
            ));
        }
        Ok(signed.to_vec())
    }
}

/// Whether edges could take who has these names for cloudcore.
fn poses_as_cloudcore(names: &Names, reserved: &Names) -> bool {
    let theirs = |name: &String| {
        name.contains('*') || reserved.dns.iter().any(|reserved| reserved.eq_ignore_ascii_case(name))
    };
    names.dns.iter().any(theirs) || names.ips.iter().any(|ip| reserved.ips.contains(ip))
}

/// What the header `ExtKeyUsages` asks for: Go's numbers as a JSON list; without it, client authentication.
fn usage(headers: &HeaderMap, failed: impl Fn(String) -> Refused) -> Result<Usage, Refused> {
    let list = header_text(headers, "extkeyusages");
    if list.is_empty() {
        return Ok(Usage::Client);
    }
    let numbers = serde_json::from_str::<Option<Vec<i64>>>(list)
        .map_err(|error| failed(format!("unmarshal http header ExtKeyUsages fail, err: {error}")))?
        .unwrap_or_default();
    if numbers.is_empty() {
        return Err(failed("fail to signCerts, err: must specify at least one ExtKeyUsage".to_owned()));
    }
    let ours = "ExtKeyUsages must be a list of 1 (server) and 2 (client authentication)";
    Usage::from_go(&numbers).ok_or_else(|| (StatusCode::BAD_REQUEST, ours.to_owned()))
}

/// Checks the header `Authorization: <scheme> <JWT>`; the texts are Go's.
fn check_token(authority: &Authority, authorization: &str, now: i64) -> Result<(), String> {
    let failed = |why: &str| Err(format!("token validation failure, {why}"));
    if authorization.is_empty() {
        return failed("token is empty");
    }
    let words: Vec<_> = authorization.split(' ').collect();
    let [_, jwt] = words.as_slice() else { return failed("token cannot be split") };
    match verify_token(authority, jwt, now) {
        Ok(()) => Ok(()),
        Err(error) => failed(&format!("err: {error}")),
    }
}

#[cfg(test)]
mod tests {
    use kubeedge_core::pki::{sign_token, split_token};

    use super::*;

    #[test]
    fn only_a_token_of_this_ca_that_holds_is_taken_and_the_texts_are_gos() {
        let (ours, other) = (Authority::kubeedge(0).unwrap(), Authority::kubeedge(0).unwrap());
        let bearer = |authority: &Authority, expires| {
            let token = sign_token(authority, expires);
            format!("Bearer {}", split_token(&token).unwrap().1)
        };
        assert_eq!(check_token(&ours, &bearer(&ours, 100), 99), Ok(()));
        let refused = |text: &str| check_token(&ours, text, 99).unwrap_err();
        assert_eq!(refused(""), "token validation failure, token is empty");
        assert_eq!(refused("abc"), "token validation failure, token cannot be split");
        assert_eq!(refused("Bearer a b"), "token validation failure, token cannot be split");
        for bad in [bearer(&other, 100), bearer(&ours, 99), "Bearer x".to_owned(), "Bearer ..".to_owned()] {
            assert!(refused(&bad).starts_with("token validation failure, err: "), "{bad}");
        }
    }

    #[test]
    fn nobody_gets_a_certificate_for_cloudcores_own_addresses_or_a_wildcard() {
        let names = |dns: &[&str], ip: Option<[u8; 4]>| Names {
            dns: dns.iter().map(|name| (*name).to_owned()).collect(),
            ips: ip.into_iter().map(Into::into).collect(),
        };
        let reserved = names(&["cloud.example"], Some([10, 0, 0, 1]));
        for (asked, is_refused) in [
            (names(&[], None), false),
            (names(&["edge-1"], Some([10, 0, 0, 2])), false),
            (names(&["edge-1", "Cloud.Example"], None), true),
            (names(&["*.example"], None), true),
            (names(&[], Some([10, 0, 0, 1])), true),
        ] {
            assert_eq!(poses_as_cloudcore(&asked, &reserved), is_refused, "{asked:?}");
        }
    }
}
