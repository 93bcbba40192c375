use kubeedge_core::store::StoreKind;
use kubeedge_core::{message::Content, name::Operation};
use kubeedge_store::{Fault, FaultyStore, MemoryStore};

use super::*;
use crate::queue::{MOST, MOST_BYTES};

mod model;

const BOUNDS: Bounds = Bounds { uploads: 2000, upload_bytes: MOST_BYTES };

fn outbox() -> Outbox {
    Outbox::new(BOUNDS, None)
}

async fn over(store: &Arc<MemoryStore>) -> Outbox {
    let outbox = Outbox::new(BOUNDS, Some(store.clone()));
    outbox.load().await.unwrap();
    outbox
}

fn message(source: &str, operation: &str, resource: &str) -> Message {
    Message::new(source.into(), operation.into(), resource)
}

fn plain(source: &str, operation: &str, resource: &str) -> Envelope {
    Envelope::new(message(source, operation, resource))
}

fn upload(n: usize) -> Envelope {
    plain("eventbus", "upload", &n.to_string())
}

fn status(pod: &str, phase: &str) -> Message {
    message("edged", "patch", &format!("default/podpatch/{pod}")).with(Content::text(phase))
}

fn name(message: &Message) -> String {
    message.route.resource.as_str().to_owned()
}

fn next(outbox: &Outbox) -> Option<Message> {
    outbox.try_next(|_| true).map(|(_, message)| message)
}

/// Writes everything that waits.
fn write_all(outbox: &Outbox) -> Vec<Message> {
    std::iter::from_fn(|| next(outbox).inspect(|_| outbox.written())).collect()
}

fn order(outbox: &Outbox) -> Vec<String> {
    write_all(outbox).iter().map(name).collect()
}

async fn rows(store: &MemoryStore) -> Vec<String> {
    let rows: Vec<_> = store.scan(Scan::new(shelf::BUCKET, "")).try_collect().await.unwrap();
    rows.iter().map(|row| name(&json::decode(&row.value).unwrap())).collect()
}

