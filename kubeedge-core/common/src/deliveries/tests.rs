use kubeedge_core::name::ModuleName;
use proptest::prelude::*;

use super::*;

const BOUNDS: Bounds = Bounds { messages: 8, bytes: 64 << 10, window: 3, window_bytes: 16 << 10 };
const ACME: ModuleName = ModuleName::of("acme");

fn message(resource: &str) -> Message {
    Message::new(ACME, Operation::UPDATE, resource).in_group(Group::of("acme"))
}

fn connected() -> Deliveries {
    let mut deliveries = Deliveries::new(BOUNDS);
    deliveries.up();
    deliveries
}

fn written(deliveries: &mut Deliveries, now: Instant) -> Vec<Message> {
    std::iter::from_fn(|| deliveries.next(now)).collect()
}

fn resources(messages: &[Message]) -> Vec<&str> {
    messages.iter().map(|message| message.route.resource.as_str()).collect()
}

#[tokio::test(start_paused = true)]
async fn a_reliable_message_is_sent_on_each_link_until_it_is_answered() {
    let mut deliveries = Deliveries::new(BOUNDS);
    let sent = message("a");
    assert_eq!(deliveries.offer(sent.clone(), Delivery::Reliable, None).unwrap(), Some(1));
    let now = Instant::now();
    assert!(!deliveries.has_next() && deliveries.next(now).is_none());
    assert!(deliveries.offer(sent.clone(), Delivery::Reliable, None).is_err(), "it is under way");
    for _ in 0..3 {
        deliveries.up();
        assert_eq!(written(&mut deliveries, now), std::slice::from_ref(&sent));
        assert!(deliveries.down().is_empty());
    }
    deliveries.up();
    assert_eq!(deliveries.next(now).unwrap().header.id, sent.header.id);
    assert!(deliveries.take_gone().is_empty());
    assert!(matches!(deliveries.answered(sent.answer(Content::ok())), Answered::Claimed));
    assert!(deliveries.is_empty() && deliveries.bytes() == 0);
    assert_eq!(deliveries.take_gone(), [1]);
    assert!(matches!(deliveries.answered(sent.answer(Content::ok())), Answered::Unknown(_)));
}

#[tokio::test(start_paused = true)]
async fn what_is_not_answered_is_sent_again_with_growing_pauses() {
    let mut deliveries = connected();
    deliveries.offer(message("a"), Delivery::Reliable, None).unwrap();
    let (began, mut at) = (Instant::now(), Vec::new());
    while at.len() < 8 {
        if deliveries.next(Instant::now()).is_some() {
            at.push(began.elapsed().as_secs());
        }
        tokio::time::sleep_until(deliveries.due().unwrap()).await;
        assert!(deliveries.tick(Instant::now(), true).is_empty());
    }
    assert_eq!(at, [0, 10, 30, 70, 150, 310, 610, 910]);
}

#[tokio::test(start_paused = true)]
async fn a_peer_that_is_not_known_to_confirm_is_told_five_times() {
    let mut deliveries = connected();
    let (reply, mut told) = oneshot::channel();
    deliveries.offer(message("a"), Delivery::Reliable, Some(reply)).unwrap();
    let (mut times, bus) = (0, Bus::new([]).0);
    let failed = loop {
        times += u32::from(deliveries.next(Instant::now()).is_some());
        tokio::time::sleep_until(deliveries.due().unwrap()).await;
        if let Some(failed) = deliveries.tick(Instant::now(), false).pop() {
            break failed;
        }
    };
    assert_eq!(times, SENDS);
    failed.report(&bus, "edge-1", &Seldom::every(Duration::ZERO));
    assert_eq!(told.try_recv().unwrap().route.operation, Operation::ERROR);
    assert!(deliveries.is_empty());
}

#[tokio::test(start_paused = true)]
async fn of_one_resource_one_kept_message_is_in_flight_and_the_order_stays() {
    let mut deliveries = connected();
    let sent: Vec<_> = ["a", "b", "a", "a"].map(message).into();
    for message in &sent {
        deliveries.offer(message.clone(), Delivery::Reliable, None).unwrap();
    }
    let now = Instant::now();
    assert_eq!(resources(&written(&mut deliveries, now)), ["a", "b"]);
    deliveries.down();
    deliveries.up();
    let again = written(&mut deliveries, now);
    assert_eq!(again, [sent[0].clone(), sent[1].clone()]);
    for n in [0, 2, 3] {
        assert!(matches!(deliveries.answered(sent[n].answer(Content::ok())), Answered::Claimed));
        let next = written(&mut deliveries, now);
        assert_eq!(next, [sent.get(n.max(1) + 1).cloned()].into_iter().flatten().collect::<Vec<_>>());
    }
}

