//! What waits for one vendor's module: in order, bounded in number and bytes, and in nobody's way.

use futures::{StreamExt, stream::FuturesUnordered};
use kubeedge_core::{
    bus::{Bus, Envelope},
    message::{Content, Message},
    name::ModuleName,
};
use parking_lot::Mutex;
use tokio::sync::{Notify, oneshot};

use crate::queue::Queue;

/// How many messages a module has before it at a time, and from how many bytes on it gets no further one:
/// what a mailbox holds is counted in messages alone.
const AT_ONCE: usize = 64;
const BYTES_AT_ONCE: usize = 8 << 20;

/// See the module's text.
#[derive(Debug, Default)]
pub(crate) struct Backlog {
    queue: Mutex<Queue>,
    more: Notify,
    refused: Mutex<u64>,
}

impl Backlog {
    /// Leaves a message for the module, or says that there is no room; never waits.
    pub(crate) fn push(&self, module: &ModuleName, message: Message) -> bool {
        let taken = self.queue.lock().push(message);
        let mut refused = self.refused.lock();
        if taken {
            *refused = 0;
            self.more.notify_one();
        } else {
            *refused += 1;
            if *refused % 1000 == 1 {
                tracing::error!(%module, refused = *refused, "module does not read its mailbox, messages for it dropped");
            }
        }
        taken
    }

    /// Hands messages to the module in their order and its answers to `answered`, as long as it runs. A
    /// module is done with a message when it answers or drops the envelope.
    pub(crate) async fn deliver(&self, bus: &Bus, module: &ModuleName, answered: impl Fn(Message)) {
        let (mut working, mut bytes) = (FuturesUnordered::new(), 0_usize);
        loop {
            let room = working.len() < AT_ONCE && (bytes < BYTES_AT_ONCE || working.is_empty());
            let next = if room { self.queue.lock().pop() } else { None };
            let Some(message) = next else {
                tokio::select! {
                    () = self.more.notified(), if room => {}
                    Some(ended) = working.next() => {
                        let (size, answer): (usize, Option<Message>) = ended;
                        bytes = bytes.saturating_sub(size);
                        answer.into_iter().for_each(&answered);
                    }
                }
                continue;
            };
            let (size, question) = (message.size(), message.clone().with(Content::empty()));
            let (envelope, answer) = Envelope::with_reply(message);
            if let Err(error) = bus.forward(module, envelope).await {
                tracing::debug!(%error, "a message was not delivered");
                continue;
            }
            bytes += size;
            working.push(done(size, question, answer));
        }
    }
}

/// Completes when the module is done: what its message weighed, and the answer if there is one.
async fn done(
    size: usize,
    question: Message,
    answer: oneshot::Receiver<Message>,
) -> (usize, Option<Message>) {
    let answer = answer.await.ok();
    (size, answer.map(|answer| of_group(&question, answer)))
}

/// An answer in the group of its question: an error has none, and its peer would not know whose it is.
pub(crate) fn of_group(question: &Message, mut answer: Message) -> Message {
    answer.route.group = question.route.group.clone();
    answer
}

#[cfg(test)]
mod tests {
    use std::{sync::Arc, time::Duration};

    use kubeedge_core::name::{Group, Operation};

    use super::*;

    const ACME: ModuleName = ModuleName::of("acme");

    fn message(n: usize) -> Message {
        Message::new(ACME, Operation::UPDATE, n.to_string()).in_group(Group::of("acme"))
    }

    #[tokio::test(start_paused = true)]
    async fn a_module_gets_its_messages_in_order_and_so_many_at_once() {
        let (bus, mut inboxes) = Bus::new([(ACME, Group::of("acme"), 1024)]);
        let mut inbox = inboxes.remove(&ACME).unwrap();
        let (backlog, answers) = (Arc::new(Backlog::default()), Arc::new(Mutex::new(Vec::new())));
        let taken = (0..2000).filter(|n| backlog.push(&ACME, message(*n))).count();
        assert_eq!(taken, crate::queue::MOST);
        let (delivering, heard) = (backlog.clone(), answers.clone());
        tokio::spawn(
            async move { delivering.deliver(&bus, &ACME, |answer| heard.lock().push(answer)).await },
        );
        tokio::time::sleep(Duration::from_secs(1)).await;
        let mut held: Vec<_> = std::iter::from_fn(|| inbox.try_next()).collect();
        assert_eq!(held.len(), AT_ONCE);
        for n in 0..taken {
            if held.is_empty() {
                held.push(inbox.next().await.unwrap());
            }
            let envelope = held.remove(0);
            assert_eq!(envelope.message.route.resource, n.to_string().as_str());
            if n % 2 == 0 { envelope.fail("no") } else { drop(envelope) }
        }
        tokio::time::sleep(Duration::from_secs(1)).await;
        let answers = answers.lock();
        assert_eq!(answers.len(), taken / 2);
        assert!(answers.iter().all(|answer| answer.route.group == "acme" && answer.is_answer()));
    }

    #[tokio::test(start_paused = true)]
    async fn large_messages_are_with_a_module_by_their_bytes() {
        let (bus, mut inboxes) = Bus::new([(ACME, Group::of("acme"), 1024)]);
        let mut inbox = inboxes.remove(&ACME).unwrap();
        let backlog = Arc::new(Backlog::default());
        for n in 0..10 {
            assert!(backlog.push(&ACME, message(n).with(Content::text(&"x".repeat(3 << 20)))));
        }
        tokio::spawn(async move { backlog.deliver(&bus, &ACME, drop).await });
        tokio::time::sleep(Duration::from_secs(1)).await;
        assert_eq!(std::iter::from_fn(|| inbox.try_next()).count(), 3);
    }
}
