//! A process that commits until it is killed, and what its heir finds.

use std::{
    io::{BufRead, BufReader, Write},
    path::Path,
    process::{Child, Command, Stdio},
    sync::Arc,
};

use futures::TryStreamExt;
use kubeedge_core::store::{Batch, Bucket, Key, MetaStore, Scan};

const PLACE: &str = "KUBEEDGE_STORE_TEST_PLACE";
const BUCKET: Bucket = Bucket("killed");
const ENOUGH: usize = 300;

/// Where the child is to write; `None` in the parent.
pub(crate) fn place() -> Option<String> {
    std::env::var(PLACE).ok()
}

/// Runs the named test of this binary in a process of its own.
pub(crate) fn spawn(test: &str, place: &Path) -> Child {
    let mut command = Command::new(std::env::current_exe().unwrap());
    command.args(["--exact", test, "--nocapture"]).env(PLACE, place).stdout(Stdio::piped());
    command.spawn().unwrap()
}

/// The child's work: commits pairs from several tasks, tells of each only when it is durable, never ends.
pub(crate) async fn write(store: Arc<dyn MetaStore>) {
    let writers = (0..4).map(|writer| {
        let store = Arc::clone(&store);
        tokio::spawn(async move {
            for n in 0_u64.. {
                let name = |half| Key::new(BUCKET, format!("{writer}-{n}/{half}"));
                let batch = Batch::new().put(name("a"), vec![7; 300]).put(name("b"), vec![8; 3000]);
                store.commit(batch).await.unwrap();
                let mut out = std::io::stdout().lock();
                writeln!(out, "acknowledged {writer}-{n}").unwrap();
                out.flush().unwrap();
            }
        })
    });
    futures::future::join_all(writers).await;
}

/// Kills the child while it commits; returns what it had been told is durable.
pub(crate) fn kill(mut child: Child) -> Vec<String> {
    let mut acknowledged = Vec::new();
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
    let mut killed = false;
    while let Some(Ok(line)) = lines.next() {
        acknowledged.extend(line.strip_prefix("acknowledged ").map(str::to_owned));
        if acknowledged.len() >= ENOUGH && !killed {
            child.kill().unwrap();
            killed = true;
        }
    }
    child.wait().unwrap();
    assert!(killed, "the child ended by itself after {} commits", acknowledged.len());
    acknowledged
}

/// Everything acknowledged is there, and nothing is there by half.
pub(crate) async fn inspect(store: &impl MetaStore, acknowledged: &[String]) {
    let found: Vec<_> = store.scan(Scan::new(BUCKET, "")).try_collect().await.unwrap();
    let names: std::collections::BTreeSet<_> = found.iter().map(|entry| entry.key.name.as_str()).collect();
    for pair in acknowledged {
        assert!(names.contains(&*format!("{pair}/a")), "{pair} was acknowledged and is lost");
    }
    for name in &names {
        let pair = name.trim_end_matches(['a', 'b']);
        let whole = names.contains(&*format!("{pair}a")) && names.contains(&*format!("{pair}b"));
        assert!(whole, "half of {pair} is there");
    }
}
