use std::time::Duration;

use kubeedge_core::{
    message::Content,
    name::{Group, ModuleName},
};

use super::*;

impl Pool {
    fn next_ready(&self) -> Option<Flight> {
        match self.next(0, usize::MAX)? {
            Next::Object(flight) => Some(flight),
            Next::Plain(message) => panic!("{message:?}"),
        }
    }
}

fn offer(uid: &str, operation: Operation, version: &str) -> Offer {
    offer_of("pod", uid, operation, version)
}

fn offer_of(kind: &str, uid: &str, operation: Operation, version: &str) -> Offer {
    let message = Message::new(ModuleName::EDGE_CONTROLLER, operation, format!("node/n/default/{kind}/web"))
        .with(Content::text("x"));
    let message = if version.is_empty() { message } else { message.at_version(version) };
    let gone = message.route.operation == Operation::DELETE;
    let priority = rules::priority(message.route.resource.as_str(), &message.route.group);
    let id = message.header.id.as_str().into();
    let record = Record::new(&"n".into(), "default", uid).into();
    Offer { key: uid.into(), id, message: for_the_wire(message).into(), priority, gone, record }
}

fn update(uid: &str, version: &str) -> Offer {
    offer(uid, Operation::UPDATE, version)
}

fn at(version: &str) -> impl FnOnce(&Record) -> Known + use<> {
    let known = Known::At(version.into());
    move |_| known
}

#[test]
fn what_modules_send_takes_turns_with_the_later_lane_and_never_goes_before_control() {
    let pool = Pool::default();
    let of = |group: &str, name: &str| {
        Message::new("acme".into(), Operation::UPDATE, name.to_owned()).in_group(group.into())
    };
    for n in 0..3 {
        pool.put_of_module(of("acme", &format!("module-{n}")));
        pool.put_plain(of("twin", &format!("twin-{n}")));
    }
    pool.put_plain(of("resource", "control"));
    let order: Vec<_> = std::iter::from_fn(|| pool.next(0, 1))
        .map(|next| match next {
            Next::Plain(message) => message.route.resource.as_str().to_owned(),
            Next::Object(flight) => panic!("{flight:?}"),
        })
        .collect();
    assert_eq!(order, ["control", "twin-0", "module-0", "twin-1", "module-1", "twin-2", "module-2"]);
    let large = of("acme", "large").with(Content::text(&"x".repeat(MAX_BYTES_OF_MODULES)));
    assert!(pool.has_room_for_modules());
    pool.put_of_module(large);
    assert!(!pool.has_room_for_modules());
    assert_eq!(pool.put_plain(of("resource", "control")), Put::Taken);
}

#[test]
fn only_versions_newer_than_the_record_are_taken() {
    let pool = Pool::default();
    assert_eq!(pool.put(update("a", "5"), at("5")), Put::Stale);
    assert_eq!(pool.put(update("a", ""), at("1")), Put::Stale);
    assert_eq!(pool.put(update("a", "not a number"), at("1")), Put::Stale);
    assert_eq!(pool.put(update("a", "6"), at("5")), Put::Taken);
    assert_eq!(pool.put(update("b", "1"), |_| Known::Missing), Put::Taken);
    assert_eq!(pool.put(update("c", "1"), |_| Known::Unversioned), Put::Taken);
    assert!(!pool.next_ready().unwrap().needs_record);
    assert!(pool.next_ready().unwrap().needs_record);
    assert!(!pool.next_ready().unwrap().needs_record);
}

/// Which records a session leaves behind when these are missing.
fn unrecorded(pool: &Pool, missing: &[&str]) -> Vec<String> {
    let left = pool.unrecorded(|record| missing.contains(&&*record.name));
    let mut left: Vec<_> = left.iter().map(|record| record.name.to_string()).collect();
    left.sort();
    left
}

#[test]
fn an_object_whose_record_was_removed_before_the_edge_confirmed_it_is_known_at_the_end_of_a_session() {
    let pool = Pool::default();
    for uid in ["there", "removed", "confirmed"] {
        pool.put(update(uid, "1"), at("0"));
    }
    while let Some(flight) = pool.next_ready() {
        if flight.key == "confirmed".into() {
            pool.landed(&flight);
        }
    }
    pool.put(offer("gone", Operation::DELETE, ""), at("0"));
    assert_eq!(unrecorded(&pool, &["n.removed", "n.confirmed", "n.gone"]), ["n.removed"]);
}

#[test]
fn objects_whose_record_is_not_made_yet_are_known_at_the_end_of_a_session() {
    let pool = Pool::default();
    pool.put(update("waits", "1"), |_| Known::Missing);
    pool.put(update("flies", "2"), |_| Known::Missing);
    pool.put(update("made", "3"), |_| Known::Missing);
    pool.put(update("old", "4"), at("3"));
    pool.record_made(&"made".into());
    while pool.next_ready().is_some() {}
    assert_eq!(unrecorded(&pool, &[]), ["n.flies", "n.waits"]);
}

