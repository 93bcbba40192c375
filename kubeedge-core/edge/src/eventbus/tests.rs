use std::{
    process::{Child, Command, Stdio},
    time::Duration,
};

use base64::{Engine, engine::general_purpose::URL_SAFE};
use kubeedge_core::{
    bus::{Bus, Inbox},
    kernel::Shutdown,
    routes::{Routes, RoutingTable},
};
use kubeedge_store::MemoryStore;
use tokio::task::JoinHandle;

use super::*;

mod breaks;
mod fake;

const ACME: ModuleName = ModuleName::of("acme");
const PATIENCE: Duration = Duration::from_secs(60);

struct Bench {
    bus: Bus,
    twin: Inbox,
    hub: Inbox,
    /// A vendor's module.
    acme: Inbox,
    shutdown: Shutdown,
    task: JoinHandle<()>,
    #[cfg(feature = "mqtt-broker")]
    internal: watch::Receiver<Option<SocketAddr>>,
}

impl Bench {
    fn start(settings: EventBusSettings, store: MemoryStore) -> Self {
        Self::start_with(settings, store, Routes::new())
    }

    /// With a vendor's module that takes this.
    fn start_with(settings: EventBusSettings, store: MemoryStore, routes: Routes) -> Self {
        let (bus, mut inboxes) = Bus::new([
            (ModuleName::TWIN, Group::TWIN, 64),
            (ModuleName::EVENT_BUS, Group::BUS, 64),
            (ModuleName::EDGE_HUB, Group::HUB, 64),
            (ACME, Group::of("acme"), 64),
        ]);
        let bus = bus.with_routes(RoutingTable::new([(ACME, routes)]).unwrap());
        let mut inbox = |name| inboxes.remove(&name).unwrap();
        let (twin, own, hub) =
            (inbox(ModuleName::TWIN), inbox(ModuleName::EVENT_BUS), inbox(ModuleName::EDGE_HUB));
        let acme = inbox(ACME);
        let mut module = EventBus::new("edge-1".into(), settings, Arc::new(store));
        let shutdown = Shutdown::new();
        #[cfg(feature = "mqtt-broker")]
        let internal = module.internal_address();
        let mut ctx = ModuleContext::new(bus.clone(), own, shutdown.clone());
        let task = tokio::spawn(async move { module.run(&mut ctx).await.unwrap() });
        Self {
            bus,
            twin,
            hub,
            acme,
            shutdown,
            task,
            #[cfg(feature = "mqtt-broker")]
            internal,
        }
    }

    async fn ask(&self, operation: Operation, topic: &str, content: Content) -> Message {
        let message = Message::new(ModuleName::of("router_eventbus"), operation, topic.to_owned());
        let message = message.in_group(Group::USER).with(content);
        self.bus.request(&ModuleName::EVENT_BUS, message, PATIENCE).await.unwrap()
    }

    /// Publishes by a client of its own, again and again, until EventBus has passed it on: it may still be
    /// subscribing.
    async fn until_passed_on(&mut self, port: u16, topic: &str, payload: &str) -> Message {
        let deadline = tokio::time::Instant::now() + PATIENCE;
        loop {
            publish_by_hand(port, topic, payload);
            let inbox = if topic.starts_with("$hw/events/device") { &mut self.twin } else { &mut self.hub };
            if let Ok(Some(envelope)) = tokio::time::timeout(Duration::from_millis(500), inbox.next()).await {
                return envelope.message;
            }
            assert!(tokio::time::Instant::now() < deadline, "{topic} was not passed on");
        }
    }

    async fn stop(self) {
        self.shutdown.request();
        tokio::time::timeout(PATIENCE, self.task).await.unwrap().unwrap();
    }
}

fn has(program: &str) -> bool {
    let found =
        Command::new(program).arg("--help").stdout(Stdio::null()).stderr(Stdio::null()).status().is_ok();
    if !found {
        println!("SKIPPED: {program} is not installed, EventBus is NOT tested against it");
    }
    found
}

fn publish_by_hand(port: u16, topic: &str, payload: &str) {
    let port = port.to_string();
    let args = ["-p", &port, "-q", "1", "-t", topic, "-m", payload];
    // A broker that is not there yet is tried again by the caller.
    let _ = Command::new("mosquitto_pub").args(args).stderr(Stdio::null()).status().unwrap();
}

/// Something a user started; killed when dropped.
struct Started(Child);