#[tokio::test(start_paused = true)]
async fn of_newest_messages_that_wait_only_the_last_is_sent() {
    let mut deliveries = Deliveries::new(BOUNDS);
    let (reply, mut first) = oneshot::channel();
    deliveries.offer(message("a"), Delivery::Newest, Some(reply)).unwrap();
    for _ in 0..100 {
        deliveries.offer(message("a"), Delivery::Newest, None).unwrap();
    }
    let last = message("a");
    deliveries.offer(last.clone(), Delivery::Newest, None).unwrap();
    assert_eq!(first.try_recv().unwrap().content.as_text().unwrap(), SUPERSEDED);
    assert_eq!(deliveries.take_gone().len(), 101);
    deliveries.up();
    let now = Instant::now();
    assert_eq!(written(&mut deliveries, now), std::slice::from_ref(&last));
    // One in flight stays, and of those behind it the newest.
    for resource in ["a", "a"] {
        deliveries.offer(message(resource), Delivery::Newest, None).unwrap();
    }
    assert!(deliveries.next(now).is_none());
    deliveries.answered(last.answer(Content::ok()));
    assert_eq!(written(&mut deliveries, now).len(), 1);
}

#[tokio::test(start_paused = true)]
async fn best_effort_goes_once_and_fails_without_a_link() {
    let (mut deliveries, now) = (Deliveries::new(BOUNDS), Instant::now());
    assert!(deliveries.offer(message("a"), Delivery::BestEffort, None).is_err());
    deliveries.up();
    deliveries.offer(message("a"), Delivery::BestEffort, None).unwrap();
    let (reply, mut lost) = oneshot::channel();
    deliveries.offer(message("b"), Delivery::BestEffort, Some(reply)).unwrap();
    assert_eq!(resources(&written(&mut deliveries, now)), ["a", "b"]);
    let bus = Bus::new([]).0;
    for failed in deliveries.down() {
        failed.report(&bus, "edge-1", &Seldom::every(Duration::ZERO));
    }
    assert_eq!(lost.try_recv().unwrap().content.as_text().unwrap(), LOST);
    assert!(deliveries.is_empty());
}

#[tokio::test(start_paused = true)]
async fn an_error_comes_back_to_the_mailbox_of_a_sender_that_does_not_wait() {
    let (bus, mut inboxes) = Bus::new([(ACME, Group::of("acme"), 4)]);
    let mut inbox = inboxes.remove(&ACME).unwrap();
    let lines = Seldom::every(Duration::from_secs(60));
    let mut deliveries = connected();
    for delivery in [Delivery::BestEffort, Delivery::Reliable] {
        let sent = message("a");
        deliveries.offer(sent.clone(), delivery, None).unwrap();
        assert!(deliveries.next(Instant::now()).is_some());
        let Answered::Failed(failed) = deliveries.answered(sent.error_answer("nobody")) else {
            panic!("the error is not taken for one");
        };
        failed.report(&bus, "edge-1", &lines);
        let told = inbox.try_next().unwrap().message;
        assert_eq!(
            (told.header.parent, told.content.as_text().unwrap().as_ref()),
            (Some(sent.header.id), "nobody")
        );
    }
}

#[tokio::test(start_paused = true)]
async fn requests_whose_askers_have_gone_are_forgotten() {
    let mut deliveries = connected();
    let (reply, asker) = oneshot::channel();
    deliveries.offer(message("a"), Delivery::BestEffort, Some(reply)).unwrap();
    drop(asker);
    deliveries.tick(Instant::now(), true);
    assert!(deliveries.is_empty() && deliveries.next(Instant::now()).is_none());
}

