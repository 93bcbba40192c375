//! Connections that break.

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
