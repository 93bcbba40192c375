use std::{future::poll_fn, pin::pin};

use http::{Request, Response};
use kubeedge_core::cluster::{Actor, Body, ClusterApi, ClusterError, KubeService};

use super::*;

#[test]
fn a_record_is_named_after_node_and_uid_and_stands_in_the_objects_namespace() {
    let record = Record::new(&"edge.one".into(), "default", "u-1");
    assert_eq!(&*record.name, "edge.one.u-1");
    assert_eq!(split_name(&record.name), Some(("edge.one".into(), "u-1")));
    assert_eq!(
        record.path(&[&record.name]),
        "/apis/reliablesyncs.kubeedge.io/v1alpha1/namespaces/default/objectsyncs/edge.one.u-1"
    );
    let record = Record::new(&"n".into(), "null", "u");
    assert_eq!(record.path(&[]), "/apis/reliablesyncs.kubeedge.io/v1alpha1/clusterobjectsyncs");
}

/// A cluster that never answers.
#[derive(Debug)]
struct Silent;

impl ClusterApi for Silent {
    fn service(&self, _acting_as: &Actor) -> KubeService {
        KubeService::new(tower::service_fn(|_: Request<Body>| {
            std::future::pending::<Result<Response<Body>, ClusterError>>()
        }))
    }
}

#[tokio::test(start_paused = true)]
async fn while_the_api_server_hangs_confirmations_wait_without_using_the_processor() {
    let clients = Arc::new(Clients::new(Arc::new(Silent)));
    let records = Records::new(clients.clone(), &Informers::new(clients.kube().clone()));
    let record = |uid: &str| Arc::new(Record::new(&"n".into(), "default", uid));
    let confirm = |record: &Arc<Record>, version: &str| {
        records.confirm(record, Confirmed::At(version.into()), Instant::now());
    };
    // One has been saved and rests; its rest ends while as many as may be are being saved.
    let rests = record("rests");
    confirm(&rests, "1");
    records.confirmed.done(&records.confirmed.take().unwrap().0);
    confirm(&rests, "2");
    (0..SAVING + 1).for_each(|uid| confirm(&record(&uid.to_string()), "1"));
    let (mut turns, mut saving) = (0, pin!(records.save_confirmed()));
    let counted = poll_fn(|cx| {
        turns += 1;
        assert!(turns < 1000, "it is looked for work again and again");
        saving.as_mut().poll(cx)
    });
    assert!(tokio::time::timeout(Duration::from_secs(60), counted).await.is_err());
}

/// A cluster that takes everything, and counts the objects that are made.
#[derive(Clone, Debug, Default)]
struct Taking(Arc<std::sync::atomic::AtomicUsize>);

impl Taking {
    fn made(&self) -> usize {
        self.0.load(std::sync::atomic::Ordering::Relaxed)
    }
}

impl ClusterApi for Taking {
    fn service(&self, _acting_as: &Actor) -> KubeService {
        let made = self.0.clone();
        KubeService::new(tower::service_fn(move |request: Request<Body>| {
            if request.method() == http::Method::POST {
                made.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
            }
            let object = http_body_util::Full::from(r#"{"metadata":{"resourceVersion":"1"}}"#);
            let body = http_body_util::BodyExt::map_err(object, |never| match never {});
            let body = http_body_util::BodyExt::boxed_unsync(body);
            std::future::ready(Ok::<_, ClusterError>(Response::new(body)))
        }))
    }
}

/// How often a record is made that the cache never shows, if the edge confirms the deletion in time or not.
async fn made(is_removed: bool) -> usize {
    let cluster = Taking::default();
    let clients = Arc::new(Clients::new(Arc::new(cluster.clone())));
    let records = Records::new(clients.clone(), &Informers::new(clients.kube().clone()));
    let record = Arc::new(Record::new(&"n".into(), "default", "u"));
    records.ensure_later(record.clone());
    let user = async {
        while cluster.made() == 0 {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
        if is_removed {
            records.remove(&record).await.unwrap();
        }
        tokio::time::sleep(Duration::from_secs(60)).await;
    };
    tokio::select! {
        () = records.make_remembered() => {}
        () = user => {}
    }
    cluster.made()
}

#[tokio::test(start_paused = true)]
async fn a_record_that_was_removed_is_not_made_again() {
    assert_eq!(made(true).await, 1);
    assert_eq!(made(false).await, 1 + AGAIN);
}
