//! Answers to the pings of the peer.

use std::{collections::VecDeque, task::Context};

use kubeedge_core::transport::Lane;

use super::{
    control::{Control, Half},
    hello,
};

/// How many pings may wait for frames before them. The last makes room for one more, which answers it too.
const MOST: usize = 16;

/// A ping: its number, and how many frames were sent before it in the streams of twins and bulk.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Asked {
    number: u64,
    after: [u64; 2],
}

impl Asked {
    pub(super) fn of(payload: &[u8]) -> Option<Self> {
        let (numbers, rest) = payload.as_chunks::<8>();
        let [number, twins, bulk] = numbers else { return None };
        let number_of = |bytes: &[u8; 8]| u64::from_be_bytes(*bytes);
        let asked = Self { number: number_of(number), after: [number_of(twins), number_of(bulk)] };
        rest.is_empty().then_some(asked)
    }
}

/// What of the peer was given out, and which of its pings are answered by that. Nothing is written while an
/// earlier answer waits to be: the last one stands for all before it.
pub(super) struct Answers {
    control: Control,
    /// How many frames were given out, of the streams of twins and bulk. Those of control come before the
    /// ping.
    given: [u64; 2],
    waiting: VecDeque<Asked>,
    /// The last ping that is to be answered, and the last of which we say that we have it.
    pong: Option<u64>,
    heard: Option<u64>,
    /// An answer is on its way into the stream.
    writing: bool,
}

impl Answers {
    pub(super) fn new(control: Control) -> Self {
        Self { control, given: [0; 2], waiting: VecDeque::new(), pong: None, heard: None, writing: false }
    }

    /// A frame of this lane is given out.
    pub(super) fn give(&mut self, lane: Lane) {
        let [twins, bulk] = &mut self.given;
        match lane {
            Lane::Control => {}
            Lane::Twins => *twins += 1,
            Lane::Bulk => *bulk += 1,
        }
    }

    /// The peer pings.
    pub(super) fn asked(&mut self, ping: Asked) {
        if self.waiting.len() >= MOST {
            self.waiting.pop_back();
        }
        if !self.is_due(&ping) {
            self.heard = Some(ping.number);
        }
        self.waiting.push_back(ping);
    }

    fn is_due(&self, ping: &Asked) -> bool {
        self.given.iter().zip(&ping.after).all(|(given, after)| given >= after)
    }

    /// All that was given out has been taken: answers what can be answered. If the stream takes no more, goes
    /// on when it does.
    pub(super) fn poll_given(&mut self, cx: &mut Context<'_>) {
        while let Some(ping) = self.waiting.front().filter(|ping| self.is_due(ping)) {
            self.pong = Some(ping.number);
            self.waiting.pop_front();
        }
        if self.waiting.is_empty() && self.waiting.capacity() > 0 {
            self.waiting = VecDeque::new();
        }
        while self.writing || self.pong.is_some() || self.heard.is_some() {
            // Who reads the stream learns why it has ended.
            if !self.control.poll_written(cx, Half::Receiving).is_ready() {
                return;
            }
            let pong = self.pong.take();
            let heard = self.heard.take().filter(|heard| pong.is_none_or(|pong| pong < *heard));
            self.writing = pong.is_some() || heard.is_some();
            self.control.queue(|into| {
                into.extend(pong.map(|number| hello::answer(hello::PONG, number)));
                into.extend(heard.map(|number| hello::answer(hello::HEARD, number)));
            });
        }
    }
}
