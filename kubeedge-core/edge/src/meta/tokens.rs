//! Service account tokens: kept while they are good, fetched anew in time, and used up to their end without a
//! link.

use std::sync::Arc;

use k8s_openapi::{api::authentication::v1::TokenRequest, jiff::Timestamp};
use kubeedge_core::{
    bus::Envelope,
    message::{Content, Message, Millis, resource::ObjectPath},
    store::Key,
};
use serde::{Deserialize, Serialize};

use super::{
    cloud::{Remote, Verdict, verdict},
    objects::token_key,
};

/// The longest a token is used before a new one is asked for.
const DAY: i64 = 24 * 3600 * 1000;

/// A token and when it was fetched.
#[derive(Serialize, Deserialize)]
struct Kept {
    fetched: Millis,
    answer: TokenRequest,
}

impl Kept {
    fn expires(&self) -> i64 {
        let status = self.answer.status.as_ref();
        status.map_or(0, |status| Timestamp::as_millisecond(status.expiration_timestamp.0))
    }

    /// Within 80 % of its life and a day of its making, as the kubelet does.
    fn is_fresh(&self, now: Millis) -> bool {
        let life = self.expires() - self.fetched.0;
        let age = now.0 - self.fetched.0;
        self.is_valid(now) && age < DAY && age * 5 < life * 4
    }

    fn is_valid(&self, now: Millis) -> bool {
        now.0 < self.expires()
    }
}

/// Answers with the token that is kept while it is fresh, otherwise with one of the cloud.
pub(super) async fn answer(remote: Arc<Remote>, envelope: Envelope) {
    let Some(row) = row_of(&envelope.message) else {
        return envelope.fail("the resource names no service account");
    };
    let now = remote.clock.now();
    let kept = match remote.objects.token(&row).await {
        Ok(kept) => kept.and_then(|bytes| serde_json::from_slice::<Kept>(&bytes).ok()),
        Err(error) => return envelope.fail(error),
    };
    if let Some(fresh) = kept.as_ref().filter(|kept| kept.is_fresh(now)) {
        return reply(envelope, &fresh.answer);
    }
    match remote.call(&envelope.message).await {
        Ok(answer) => {
            keep(&remote, row, now, &answer.content).await;
            envelope.answer(answer.content);
        }
        Err(why) => match kept.filter(|kept| kept.is_valid(now)) {
            Some(valid) => reply(envelope, &valid.answer),
            None => envelope.fail(why),
        },
    }
}

async fn keep(remote: &Remote, row: Key, fetched: Millis, content: &Content) {
    let Verdict::Object(bytes) = verdict(content) else { return };
    let Ok(answer) = serde_json::from_slice(&bytes) else { return };
    let kept = serde_json::to_vec(&Kept { fetched, answer }).unwrap_or_default();
    let account = row.name.split('?').next().unwrap_or_default().to_owned();
    if let Err(error) = remote.objects.put_token(row, kept.into()).await {
        tracing::warn!(error = %error, account, "token not stored");
    }
}

fn reply(envelope: Envelope, answer: &TokenRequest) {
    match Content::json(answer) {
        Ok(content) => envelope.answer(content),
        Err(error) => envelope.fail(error),
    }
}

/// One row per account and request: audiences, life and the pod it is bound to.
fn row_of(message: &Message) -> Option<Key> {
    let account = ObjectPath::parse(message.route.resource.as_str())?;
    let request = message.content.data();
    Some(token_key(account.namespace, account.name, &String::from_utf8_lossy(&request)))
}
