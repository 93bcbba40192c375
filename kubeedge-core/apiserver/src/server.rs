//! From HTTP requests to the registry and back: the path, who may, what is done.

mod read;
mod target;
mod write;

use std::sync::Arc;

use http::{Method, Request, Response, StatusCode, header};
use kubeedge_core::{
    clock::Clock,
    cluster::{Actor, Body, ClusterApi, KubeService},
    node_streams::NodeStreams,
};
use parking_lot::RwLock;
use serde_json::Value;
use tower::{service_fn, util::BoxCloneSyncService};

use self::target::Target;
use super::{
    answer::{Answer, full, json_answer, refused},
    call::{self, Call},
    discovery,
    kinds::{Action, NodeRequest},
    kubelet,
    object::Object,
    registry::Registry,
    status::Refusal,
    storage::Storage,
    tasks::Tasks,
    tokens::{self, Signer},
    user::User,
};

/// A Kubernetes API over a [`Storage`]. Cheap to clone; all clones are one server.
///
/// Streams between clients and nodes end with the last clone, or with the [`Serving`](crate::Serving) that
/// their clients came through.
#[derive(Clone, Debug)]
pub struct ApiServer {
    registry: Arc<Registry>,
    signer: Option<Arc<Signer>>,
    streams: Arc<RwLock<Option<Arc<dyn NodeStreams>>>>,
    tasks: Tasks,
}

impl ApiServer {
    /// Serves a storage. The clock is what grace is counted with, and what stamps are taken from.
    ///
    /// Without [`ApiServer::signer`] no tokens are made (501), without [`ApiServer::set_streams`] no node is
    /// reached (503).
    pub fn new(storage: Arc<dyn Storage>, clock: Clock) -> Self {
        let registry = Arc::new(Registry::new(storage, clock));
        Self { registry, signer: None, streams: Arc::default(), tasks: Tasks::default() }
    }

    /// Makes and takes tokens of service accounts, signed by this.
    #[must_use]
    pub fn signer(mut self, signer: Signer) -> Self {
        self.signer = Some(Arc::new(signer));
        self
    }

    /// Makes logs, exec and attach work: through these streams.
    pub fn set_streams(&self, streams: Arc<dyn NodeStreams>) {
        *self.streams.write() = Some(streams);
    }

    pub(crate) fn registry(&self) -> &Arc<Registry> {
        &self.registry
    }

    /// The user that a token of a service account stands for, if this server signed it and it is still good.
    pub(crate) fn user_of(&self, token: &str) -> Option<User> {
        let name = tokens::user_of(self.signer.as_deref()?, token, self.registry.moment())?;
        Some(User { name, groups: vec!["system:serviceaccounts".to_owned()] })
    }

    pub(crate) fn service_for(&self, user: User) -> KubeService {
        let server = self.clone();
        BoxCloneSyncService::new(service_fn(move |request: Request<Body>| {
            let (server, user) = (server.clone(), user.clone());
            async move { Ok::<Response<Body>, _>(server.respond(user, request, &server.tasks).await) }
        }))
    }

    /// Answers one request; failures become `Status` objects. Streams that the request opens are tasks of
    /// `tasks`.
    pub(crate) async fn respond(&self, user: User, request: Request<Body>, tasks: &Tasks) -> Response<Body> {
        answer(self, user, request, tasks).await.unwrap_or_else(|refusal| refused(&refusal))
    }
}

impl ClusterApi for ApiServer {
    fn service(&self, acting_as: &Actor) -> KubeService {
        self.service_for(match acting_as {
            Actor::Ourselves => User::ourselves(),
            Actor::Node(name) => User::of_node(name.as_str()),
        })
    }
}

