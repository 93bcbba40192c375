//! A whole KubeEdge site in one process, as a library: embedded Kubernetes API, cloudcore, edgecore, MQTT
//! broker, and a simulated PLC to try devices on. The binary `edgesite` is this, with flags.
//!
//! Everything that is kept lies in one folder; opened again on it, the site goes on where it ended. It
//! listens on one address, on ports in a row from a base ([`Port`]).
//!
//! A site of a vendor's own, with its own container runtime and mapper:
//!
//! ```
//! use kubeedge_site::{Site, SiteError, SiteSettings};
//! use kubeedge_device::{Mapper, simulated::Simulated};
//! use kubeedge_runtime::memory::{MemoryRuntime, MemorySettings};
//!
//! async fn run(folder: &std::path::Path) -> Result<(), SiteError> {
//!     let settings = SiteSettings { folder: folder.to_owned(), port_base: 0, ..SiteSettings::default() };
//!     let mut site = Site::open(settings)?.edge(|edge| edge.mapper(Mapper::new(Simulated::new())));
//!     let running = site.start(MemoryRuntime::new(MemorySettings::default())).await?;
//!     println!("kubectl --kubeconfig {} get nodes", running.kubeconfig.display());
//!     // … until site.failed() or a signal; then:
//!     site.stop().await
//! }
//! # let _ = rustls::crypto::ring::default_provider().install_default();
//! # let folder = tempfile::tempdir().unwrap();
//! # tokio::runtime::Runtime::new().unwrap().block_on(run(folder.path())).unwrap();
//! ```

mod settings;
mod site;

pub use settings::{Port, SiteError, SiteSettings};
pub use site::{Running, Site};