#[tokio::test(start_paused = true)]
async fn what_waits_and_what_is_in_flight_is_bounded_by_bytes() {
    let mut deliveries = connected();
    let large = |n: usize| message(&n.to_string()).with(Content::text(&"x".repeat(10 << 10)));
    let taken = (0..20).filter(|n| deliveries.offer(large(*n), Delivery::Reliable, None).is_ok()).count();
    assert_eq!(taken, 6);
    assert_eq!(written(&mut deliveries, Instant::now()).len(), 1);
    let mut deliveries = connected();
    let taken =
        (0..20).filter(|n| deliveries.offer(message(&n.to_string()), Delivery::Reliable, None).is_ok());
    assert_eq!(taken.count(), BOUNDS.messages);
    assert_eq!(written(&mut deliveries, Instant::now()).len(), BOUNDS.window);
    let mut deliveries = connected();
    let huge = message("a").with(Content::text(&"x".repeat(BOUNDS.bytes)));
    assert!(deliveries.offer(huge, Delivery::Reliable, None).is_ok(), "one always fits");
    assert!(deliveries.next(Instant::now()).is_some());
}

#[tokio::test(start_paused = true)]
async fn what_could_not_be_written_is_the_next_again() {
    let mut deliveries = connected();
    let sent = message("a");
    deliveries.offer(sent.clone(), Delivery::Reliable, None).unwrap();
    let next = deliveries.next(Instant::now()).unwrap();
    deliveries.unwritten(next);
    assert_eq!(deliveries.next(Instant::now()), Some(sent.clone()));
    assert!(deliveries.unwritable(&sent.header.id, "too large").is_some());
    assert!(deliveries.is_empty());
}

#[derive(Clone, Debug)]
enum Act {
    Offer(u8, Delivery),
    Write,
    Answer(u8),
    Cut,
    Wait,
}

fn act() -> impl Strategy<Value = Act> {
    let delivery = prop_oneof![Just(Delivery::BestEffort), Just(Delivery::Newest), Just(Delivery::Reliable)];
    prop_oneof![
        (0..3_u8, delivery).prop_map(|(line, delivery)| Act::Offer(line, delivery)),
        Just(Act::Write),
        any::<u8>().prop_map(Act::Answer),
        Just(Act::Cut),
        Just(Act::Wait),
    ]
}

proptest! {
    /// Whatever happens, a reliable message that was taken is first seen in its order, and is there or was
    /// answered.
    #[test]
    fn reliable_messages_are_seen_in_order_and_none_is_lost(acts in proptest::collection::vec(act(), 1..200)) {
        let (mut deliveries, mut now) = (connected(), Instant::now());
        let (mut taken, mut seen, mut sent) = (Vec::new(), Vec::<MessageId>::new(), Vec::new());
        for act in acts {
            match act {
                Act::Offer(line, delivery) => {
                    let message = message(&format!("{delivery:?}/{line}"));
                    if deliveries.offer(message.clone(), delivery, None).is_ok() && delivery == Delivery::Reliable {
                        taken.push(message);
                    }
                }
                Act::Write => {
                    if let Some(message) = deliveries.next(now) {
                        if !seen.contains(&message.header.id) {
                            seen.push(message.header.id.clone());
                        }
                        sent.push(message);
                    }
                }
                Act::Answer(at) if !sent.is_empty() => {
                    let message: Message = sent.swap_remove(usize::from(at) % sent.len());
                    drop(deliveries.answered(message.answer(Content::ok())));
                }
                Act::Answer(_) => {}
                Act::Cut => {
                    deliveries.down();
                    deliveries.up();
                }
                Act::Wait => {
                    now += LONGEST_PAUSE;
                    deliveries.tick(now, true);
                }
            }
        }
        // In the end everything is written and answered.
        loop {
            let Some(message) = deliveries.next(now) else {
                now += LONGEST_PAUSE;
                deliveries.tick(now, true);
                if deliveries.is_empty() { break }
                continue;
            };
            if !seen.contains(&message.header.id) {
                seen.push(message.header.id.clone());
            }
            drop(deliveries.answered(message.answer(Content::ok())));
        }
        prop_assert_eq!(deliveries.bytes(), 0);
        prop_assert_eq!((deliveries.flying, deliveries.flying_bytes, deliveries.lines.len()), (0, 0, 0));
        for line in 0..3 {
            let of_line = |message: &&Message| message.route.resource == format!("Reliable/{line}").as_str();
            let wanted: Vec<_> = taken.iter().filter(of_line).map(|message| message.header.id.clone()).collect();
            let found: Vec<_> = seen.iter().filter(|id| wanted.contains(id)).cloned().collect();
            prop_assert_eq!(found, wanted);
        }
    }
}