#[test]
fn an_object_that_is_being_deleted_and_that_the_edge_never_had_is_known_at_the_end_of_a_session() {
    let pool = Pool::default();
    pool.put(Offer { gone: true, ..update("deleting", "1") }, |_| Known::Missing);
    pool.put(offer("gone", Operation::DELETE, ""), |_| Known::Missing);
    assert_eq!(unrecorded(&pool, &[]), ["n.deleting"]);
}

#[test]
fn versions_of_one_object_coalesce_to_the_newest_while_they_wait() {
    let pool = Pool::default();
    pool.put(update("a", "1"), |_| Known::Missing);
    pool.put(update("a", "3"), at("0"));
    assert_eq!(pool.put(update("a", "2"), at("0")), Put::Stale);
    let flight = pool.next_ready().unwrap();
    assert_eq!(flight.message.header.resource_version, Some("3".into()));
    assert!(pool.next_ready().is_none());
}

fn written(pool: &Pool) -> Flight {
    let flight = pool.next_ready().unwrap();
    pool.flies(flight.clone(), 1, Instant::now());
    flight
}

#[test]
fn a_version_that_arrives_during_a_flight_follows_after_it() {
    let pool = Pool::default();
    pool.put(update("a", "1"), at("0"));
    let flight = written(&pool);
    pool.put(update("a", "2"), at("0"));
    assert!(pool.next_ready().is_none() && pool.superseded(&flight));
    pool.acked(&flight.message.header.id);
    pool.acked(&flight.message.header.id);
    let [confirmed] = &*pool.take_acked() else { panic!("not once") };
    assert_eq!(confirmed.id, flight.id);
    pool.landed(confirmed);
    assert_eq!(pool.next_ready().unwrap().message.header.resource_version, Some("2".into()));
}

#[test]
fn a_confirmation_of_what_was_given_up_is_none_of_what_followed() {
    let pool = Pool::default();
    pool.put(update("a", "1"), at("0"));
    let given_up = written(&pool);
    pool.put(update("a", "2"), at("0"));
    assert_eq!(pool.take_due(Instant::now()).len(), 1);
    pool.failed(&given_up);
    pool.requeue(&given_up.key);
    let follower = written(&pool);
    assert_eq!((&follower.key, follower.id != given_up.id), (&given_up.key, true));
    pool.acked(&given_up.message.header.id);
    assert!(pool.take_acked().is_empty() && pool.is_flying());
    pool.acked(&follower.message.header.id);
    assert_eq!(pool.take_acked().len(), 1);
}

#[test]
fn what_is_confirmed_before_it_is_due_is_not_due() {
    let pool = Pool::default();
    let now = Instant::now();
    let mut due = Vec::new();
    for second in 0..4 {
        pool.put(update(&second.to_string(), "1"), at("0"));
        due.push(now + Duration::from_secs(second));
        let flight = pool.next_ready().unwrap();
        pool.flies(flight.clone(), 1, due[due.len() - 1]);
        if second % 2 == 0 {
            pool.acked(&flight.message.header.id);
        }
    }
    assert!(pool.take_due(due[0]).is_empty());
    assert_eq!(pool.next_due(), Some(due[1]));
    let [(late, times)] = &*pool.take_due(due[2]) else { panic!("not one") };
    assert_eq!((late.key.clone(), *times), ("1".into(), 1));
    assert_eq!(pool.next_due(), Some(due[3]));
}

#[test]
fn a_confirmed_version_is_remembered_and_a_confirmed_delete_forgotten() {
    let pool = Pool::default();
    pool.put(update("a", "4"), at("0"));
    pool.landed(&pool.next_ready().unwrap());
    assert_eq!(pool.put(update("a", "4"), at("0")), Put::Stale);
    assert_eq!(pool.put(offer("a", Operation::DELETE, ""), at("0")), Put::Taken);
    assert_eq!(pool.put(update("a", "5"), at("0")), Put::Stale);
    pool.landed(&pool.next_ready().unwrap());
    assert_eq!(pool.put(update("a", "5"), at("0")), Put::Taken);
}

fn model(operation: Operation) -> Offer {
    let mut offer = offer_of("devicemodel", "m", operation, "4");
    Arc::make_mut(&mut offer.message).route.source = ModuleName::DEVICE_CONTROLLER;
    offer
}

