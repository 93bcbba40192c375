use super::*;

fn record(uid: &str) -> Arc<Record> {
    Arc::new(Record::new(&"n".into(), "default", uid))
}

fn at(version: &str) -> Confirmed {
    Confirmed::At(version.into())
}

fn put(saves: &Saves, record: &Arc<Record>, confirmed: Confirmed) -> bool {
    saves.put(record, confirmed, Instant::now())
}

async fn next(saves: &Saves) -> (Arc<Record>, Confirmed) {
    loop {
        match saves.take() {
            Some(next) => return next,
            None => saves.changed().await,
        }
    }
}

#[tokio::test(start_paused = true)]
async fn versions_that_follow_each_other_quickly_are_saved_once_and_one_at_a_time() {
    let (saves, record) = (Saves::default(), record("u"));
    for version in ["1", "2", "3"] {
        assert!(put(&saves, &record, at(version)));
    }
    assert_eq!(saves.take().unwrap().1, at("3"));
    assert!(put(&saves, &record, at("4")) && put(&saves, &record, at("5")));
    assert!(saves.take().is_none(), "the record is being saved");
    saves.done(&record);
    assert!(saves.take().is_none(), "the record rests");
    let begun = Instant::now();
    assert_eq!((next(&saves).await.1, begun.elapsed()), (at("5"), REST));
    saves.done(&record);
    assert!(saves.take().is_none());
}

#[tokio::test(start_paused = true)]
async fn what_is_confirmed_goes_before_a_correction_whichever_came_first_and_neither_rests_then() {
    let (saves, record) = (Saves::default(), record("u"));
    let corrected = || Confirmed::Corrected { to: "0".into(), at: Some("77".into()) };
    assert!(saves.correct(&record, corrected()) && put(&saves, &record, at("4")));
    assert_eq!(saves.take().unwrap().1, at("4"));
    assert!(!saves.correct(&record, corrected()), "it is being saved");
    saves.done(&record);
    put(&saves, &record, at("5"));
    assert!(saves.take().is_none() && !saves.correct(&record, corrected()));
    assert_eq!(saves.take().unwrap().1, at("5"));
    saves.done(&record);
    assert!(saves.correct(&record, corrected()));
    assert_eq!(saves.take().unwrap().1, corrected());
}

#[tokio::test(start_paused = true)]
async fn the_record_of_an_object_that_is_gone_goes_at_once() {
    let (saves, record) = (Saves::default(), record("u"));
    put(&saves, &record, at("1"));
    saves.done(&saves.take().unwrap().0);
    put(&saves, &record, at("2"));
    assert!(saves.take().is_none());
    put(&saves, &record, Confirmed::Gone);
    assert_eq!(saves.take().unwrap().1, Confirmed::Gone);
    saves.done(&record);
    assert!(saves.take().is_none());
}

#[tokio::test(start_paused = true)]
async fn what_never_rests_is_saved_ever_more_seldom_until_it_does() {
    let (saves, record) = (Saves::default(), record("u"));
    let mut rests = Vec::new();
    for _ in 0..5 {
        put(&saves, &record, at("1"));
        let begun = Instant::now();
        saves.done(&next(&saves).await.0);
        rests.push(begun.elapsed().as_secs());
    }
    assert_eq!(rests, [0, 2, 8, 32, 32]);
    tokio::time::advance(LONGEST_REST).await;
    assert!(saves.take().is_none());
    put(&saves, &record, at("2"));
    assert_eq!(saves.take().unwrap().1, at("2"), "at once");
}

/// Confirms a record all the while for so long, or until it is to be saved, at the version that each number
/// has.
async fn confirms(
    saves: &Saves,
    record: &Arc<Record>,
    long: Duration,
    version: impl Fn(u32) -> String,
) -> bool {
    let begun = Instant::now();
    for number in 0.. {
        put(saves, record, at(&version(number)));
        if saves.take().is_some() {
            return true;
        }
        tokio::time::advance(CHANGING / 2).await;
        if begun.elapsed() >= long {
            break;
        }
    }
    false
}

