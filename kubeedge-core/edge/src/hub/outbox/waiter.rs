//! Senders that wait.

use kubeedge_core::{
    message::{Content, Message},
    transport::Lane,
};
use tokio::sync::oneshot;

/// Somebody who waits for an answer, and the question without its content.
#[derive(Debug)]
pub(super) struct Waiter {
    question: Message,
    pub(super) reply: oneshot::Sender<Message>,
    /// The question's number among what was written, once it was, and its lane.
    pub(super) written: Option<(u64, Lane)>,
}

impl Waiter {
    pub(super) fn of(message: &Message, reply: oneshot::Sender<Message>) -> Self {
        let question = message.clone().with(Content::empty());
        Self { question, reply, written: None }
    }

    /// It is not to be had.
    pub(super) fn fail(self, why: &str) {
        // An asker that no longer waits has no use for the reason.
        let _ = self.reply.send(self.question.error_answer(why));
    }

    /// It is so.
    pub(super) fn succeed(self) {
        // A sender that no longer waits takes it for lost and sends it again.
        let _ = self.reply.send(self.question.answer(Content::ok()));
    }
}
