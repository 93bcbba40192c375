//! Looks after the node's certificates: gets them, publishes them, renews them in time.

use std::{sync::Arc, time::Duration};

use bytes::Bytes;
use kubeedge_core::{
    backoff::Backoff,
    clock::Clock,
    failure::chain,
    name::NodeName,
    pki::{self, Identity, Leaf, TokenError},
    transport::Credentials,
};
use rand::{RngExt, SeedableRng, rngs::SmallRng};
use tokio::sync::{Notify, watch};

use super::{
    EdgeHubSettings, files,
    https::{self, Https, Proof, Registrar},
    identity::{IdentitySource, JoinError, JoinSettings, unix},
    join,
};

/// Gets the certificates, publishes them and renews them.
pub(super) struct Keeper {
    source: IdentitySource,
    node: NodeName,
    clock: Clock,
    registrar: Arc<dyn Registrar>,
    publish: watch::Sender<Option<Arc<Credentials>>>,
    doubt: Arc<Notify>,
    random: SmallRng,
    backoff: Backoff,
    said: String,
}

/// The first pause after a failure, and the longest.
const FIRST: Duration = Duration::from_secs(2);
const LONGEST: Duration = Duration::from_secs(60);
/// The longest pause between looks at the clock: it may be set while we sleep.
const LOOK: Duration = Duration::from_secs(600);
/// The pause between attempts to renew after those that grow.
const STEADY: Duration = Duration::from_secs(32);
/// Attempts to renew before that.
const STEPS: u32 = 5;

impl Keeper {
    /// A keeper, and the way to make it look again.
    pub(super) fn new(
        node: &NodeName,
        settings: &EdgeHubSettings,
        clock: &Clock,
        publish: watch::Sender<Option<Arc<Credentials>>>,
    ) -> (Self, Arc<Notify>) {
        let doubt = Arc::<Notify>::default();
        let keeper = Self {
            source: settings.identity.clone(),
            node: node.clone(),
            clock: clock.clone(),
            registrar: Arc::new(Https::new(clock.clone())),
            publish,
            doubt: doubt.clone(),
            random: SmallRng::seed_from_u64(settings.seed),
            backoff: Backoff::new(FIRST, LONGEST, settings.seed),
            said: String::new(),
        };
        (keeper, doubt)
    }

    /// Works until dropped.
    pub(super) async fn run(mut self) {
        let join = match &self.source {
            IdentitySource::Join(join) => Arc::new(join.clone()),
            IdentitySource::Fixed(credentials) => {
                self.publish(credentials.clone());
                return std::future::pending().await;
            }
        };
        let mut doubted = false;
        loop {
            match self.obtain(&join, doubted).await {
                Ok((identity, leaf)) => {
                    self.backoff.reset();
                    self.said.clear();
                    self.publish(identity.credentials());
                    let doubt = self.doubt.clone();
                    tokio::select! {
                        () = self.rotate(&join, &identity, &leaf) => doubted = false,
                        () = doubt.notified() => {
                            doubted = true;
                            tokio::time::sleep(FIRST).await;
                        }
                    }
                }
                Err(error) => {
                    self.failed(&error, "this node has no certificate").await;
                    // A token that does not help is no reason to stop looking after what there is.
                    doubted = false;
                }
            }
        }
    }

    /// Publishes what is new: the link is made anew for it.
    fn publish(&self, found: Credentials) {
        let same = |known: &Arc<Credentials>| known.chain == found.chain && known.roots == found.roots;
        let is_known = self.publish.borrow().as_ref().is_some_and(same);
        if !is_known {
            self.publish.send_replace(Some(Arc::new(found)));
        }
    }