#[test]
fn what_was_taken_from_a_node_may_come_back_at_any_moment_and_only_by_its_controller() {
    let pool = Pool::default();
    let by_reconciliation = || offer_of("devicemodel", "m", Operation::UPDATE, "4");
    // While the deletion waits,
    assert_eq!(pool.put(model(Operation::DELETE), at("4")), Put::Taken);
    assert_eq!(pool.put(by_reconciliation(), at("0")), Put::Stale);
    assert_eq!(pool.put(model(Operation::INSERT), at("4")), Put::Taken);
    let back = pool.next_ready().unwrap();
    assert_eq!(back.message.route.operation, Operation::INSERT);
    pool.landed(&back);
    // while it is on its way,
    assert_eq!(pool.put(model(Operation::DELETE), at("4")), Put::Taken);
    let away = pool.next_ready().unwrap();
    assert!(away.withdraws && away.waits_for_record());
    assert_eq!(pool.put(model(Operation::INSERT), at("4")), Put::Taken);
    assert!(pool.superseded(&away) && pool.next_ready().is_none());
    pool.landed(&away);
    let back = pool.next_ready().unwrap();
    assert!(back.needs_record && back.message.route.operation == Operation::INSERT);
    pool.landed(&back);
    // and after it, whatever the record still says.
    assert_eq!(pool.put(model(Operation::DELETE), at("4")), Put::Taken);
    pool.landed(&pool.next_ready().unwrap());
    assert_eq!(pool.put(by_reconciliation(), at("0")), Put::Stale);
    assert_eq!(pool.put(model(Operation::INSERT), at("4")), Put::Taken);
    assert_eq!(pool.next_ready().unwrap().message.route.operation, Operation::INSERT);
}

#[tokio::test(start_paused = true)]
async fn a_confirmed_withdrawal_is_not_told_again_by_reconciliation() {
    let pool = Pool::default();
    let by_reconciliation = || {
        let mut deletion = offer_of("devicemodel", "m", Operation::DELETE, "");
        Arc::make_mut(&mut deletion.message).route.source = ModuleName::EDGE_CONTROLLER;
        deletion
    };
    assert_eq!(pool.put(model(Operation::DELETE), at("4")), Put::Taken);
    pool.landed(&pool.next_ready().unwrap());
    assert_eq!(pool.put(by_reconciliation(), at("4")), Put::Stale, "its record may be there still");
    tokio::time::advance(Duration::from_secs(61)).await;
    assert_eq!(pool.put(by_reconciliation(), at("4")), Put::Taken, "its record is still there");
}

#[test]
fn nothing_waits_for_a_deletion_that_was_taken_back() {
    let pool = Pool::default();
    assert_eq!(pool.put(model(Operation::DELETE), at("4")), Put::Taken);
    let anew = offer_of("devicemodel", "another", Operation::INSERT, "5");
    assert_eq!(pool.put(anew, |_| Known::Missing), Put::Taken);
    assert_eq!(pool.next_ready().unwrap().key, "m".into());
    assert!(pool.next_ready().is_none());
    assert_eq!(pool.put(model(Operation::INSERT), at("4")), Put::Taken);
    assert_eq!(pool.next_ready().unwrap().key, "another".into());
}

#[test]
fn a_pod_is_next_whatever_waits_of_twins_devices_and_uploads() {
    let pool = Pool::default();
    for n in 0..3000 {
        let twin = Message::new(ModuleName::DEVICE_CONTROLLER, Operation::RESPONSE, "node/n/twin");
        assert_eq!(pool.put_plain(twin.in_group(Group::TWIN)), Put::Taken);
        let device = offer_of("device", &n.to_string(), Operation::UPDATE, "1");
        assert_eq!(pool.put(device, at("0")), Put::Taken);
    }
    assert!(matches!(pool.next(0, 16), Some(Next::Plain(_))));
    assert_eq!(pool.put(update("pod", "1"), at("0")), Put::Taken);
    let Some(Next::Object(first)) = pool.next(0, 16) else { panic!("nothing") };
    assert_eq!(first.key, "pod".into());
}

#[test]
fn devices_on_their_way_leave_room_for_a_pod_and_none_of_them_is_lost() {
    let pool = Pool::default();
    for n in 0..100 {
        pool.put(offer_of("device", &n.to_string(), Operation::UPDATE, "1"), at("0"));
    }
    let mut flying = Vec::new();
    while let Some(Next::Object(flight)) = pool.next(flying.len(), 16) {
        flying.push(flight);
    }
    assert_eq!(flying.len(), 12);
    pool.put(update("pod", "1"), at("0"));
    let Some(Next::Object(pod)) = pool.next(flying.len(), 16) else { panic!("no room for a pod") };
    assert_eq!(pod.key, "pod".into());
    pool.landed(&pod);
    let mut seen = 0;
    while let Some(flight) = flying.pop() {
        seen += 1;
        if seen % 3 == 0 {
            pool.landed(&flight);
        } else {
            pool.failed(&flight);
        }
        while let Some(Next::Object(flight)) = pool.next(flying.len(), 16) {
            flying.push(flight);
        }
    }
    assert_eq!(seen, 100);
}

