//! Connections that break.

use rumqttc::Packet;

use super::{fake::FakeBroker, *};

impl Bench {
    async fn publishes(&self, payloads: impl IntoIterator<Item = String>) {
        for payload in payloads {
            let answer = self.ask(Operation::PUBLISH, "a/b", Content::text(&payload)).await;
            assert!(answer.content.is_ok_text());
        }
    }
}

fn numbers(range: std::ops::Range<u32>) -> Vec<String> {
    range.map(|n| n.to_string()).collect()
}

#[tokio::test]
async fn what_was_accepted_arrives_in_order_though_the_connection_broke() {
    let (mut broker, port) = FakeBroker::listen().await;
    let bench = Bench::start(external(port), MemoryStore::new());
    // More than may be on their way at once.
    bench.publishes(numbers(0..150)).await;
    let mut first = broker.accept("pub").await;
    for _ in 0..5 {
        first.publish().await;
    }
    drop(first);
    bench.publishes(numbers(150..300)).await;
    let mut second = broker.accept("pub").await;
    let mut arrived = Vec::new();
    while arrived.len() < 300 {
        arrived.push(second.taken().await);
    }
    assert_eq!(arrived, numbers(0..300));
    bench.stop().await;
}

#[tokio::test]
async fn what_the_broker_confirmed_before_the_break_is_not_published_again() {
    let (mut broker, port) = FakeBroker::listen().await;
    let bench = Bench::start(external(port), MemoryStore::new());
    bench.publishes(numbers(0..20)).await;
    let mut first = broker.accept("pub").await;
    for n in 0..10 {
        assert_eq!(first.taken().await, n.to_string());
    }
    // It has read the confirmations by the time it closes its side after ours.
    first.close().await;
    let mut second = broker.accept("pub").await;
    for n in 10..20 {
        assert_eq!(second.taken().await, n.to_string());
    }
    bench.stop().await;
}

#[tokio::test]
async fn a_message_at_which_the_broker_always_breaks_off_is_given_up_and_the_rest_arrives() {
    let (mut broker, port) = FakeBroker::listen().await;
    let bench = Bench::start(external(port), MemoryStore::new());
    bench.publishes(["1", "poison", "2", "3"].map(str::to_owned)).await;
    let (mut arrived, mut broken) = (Vec::new(), 0);
    while arrived.len() < 3 {
        let mut client = broker.accept("pub").await;
        while arrived.len() < 3 {
            let publish = client.publish().await;
            if publish.payload == "poison" {
                broken += 1;
                client.close().await;
                break;
            }
            client.confirm(&publish).await;
            arrived.push(String::from_utf8(publish.payload.to_vec()).unwrap());
        }
    }
    assert_eq!(arrived, ["1", "2", "3"]);
    assert!(broken > 1, "the message was tried once");
    bench.stop().await;
}

/// More than is published or passed on.
const LARGE: usize = 5 << 20;

#[tokio::test]
async fn what_is_too_large_to_publish_is_refused_and_the_connection_lives() {
    let (mut broker, port) = FakeBroker::listen().await;
    let bench = Bench::start(external(port), MemoryStore::new());
    let mut client = broker.accept("pub").await;
    for (topic, payload, why) in [
        ("a/large".to_owned(), "x".repeat(LARGE), r#"5242880 bytes for the topic "a/large""#),
        ("a".repeat(70_000), "x".to_owned(), "no MQTT topic"),
        ("a\0b".to_owned(), "x".to_owned(), "no MQTT topic"),
    ] {
        let answer = bench.ask(Operation::PUBLISH, &topic, Content::text(&payload)).await;
        assert_eq!(answer.route.operation, Operation::ERROR);
        assert!(answer.content.as_text().unwrap().contains(why), "{:?}", answer.content);
    }
    // As large as may be.
    let most = "x".repeat(4 << 20);
    bench.publishes([most.clone(), "small".to_owned()]).await;
    assert!(client.taken().await == most);
    assert_eq!(client.taken().await, "small");
    bench.stop().await;
}

#[tokio::test]
async fn an_upload_that_is_too_large_is_refused_and_what_is_behind_it_arrives() {
    if !has("mosquitto_pub") || !(has("/usr/sbin/mosquitto") || has("mosquitto")) {
        return;
    }
    let port = free_port();
    let _broker = mosquitto(port);
    let mut bench = Bench::start(lasting(port), MemoryStore::new());
    bench.until_passed_on(port, "x/user/there", "").await;
    bench.uploads_until("").await;
    let mut told = listener(port, "$hw/events/node/+/upload/refused");
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(file.path(), "x".repeat(LARGE)).unwrap();
    let port_text = port.to_string();
    let args = ["-p", &port_text, "-q", "1", "-t", "x/user/large", "-f", file.path().to_str().unwrap()];
    let deadline = tokio::time::Instant::now() + PATIENCE;
    // The listener may still be subscribing.
    while told.try_wait().unwrap().is_none() {
        assert!(tokio::time::Instant::now() < deadline, "nobody was told");
        assert!(Command::new("mosquitto_pub").args(args).status().unwrap().success());
        publish_by_hand(port, "x/user/small", "behind it");
        assert_eq!(bench.uploads_until("behind it").await, ["behind it"]);
    }
    let line = String::from_utf8(told.wait_with_output().unwrap().stdout).unwrap();
    assert!(line.contains(r#""topics":["x/user/large"]"#) && line.contains("larger than 4 MiB"), "{line:?}");
    // The broker has been told that it need not be kept.
    bench.stop().await;
    let mut bench = Bench::start(lasting(port), MemoryStore::new());
    bench.until_passed_on(port, "x/user/again", "again").await;
    bench.stop().await;
}

#[tokio::test]
async fn all_topics_are_read_however_many_changed_while_the_broker_was_away() {
    let (mut broker, port) = FakeBroker::listen().await;
    let bench = Bench::start(external(port), MemoryStore::new());
    let mut wanted: BTreeSet<String> = BUILT_IN.iter().map(|topic| (*topic).to_owned()).collect();
    // More than may wait to be told to the broker.
    for n in 0..300 {
        let topic = format!("default/t{n}");
        assert!(bench.ask(Operation::SUBSCRIBE, &topic, Content::empty()).await.content.is_ok_text());
        if n >= 10 {
            wanted.insert(topic);
        }
    }
    for n in 0..10 {
        bench.ask(Operation::UNSUBSCRIBE, &format!("default/t{n}"), Content::empty()).await;
    }
    let mut client = broker.accept("sub").await;
    let told = tokio::time::timeout(PATIENCE, async {
        let mut read = BTreeSet::new();
        while read != wanted {
            match client.next().await.expect("EventBus has gone") {
                Packet::Subscribe(subscribe) => {
                    read.extend(subscribe.filters.into_iter().map(|filter| filter.path));
                }
                Packet::Unsubscribe(unsubscribe) => {
                    read.retain(|topic| !unsubscribe.topics.contains(topic));
                }
                Packet::PingReq => client.send(Packet::PingResp).await,
                _ => {}
            }
        }
    });
    told.await.expect("not all topics are subscribed to");
    bench.stop().await;
}
