//! When certificates are asked for, in simulated time.

use std::{
    path::Path,
    sync::atomic::{AtomicBool, Ordering},
};

use async_trait::async_trait;
use http::StatusCode;
use kubeedge_core::{
    message::Millis,
    pki::{Authority, Names, Usage},
};
use parking_lot::Mutex;
use tokio::task::JoinSet;

use super::*;

const NOW: i64 = 1_800_000_000;
const DAY: i64 = 86_400;
/// How long certificates hold here, in days.
const LIFE: i64 = 1;

/// A cloudcore that answers at once, or not at all.
#[derive(Debug)]
struct Cloud {
    authority: Authority,
    clock: Clock,
    reachable: AtomicBool,
    /// When it was asked for a certificate, and with what proof.
    asked: Mutex<Vec<(i64, &'static str)>>,
}

impl Cloud {
    fn new() -> Arc<Self> {
        let clock = Clock::simulated(Millis(NOW * 1000));
        let authority = Authority::kubeedge(NOW - DAY).unwrap();
        Arc::new(Self { authority, clock, reachable: AtomicBool::new(true), asked: Mutex::default() })
    }

    fn now(&self) -> i64 {
        unix(self.clock.now())
    }

    fn asked(&self) -> Vec<(i64, &'static str)> {
        self.asked.lock().clone()
    }

    async fn until_asked(&self, times: usize) -> Vec<(i64, &'static str)> {
        while self.asked.lock().len() < times {
            tokio::time::sleep(Duration::from_millis(500)).await;
        }
        self.asked()
    }

    fn reach(&self, host: &str) -> Result<(), JoinError> {
        if self.reachable.load(Ordering::Relaxed) {
            return Ok(());
        }
        Err(JoinError::Unreachable { host: host.to_owned(), source: "no route".into() })
    }
}

#[async_trait]
impl Registrar for Cloud {
    async fn ca(&self, host: &str, token: &str) -> Result<Bytes, JoinError> {
        self.reach(host)?;
        pki::token_names_ca(token, self.authority.certificate())?;
        Ok(self.authority.certificate().clone())
    }

    async fn certify(
        &self,
        host: &str,
        _ca: &Bytes,
        node: &str,
        csr: Bytes,
        proof: Proof<'_>,
    ) -> Result<Bytes, JoinError> {
        let (name, holds) = match proof {
            Proof::Token(jwt) => ("token", pki::verify_token(&self.authority, jwt, self.now()).is_ok()),
            Proof::Certificate(identity) => {
                let ca = self.authority.certificate();
                ("certificate", Leaf::is_client_of(&identity.certificate, ca, self.now()))
            }
        };
        self.asked.lock().push((self.now(), name));
        self.reach(host)?;
        assert_eq!(node, "edge-1");
        if !holds {
            let (host, status) = (host.to_owned(), StatusCode::UNAUTHORIZED);
            return Err(JoinError::Refused { host, status, text: "token is expired".to_owned() });
        }
        Ok(self.authority.sign(&csr, Usage::Client, self.now(), LIFE)?)
    }
}

/// A node that looks after its certificates; ends when dropped.
struct Node {
    credentials: watch::Receiver<Option<Arc<Credentials>>>,
    _running: JoinSet<()>,
}

impl Node {
    fn start(cloud: &Arc<Cloud>, folder: &Path, token: Option<String>, seed: u64) -> Self {
        let join = JoinSettings {
            https: "cloud:10002".to_owned(),
            token,
            token_file: Some(folder.join("bootstrap.conf")),
            ca_file: folder.join("ca.crt"),
            cert_file: folder.join("server.crt"),
            key_file: folder.join("server.key"),
            rotate: true,
        };
        let settings =
            EdgeHubSettings { identity: IdentitySource::Join(join), seed, ..EdgeHubSettings::default() };
        let (publish, credentials) = watch::channel(None);
        let (mut keeper, _) = Keeper::new(&"edge-1".into(), &settings, &cloud.clock, publish);
        keeper.registrar = cloud.clone();
        let mut running = JoinSet::new();
        running.spawn(keeper.run());
        Self { credentials, _running: running }
    }

    async fn certificate(&mut self) -> Bytes {
        let found = self.credentials.wait_for(Option::is_some).await.unwrap().clone();
        found.unwrap().chain[0].clone()
    }

    async fn renewed(&mut self) -> Bytes {
        self.credentials.changed().await.unwrap();
        self.certificate().await
    }
}

/// Files with a certificate that begins now.
fn stored(cloud: &Cloud) -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    let made = cloud.authority.issue(
        "system:node:edge-1",
        &["system:nodes"],
        &Names::default(),
        Usage::Client,
        cloud.now(),
        LIFE,
    );
    let made = made.unwrap();
    let put = |name: &str, text: String| std::fs::write(folder.path().join(name), text).unwrap();
    put("ca.crt", pki::to_pem("CERTIFICATE", &made.ca));
    put("server.crt", pki::to_pem("CERTIFICATE", &made.certificate));
    put("server.key", made.key.to_pem());
    folder
}

async fn days(count: i64) {
    tokio::time::sleep(Duration::from_secs((count * DAY).unsigned_abs())).await;
}

