//! The contracts of KubeEdge in Rust: start here to build a cloudcore, an edgecore or a part of one.
//!
//! # What there is
//!
//! A [`message::Message`] travels between cloud and edge, and inside each of them from module to module over
//! the [`bus`]. The [`kernel`] runs modules: it contains their panics, starts them anew, and ends them in
//! time. All that touches the world stands behind a *seam*: a trait with several implementations, ours and
//! yours.
//!
//! | seam | what it hides | ours | kit (feature `conformance`) |
//! |---|---|---|---|
//! | [`transport::Transport`] | how frames get from edge to cloud | WebSocket, QUIC, memory | `transport_conformance!` |
//! | [`store::MetaStore`] | where an edge keeps what must survive | SQLite, redb, memory | `meta_store_conformance!` |
//! | [`runtime::ContainerRuntime`] | what runs pods | CRI, processes, memory | `runtime_conformance!` |
//! | [`device::DeviceMapper`] | a field bus and its devices | `Mapper<D>` of `kubeedge-device` | `mapper_conformance!` |
//! | `cluster::ClusterApi` (feature `cluster`) | the Kubernetes API | a real one, an embedded one | `cluster_conformance!` |
//! | [`wire::Codec`] | how a message becomes a frame | Go's JSON, a compact form | |
//! | [`kernel::Module`] | anything that runs and takes messages | EdgeHub, CloudHub and all others | |
//!
//! Errors of seams are a [`failure::Failure`] with a kind. The kind's [`failure::Advice`] says whether to
//! give up, to try again or to connect anew; text is for people.
//!
//! # How a core is put together
//!
//! The parts that every core has are arguments, all others are calls on a builder. Nothing is registered
//! anywhere else, and there are no globals.
//!
//! ```text
//! EdgeCore::assemble(settings, transport, store, runtime).mapper(…).module(…).build()?.run(shutdown).await
//! CloudCore::assemble(settings, transport, cluster).module_with(|parts| …).build().await?.run(shutdown).await
//! ```
//!
//! # Where to start
//!
//! | you want | implement | crate beside this one | example |
//! |---|---|---|---|
//! | a mapper for your protocol | `Driver` and `Session` | `kubeedge-device` | `examples/custom-mapper` |
//! | your own store | [`store::MetaStore`] | none | `examples/custom-edgecore/journal.rs` |
//! | your own transport, or one around another | [`transport::Transport`], [`transport::each_link`] | none | `examples/custom-transport` |
//! | your own container runtime | [`runtime::ContainerRuntime`] | none | `kubeedge-runtime`, module `memory` |
//! | a module of yours in either core, with messages of its own ([`routes`]) | [`kernel::Module`] | `kubeedge-edge`, `kubeedge-cloud` | `examples/custom-module`, `examples/custom-edgecore/watchdog.rs` |
//! | your own edgecore, cloudcore or site | nothing: `assemble` | `kubeedge-edge`, `kubeedge-cloud`, `kubeedge-site` | `examples/custom-edgecore`, `custom-cloudcore`, `custom-site` |
//!
//! Hold what you implement to the seam's kit: add this crate with feature `conformance` to your
//! dev-dependencies, and call the macro; each case becomes a test.
//!
//! # What stands where
//!
//! ```text
//!  bins, examples, tests
//!  kubeedge-site
//!  kubeedge-edge        | kubeedge-cloud
//!  kubeedge-apiserver
//!  kubeedge-transport   | kubeedge-store | kubeedge-runtime | kubeedge-device
//!  kubeedge-config
//!  kubeedge-common
//!  kubeedge-core  ← you are here
//! ```
//!
//! A crate uses only what stands below it. This one holds no socket, no database and no TLS of its own; with
//! default features it does not even link one. KubeEdge's own Kubernetes kinds are in `api` (feature `k8s`),
//! their CustomResourceDefinitions behind feature `crds`, certificates and tokens in `pki` (feature `pki`).
#![cfg_attr(docsrs, feature(doc_cfg))]

pub mod backoff;
pub mod bus;
pub mod clock;
pub mod device;
pub mod failure;
pub mod kernel;
pub mod message;
pub mod name;
pub mod routes;
pub mod runtime;
pub mod store;
pub mod transport;
pub mod tunnel;
pub mod wire;

#[cfg(feature = "k8s")]
pub mod api;
#[cfg(feature = "cluster")]
pub mod cluster;
#[cfg(feature = "conformance")]
pub mod conformance;
#[cfg(feature = "cluster")]
pub mod node_streams;
#[cfg(feature = "pki")]
pub mod pki;
