//! Comparing the copies.

use gateway::engine_task::Unserved;
use serde_json::json;

use crate::ring::{Api, Mood};

#[tokio::test]
async fn a_check_says_of_every_partition_what_its_copies_are() {
    let api = Api::new();
    for path in ["/api/cluster/check", "/api/cluster/check/?scan=false", "/api/cluster/check?scan=true"] {
        let check = api.bare("GET", path).await.json();
        assert_eq!(check["equal"], json!(true), "{path}: {check}");
        assert_eq!(check["partitions"].as_array().map(Vec::len), Some(3));
        let replica = json!({"role": "replica", "process": "db-0", "users": 0, "records": 0, "damage": []});
        assert_eq!(check["partitions"][2]["copies"][1], replica);
    }
    let detail = api.bare("GET", "/api/cluster/check?scan=yes").await.problem(400, "malformed-query");
    assert!(detail["detail"].as_str().is_some_and(|detail| detail.contains("scan")), "{detail}");
}

#[tokio::test]
async fn what_cannot_be_compared_is_neither_equal_nor_different() {
    let api = Api::new();
    let waiting_for = "db-1 has to come back".to_owned();
    api.set(Mood::Failing(Unserved::Unavailable { partition: 1, waiting_for }));
    let check = api.bare("GET", "/api/cluster/check").await.json();
    assert_eq!((&check["equal"], &check["partitions"][0]["verdict"]), (&json!(false), &json!("unknown")));
    let why = check["partitions"][0]["why"].as_str().expect("a reason");
    assert!(why.contains("db-1 has to come back"), "{why}");
    let refused = api.bare("POST", "/api/cluster/repair/0").await.problem(409, "not-repairable");
    assert_eq!(refused["partition"], json!(0));
}

#[tokio::test]
async fn what_is_sound_needs_no_repair() {
    let api = Api::new();
    let answer = api.bare("POST", "/api/cluster/repair/2").await;
    assert_eq!((answer.status.as_u16(), answer.json()), (200, json!({"partition": 2, "begun": "nothing"})));
    for path in ["/api/cluster/repair/3", "/api/cluster/repair/x", "/api/cluster/repair/65536"] {
        api.bare("POST", path).await.problem(404, "partition-not-found");
    }
}