    /// The stored certificates, or new ones.
    async fn obtain(&self, join: &Arc<JoinSettings>, doubted: bool) -> Result<(Identity, Leaf), JoinError> {
        let why = match files::load(join, &self.node, self.now()).await {
            Ok(found) if !doubted => return Ok(found),
            Ok(found) if !is_outdated(files::token(join).await.as_deref(), &found.0) => return Ok(found),
            Ok(_) => JoinError::Unfit {
                path: join.ca_file.clone(),
                why: "cloudcore refused the certificate, and the join token is of a newer CA".to_owned(),
            },
            Err(why) => why,
        };
        let Some(token) = files::token(join).await else {
            return Err(JoinError::NoToken { why: Box::new(why) });
        };
        tracing::info!(why = %why, "asking cloudcore for a certificate");
        let (_, jwt) = pki::split_token(&token)?;
        let host = https::authority(&join.https)?;
        let ca = self.registrar.ca(&host, &token).await?;
        let found = self.ask(&host, ca, Proof::Token(jwt)).await?;
        files::save(join, &found.0).await?;
        files::token_has_served(join).await;
        tracing::info!("this node has its certificate");
        Ok(found)
    }

    /// Has a new key certified.
    async fn ask(&self, host: &str, ca: Bytes, proof: Proof<'_>) -> Result<(Identity, Leaf), JoinError> {
        join::certified(&*self.registrar, &self.clock, host, ca, &self.node, proof).await
    }

    /// Waits until the certificate is due and renews it; returns when new files are there.
    async fn rotate(&mut self, join: &Arc<JoinSettings>, identity: &Identity, leaf: &Leaf) {
        if !join.rotate {
            return std::future::pending().await;
        }
        let due = pki::rotation_point(leaf, self.random.random_range(0.0..=1.0));
        loop {
            let left = u64::try_from(due.saturating_sub(self.now())).unwrap_or(0);
            if left == 0 {
                break;
            }
            tokio::time::sleep(Duration::from_secs(left).min(LOOK)).await;
        }
        let mut failures = 0;
        while let Err(error) = self.renew(join, identity).await {
            self.say(&error, "the certificate of this node is due and was not renewed");
            failures += 1;
            let pause = self.pause_of_renewal(failures);
            tokio::time::sleep(pause).await;
            if leaf.not_after < self.now() {
                // What is left is the token.
                return;
            }
        }
        tracing::info!("the certificate of this node was renewed");
    }

    /// Proves itself with the certificate there is, as Go edges do.
    async fn renew(&self, join: &Arc<JoinSettings>, identity: &Identity) -> Result<(), JoinError> {
        let host = https::authority(&join.https)?;
        let proof = Proof::Certificate(identity);
        let (renewed, _) = self.ask(&host, identity.ca.clone(), proof).await?;
        files::save(join, &renewed).await
    }

    /// Go's pauses: 2, 4, 8 and 16 s, up to a tenth longer, then 32 s each.
    fn pause_of_renewal(&mut self, failures: u32) -> Duration {
        if failures >= STEPS {
            return STEADY;
        }
        let whole = FIRST * 2_u32.pow(failures.saturating_sub(1));
        whole.mul_f64(self.random.random_range(1.0..=1.1))
    }

    fn now(&self) -> i64 {
        unix(self.clock.now())
    }

    /// Says what is wrong, once for each reason.
    fn say(&mut self, error: &JoinError, what: &'static str) {
        let why = chain(error);
        if self.said != why {
            tracing::error!(error = %why, "{what}");
            self.said = why;
        }
    }

    /// Says what is wrong, and pauses.
    async fn failed(&mut self, error: &JoinError, what: &'static str) {
        self.say(error, what);
        let pause = if error.may_pass() { self.backoff.next_pause() } else { LONGEST };
        tokio::time::sleep(pause).await;
    }
}

/// Whether there is a token, and of another CA than the stored one.
fn is_outdated(token: Option<&str>, stored: &Identity) -> bool {
    token.is_some_and(|token| pki::token_names_ca(token, &stored.ca) == Err(TokenError::OtherAuthority))
}

#[cfg(test)]
mod tests;
