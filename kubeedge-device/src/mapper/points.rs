//! What a device's task remembers of each property.

use kubeedge_core::device::{Device, Property, Reading, Value};
use kubeedge_core::message::Millis;
use tokio::time::{Duration, Instant};

/// A point the device does not have is asked for again this seldom.
const REFUSED_EVERY: Duration = Duration::from_secs(30);

/// What is known of one property.
#[derive(Debug)]
pub(super) struct Point {
    /// When to read it next.
    pub(super) due: Instant,
    /// Its values come by themselves.
    pub(super) subscribed: bool,
    /// Subscribing to it failed: it is polled until the device was lost and found again.
    pub(super) polled: bool,
    /// The desired value that is still to be written, and not before when.
    pub(super) pending: Option<(String, Instant)>,
    /// The desired value the device has taken.
    written: Option<String>,
    /// The text last reported, and when.
    reported: Option<(String, Instant)>,
    /// Why it cannot be read or written; empty when it can.
    read_fault: String,
    /// How often in a row it could not be read; more than enough where trying again changes nothing.
    misses: u32,
    write_fault: String,
}

impl Point {
    fn new(now: Instant) -> Self {
        Self {
            due: now,
            subscribed: false,
            polled: false,
            pending: None,
            written: None,
            reported: None,
            read_fault: String::new(),
            misses: 0,
            write_fault: String::new(),
        }
    }

    /// Whether reading and writing it work; a single late answer says nothing yet.
    pub(super) fn is_sound(&self) -> bool {
        self.misses < 2 && self.write_fault.is_empty()
    }

    /// Whether it is to be read now; a subscribed point is, once, so that there is a first value.
    pub(super) fn wants_read(&self, now: Instant) -> bool {
        self.due <= now && (!self.subscribed || self.reported.is_none())
    }

    /// What a value read now means, at this time of day: a reading, unless it was reported already and is not
    /// due again.
    pub(super) fn take(
        &mut self,
        device: &Device,
        property: &Property,
        value: Value,
        (now, at): (Instant, Millis),
    ) -> Option<Reading> {
        self.read_fault.clear();
        self.misses = 0;
        self.due = now + property.collect_every;
        let text = value.to_string();
        if let Some((last, since)) = &self.reported {
            let cycle = property.report_every;
            let late = !cycle.is_zero() && now.duration_since(*since) >= cycle;
            if *last == text && !late {
                return None;
            }
        }
        self.reported = Some((text, now));
        let (name, kind) = (property.model.name.as_str(), property.model.kind);
        let mut reading = Reading::new(device.id.clone(), name, value, kind, at);
        reading.to_cloud = property.report_to_cloud;
        reading.desired = self.written.clone();
        Some(reading)
    }

    /// Has the next value reported whether it changed or not.
    pub(super) fn forget_reported(&mut self) {
        self.reported = None;
    }

    /// Reading failed. `true` when that is news.
    pub(super) fn read_failed(
        &mut self,
        property: &Property,
        why: String,
        for_good: bool,
        now: Instant,
    ) -> bool {
        let pause = property.collect_every;
        self.due = now + if for_good { pause.max(REFUSED_EVERY) } else { pause };
        self.misses = if for_good { u32::MAX } else { self.misses.saturating_add(1) };
        let news = self.read_fault != why;
        self.read_fault = why;
        news
    }

    /// The device has taken a desired value: read it back and report it.
    pub(super) fn wrote(&mut self, text: String, now: Instant) {
        self.write_fault.clear();
        self.pending = None;
        self.written = Some(text);
        self.due = now;
        self.forget_reported();
    }

    /// Writing a desired value failed: try again later, or not before the next reconnect or update.
    pub(super) fn write_failed(
        &mut self,
        property: &Property,
        why: String,
        for_good: bool,
        now: Instant,
    ) -> bool {
        match &mut self.pending {
            Some((_, not_before)) if !for_good => *not_before = now + property.collect_every,
            pending => *pending = None,
        }
        let news = self.write_fault != why;
        self.write_fault = why;
        news
    }

    /// When something is to be done.
    pub(super) fn next(&self) -> Option<Instant> {
        let read = (!self.subscribed || self.reported.is_none()).then_some(self.due);
        let write = self.pending.as_ref().map(|(_, not_before)| *not_before);
        read.into_iter().chain(write).min()
    }
}

/// The points of a new description; what is known of a property is kept by its name.
pub(super) fn carry_over(old: Vec<(String, Point)>, device: &Device, now: Instant) -> Vec<Point> {
    let mut old: std::collections::HashMap<String, Point> = old.into_iter().collect();
    let points = device.properties.iter().map(|property| {
        let mut point = old.remove(&property.model.name).unwrap_or_else(|| Point::new(now));
        point.due = now;
        match &property.desired {
            None => {
                point.pending = None;
                point.written = None;
                point.write_fault.clear();
            }
            Some(text) if point.written.as_ref() != Some(text) => point.pending = Some((text.clone(), now)),
            Some(_) => {}
        }
        point
    });
    points.collect()
}

/// After a connect: everything is read and reported, and every desired value written, for the device may have
/// forgotten it.
pub(super) fn begin_session(points: &mut [Point], device: &Device, now: Instant) {
    for (point, property) in points.iter_mut().zip(&device.properties) {
        point.due = now;
        point.subscribed = false;
        point.polled = false;
        point.forget_reported();
        point.pending = property.desired.clone().map(|text| (text, now));
    }
}

/// After a session took the place of one that was given up: the device was not lost and has forgotten
/// nothing. What came by itself may have changed meanwhile, and is read once.
pub(super) fn resume_session(points: &mut [Point], now: Instant) {
    for point in points.iter_mut().filter(|point| point.subscribed) {
        point.subscribed = false;
        point.due = now;
        point.forget_reported();
    }
}
