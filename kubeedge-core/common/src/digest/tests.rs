use proptest::prelude::*;

use super::*;

type Has = BTreeMap<u16, u64>;

fn entry(key: u64, version: u64) -> Entry {
    Entry { key: uuid_of(key), version, path: format!("default/configmap/settings-{key}") }
}

/// As long as a real one.
fn uuid_of(key: u64) -> String {
    format!("{:08x}-aaaa-4bbb-8ccc-{key:012x}", key.wrapping_mul(0x9e37_79b9))
}

fn tree(salt: u64, has: &Has) -> Tree {
    Tree::new(salt, has.iter().map(|(key, version)| entry(u64::from(*key), *version)))
}

/// Compares as both sides do, over the wire. The differences, the rounds and the bytes of content.
fn compare(cloud: Tree, edge: &Tree) -> (Vec<Difference>, usize, usize) {
    let mut asker = Asker::new(cloud);
    let opening = serde_json::to_string(&asker.opening()).unwrap();
    let mut bytes = opening.len();
    let opening: Opening = serde_json::from_str(&opening).unwrap();
    let mut reply = edge.first_answer(opening.root);
    for round in 1.. {
        let text = serde_json::to_string(&reply).unwrap();
        assert!(text.len() <= MAX_REPLY);
        bytes += text.len();
        let Step::Ask(asks) = asker.take(serde_json::from_str(&text).unwrap()).unwrap() else {
            return (asker.found(), round, bytes);
        };
        let text = serde_json::to_string(&asks).unwrap();
        bytes += text.len();
        reply = edge.answer(&serde_json::from_str(&text).unwrap());
    }
    unreachable!()
}

/// What is really different.
fn different(cloud: &Has, edge: &Has) -> Vec<Difference> {
    let keys: BTreeSet<_> = cloud.keys().chain(edge.keys()).copied().collect();
    let of = |has: &Has, key: u16| has.get(&key).map(|version| entry(u64::from(key), *version));
    let both = keys.into_iter().map(|key| Difference { ours: of(cloud, key), theirs: of(edge, key) });
    let mut found: Vec<_> = both.filter(|both| both.ours != both.theirs).collect();
    found.sort();
    found
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(128))]

    #[test]
    fn any_two_sides_find_exactly_what_is_different(
        cloud in prop::collection::btree_map(any::<u16>(), 1_u64..4, 0..400),
        edge in prop::collection::btree_map(any::<u16>(), 1_u64..4, 0..400),
        shared in prop::collection::btree_map(any::<u16>(), 1_u64..4, 0..400),
        salt in any::<u64>(),
    ) {
        let with_shared = |mut has: Has| { has.extend(shared.clone()); has };
        let (cloud, edge) = (with_shared(cloud), with_shared(edge));
        let (mut found, ..) = compare(tree(salt, &cloud), &tree(salt, &edge));
        found.sort();
        prop_assert_eq!(found, different(&cloud, &edge));
    }

    #[test]
    fn the_price_is_that_of_the_differences(
        n in 1_usize..12_000, changed in prop::collection::btree_set(any::<u16>(), 0..60), salt in any::<u64>(),
    ) {
        let cloud: Has = (0..u16::try_from(n).unwrap()).map(|key| (key, 7)).collect();
        let mut edge = cloud.clone();
        for at in &changed {
            let key = at % u16::try_from(n).unwrap();
            match at % 3 {
                0 => drop(edge.remove(&key)),
                1 => drop(edge.insert(key, 8)),
                _ => drop(edge.insert(20_000 + key, 7)),
            }
        }
        let k = different(&cloud, &edge).len();
        let (found, rounds, bytes) = compare(tree(salt, &cloud), &tree(salt, &edge));
        prop_assert_eq!(found.len(), k);
        // The documentation's formula; a level more than the average has is rarely needed.
        let levels = (n as f64 / 4.0).max(1.0).log(16.0).ceil() as usize + 1;
        prop_assert!(bytes <= 100 + k * (160 * levels + 5 * 90) + 160, "{bytes} bytes for {k} of {n}");
        prop_assert!(rounds <= levels + 4, "{rounds} rounds for {k} of {n}");
    }

    #[test]
    fn no_answers_make_an_asker_panic_or_ask_for_ever(
        answers in prop::collection::vec(prop::collection::vec(("[0-9a-f]{0,13}", "[0-9a-g]{0,3}|[0-9a-f]{128}", 0..3_usize), 0..4), 0..50),
    ) {
        let has: Has = (0..500).map(|key| (key, 1)).collect();
        let mut asker = Asker::new(tree(5, &has));
        for nodes in answers {
            let nodes: Vec<_> = nodes.into_iter().map(|(at, below, entries)| {
                let has: Vec<_> = (0..entries).map(|n| (uuid_of(n as u64), 1_u64, "a/pod/b")).collect();
                serde_json::json!({"at": at, "below": below, "has": has})
            }).collect();
            let Ok(reply) = serde_json::from_value(serde_json::json!({"salt": 5, "nodes": nodes})) else { continue };
            match asker.take(reply) {
                Ok(Step::Ask(asks)) => prop_assert!(asks.of.len() <= BATCH),
                Ok(Step::Done) | Err(_) => break,
            }
        }
        prop_assert!(asker.found().len() <= 600);
    }
}