#[tokio::test(start_paused = true)]
async fn a_certificate_is_renewed_at_70_to_90_percent_of_its_life_at_a_moment_the_seed_chooses() {
    let mut moments = Vec::new();
    for seed in [1, 2, 3, 1] {
        let cloud = Cloud::new();
        let folder = stored(&cloud);
        let mut node = Node::start(&cloud, folder.path(), None, seed);
        let first = node.certificate().await;
        let second = node.renewed().await;
        let life = LIFE * DAY;
        let [(at, "certificate")] = cloud.asked()[..] else { panic!("{:?}", cloud.asked()) };
        assert!((NOW + life * 7 / 10..=NOW + life * 9 / 10).contains(&at), "{at}");
        assert_ne!(first, second);
        let third = node.renewed().await;
        assert_ne!(second, third, "the new one is renewed in its turn");
        moments.push(at);
    }
    assert_eq!(moments[0], moments[3], "a seed is repeatable");
    assert!(moments[0] != moments[1] && moments[1] != moments[2], "{moments:?}");
}

#[tokio::test(start_paused = true)]
async fn a_renewal_that_fails_is_tried_again_as_go_does_and_works_with_the_old_certificate_meanwhile() {
    let cloud = Cloud::new();
    let folder = stored(&cloud);
    cloud.reachable.store(false, Ordering::Relaxed);
    let mut node = Node::start(&cloud, folder.path(), None, 7);
    let old = node.certificate().await;
    let asked = cloud.until_asked(9).await;
    let pauses: Vec<_> = asked.windows(2).map(|two| two[1].0 - two[0].0).collect();
    // Moments are whole seconds: each may be one off, beside Go's tenth.
    for (pause, whole) in pauses.iter().zip([2, 4, 8, 16, 32, 32, 32, 32]) {
        assert!((whole - 1..=whole + whole / 10 + 1).contains(pause), "{pauses:?}");
    }
    assert_eq!(node.credentials.borrow().as_ref().unwrap().chain[0], old);
    cloud.reachable.store(true, Ordering::Relaxed);
    assert_ne!(node.renewed().await, old);
}

#[tokio::test(start_paused = true)]
async fn a_node_away_past_its_certificates_end_asks_nobody_without_a_token_and_joins_with_a_fresh_one() {
    let cloud = Cloud::new();
    let folder = stored(&cloud);
    cloud.reachable.store(false, Ordering::Relaxed);
    let mut node = Node::start(&cloud, folder.path(), None, 7);
    let old = node.certificate().await;
    days(LIFE + 1).await;
    let last = cloud.asked().last().copied().unwrap();
    assert!(last.0 <= NOW + LIFE * DAY + 33, "asked with a certificate that had expired: {last:?}");
    // The cloud is back, and cannot help.
    cloud.reachable.store(true, Ordering::Relaxed);
    days(1).await;
    assert_eq!(cloud.asked().last(), Some(&last));
    drop(node);

    // Started again without a token: the pair is there and not used.
    let node = Node::start(&cloud, folder.path(), None, 7);
    days(1).await;
    assert!(node.credentials.borrow().is_none());
    let in_place = std::fs::read_to_string(folder.path().join("server.crt")).unwrap();
    assert_eq!(pki::from_pem(&in_place, &["CERTIFICATE"]).unwrap(), old);
    drop(node);

    let token = pki::sign_token(&cloud.authority, cloud.now() + DAY);
    let mut node = Node::start(&cloud, folder.path(), Some(token), 7);
    assert_ne!(node.certificate().await, old);
    assert_eq!(cloud.asked().last(), Some(&(cloud.now(), "token")));
}

#[tokio::test(start_paused = true)]
async fn a_node_that_comes_back_with_the_token_it_once_joined_with_asks_once_a_minute() {
    let cloud = Cloud::new();
    let folder = stored(&cloud);
    let token = pki::sign_token(&cloud.authority, cloud.now() + DAY);
    days(LIFE + 1).await;
    let node = Node::start(&cloud, folder.path(), Some(token), 7);
    let asked = cloud.until_asked(4).await;
    assert!(asked.iter().all(|(_, proof)| *proof == "token"), "{asked:?}");
    assert!(asked.windows(2).all(|two| (59..=61).contains(&(two[1].0 - two[0].0))), "{asked:?}");
    assert!(node.credentials.borrow().is_none());
}

#[tokio::test(start_paused = true)]
async fn a_fresh_token_in_the_bootstrap_file_is_found_while_edgecore_runs_and_removed_once_it_has_served() {
    let cloud = Cloud::new();
    let folder = stored(&cloud);
    let file = folder.path().join("bootstrap.conf");
    let stale = pki::sign_token(&cloud.authority, cloud.now() + DAY);
    days(LIFE + 1).await;
    let mut node = Node::start(&cloud, folder.path(), Some(stale), 7);
    cloud.until_asked(2).await;
    assert!(node.credentials.borrow().is_none());
    std::fs::write(&file, pki::sign_token(&cloud.authority, cloud.now() + DAY) + "\n").unwrap();
    let put = cloud.now();
    node.certificate().await;
    assert!(cloud.now() - put <= 60, "{} s later", cloud.now() - put);
    assert!(!file.exists());
}
