use proptest::prelude::*;

use super::*;

fn offering() -> Arc<dyn Codec> {
    let claims = vec![(CLAIM.to_lowercase(), "other/9, compact/1".to_owned())];
    Adaptive::default().for_link(&Peer::default().with_claims(claims)).unwrap()
}

fn link() -> Arc<dyn Codec> {
    Adaptive::default().for_link(&Peer::default()).unwrap()
}

fn ping() -> Message {
    Message::new(ModuleName::EDGE_HUB, Operation::KEEPALIVE, "node")
        .in_group(Group::RESOURCE)
        .with(Content::text("ping"))
}

#[test]
fn a_peer_that_offers_nothing_gets_gos_json() {
    let ping = ping();
    assert_eq!(link().encode(&ping).unwrap(), GoJson.encode(&ping).unwrap());
}

#[test]
fn an_edge_speaks_the_compact_form_once_its_cloud_has() {
    let (edge, cloud) = (link(), offering());
    let before = edge.encode(&ping()).unwrap();
    assert!(before.text, "the first word is for any cloud");
    assert_eq!(cloud.decode(before).unwrap().content, Content::text("ping"));
    let answer = cloud.encode(&ping()).unwrap();
    assert!(!answer.text && answer.payload.first() == Some(&MAGIC));
    edge.decode(answer).unwrap();
    assert!(!edge.encode(&ping()).unwrap().text);
}

#[test]
fn a_keepalive_takes_a_third_of_what_go_writes() {
    let ping = ping();
    let (go, ours) =
        (GoJson.encode(&ping).unwrap().payload.len(), offering().encode(&ping).unwrap().payload.len());
    assert!(ours * 3 <= go, "{ours} of {go}");
}

#[test]
fn names_that_peers_rely_on_keep_their_places() {
    assert_eq!((NAMES[1], NAMES[22], NAMES[32], NAMES[51]), ("websocket", "resource", "response", "null"));
    let mut sorted = NAMES.to_vec();
    sorted.sort_unstable();
    sorted.dedup();
    assert_eq!(sorted.len(), NAMES.len());
}

#[test]
fn what_is_wrong_with_a_frame_is_said() {
    let whole = offering().encode(&ping()).unwrap().payload;
    let with = |change: &dyn Fn(&mut Vec<u8>)| {
        let mut bytes = whole.to_vec();
        change(&mut bytes);
        let error = decode(&bytes.into()).unwrap_err();
        kubeedge_core::failure::chain(&error)
    };
    assert!(with(&|bytes| bytes[1] = 9).contains("version 9"));
    assert!(with(&|bytes| bytes.push(0)).contains("1 bytes after"));
    assert!(with(&|bytes| bytes.truncate(9)).contains("reading a compact message"));
    let content = |bytes: &mut Vec<u8>| *bytes.last_mut().unwrap() = b'{';
    assert!(with(&content).contains("JSON document"));
}

#[test]
fn a_declared_length_of_gigabytes_is_refused_before_anything_is_allocated() {
    // A text id of 2^62 bytes.
    let mut bytes = vec![MAGIC, VERSION, 1, 253];
    bytes.extend((1_u64 << 62).to_le_bytes());
    decode(&bytes.into()).unwrap_err();
}

fn text() -> impl Strategy<Value = String> {
    prop_oneof![
        Just(String::new()),
        "[a-z0-9+.-]{1,12}",
        ".{0,20}",
        Just("00".to_owned()),
        Just("18446744073709551616".to_owned())
    ]
}

fn message() -> impl Strategy<Value = Message> {
    let id = prop_oneof![
        any::<u128>().prop_map(|id| Uuid::from_u128(id).to_string()),
        any::<u128>().prop_map(|id| Uuid::from_u128(id).simple().to_string()),
        text(),
    ];
    let name = prop_oneof![proptest::sample::select(NAMES.to_vec()).prop_map(str::to_owned), text()];
    let header = (id.clone(), proptest::option::of(id), any::<i64>(), proptest::option::of(text()), text());
    let content = prop_oneof![Just(Content::empty()), text().prop_map(|text| Content::text(&text))];
    (header, (name.clone(), text(), name.clone(), name, text()), content).prop_map(
        |(header, route, content)| {
            let (id, parent, timestamp, version, kind) = header;
            let (source, destination, group, operation, resource) = route;
            let mut header = Header::new(id.into(), Millis(timestamp));
            // In a message empty texts are none.
            header.parent = parent.filter(|parent| !parent.is_empty()).map(Into::into);
            header.resource_version = version.filter(|version| !version.is_empty()).map(Into::into);
            header.kind = kind;
            let mut route = Route::default();
            (route.source, route.destination) = (source.into(), destination);
            (route.group, route.operation) = (group.into(), operation.into());
            route.resource = resource.into();
            Message::from_parts(header, route, content)
        },
    )
}

proptest! {
    #[test]
    fn every_message_comes_out_as_it_went_in(message in message()) {
        prop_assert_eq!(decode(&offering().encode(&message).unwrap().payload).unwrap(), message);
    }

    #[test]
    fn no_bytes_make_the_decoder_panic(mut bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
        bytes.splice(0..0, [MAGIC, VERSION]);
        let _ = decode(&bytes.into());
    }
}