impl Drop for Started {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn mosquitto(port: u16) -> Started {
    let path = std::path::Path::new("/usr/sbin/mosquitto");
    let program = if path.exists() { path.as_os_str() } else { "mosquitto".as_ref() };
    let child = Command::new(program)
        .args(["-p", &port.to_string()])
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn();
    Started(child.unwrap())
}

fn free_port() -> u16 {
    std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port()
}

/// A subscriber that ends after one message and prints it.
fn listener(port: u16, topic: &str) -> Child {
    let port = port.to_string();
    let args = ["-p", &port, "-q", "1", "-t", topic, "-C", "1", "-W", "60", "-F", "%t %q %r %p"];
    Command::new("mosquitto_sub").args(args).stdout(Stdio::piped()).spawn().unwrap()
}

/// Publishes by EventBus until a listener has heard it.
async fn heard(bench: &Bench, port: u16, topic: &str, payload: &str) -> String {
    let mut child = listener(port, topic);
    let deadline = tokio::time::Instant::now() + PATIENCE;
    while child.try_wait().unwrap().is_none() {
        assert!(tokio::time::Instant::now() < deadline, "{topic} was not heard");
        let answer = bench.ask(Operation::PUBLISH, topic, Content::text(payload)).await;
        assert!(answer.content.is_ok_text());
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
    String::from_utf8(child.wait_with_output().unwrap().stdout).unwrap().trim().to_owned()
}

async fn exchange(bench: &mut Bench, port: u16) {
    let topic = "$hw/events/device/default/kiln/twin/update";
    let message = bench.until_passed_on(port, topic, r#"{"event_id":"e"}"#).await;
    assert_eq!(message.route.resource, URL_SAFE.encode(topic).as_str());
    assert_eq!((message.route.source.as_str(), message.route.group), ("bus", Group::USER));
    assert_eq!(message.route.operation, Operation::RESPONSE);
    assert_eq!(message.content.as_text().unwrap(), r#"{"event_id":"e"}"#);
    let upload = bench.until_passed_on(port, "default/user/custom", "hello").await;
    assert_eq!(
        (upload.route.resource.as_str(), upload.route.operation),
        ("default/user/custom", Operation::UPLOAD)
    );
    assert_eq!(upload.content.as_text().unwrap(), "hello");
    let result = "$hw/events/device/default/kiln/twin/update/result";
    let line = heard(bench, port, result, r#"{"event_id":"e"}"#).await;
    assert!(line.starts_with(result) && line.ends_with(r#"{"event_id":"e"}"#), "{line}");
}

fn external(port: u16) -> EventBusSettings {
    EventBusSettings { external: format!("tcp://127.0.0.1:{port}"), ..EventBusSettings::default() }
}

#[tokio::test]
async fn messages_cross_a_mosquitto_that_goes_away_and_comes_back() {
    if !has("mosquitto_pub") || !(has("/usr/sbin/mosquitto") || has("mosquitto")) {
        return;
    }
    let port = free_port();
    // The broker comes after EventBus, which waits for nobody.
    let mut bench = Bench::start(external(port), MemoryStore::new());
    let early = bench.ask(Operation::PUBLISH, "early/bird", Content::text("worm")).await;
    assert!(early.content.is_ok_text());
    let broker = mosquitto(port);
    exchange(&mut bench, port).await;
    let topic = "default/orders";
    assert!(bench.ask(Operation::SUBSCRIBE, topic, Content::empty()).await.content.is_ok_text());
    bench.until_passed_on(port, topic, "one").await;
    drop(broker);
    let _broker = mosquitto(port);
    bench.until_passed_on(port, topic, "two").await;
    exchange(&mut bench, port).await;
    bench.stop().await;
}

#[tokio::test]
async fn a_program_is_told_that_what_it_published_was_dropped() {
    if !has("mosquitto_pub") || !(has("/usr/sbin/mosquitto") || has("mosquitto")) {
        return;
    }
    let port = free_port();
    let _broker = mosquitto(port);
    let mut bench = Bench::start(external(port), MemoryStore::new());
    bench.until_passed_on(port, "x/user/first", "1").await;
    let told = listener(port, "$hw/events/node/+/upload/refused");
    // The hub's mailbox holds 64, and nobody reads it; what comes beyond that is given up after a while.
    for _ in 0..70 {
        publish_by_hand(port, "x/user/flood", "2");
    }
    let told = tokio::task::spawn_blocking(move || told.wait_with_output().unwrap());
    let line = String::from_utf8(told.await.unwrap().stdout).unwrap();
    assert!(line.starts_with("$hw/events/node/edge-1/upload/refused"), "{line:?}");
    assert!(line.contains(r#""topics":["x/user/flood"]"#), "{line}");
    bench.stop().await;
}

/// An EventBus whom the broker remembers.
fn lasting(port: u16) -> EventBusSettings {
    EventBusSettings { sub_client_id: "edge-1-reads".to_owned(), ..external(port) }
}

impl Bench {
    async fn upload(&mut self) -> Envelope {
        tokio::time::timeout(PATIENCE, self.hub.next()).await.unwrap().unwrap()
    }

    /// Uploads until this one, each said to be safe.
    async fn uploads_until(&mut self, last: &str) -> Vec<String> {
        let mut all = Vec::new();
        while all.last().is_none_or(|upload| upload != last) {
            let upload = self.upload().await;
            all.push(upload.message.content.as_text().unwrap().into_owned());
            upload.answer(Content::ok());
        }
        all
    }
}

#[tokio::test]
async fn uploads_arrive_that_were_published_while_edgecore_was_away_or_were_not_safe_when_it_died() {
    if !has("mosquitto_pub") || !(has("/usr/sbin/mosquitto") || has("mosquitto")) {
        return;
    }
    let (port, topic) = (free_port(), "ü/user/readings");
    let _broker = mosquitto(port);
    let mut bench = Bench::start(lasting(port), MemoryStore::new());
    bench.until_passed_on(port, "x/user/there", "").await;
    bench.uploads_until("").await;
    publish_by_hand(port, topic, "1");
    publish_by_hand(port, topic, "2");
    let (first, second) = (bench.upload().await, bench.upload().await);
    assert!(first.wants_answer() && second.wants_answer());
    // Killed before either was stored: the broker hears nothing, not even a goodbye.
    bench.task.abort();
    drop((first, second));
    publish_by_hand(port, topic, "3");
    let mut bench = Bench::start(lasting(port), MemoryStore::new());
    assert_eq!(bench.uploads_until("3").await, ["1", "2", "3"]);
    // What is not asked for any more is not passed on, though the broker kept it.
    assert!(bench.ask(Operation::SUBSCRIBE, "default/orders", Content::empty()).await.content.is_ok_text());
    bench.until_passed_on(port, "default/orders", "4").await;
    bench.stop().await;
    publish_by_hand(port, "default/orders", "5");
    publish_by_hand(port, topic, "6");
    let mut bench = Bench::start(lasting(port), MemoryStore::new());
    let again = bench.uploads_until("6").await;
    assert!(!again.contains(&"1".to_owned()) && !again.contains(&"5".to_owned()), "{again:?}");
    bench.stop().await;
}

#[tokio::test]
async fn topics_asked_for_are_subscribed_to_after_a_restart() {
    if !has("mosquitto_pub") || !(has("/usr/sbin/mosquitto") || has("mosquitto")) {
        return;
    }
    let (port, store) = (free_port(), MemoryStore::new());
    let _broker = mosquitto(port);
    let bench = Bench::start(external(port), store.reopened());
    for topic in ["default/a", "default/b"] {
        bench.ask(Operation::SUBSCRIBE, topic, Content::empty()).await;
    }
    bench.ask(Operation::UNSUBSCRIBE, "default/b", Content::empty()).await;
    bench.stop().await;
    let mut bench = Bench::start(external(port), store.reopened());
    let upload = bench.until_passed_on(port, "default/a", "1").await;
    assert_eq!(upload.route.resource, "default/a");
    publish_by_hand(port, "default/b", "2");
    let next = bench.until_passed_on(port, "x/user/end", "3").await;
    assert_ne!(next.route.resource, "default/b");
    bench.stop().await;
}

#[tokio::test]
async fn a_broker_that_is_away_stops_nobody() {
    let settings = EventBusSettings { queue: 8, ..external(free_port()) };
    let bench = Bench::start(settings, MemoryStore::new());
    for n in 0..1000 {
        let answer = bench.ask(Operation::PUBLISH, "a/b", Content::text(&n.to_string())).await;
        assert!(answer.content.is_ok_text());
    }
    bench.stop().await;
}

#[tokio::test]
async fn what_cannot_be_done_is_answered_with_the_reason() {
    let bench = Bench::start(external(free_port()), MemoryStore::new());
    for (operation, topic, content, why) in [
        (Operation::PUBLISH, "a/#", Content::text("x"), "no MQTT topic"),
        (Operation::PUBLISH, "a", Content::json(&serde_json::json!({"a": 1})).unwrap(), "no text"),
        (Operation::SUBSCRIBE, "a/#/b", Content::empty(), "no MQTT topic filter"),
        (
            Operation::of("message"),
            "m",
            Content::json(&serde_json::json!({"message": {}})).unwrap(),
            "no topic",
        ),
        (Operation::of("dance"), "d", Content::empty(), "unknown"),
    ] {
        let answer = bench.ask(operation, topic, content).await;
        assert_eq!(answer.route.operation, Operation::ERROR);
        assert!(answer.content.as_text().unwrap().contains(why), "{answer:?}");
    }
    bench.stop().await;
}

#[cfg(feature = "mqtt-broker")]
// Two threads: the clients run by hand block one of them.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn messages_cross_the_internal_broker() {
    if !has("mosquitto_pub") {
        return;
    }
    let settings = EventBusSettings {
        mode: MqttMode::Internal,
        internal: "tcp://127.0.0.1:0".into(),
        ..EventBusSettings::default()
    };
    let mut bench = Bench::start(settings, MemoryStore::new());
    let address = tokio::time::timeout(PATIENCE, bench.internal.wait_for(Option::is_some)).await.unwrap();
    let port = address.unwrap().unwrap().port();
    exchange(&mut bench, port).await;
    bench.stop().await;
}

#[cfg(feature = "mqtt-broker")]
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn with_both_brokers_everything_is_published_on_each_and_read_from_each() {
    if !has("mosquitto_pub") || !(has("/usr/sbin/mosquitto") || has("mosquitto")) {
        return;
    }
    let port = free_port();
    let _broker = mosquitto(port);
    let settings =
        EventBusSettings { mode: MqttMode::Both, internal: "tcp://127.0.0.1:0".into(), ..external(port) };
    let mut bench = Bench::start(settings, MemoryStore::new());
    let address = tokio::time::timeout(PATIENCE, bench.internal.wait_for(Option::is_some)).await.unwrap();
    let internal = address.unwrap().unwrap().port();
    exchange(&mut bench, internal).await;
    exchange(&mut bench, port).await;
    bench.stop().await;
}

#[cfg(feature = "mqtt-broker")]
#[tokio::test]
async fn an_address_in_use_is_named() {
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap();
    let error = broker::listen(address, 100).await.err().unwrap();
    assert!(error.to_string().contains(&address.to_string()), "{error}");
}

#[cfg(feature = "mqtt-broker")]
#[tokio::test]
async fn a_module_hears_its_topics_and_the_cloud_hears_no_more_than_before() {
    let settings = EventBusSettings {
        mode: MqttMode::Internal,
        internal: "tcp://127.0.0.1:0".into(),
        ..EventBusSettings::default()
    };
    let routes = Routes::new().topic("plant/#");
    let mut bench = Bench::start_with(settings, MemoryStore::new(), routes);
    tokio::time::timeout(PATIENCE, bench.internal.wait_for(Option::is_some)).await.unwrap().unwrap();
    // EventBus may still be subscribing.
    let heard = loop {
        bench.ask(Operation::PUBLISH, "plant/speed", Content::text("7")).await;
        if let Ok(heard) = tokio::time::timeout(Duration::from_millis(200), bench.acme.next()).await {
            break heard.unwrap().message;
        }
    };
    let route = &heard.route;
    assert_eq!((route.operation.as_str(), route.resource.as_str()), ("publish", "plant/speed"));
    assert_eq!(heard.content.as_text().unwrap(), "7");
    // Both take these. The reading connection may still be subscribing, too.
    loop {
        bench.ask(Operation::PUBLISH, "plant/user/note", Content::text("8")).await;
        if tokio::time::timeout(Duration::from_millis(200), bench.hub.next()).await.is_ok() {
            break;
        }
    }
    bench.ask(Operation::PUBLISH, "plant/user/last", Content::text("9")).await;
    for inbox in [&mut bench.hub, &mut bench.acme] {
        let until_last =
            async { while inbox.next().await.unwrap().message.route.resource != "plant/user/last" {} };
        tokio::time::timeout(PATIENCE, until_last).await.unwrap();
    }
    let again = tokio::time::timeout(Duration::from_millis(300), bench.hub.next()).await;
    assert!(again.is_err(), "it went to the cloud twice: {again:?}");
    bench.stop().await;
}
