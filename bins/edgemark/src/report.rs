//! What a run has shown: for programs as JSON, for people as a table.

use std::{
    collections::BTreeMap,
    io::{self, Write},
    path::Path,
    time::Duration,
};

use kubeedge_bin::Table;
use serde::Serialize;

use crate::{
    histogram::Percentiles,
    options::{Direction, Mode, Plan},
    process::Usage,
    stats::{Stats, TrafficNow},
};

/// How a run ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Outcome {
    /// Every promise held.
    Done,
    /// Edges were lost, left out or late.
    Fallen,
    /// Somebody stopped it.
    Interrupted,
}

/// The whole report.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Report {
    pub(crate) version: &'static str,
    pub(crate) mode: Mode,
    pub(crate) cloud: Vec<String>,
    pub(crate) nodes: u32,
    /// How many of them are linked over QUIC.
    over_quic: u32,
    pub(crate) links_only: bool,
    pub(crate) interrupted: bool,
    /// Promises that did not hold; empty is good.
    pub(crate) fallen: Vec<String>,
    /// Seconds of the whole run.
    pub(crate) seconds: f64,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) joined: Option<Joined>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) connected: Option<Connected>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) held: Option<Held>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) storm: Option<Storm>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) flood: Option<Flood>,
    pub(crate) counts: Counts,
    pub(crate) times: Times,
    /// Why things failed, and how often.
    pub(crate) reasons: BTreeMap<String, u64>,
    /// The process of `--pid`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) watched: Option<Watched>,
    /// Edgemark itself at the end.
    pub(crate) edgemark: Option<Usage>,
}

/// How certificates were got.
#[derive(Clone, Copy, Debug, Serialize)]
pub(crate) struct Joined {
    pub(crate) seconds: f64,
    pub(crate) kept: u64,
    pub(crate) signed: u64,
}

/// How all connected for the first time.
#[derive(Clone, Copy, Debug, Serialize)]
pub(crate) struct Connected {
    /// Seconds until all were in sync, or the time was up.
    pub(crate) seconds: f64,
    pub(crate) connected: u64,
    pub(crate) in_sync: u64,
}

/// What went on while links were only held.
#[derive(Clone, Copy, Debug, Serialize)]
pub(crate) struct Held {
    pub(crate) seconds: f64,
    /// Sessions lost meanwhile.
    pub(crate) lost: u64,
    /// Messages and bytes (payload, WebSocket header, TLS record) of all edges.
    pub(crate) traffic: TrafficNow,
    /// Bytes a second of one edge, up and down together.
    pub(crate) bytes_per_second_per_edge: f64,
}

/// How edges returned.
#[derive(Clone, Copy, Debug, Serialize)]
pub(crate) struct Storm {
    /// How many left and returned.
    pub(crate) edges: u64,
    pub(crate) bystanders: u64,
    /// Seconds until all had a link again.
    pub(crate) connected_seconds: Option<f64>,
    /// Seconds until all were registered, and nothing was owed on either side.
    pub(crate) in_sync_seconds: Option<f64>,
    /// Leases of bystanders that ran out.
    pub(crate) bystanders_expired: u64,
    /// Sessions that were lost though nobody wanted it.
    pub(crate) lost: u64,
}

/// What flowed.
#[derive(Clone, Copy, Debug, Serialize)]
pub(crate) struct Flood {
    pub(crate) direction: Direction,
    pub(crate) message_size: usize,
    pub(crate) window: usize,
    pub(crate) seconds: f64,
    pub(crate) answered: u64,
    pub(crate) per_second: f64,
    /// CPU time of the watched process for one message.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) cloud_cpu_us_per_message: Option<f64>,
    /// CPU time of edgemark for one message.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) edgemark_cpu_us_per_message: Option<f64>,
}

/// Counters over the whole run.
#[derive(Clone, Copy, Debug, Serialize)]
pub(crate) struct Counts {
    pub(crate) connects: u64,
    pub(crate) failed_dials: u64,
    pub(crate) lost: u64,
    pub(crate) refused: u64,
    pub(crate) confirmed: u64,
    pub(crate) renewals: u64,
    pub(crate) expired_leases: u64,
    pub(crate) traffic: TrafficNow,
}

/// Times over the whole run.
#[derive(Clone, Copy, Debug, Serialize)]
pub(crate) struct Times {
    pub(crate) connecting: Percentiles,
    pub(crate) registering: Percentiles,
    pub(crate) syncing: Percentiles,
    pub(crate) renewing: Percentiles,
    pub(crate) bystanders_renewing: Percentiles,
    pub(crate) answering: Percentiles,
    pub(crate) delivering: Percentiles,
}

/// What the watched process used.
#[derive(Clone, Copy, Debug, Serialize)]
pub(crate) struct Watched {
    pub(crate) pid: u32,
    /// Before the first connection.
    pub(crate) before: Usage,
    /// With all connected and at rest; that is before a storm or flood.
    pub(crate) connected: Usage,
    /// At the end, with all connected.
    pub(crate) after: Usage,
    /// Resident memory for one edge at the end, in bytes.
    pub(crate) bytes_per_edge: f64,
}

impl Report {
    pub(crate) fn new(plan: &Plan) -> Self {
        let stats = Stats::default();
        Self {
            version: kubeedge_bin::VERSION,
            mode: plan.mode,
            cloud: plan.clouds.clone(),
            nodes: plan.nodes,
            over_quic: plan.over_quic,
            links_only: plan.links_only,
            interrupted: false,
            fallen: Vec::new(),
            seconds: 0.0,
            joined: None,
            connected: None,
            held: None,
            storm: None,
            flood: None,
            counts: counts(&stats),
            times: times(&stats),
            reasons: BTreeMap::new(),
            watched: None,
            edgemark: None,
        }
    }

