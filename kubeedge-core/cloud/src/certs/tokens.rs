//! The join token: one for all cloudcores of a cluster, in its secret.

use std::{sync::Arc, time::Duration};

use kube::core::Status;
use kubeedge_core::{pki, pki::Authority};

use super::{
    secrets::{self, TOKEN_SECRET},
    unix,
};
use crate::cluster::Clients;

const KEY: &str = "tokendata";
/// How often another cloudcore may get ahead of us before that is an error.
const ATTEMPTS: usize = 5;

/// A token, and when it expires (seconds since the Unix epoch).
pub(super) type Token = (String, i64);

/// Finds, makes and renews the token.
#[derive(Clone, Debug)]
pub(super) struct Tokens {
    pub(super) authority: Arc<Authority>,
    pub(super) clients: Arc<Clients>,
    pub(super) refresh: Duration,
}

impl Tokens {
    /// The token in the secret if it is of this CA and not due, else a new one that is not in the secret yet.
    pub(super) async fn find(&self) -> Result<Token, Box<Status>> {
        Ok(self.stored().await?.unwrap_or_else(|| self.make()))
    }

    /// The token in the secret. If the one there is not of this CA, or due, `known` is put there, or a new
    /// one if that is due as well. Whoever is faster than we are makes the token for all.
    pub(super) async fn keep(&self, known: &str) -> Result<Token, Box<Status>> {
        for _ in 1..ATTEMPTS {
            if let Some(stored) = self.stored().await? {
                return Ok(stored);
            }
            match self.store(known).await {
                Err(status) if status.is_conflict() || status.is_already_exists() => {}
                done => return done,
            }
        }
        self.store(known).await
    }

    /// How long the token need not be looked after: at least `refresh` is left of it when it is renewed, as
    /// in Go.
    pub(super) fn rest(&self, (_, expires): &Token) -> Duration {
        let left = expires - self.seconds() - unix(self.clients.clock().now());
        Duration::from_secs(u64::try_from(left).unwrap_or_default())
    }

    async fn stored(&self) -> Result<Option<Token>, Box<Status>> {
        let values = secrets::read(self.clients.ours(), TOKEN_SECRET).await?.unwrap_or_default();
        Ok(values.get(KEY).and_then(|text| self.good(&String::from_utf8_lossy(text))))
    }

    /// The token, if it is of this CA and not due.
    fn good(&self, text: &str) -> Option<Token> {
        let (text, now) = (text.trim(), unix(self.clients.clock().now()));
        let expires = pki::token_expiry(&self.authority, text, now).ok()?;
        // One that holds longer than ours would is from before the pause between renewals was shortened.
        let kept = (self.seconds() + 1..=self.seconds().saturating_mul(2) + 60).contains(&(expires - now));
        kept.then(|| (text.to_owned(), expires))
    }

    async fn store(&self, known: &str) -> Result<Token, Box<Status>> {
        let token = self.good(known).unwrap_or_else(|| self.make());
        let values = [(KEY.to_owned(), token.0.clone().into_bytes())].into();
        secrets::write(self.clients.ours(), TOKEN_SECRET, &values).await?;
        Ok(token)
    }

    /// A token that outlives two renewals.
    fn make(&self) -> Token {
        let expires = unix(self.clients.clock().now()).saturating_add(self.seconds().saturating_mul(2));
        (pki::sign_token(&self.authority, expires), expires)
    }

    fn seconds(&self) -> i64 {
        // Below this no sum with the time of day overflows.
        i64::try_from(self.refresh.as_secs()).unwrap_or(i64::MAX).min(i64::MAX / 8)
    }
}
