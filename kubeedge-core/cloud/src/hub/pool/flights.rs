//! Objects on their way: written, and not confirmed yet.

use foldhash::HashMap;
use tokio::time::Instant;

use super::{Flight, Id};

#[derive(Debug)]
struct Written {
    flight: Flight,
    times: u32,
    due: Instant,
}

/// See the module's text. Each is known by its message, so that a confirmation counts for no other.
#[derive(Debug, Default)]
pub(super) struct Flights {
    written: HashMap<Id, Written>,
    /// Nothing is due before; looked at instead of each that is on its way.
    earliest: Option<Instant>,
    /// Those that were confirmed, until they are taken.
    confirmed: Vec<Flight>,
}

impl Flights {
    /// How many are on their way.
    pub(super) fn len(&self) -> usize {
        self.written.len() + self.confirmed.len()
    }

    pub(super) fn begin(&mut self, flight: Flight, times: u32, due: Instant) {
        self.earliest = Some(self.earliest.map_or(due, |earliest| earliest.min(due)));
        self.written.insert(flight.id.clone(), Written { flight, times, due });
    }

    /// Whether this message was on its way.
    pub(super) fn confirm(&mut self, message: &Id) -> bool {
        let Some(Written { flight, .. }) = self.written.remove(message) else { return false };
        self.confirmed.push(flight);
        true
    }

    pub(super) fn take_confirmed(&mut self) -> Vec<Flight> {
        std::mem::take(&mut self.confirmed)
    }

    /// Those that are due, and how often they were written.
    pub(super) fn take_due(&mut self, now: Instant) -> Vec<(Flight, u32)> {
        if self.earliest.is_none_or(|earliest| now < earliest) {
            return Vec::new();
        }
        let due = self.written.extract_if(|_, written| written.due <= now);
        let due = due.map(|(_, written)| (written.flight, written.times)).collect();
        self.earliest = self.written.values().map(|written| written.due).min();
        due
    }

    /// Before this moment nothing is due.
    pub(super) fn next_due(&self) -> Option<Instant> {
        self.earliest.filter(|_| !self.written.is_empty())
    }
}