async fn answer(server: &ApiServer, user: User, mut request: Request<Body>, tasks: &Tasks) -> Answer {
    let path = request.uri().path().trim_end_matches('/').to_owned();
    let segments: Vec<_> = path.split('/').skip(1).map(call::decode).collect();
    let parts: Vec<_> = segments.iter().map(String::as_str).collect();
    let Some(target) = Target::parse(&server.registry, &parts).await? else {
        let accept = request.headers().get(header::ACCEPT).and_then(|value| value.to_str().ok());
        return discovery::answer(&server.registry, &parts, accept.unwrap_or_default()).await;
    };
    let query = kubeedge_common::http::Query::of(request.uri());
    let body = std::mem::replace(request.body_mut(), full(""));
    let mut call = Call {
        method: request.method().clone(),
        query,
        headers: request.headers().clone(),
        user,
        body: Default::default(),
    };
    authorize(&call, &target)?;
    if matches!(target.action(), Some(Action::Log | Action::Stream)) {
        let streams = server.streams.read().clone();
        return kubelet::proxy(&server.registry, streams, &target.place(), request, tasks).await;
    }
    call.body = call::read(body).await?;
    dispatch(server, &call, target).await
}

/// Refuses what a user may not do. People with a certificate or token of this server may do everything; a
/// node only what is its own.
fn authorize(call: &Call, target: &Target) -> Result<(), Refusal> {
    let Some(node) = call.user.node() else { return Ok(()) };
    let verb = verb(call, target);
    let request = NodeRequest { node, verb, name: &target.name, sub: &target.sub };
    if target.kind.node_may(&request) {
        return Ok(());
    }
    Err(Refusal::forbidden(&call.user.name, verb, &target.subject()))
}

/// The verb of a request, as access rules name it.
fn verb(call: &Call, target: &Target) -> &'static str {
    match (&call.method, target.name.is_empty()) {
        (&Method::GET, _) if call.flag("watch") => "watch",
        (&Method::GET, true) => "list",
        (&Method::GET, false) => "get",
        (&Method::POST, _) => "create",
        (&Method::PUT, _) => "update",
        (&Method::PATCH, _) => "patch",
        (&Method::DELETE, true) => "deletecollection",
        _ => "delete",
    }
}

async fn dispatch(server: &ApiServer, call: &Call, target: Target) -> Answer {
    if let Some(answer) = target.kind.built_in().and_then(|kind| kind.answer) {
        return review(call, answer);
    }
    let registry = &server.registry;
    match target.action() {
        Some(Action::Bind) if call.method == Method::POST => {
            return write::bind(registry, call, &target).await;
        }
        Some(Action::Evict) if call.method == Method::POST => {
            return write::evict(registry, call, &target).await;
        }
        Some(Action::Token) if call.method == Method::POST => {
            let signer = server.signer.as_deref().ok_or_else(|| Refusal::not_served(&target.sub))?;
            return tokens::issue(registry, signer, call, &target.namespace, &target.name).await;
        }
        _ => {}
    }
    match (&call.method, target.name.as_str(), target.sub.as_str()) {
        (&Method::GET, "", "") | (&Method::GET, _, "" | "status") if call.flag("watch") => {
            read::watch(registry.clone(), call, target).await
        }
        (&Method::GET, "", "") => read::list(registry, call, &target).await,
        (&Method::GET, _, "" | "status") => read::get(registry, call, &target).await,
        (&Method::POST | &Method::DELETE, "", "") if target.lacks_namespace() => {
            Err(Refusal::method_not_allowed())
        }
        (&Method::POST, "", "") => write::create(registry, call, &target).await,
        (_, _, "portforward" | "proxy") => Err(Refusal::not_served(&target.sub)),
        (_, _, "scale") if target.kind.has_scale() => write::scale(registry, call, &target).await,
        (&Method::PUT, _, "" | "status" | "finalize") => write::put(registry, call, &target).await,
        (&Method::PATCH, _, "" | "status" | "finalize") => write::patch(registry, call, &target).await,
        (&Method::DELETE, "", "") => write::delete_all(registry, call, &target).await,
        (&Method::DELETE, _, "") => write::delete(registry, call, &target).await,
        (_, _, "" | "status") => Err(Refusal::method_not_allowed()),
        _ => Err(Refusal::no_such_path()),
    }
}

/// Answers a kind that is never stored.
fn review(call: &Call, answer: fn(&User) -> Value) -> Answer {
    if call.method != Method::POST {
        return Err(Refusal::method_not_allowed());
    }
    let mut review = call.object()?;
    review.set(&["status"], answer(&call.user));
    Ok(json_answer(StatusCode::CREATED, &review))
}