#[test]
fn an_object_made_anew_under_an_old_name_follows_the_confirmed_deletion_of_the_old_one() {
    let pool = Pool::default();
    pool.put(offer("old", Operation::DELETE, "5"), at("4"));
    pool.put(update("new", "6"), |_| Known::Missing);
    let first = pool.next_ready().unwrap();
    assert_eq!(first.key, "old".into());
    assert!(pool.next_ready().is_none());
    pool.failed(&first);
    assert!(pool.next_ready().is_none());
    pool.requeue(&first.key);
    pool.landed(&pool.next_ready().unwrap());
    assert_eq!(pool.next_ready().unwrap().key, "new".into());
}

#[tokio::test(start_paused = true)]
async fn an_object_that_the_edge_has_confirmed_to_be_gone_is_not_taken_from_it_again_soon() {
    let pool = Pool::default();
    let gone = || pool.put(offer("a", Operation::DELETE, ""), at("1"));
    assert_eq!(gone(), Put::Taken);
    pool.landed(&written(&pool));
    assert_eq!(gone(), Put::Stale, "its record may be there still");
    pool.put(update("a", "2"), |_| Known::Missing);
    assert_eq!(gone(), Put::Taken, "it has come back");
    pool.landed(&written(&pool));
    tokio::time::advance(Duration::from_secs(60)).await;
    assert_eq!(gone(), Put::Taken, "its record is still there");
}

#[test]
fn an_object_made_anew_twice_under_one_name_follows_both_deletions() {
    let pool = Pool::default();
    let known = || at("1");
    pool.put(offer("a", Operation::DELETE, "2"), known());
    let first = written(&pool);
    pool.put(offer("b", Operation::INSERT, "3"), known());
    assert!(pool.next_ready().is_none());
    pool.put(offer("b", Operation::DELETE, "4"), known());
    pool.put(offer("d", Operation::INSERT, "5"), known());
    assert!(pool.next_ready().is_none());
    pool.landed(&first);
    let second = written(&pool);
    assert_eq!((second.key.to_string().as_str(), &second.message.route.operation), ("b", &Operation::DELETE));
    pool.put(offer("c", Operation::INSERT, "6"), known());
    assert!(pool.next_ready().is_none(), "the deletion of b may be sent again, and would hit what follows");
    // What is confirmed of one that is not the last to go changes nothing.
    pool.landed(&first);
    assert!(pool.next_ready().is_none());
    pool.landed(&second);
    let mut followed = [written(&pool), written(&pool)].map(|flight| flight.key.to_string());
    followed.sort();
    assert_eq!(followed, ["c", "d"]);
}

#[test]
fn an_object_the_edge_never_heard_of_gets_its_record_though_it_is_being_deleted() {
    let pool = Pool::default();
    let mut ending = update("a", "5");
    ending.gone = true;
    assert_eq!(pool.put(ending, |_| Known::Missing), Put::Taken);
    assert!(pool.next_ready().unwrap().needs_record);
    pool.put(offer("b", Operation::DELETE, "5"), |_| Known::Missing);
    assert!(!pool.next_ready().unwrap().needs_record);
}

#[test]
fn a_failed_flight_counts_and_goes_again() {
    let pool = Pool::default();
    pool.put(update("a", "4"), at("0"));
    let flight = pool.next_ready().unwrap();
    assert_eq!(pool.failed(&flight), 1);
    pool.requeue(&flight.key);
    let flight = pool.next_ready().unwrap();
    assert_eq!(pool.failed(&flight), 2);
}

#[test]
fn what_waits_is_bounded() {
    let pool = Pool::default();
    let plain = || Message::new(ModuleName::CLOUD_HUB, Operation::UPDATE, "membership");
    for _ in 0..MAX_PLAIN {
        assert_eq!(pool.put_plain(plain()), Put::Taken);
    }
    assert_eq!(pool.put_plain(plain()), Put::Full);
    let long = Pool::default();
    let named = || Message::new(ModuleName::CLOUD_HUB, Operation::RESPONSE, "x".repeat(MAX_BYTES / 3));
    assert_eq!([(); 3].map(|()| long.put_plain(named())), [Put::Taken, Put::Taken, Put::Full]);
    let pool = Pool::default();
    let big = "x".repeat(MAX_BYTES / 2);
    let heavy = |uid: &str| {
        let mut offer = update(uid, "1");
        Arc::make_mut(&mut offer.message).content = Content::text(&big);
        offer
    };
    assert_eq!(pool.put(heavy("a"), at("0")), Put::Taken);
    assert_eq!(pool.put(heavy("b"), at("0")), Put::Full);
    pool.landed(&pool.next_ready().unwrap());
    assert_eq!(pool.put(heavy("b"), at("0")), Put::Taken);
}
