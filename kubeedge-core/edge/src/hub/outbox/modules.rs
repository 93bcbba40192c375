//! What vendors' modules send to the cloud: beside the lanes, with bounds of its own.

use std::collections::HashMap;

use kubeedge_common::deliveries::{Answered, Bounds, Deliveries, Undelivered};
use kubeedge_core::{message::Message, routes::Delivery};
use tokio::{sync::oneshot, time::Instant};

/// What may wait, and what of it is in flight.
const BOUNDS: Bounds = Bounds { messages: 1024, bytes: 32 << 20, window: 64, window_bytes: 4 << 20 };
/// How many senders may wait to be told that their messages were not delivered.
const REPORTS: usize = 1024;

/// Rows of messages that are kept: `m/<number>/<how>`.
const ROWS: &str = "m/";

/// A change of what is stored.
#[derive(Debug)]
pub(super) enum RowChange {
    /// This message stands in this row.
    Keep(String, Box<Message>),
    /// Nothing stands in this row.
    Forget(String),
}

/// See the module's text.
#[derive(Debug)]
pub(super) struct ModuleMail {
    deliveries: Deliveries,
    /// What is being written.
    writing: Option<Message>,
    /// Whether the last message of the lane was one of DeviceTwin's.
    is_next: bool,
    rows: HashMap<u64, String>,
    changes: Vec<RowChange>,
    reports: Vec<Undelivered>,
    lost_reports: u64,
}

impl Default for ModuleMail {
    fn default() -> Self {
        let (rows, changes, reports) = Default::default();
        let deliveries = Deliveries::new(BOUNDS);
        Self { deliveries, writing: None, is_next: true, rows, changes, reports, lost_reports: 0 }
    }
}

impl ModuleMail {
    /// Takes a message of a module.
    pub(super) fn offer(
        &mut self,
        message: Message,
        delivery: Delivery,
        reply: Option<oneshot::Sender<Message>>,
    ) {
        match self.deliveries.offer(message, delivery, reply) {
            Ok(Some(number)) => {
                let row = row(number, delivery);
                self.rows.insert(number, row.clone());
                if let Some(message) = self.deliveries.kept(number) {
                    self.changes.push(RowChange::Keep(row, Box::new(message.clone())));
                }
            }
            Ok(None) => {}
            Err(refused) => self.fail([*refused]),
        }
        self.forget_gone();
    }

    /// Takes in a row that an earlier process left; says whether it is one of these.
    pub(super) fn restore(&mut self, name: &str, message: &Message) -> bool {
        let Some((number, delivery)) = number_of(name) else { return false };
        self.rows.insert(number, name.to_owned());
        self.deliveries.restore(number, message.clone(), delivery);
        true
    }

    pub(super) fn has_next(&self) -> bool {
        self.deliveries.has_next()
    }

    /// Whether a message of a module goes now, before one of the same lane that waits: they take turns.
    pub(super) fn takes_turn(&mut self, others_wait: bool) -> bool {
        let takes = self.has_next() && (!others_wait || self.is_next);
        self.is_next = !takes;
        takes
    }

    /// The next message, which is being written from now on.
    pub(super) fn next(&mut self) -> Option<Message> {
        let next = self.deliveries.next(Instant::now());
        self.writing.clone_from(&next);
        next
    }

    /// What is being written is out; says whether it was a module's.
    pub(super) fn written(&mut self) -> bool {
        self.writing.take().is_some()
    }

    /// What is being written can never be written; says whether it was a module's.
    pub(super) fn unwritable(&mut self, why: &str) -> bool {
        let Some(message) = self.writing.take() else { return false };
        let failed = self.deliveries.unwritable(&message.header.id, why);
        self.fail(failed);
        self.forget_gone();
        true
    }

    /// Hands an answer to whoever waits for it; gives it back when it answers nothing of a module.
    pub(super) fn claim(&mut self, answer: Message) -> Option<Message> {
        let unknown = match self.deliveries.answered(answer) {
            Answered::Claimed => None,
            Answered::Failed(failed) => {
                self.fail([*failed]);
                None
            }
            Answered::Unknown(answer) => Some(*answer),
        };
        self.forget_gone();
        unknown
    }

    /// There is a link.
    pub(super) fn up(&mut self) {
        self.deliveries.up();
    }

    /// There is no link: requests fail, what is kept waits for the next one.
    pub(super) fn down(&mut self) {
        self.writing = None;
        let failed = self.deliveries.down();
        self.fail(failed);
    }

    /// What was not answered in time goes again.
    pub(super) fn tick(&mut self, confirms: bool) {
        let failed = self.deliveries.tick(Instant::now(), confirms);
        self.fail(failed);
        self.forget_gone();
    }

    /// What changed of what is stored, in order.
    pub(super) fn take_changes(&mut self) -> Vec<RowChange> {
        std::mem::take(&mut self.changes)
    }

    /// What senders are to be told.
    pub(super) fn take_reports(&mut self) -> Vec<Undelivered> {
        let lost = std::mem::take(&mut self.lost_reports);
        if lost > 0 {
            tracing::warn!(lost, "modules were not told that messages of theirs were not delivered");
        }
        std::mem::take(&mut self.reports)
    }

    pub(super) fn has_reports(&self) -> bool {
        !self.reports.is_empty()
    }

    fn fail(&mut self, failed: impl IntoIterator<Item = Undelivered>) {
        for failed in failed {
            if self.reports.len() < REPORTS {
                self.reports.push(failed);
            } else {
                self.lost_reports += 1;
            }
        }
    }

    fn forget_gone(&mut self) {
        let gone = self.deliveries.take_gone();
        let rows = gone.iter().filter_map(|number| self.rows.remove(number));
        self.changes.extend(rows.map(RowChange::Forget));
    }
}

fn row(number: u64, delivery: Delivery) -> String {
    let how = if delivery == Delivery::Newest { "newest" } else { "each" };
    format!("{ROWS}{number:016x}/{how}")
}

fn number_of(row: &str) -> Option<(u64, Delivery)> {
    let (number, how) = row.strip_prefix(ROWS)?.split_once('/')?;
    let delivery = if how == "newest" { Delivery::Newest } else { Delivery::Reliable };
    Some((u64::from_str_radix(number, 16).ok()?, delivery))
}
