use super::*;

fn plain(source: &str, operation: &str, resource: &str) -> Envelope {
    Envelope::new(Message::new(source.into(), operation.into(), resource))
}

fn order(outbox: &Outbox) -> Vec<String> {
    let next = || outbox.try_next().inspect(|_| outbox.written());
    std::iter::from_fn(next).map(|message| message.route.resource.as_str().to_owned()).collect()
}

#[test]
fn pods_go_before_twins_and_twins_before_uploads_and_events() {
    let outbox = Outbox::new();
    outbox.put(plain("bus", "upload", "SYS/dis/upload_records"));
    outbox.put(plain("edged", "insert", "default/event/web.1"));
    outbox.put(plain("twin", "update", "device/default/d/twin/edge_updated"));
    outbox.put(plain("edged", "patch", "default/podpatch/web"));
    let wanted = [
        "default/podpatch/web",
        "device/default/d/twin/edge_updated",
        "SYS/dis/upload_records",
        "default/event/web.1",
    ];
    assert_eq!(order(&outbox), wanted);
}

#[test]
fn a_flood_of_uploads_is_bounded_and_leaves_room_for_pods() {
    let outbox = Outbox::new();
    for n in 0..5000 {
        outbox.put(plain("bus", "upload", &n.to_string()));
    }
    outbox.put(plain("edged", "patch", "default/podpatch/web"));
    let sent = order(&outbox);
    assert_eq!((sent[0].as_str(), sent[1].as_str(), sent.len()), ("default/podpatch/web", "0", MOST + 1));
}

#[test]
fn large_contents_are_bounded_by_their_bytes() {
    let mut queue = Queue::default();
    let large = || {
        Message::new(ModuleName::TWIN, Operation::UPDATE, "x")
            .with(Content::text(&"x".repeat(MOST_BYTES / 4)))
    };
    let taken = (0..8).filter(|_| queue.push(large())).count();
    assert_eq!(taken, 3);
    assert!(queue.pop().is_some() && queue.push(large()));
}

#[test]
fn a_message_whose_writing_broke_off_is_the_next_one_again_and_a_request_is_not() {
    let outbox = Outbox::new();
    outbox.up();
    outbox.put(plain("edged", "patch", "first"));
    outbox.put(plain("edged", "patch", "second"));
    assert_eq!(outbox.try_next().unwrap().route.resource, "first");
    let question = Message::new(ModuleName::EDGED, Operation::QUERY, "question");
    let (asked, mut answer) = Envelope::with_reply(question);
    outbox.put(asked);
    outbox.down();
    assert_eq!(answer.try_recv().unwrap().content.as_text().unwrap(), LOST);
    assert_eq!(order(&outbox), ["first", "second"]);
}

#[test]
fn a_request_whose_asker_has_gone_is_not_sent() {
    let outbox = Outbox::new();
    outbox.up();
    let (asked, answer) = Envelope::with_reply(Message::new(ModuleName::EDGED, Operation::QUERY, "old"));
    outbox.put(asked);
    drop(answer);
    assert!(order(&outbox).is_empty());
    outbox.sweep();
    assert!(outbox.state.lock().waiters.is_empty());
}

#[tokio::test(start_paused = true)]
async fn silence_counts_from_the_first_question_to_the_next_word() {
    let outbox = Outbox::new();
    outbox.up();
    let (asked, _answer) = Envelope::with_reply(Message::new(ModuleName::EDGED, Operation::QUERY, "q"));
    outbox.put(asked);
    assert_eq!(order(&outbox), ["q"]);
    tokio::time::advance(Duration::from_secs(10)).await;
    assert_eq!(outbox.unheard(), Duration::from_secs(10));
    outbox.heard();
    assert_eq!(outbox.unheard(), Duration::ZERO);
}
