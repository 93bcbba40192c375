//! Cases: the logs `kubectl logs` reads.

use super::{
    LogLine, Program, RuntimeHarness,
    bench::{Bench, must},
};
use crate::message::Millis;

fn of<'a>(lines: &'a [LogLine], stream: &str) -> Vec<&'a LogLine> {
    lines.iter().filter(|line| line.stream == stream).collect()
}

/// Each line with time, stream and tag.
pub async fn both_streams_are_logged_line_by_line(harness: impl RuntimeHarness) {
    let bench = Bench::of(harness).await;
    let before = Millis::now().0;
    let program = Program::Say("one\n\n  three ü\n".to_owned(), "oh no\n".to_owned());
    bench.start(bench.spec("both", &program)).await;
    let lines = bench.until_log("both/0.log", "four lines", |lines| lines.len() >= 4).await;
    let out: Vec<_> = of(&lines, "stdout").iter().map(|line| line.text.as_str()).collect();
    assert_eq!(out, ["one", "", "  three ü"]);
    let err: Vec<_> = of(&lines, "stderr").iter().map(|line| line.text.as_str()).collect();
    assert_eq!(err, ["oh no"]);
    assert!(lines.iter().all(|line| !line.partial), "{lines:?}");
    let times: Vec<_> = lines.iter().map(|line| line.at / 1_000_000).collect();
    let sane = i128::from(before - 2000)..=i128::from(Millis::now().0 + 2000);
    assert!(times.iter().all(|time| sane.contains(time)), "{times:?}");
    bench.close().await;
}

/// What ends without a line's end is not lost.
pub async fn an_unfinished_line_is_tagged_partial(harness: impl RuntimeHarness) {
    let bench = Bench::of(harness).await;
    let program = Program::Say("whole\nno end".to_owned(), String::new());
    bench.start(bench.spec("partial", &program)).await;
    let lines = bench.until_logged("partial/0.log", "no end").await;
    let found: Vec<_> = lines.iter().map(|line| (line.text.as_str(), line.partial)).collect();
    assert_eq!(found, [("whole", false), ("no end", true)]);
    bench.close().await;
}

/// Readers need no more memory than a line may be long.
pub async fn a_long_line_is_cut_into_parts(harness: impl RuntimeHarness) {
    let bench = Bench::of(harness).await;
    let text: String = (0..4000).map(|n| format!("{n:09}.")).collect();
    let program = Program::Say(format!("{text}\n"), String::new());
    bench.start(bench.spec("long", &program)).await;
    let ended = |lines: &[LogLine]| lines.last().is_some_and(|line| !line.partial);
    let lines = bench.until_log("long/0.log", "a long line", ended).await;
    assert!(lines.len() > 1 && lines.iter().all(|line| line.text.len() <= 32 << 10), "{}", lines.len());
    assert_eq!(lines.iter().filter(|line| !line.partial).count(), 1);
    let joined: String = lines.iter().map(|line| line.text.as_str()).collect();
    assert!(joined == text, "a long line came back changed");
    bench.close().await;
}

/// Its owner is Edged, not the runtime.
pub async fn a_log_stays_when_its_container_is_removed(harness: impl RuntimeHarness) {
    let bench = Bench::of(harness).await;
    let id = bench.start(bench.spec("kept", &Program::Say("last words\n".into(), String::new()))).await;
    bench.until_exited(&id).await;
    bench.until_logged("kept/0.log", "last words").await;
    must(bench.runtime.remove_container(&id).await, "removing a container");
    must(bench.runtime.remove_sandbox(&bench.sandbox).await, "removing a sandbox");
    assert_eq!(bench.log("kept/0.log").len(), 1);
}

/// `kubectl logs --previous` reads the one before.
pub async fn each_attempt_has_a_log_of_its_own(harness: impl RuntimeHarness) {
    let bench = Bench::of(harness).await;
    for attempt in 0..2 {
        let text = format!("attempt {attempt}");
        let mut spec = bench.spec("again", &Program::Say(format!("{text}\n"), String::new()));
        spec.attempt = attempt;
        spec.log_path = format!("again/{attempt}.log").into();
        let id = bench.start(spec).await;
        bench.until_exited(&id).await;
        let lines = bench.until_logged(&format!("again/{attempt}.log"), &text).await;
        assert_eq!(lines.len(), 1);
    }
    bench.close().await;
}
