//! A bounded queue of messages, for what waits for modules.

use std::collections::VecDeque;

use kubeedge_core::message::Message;

/// How many messages a queue holds, and how many bytes of content.
pub(crate) const MOST: usize = 1024;
pub(crate) const MOST_BYTES: usize = 32 << 20;

/// Messages in order, bounded in number and bytes. One message always fits, however large.
#[derive(Debug, Default)]
pub(crate) struct Queue {
    messages: VecDeque<Message>,
    bytes: usize,
}

impl Queue {
    /// Takes a message in, or says that there is no room.
    #[must_use]
    pub(crate) fn push(&mut self, message: Message) -> bool {
        let size = message.size();
        let fits = self.messages.len() < MOST && self.bytes.saturating_add(size) <= MOST_BYTES;
        if !fits && !self.messages.is_empty() {
            return false;
        }
        self.bytes += size;
        self.messages.push_back(message);
        true
    }

    pub(crate) fn pop(&mut self) -> Option<Message> {
        let message = self.messages.pop_front()?;
        self.bytes -= message.size();
        Some(message)
    }
}

#[cfg(test)]
mod tests {
    use kubeedge_core::{
        message::Content,
        name::{ModuleName, Operation},
    };

    use super::*;

    #[test]
    fn large_contents_are_bounded_by_their_bytes() {
        let mut queue = Queue::default();
        let large = || {
            Message::new(ModuleName::TWIN, Operation::UPDATE, "x")
                .with(Content::text(&"x".repeat(MOST_BYTES / 4)))
        };
        let taken = (0..8).filter(|_| queue.push(large())).count();
        assert_eq!(taken, 3);
        assert!(queue.pop().is_some() && queue.push(large()));
    }
}
