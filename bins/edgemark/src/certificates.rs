//! A certificate for each node: from the folder of an earlier run, or signed by the cloud.

use std::{fs, io, path::Path, sync::Arc, time::Duration};

use anyhow::Context;
use futures::{StreamExt, TryStreamExt, stream};
use kubeedge_bin::Unusable;
use kubeedge_common::file::replace_unsynced;
use kubeedge_core::{
    clock::Clock,
    failure::chain,
    name::NodeName,
    pki::{self, Identity, Key},
    transport::Credentials,
};
use kubeedge_edge::hub::{JoinError, Joiner};

use crate::{options::Plan, progress::Progress, stats::Count};

/// How often a certificate is asked for before the run is given up.
const TRIES: u32 = 5;

/// How many certificates came from where.
#[derive(Debug, Default)]
pub(crate) struct Counts {
    /// From the folder.
    pub(crate) kept: Count,
    /// Signed by the cloud.
    pub(crate) signed: Count,
}

/// The credentials of all nodes, in order.
pub(crate) async fn obtain(
    plan: &Arc<Plan>,
    counts: &Arc<Counts>,
    progress: &mut Progress,
) -> anyhow::Result<Vec<Credentials>> {
    let joiner = Joiner::new(&plan.https, &plan.token, Clock::wall()).await;
    let joiner = joiner.map_err(|error| explain(plan, error))?;
    if let Some(folder) = &plan.certs {
        fs::create_dir_all(folder).with_context(|| format!("--certs {}", folder.display()))?;
    }
    let joining = stream::iter(0..plan.nodes)
        .map(|number| {
            let (plan, joiner, counts) = (plan.clone(), joiner.clone(), counts.clone());
            let work = async move { one(&plan, &joiner, &counts, &plan.node(number)).await };
            async move { tokio::spawn(work).await? }
        })
        .buffered(plan.concurrency);
    let mut joining = joining.map_ok(|identity: Identity| identity.credentials());
    let mut all = Vec::with_capacity(usize::try_from(plan.nodes).unwrap_or_default());
    while let Some(credentials) = joining.try_next().await? {
        all.push(credentials);
        progress.show(|| {
            format!("{} of {} certificates, {} of them kept ones", all.len(), plan.nodes, counts.kept.get())
        });
    }
    Ok(all)
}

async fn one(plan: &Plan, joiner: &Joiner, counts: &Counts, node: &NodeName) -> anyhow::Result<Identity> {
    let file = plan.certs.as_ref().map(|folder| folder.join(format!("{node}.pem")));
    if let Some(found) = file.as_deref().and_then(|file| load(joiner, node, file)) {
        counts.kept.up();
        return Ok(found);
    }
    let mut tries = 0;
    let identity = loop {
        tries += 1;
        match joiner.join(node).await {
            Ok(identity) => break identity,
            Err(error) if tries >= TRIES || !matches!(error, JoinError::Unreachable { .. }) => {
                return Err(explain(plan, error));
            }
            Err(_) => tokio::time::sleep(Duration::from_secs(1)).await,
        }
    };
    counts.signed.up();
    if let Some(file) = file {
        save(&identity, &file).with_context(|| format!("--certs: {}", file.display()))?;
    }
    Ok(identity)
}

/// What is kept of a node, if it is still good.
fn load(joiner: &Joiner, node: &NodeName, file: &Path) -> Option<Identity> {
    let text = fs::read_to_string(file).ok()?;
    let certificate = pki::from_pem(&text, &["CERTIFICATE"]).ok()?;
    joiner.accept(node, certificate, Key::from_pem(&text).ok()?).ok()
}

/// Not synced: a certificate lost in a crash is signed again.
fn save(identity: &Identity, file: &Path) -> io::Result<()> {
    let text = pki::to_pem("CERTIFICATE", &identity.certificate) + &identity.key.to_pem();
    replace_unsynced(file, text.as_bytes(), 0o600)
}

/// A failure in the words of the flags.
fn explain(plan: &Plan, error: JoinError) -> anyhow::Error {
    match error {
        JoinError::Token(error) => Unusable::new(format!("--token: {error}")).into(),
        JoinError::BadServer(_) => {
            Unusable::new(format!("--cloud, --https-port: {:?} is no host and port", plan.https)).into()
        }
        JoinError::Unreachable { source, .. } => {
            anyhow::anyhow!("--cloud, --https-port: nobody gives certificates at {}: {source}", plan.https)
        }
        JoinError::OtherAuthority { host } => {
            anyhow::anyhow!("--token: it is of another cloud than the one at {host}")
        }
        JoinError::Refused { host, status, text } => {
            anyhow::anyhow!("--token: cloudcore at {host} refused a certificate: {status} {text}")
        }
        other => anyhow::anyhow!(chain(&other)),
    }
}