/// At another version each time.
async fn changes(saves: &Saves, record: &Arc<Record>, long: Duration) -> bool {
    confirms(saves, record, long, |number| number.to_string()).await
}

#[tokio::test(start_paused = true)]
async fn what_changes_all_the_while_is_saved_every_two_minutes() {
    let (saves, record) = (Saves::default(), record("u"));
    assert!(changes(&saves, &record, REST).await, "the first at once");
    for seconds in [2 + 8 + 32 + 32 + 32, 4 * 32] {
        saves.done(&record);
        let begun = Instant::now();
        assert!(changes(&saves, &record, LATEST * 2).await);
        assert_eq!(begun.elapsed().as_secs(), seconds);
    }
}

#[tokio::test(start_paused = true)]
async fn what_is_confirmed_again_and_again_has_not_changed() {
    let (saves, record) = (Saves::default(), record("u"));
    put(&saves, &record, at("1"));
    saves.done(&next(&saves).await.0);
    let begun = Instant::now();
    assert!(confirms(&saves, &record, LATEST, |_| "2".to_owned()).await);
    assert_eq!(begun.elapsed(), REST);
}

#[tokio::test(start_paused = true)]
async fn what_has_changed_all_the_while_is_saved_in_half_a_minute_once_it_rests() {
    let (saves, record) = (Saves::default(), record("u"));
    put(&saves, &record, at("1"));
    saves.done(&next(&saves).await.0);
    assert!(!changes(&saves, &record, LATEST / 2).await);
    let begun = Instant::now();
    assert_eq!(next(&saves).await.1, at("99"));
    assert!(begun.elapsed() <= LONGEST_REST);
}

#[tokio::test(start_paused = true)]
async fn what_has_rested_leaves_nothing_behind() {
    let saves = Saves::default();
    for number in 0..1000 {
        assert!(put(&saves, &record(&number.to_string()), at("1")));
        saves.done(&saves.take().unwrap().0);
    }
    tokio::time::advance(REST).await;
    assert!(saves.take().is_none());
    let inner = saves.inner.lock();
    assert!(inner.entries.is_empty() && inner.resting.is_empty() && inner.line.is_empty());
}

#[tokio::test(start_paused = true)]
async fn at_the_end_and_where_it_is_asked_for_nothing_rests() {
    let saves = Saves::default();
    let [one, other] = ["one", "other"].map(record);
    for record in [&one, &other] {
        put(&saves, record, at("1"));
        saves.done(&saves.take().unwrap().0);
        put(&saves, record, at("2"));
    }
    assert!(saves.take().is_none());
    tokio::join!(saves.at_once(&one), async {
        let (record, confirmed) = saves.take().unwrap();
        assert_eq!((&record, confirmed), (&one, at("2")));
        assert!(saves.take().is_none(), "the other rests");
        saves.done(&record);
    });
    tokio::join!(saves.finish(), async {
        let (record, confirmed) = saves.take().unwrap();
        assert_eq!((&record, confirmed), (&other, at("2")));
        saves.done(&record);
    });
}

#[tokio::test(start_paused = true)]
async fn what_must_be_saved_at_once_does_not_rest_though_the_record_is_being_saved_when_it_comes() {
    let (saves, record) = (Saves::default(), record("u"));
    put(&saves, &record, at("1"));
    assert_eq!(saves.take().unwrap().1, at("1"));
    put(&saves, &record, Confirmed::Gone);
    saves.done(&record);
    assert_eq!(saves.take().unwrap().1, Confirmed::Gone, "while its record is there, the edge is told again");
    put(&saves, &record, at("2"));
    let begun = Instant::now();
    let saving = async {
        saves.done(&record);
        assert_eq!(next(&saves).await.1, at("2"));
        saves.done(&record);
    };
    tokio::join!(saves.at_once(&record), saving);
    assert_eq!(begun.elapsed(), Duration::ZERO);
}