    /// Takes in what was counted.
    pub(crate) fn close(&mut self, stats: &Stats, took: Duration, interrupted: bool) {
        self.seconds = took.as_secs_f64();
        self.interrupted = interrupted;
        (self.counts, self.times, self.reasons) = (counts(stats), times(stats), stats.reasons());
        self.edgemark = crate::process::usage(std::process::id());
    }

    pub(crate) fn outcome(&self) -> Outcome {
        match (self.interrupted, self.fallen.is_empty()) {
            (true, _) => Outcome::Interrupted,
            (false, true) => Outcome::Done,
            (false, false) => Outcome::Fallen,
        }
    }

    /// Writes it as JSON, whole or not at all.
    pub(crate) fn write(&self, path: &Path) -> io::Result<()> {
        let mut text = serde_json::to_string_pretty(self)?;
        text.push('\n');
        kubeedge_common::file::replace(path, text.as_bytes(), 0o666)
    }

    /// Prints it for a person.
    pub(crate) fn print(&self) -> io::Result<()> {
        let mut table = Table::default().row("edges", self.nodes);
        if let Some(joined) = self.joined {
            let Joined { seconds, kept, signed } = joined;
            table = table.row("certificates", format!("{signed} signed, {kept} kept, {seconds:.1} s"));
        }
        if let Some(Connected { seconds, connected, in_sync }) = self.connected {
            table = table.row("connected", format!("{connected}, {in_sync} in sync, {seconds:.1} s"));
        }
        if let Some(held) = self.held {
            let each = held.bytes_per_second_per_edge;
            table = table
                .row("held", format!("{:.1} s, {} lost, {each:.1} bytes/s each", held.seconds, held.lost));
        }
        table = self.rows_of_storm_and_flood(table);
        let times = [
            ("handshake", self.times.connecting),
            ("register", self.times.registering),
            ("in sync", self.times.syncing),
            ("lease", self.times.renewing),
            ("lease, bystanders", self.times.bystanders_renewing),
            ("answer", self.times.answering),
            ("delivery", self.times.delivering),
        ];
        for (name, times) in times.into_iter().filter(|(_, times)| times.count > 0) {
            table = table.row(name, spread(times));
        }
        if let Some(watched) = self.watched {
            table = table.row("cloud's memory", memory(watched));
        }
        for (why, times) in &self.reasons {
            table = table.row("failures", format!("{times} × {why}"));
        }
        table.print()?;
        self.fallen.iter().try_for_each(|what| writeln!(io::stderr(), "error: {what}"))
    }

    fn rows_of_storm_and_flood(&self, mut table: Table) -> Table {
        if let Some(storm) = self.storm {
            let seconds = |time: Option<f64>| time.map_or("never".to_owned(), |time| format!("{time:.1} s"));
            let (links, sync) = (seconds(storm.connected_seconds), seconds(storm.in_sync_seconds));
            table = table
                .row("storm", format!("{} edges: all linked {links}, all in sync {sync}", storm.edges))
                .row(
                    "bystanders",
                    format!("{}, {} leases ran out", storm.bystanders, storm.bystanders_expired),
                );
        }
        if let Some(flood) = self.flood {
            let cpu = |cpu: Option<f64>| cpu.map_or("?".to_owned(), |cpu| format!("{cpu:.1} µs"));
            let (cloud, ours) = (cpu(flood.cloud_cpu_us_per_message), cpu(flood.edgemark_cpu_us_per_message));
            table = table
                .row("flood", format!("{:.0} messages/s of {} bytes", flood.per_second, flood.message_size))
                .row("CPU a message", format!("cloud {cloud}, edgemark {ours}"));
        }
        table
    }
}

fn spread(times: Percentiles) -> String {
    let Percentiles { count, p50_ms, p90_ms, p99_ms, max_ms } = times;
    format!("{count}: p50 {p50_ms:.1} ms, p90 {p90_ms:.1}, p99 {p99_ms:.1}, max {max_ms:.1}")
}

fn memory(watched: Watched) -> String {
    let mb = |usage: Usage| usage.resident_kb as f64 / 1024.0;
    let (before, after, each) = (mb(watched.before), mb(watched.after), watched.bytes_per_edge / 1024.0);
    format!("{before:.1} MB before, {after:.1} MB after, {each:.1} kB an edge")
}

fn counts(stats: &Stats) -> Counts {
    Counts {
        connects: stats.connects.get(),
        failed_dials: stats.failed_dials.get(),
        lost: stats.lost.get(),
        refused: stats.refused.get(),
        confirmed: stats.confirmed.get(),
        renewals: stats.renewals.get(),
        expired_leases: stats.expired.get() + stats.bystanders_expired.get(),
        traffic: stats.traffic.now(),
    }
}

fn times(stats: &Stats) -> Times {
    Times {
        connecting: stats.connecting.percentiles(),
        registering: stats.registering.percentiles(),
        syncing: stats.syncing.percentiles(),
        renewing: stats.renewing.percentiles(),
        bystanders_renewing: stats.bystanders_renewing.percentiles(),
        answering: stats.answering.percentiles(),
        delivering: stats.delivering.percentiles(),
    }
}