#[test]
fn pods_go_before_twins_and_twins_before_uploads_and_events() {
    let outbox = outbox();
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
fn a_flood_of_uploads_is_bounded_counted_and_leaves_room_for_pods_and_events() {
    let outbox = outbox();
    for n in 0..5000 {
        outbox.put(upload(n));
    }
    outbox.put(plain("edged", "insert", "default/event/web.1"));
    outbox.put(plain("edged", "patch", "default/podpatch/web"));
    let sent = order(&outbox);
    assert_eq!((sent[0].as_str(), sent[1].as_str(), sent.len()), ("default/podpatch/web", "0", 2002));
    assert_eq!(outbox.refused(), 3000);
}

#[test]
fn a_sender_that_waits_is_told_that_there_is_no_room() {
    let outbox = outbox();
    outbox.up();
    for n in 0..MOST {
        outbox.put(plain("twin", "update", &format!("device/default/{n}/twin/edge_updated")));
    }
    let (asked, mut answer) = Envelope::with_reply(message("twin", "update", "device/a/b/state/update"));
    outbox.put(asked);
    assert_eq!(answer.try_recv().unwrap().route.operation, Operation::ERROR);
    assert_eq!(outbox.refused(), 0);
}

/// An upload, and the word that it is safe.
fn entrusted(n: usize) -> (Envelope, tokio::sync::oneshot::Receiver<Message>) {
    Envelope::with_reply(message("acme", "upload", &n.to_string()))
}

#[tokio::test]
async fn who_waits_for_an_upload_is_told_when_it_is_stored_or_with_the_cloud() {
    let store = Arc::new(MemoryStore::new());
    let stored = over(&store).await;
    stored.up();
    let (asked, mut safe) = entrusted(1);
    stored.put(asked);
    assert!(safe.try_recv().is_err(), "it is not stored yet");
    stored.put_all_away().await.unwrap();
    assert!(safe.try_recv().unwrap().content.is_ok_text());
    assert_eq!(rows(&store).await, ["1"]);
    // The cloud may be quicker than the store, and a link that breaks is no loss.
    for outbox in [over(&store).await, outbox()] {
        outbox.up();
        let (asked, mut safe) = entrusted(2);
        outbox.put(asked);
        outbox.down();
        outbox.up();
        write_all(&outbox);
        assert!(safe.try_recv().is_err(), "nobody knows whether the cloud has it");
        outbox.prove(outbox.progress().0);
        assert!(safe.try_recv().unwrap().content.is_ok_text());
    }
}

#[tokio::test(start_paused = true)]
async fn an_upload_that_is_waited_for_is_stored_ten_times_sooner() {
    let store = Arc::new(MemoryStore::new());
    let outbox = over(&store).await;
    outbox.up();
    let begun = Instant::now();
    let (asked, safe) = entrusted(1);
    outbox.put(asked);
    tokio::select! {
        () = outbox.put_away(1) => panic!("it ended"),
        answer = safe => assert!(answer.unwrap().content.is_ok_text()),
    }
    assert_eq!(begun.elapsed(), shelf::SHORT_REST);
}

#[test]
fn who_waits_for_an_upload_is_told_that_there_is_no_room() {
    let outbox = outbox();
    (0..BOUNDS.uploads).for_each(|n| outbox.put(upload(n)));
    let (asked, mut answer) = entrusted(1);
    outbox.put(asked);
    assert_eq!(answer.try_recv().unwrap().route.operation, Operation::ERROR);
    assert_eq!(outbox.refused(), 0, "its sender knows");
    // EventBus confirms to the broker all the same: programs are told by a topic.
    let (asked, mut answer) = Envelope::with_reply(message("bus", "upload", "a/user/b"));
    outbox.put(asked);
    assert_eq!(answer.try_recv().unwrap().route.operation, Operation::ERROR);
    assert_eq!(outbox.refused(), 1);
}

#[test]
fn a_message_whose_writing_broke_off_is_the_next_one_again_and_a_request_is_not() {
    let outbox = outbox();
    outbox.up();
    outbox.put(plain("edged", "update", "first"));
    outbox.put(plain("edged", "update", "second"));
    assert_eq!(next(&outbox).unwrap().route.resource, "first");
    let (asked, mut answer) = Envelope::with_reply(message("edged", "query", "question"));
    outbox.put(asked);
    outbox.down();
    assert_eq!(answer.try_recv().unwrap().content.as_text().unwrap(), LOST);
    assert_eq!(order(&outbox), ["first", "second"]);
}

#[test]
fn what_was_written_goes_again_in_its_order_unless_the_cloud_gave_a_sign_of_life_after_it() {
    let outbox = outbox();
    outbox.up();
    for n in 0..3 {
        outbox.put(upload(n));
    }
    let first = write_all(&outbox);
    let (through, waiting) = outbox.progress();
    assert_eq!((through, waiting), (3, 3));
    outbox.prove(1);
    outbox.put(upload(3));
    outbox.down();
    outbox.up();
    let again = write_all(&outbox);
    assert_eq!(again[..2], first[1..]);
    assert_eq!(again[2].route.resource, "3");
    outbox.prove(outbox.progress().0);
    outbox.down();
    assert!(order(&outbox).is_empty());
}

#[test]
fn an_answer_proves_what_was_written_before_its_question_in_its_lane() {
    let outbox = outbox();
    outbox.up();
    outbox.put(plain("edged", "update", "before"));
    outbox.put(upload(1));
    write_all(&outbox);
    let (asked, answer) = Envelope::with_reply(message("edged", "query", "question"));
    outbox.put(asked);
    let question = write_all(&outbox).remove(0);
    outbox.put(plain("edged", "update", "after"));
    write_all(&outbox);
    assert!(outbox.claim(question.answer(Content::ok())).is_none());
    drop(answer);
    outbox.down();
    assert_eq!(order(&outbox), ["after", "1"]);
}

#[test]
fn a_cloud_that_answers_before_the_writing_ends_is_not_asked_twice() {
    let outbox = outbox();
    outbox.up();
    outbox.put(Envelope::new(status("web", "Running")));
    let flying = next(&outbox).unwrap();
    assert!(outbox.claim(flying.answer(Content::ok())).is_some());
    outbox.written();
    outbox.down();
    assert!(order(&outbox).is_empty());
}

#[test]
fn an_acknowledgement_is_sent_once() {
    let outbox = outbox();
    outbox.up();
    let pushed = message("edgecontroller", "insert", "default/pod/web");
    outbox.put(Envelope::new(pushed.answer(Content::ok())));
    assert_eq!(write_all(&outbox).len(), 1);
    outbox.down();
    assert!(order(&outbox).is_empty());
}

#[test]
fn a_status_is_sent_until_it_is_answered_and_only_the_newest_of_its_object() {
    let outbox = outbox();
    outbox.put(Envelope::new(status("web", "Pending")));
    outbox.put(Envelope::new(status("db", "Pending")));
    outbox.put(Envelope::new(status("web", "Running")));
    outbox.up();
    let sent = write_all(&outbox);
    assert_eq!(sent.iter().map(name).collect::<Vec<_>>(), ["default/podpatch/web", "default/podpatch/db"]);
    assert_eq!(sent[0].content, Content::text("Running"));
    // A sign of life is no answer.
    outbox.prove(2);
    outbox.put(Envelope::new(status("db", "Running")));
    outbox.down();
    let again = write_all(&outbox);
    assert_eq!(again[0], sent[0]);
    assert_eq!((again.len(), &again[1].content), (2, &Content::text("Running")));
    let unclaimed = again.iter().filter_map(|sent| outbox.claim(sent.answer(Content::ok()))).count();
    assert_eq!(unclaimed, 2);
    outbox.down();
    assert!(order(&outbox).is_empty());
}

#[test]
fn a_status_whose_sender_was_told_of_the_break_goes_on_the_next_link() {
    let outbox = outbox();
    outbox.up();
    let (asked, mut answer) = Envelope::with_reply(status("web", "Running"));
    outbox.put(asked);
    let sent = write_all(&outbox);
    outbox.down();
    assert_eq!(answer.try_recv().unwrap().content.as_text().unwrap(), LOST);
    let (asked, mut answer) = Envelope::with_reply(status("db", "Running"));
    outbox.put(asked);
    assert_eq!(answer.try_recv().unwrap().route.operation, Operation::ERROR);
    outbox.up();
    let again = write_all(&outbox);
    assert_eq!((&again[0], again.len()), (&sent[0], 2));
}

#[test]
fn a_request_whose_asker_has_gone_is_not_sent() {
    let outbox = outbox();
    outbox.up();
    let (asked, answer) = Envelope::with_reply(message("edged", "query", "old"));
    outbox.put(asked);
    drop(answer);
    assert!(order(&outbox).is_empty());
    outbox.sweep(true);
    assert!(outbox.state.lock().waiters.is_empty());
}

#[tokio::test(start_paused = true)]
async fn silence_counts_from_the_first_question_to_the_next_word() {
    let outbox = outbox();
    outbox.up();
    let (asked, _answer) = Envelope::with_reply(message("edged", "query", "q"));
    outbox.put(asked);
    assert_eq!(order(&outbox), ["q"]);
    tokio::time::advance(Duration::from_secs(10)).await;
    assert_eq!(outbox.unheard(), Duration::from_secs(10));
    outbox.alive();
    assert_eq!(outbox.unheard(), Duration::from_secs(10));
    outbox.heard();
    assert_eq!(outbox.unheard(), Duration::ZERO);
}

#[tokio::test(start_paused = true)]
async fn uploads_and_the_newest_statuses_outlive_the_process_in_their_order() {
    let store = Arc::new(MemoryStore::new());
    let outbox = over(&store).await;
    for n in 0..300 {
        outbox.put(upload(n));
    }
    for phase in ["Pending", "Running"] {
        outbox.put(Envelope::new(status("web", phase)));
    }
    outbox.put(plain("twin", "update", "device/default/d/twin/edge_updated"));
    outbox.put_all_away().await.unwrap();
    drop(outbox);
    let outbox = over(&store).await;
    outbox.put(upload(300));
    outbox.put_all_away().await.unwrap();
    let outbox = over(&store).await;
    outbox.up();
    let sent = write_all(&outbox);
    assert_eq!(sent[0].content, Content::text("Running"));
    let wanted: Vec<_> = (0..=300).map(|n| n.to_string()).collect();
    assert_eq!(sent[1..].iter().map(name).collect::<Vec<_>>(), wanted);
    outbox.prove(outbox.progress().0);
    assert!(outbox.claim(sent[0].answer(Content::ok())).is_some());
    outbox.put_all_away().await.unwrap();
    assert!(rows(&store).await.is_empty());
}

#[tokio::test(start_paused = true)]
async fn what_the_cloud_has_within_a_second_is_never_written_to_the_store() {
    let store = Arc::new(MemoryStore::new());
    let outbox = Arc::new(over(&store).await);
    let running = outbox.clone();
    tokio::spawn(async move { running.put_away(1).await });
    outbox.up();
    outbox.put(upload(1));
    outbox.put(upload(2));
    tokio::time::sleep(Duration::from_millis(500)).await;
    write_all(&outbox);
    outbox.prove(1);
    assert!(rows(&store).await.is_empty());
    tokio::time::sleep(Duration::from_secs(1)).await;
    assert_eq!(rows(&store).await, ["2"]);
    outbox.put(upload(3));
    outbox.down();
    tokio::time::sleep(Duration::from_millis(10)).await;
    assert_eq!(rows(&store).await, ["2", "3"]);
}

#[tokio::test(start_paused = true)]
async fn a_store_that_fails_for_a_while_loses_nothing() {
    let inner = Arc::new(MemoryStore::new());
    let store = Arc::new(FaultyStore::new(inner.clone()));
    let outbox = Arc::new(Outbox::new(BOUNDS, Some(store.clone())));
    let running = outbox.clone();
    tokio::spawn(async move { running.put_away(1).await });
    store.fail(Fault::WritesFrom(1), StoreKind::Full);
    outbox.put(upload(1));
    tokio::time::sleep(Duration::from_secs(5)).await;
    outbox.put(upload(2));
    assert!(rows(&inner).await.is_empty());
    store.heal();
    tokio::time::sleep(Duration::from_secs(60)).await;
    assert_eq!(rows(&inner).await, ["1", "2"]);
}

#[tokio::test]
async fn a_row_that_cannot_be_read_is_dropped_and_the_others_are_sent() {
    let store = Arc::new(MemoryStore::new());
    let outbox = over(&store).await;
    outbox.put(upload(1));
    outbox.put(upload(2));
    outbox.put_all_away().await.unwrap();
    let damaged = kubeedge_core::store::Key::new(shelf::BUCKET, shelf::key_of_each(1));
    store.commit(kubeedge_core::store::Batch::new().put(damaged, "{")).await.unwrap();
    let outbox = over(&store).await;
    assert_eq!(order(&outbox), ["2"]);
    outbox.put_all_away().await.unwrap();
    assert_eq!(rows(&store).await, ["2"]);
}