#[test]
fn sides_that_agree_say_so_in_a_few_bytes() {
    let has: Has = (0..10_000).map(|key| (key, u64::from(key) + 1)).collect();
    let (found, rounds, bytes) = compare(tree(u64::MAX, &has), &tree(u64::MAX, &has));
    assert_eq!((found.len(), rounds), (0, 1));
    assert!(bytes <= 100, "{bytes}");
}

#[test]
fn one_difference_among_ten_thousand_costs_a_kilobyte_at_most_and_a_hundred_half_of_that_each() {
    let cloud: Has = (0..10_000).map(|key| (key, 7)).collect();
    for (k, most) in [(1_u16, 1_000), (10, 800), (100, 500)] {
        let mut edge = cloud.clone();
        edge.extend((0..k).map(|n| (n * 97, 8)));
        let (found, rounds, bytes) = compare(tree(3, &cloud), &tree(3, &edge));
        assert_eq!(found.len(), usize::from(k));
        assert!(bytes / usize::from(k) <= most && rounds <= 6, "{bytes} bytes, {rounds} rounds for {k}");
    }
}

#[test]
fn an_edge_that_has_nothing_is_believed_after_one_answer() {
    let cloud: Has = (0..10_000).map(|key| (key, 7)).collect();
    let (found, rounds, bytes) = compare(tree(3, &cloud), &tree(3, &Has::new()));
    assert_eq!((found.len(), rounds), (10_000, 1));
    assert!(bytes <= 200, "{bytes}");
}

#[test]
fn an_answer_to_another_comparison_or_to_no_question_is_refused() {
    let has: Has = (0..100).map(|key| (key, 7)).collect();
    let mut asker = Asker::new(tree(3, &has));
    let edge = tree(4, &Has::new());
    assert_eq!(asker.take(edge.first_answer(0)), Err(Nonsense::Another));
    let unasked = tree(3, &Has::new()).answer(&Asks { of: vec!["ab".parse().unwrap()] });
    assert_eq!(asker.take(unasked), Err(Nonsense::NoProgress));
    assert!(asker.found().is_empty());
}

#[test]
fn entries_that_are_not_of_the_subtree_that_was_asked_for_are_passed_over() {
    let mut asker = Asker::new(tree(3, &(0..100).map(|key| (key, 7)).collect()));
    let edge = tree(3, &(0..100).map(|key| (key, 8)).collect());
    let Step::Ask(asks) = asker.take(edge.first_answer(0)).unwrap() else { panic!("nothing is asked") };
    let one = asks.of[0];
    let all = (0..100).map(|key| (uuid_of(key), 9, String::new())).collect();
    asker.take(Reply { salt: 3, nodes: vec![Node { at: one, below: String::new(), has: all }] }).unwrap();
    let found = asker.found();
    assert!(!found.is_empty() && found.len() < 20, "{found:?}");
}
