//! Doors for fuzzers: what reads bytes of edges and clients, without the sockets around it. No stable
//! interface.

use std::{net::SocketAddr, sync::Arc};

use bytes::Bytes;
use http::{Request, Response};
use http_body_util::Full;
use kubeedge_core::{bus::Bus, cluster::ClusterApi, message::Message, name::NodeName, pki::Authority};
use rustls::pki_types::CertificateDer;

use crate::{
    certs::{
        service::{Caller, Service},
        signing::Signer,
    },
    cluster::Clients,
    hub, objects,
};

/// The module and the resource a message of this node's edge goes to, if it goes to one.
pub fn upstream(node: &NodeName, message: Message) -> Option<(String, Message)> {
    let _ = objects::upstream::event_patch(&message);
    hub::module_of(node, message).map(|(module, message)| (module.as_str().to_owned(), message))
}

/// How a message to this node would travel.
pub fn delivery(node: &NodeName, message: Message) {
    hub::travels(node, message);
}

/// The HTTPS service that edges join through.
#[derive(Debug)]
pub struct Certificates(Service);

impl Certificates {
    /// Signs with this authority and looks nodes up in this cluster.
    pub fn new(authority: Authority, cluster: Arc<dyn ClusterApi>) -> Self {
        let (bus, _) = Bus::new([]);
        let clients = Arc::new(Clients::new(cluster));
        let (reserved, denied, refusals) = Default::default();
        let clock = clients.clock().clone();
        let signer = Signer { authority: Arc::new(authority), clock, days: 1, reserved, denied };
        Self(Service { signer, clients, bus, refusals })
    }

    /// Answers a request; `shown` is the caller's certificate in DER.
    pub async fn answer(&self, shown: Option<Bytes>, request: Request<Full<Bytes>>) -> Response<Full<Bytes>> {
        let certificate = shown.map(|der| CertificateDer::from(der.to_vec()));
        let caller = Caller { from: SocketAddr::from(([192, 0, 2, 1], 1)), certificate };
        self.0.answer(&caller, request).await
    }
}
