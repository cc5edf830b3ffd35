//! Lists and counts.

use serde_json::{Value, json};
use uuid::Uuid;

use crate::ring::{Answer, Api, Mood};
use gateway::engine_task::Unserved;

/// Creates users; of each ten one is in group 7, and two share an address but for its case.
async fn create(api: &Api, count: u128) -> Vec<String> {
    let mut ids = Vec::new();
    for number in 0..count {
        let id = Uuid::from_u128(number.wrapping_mul(0x2360_ed05_1fc6_5da4_4385_df64_9fcc_f645)).to_string();
        let (name, group) = (format!("n{number}"), if number % 10 == 0 { 7 } else { 0 });
        let email = format!("{}+{}@example.org", if number % 2 == 0 { "Ada" } else { "ada" }, number / 2);
        let user = json!({"id": id, "name": name, "email": email, "group": group});
        assert_eq!(api.json("POST", "/api/user", user.to_string()).await.status, 201);
        ids.push(id);
    }
    ids.sort();
    ids
}

fn ids(page: &Answer) -> Vec<String> {
    assert_eq!((page.status.as_u16(), page.header("content-type")), (200, "application/json"), "{page:?}");
    let items = page.json()["items"].as_array().expect("items").clone();
    items.iter().map(|user| user["id"].as_str().expect("an id").to_owned()).collect()
}

/// The path that the `Link` header names.
fn next(page: &Answer) -> Option<String> {
    let link = page.header("link");
    let path = link.strip_prefix('<').and_then(|link| link.strip_suffix(">; rel=\"next\""));
    assert_eq!(path.is_some(), page.json()["next_cursor"].is_string(), "both say whether there is more");
    path.map(str::to_owned)
}

/// Follows the links to the end.
async fn walk(api: &Api, path: &str) -> Vec<Vec<String>> {
    let mut pages = Vec::new();
    let mut path = Some(path.to_owned());
    while let Some(current) = path {
        let page = api.bare("GET", &current).await;
        pages.push(ids(&page));
        path = next(&page);
    }
    pages
}

#[tokio::test]
async fn the_pages_of_a_list_are_all_users_in_id_order() {
    let api = Api::new();
    let all = create(&api, 250).await;
    let pages = walk(&api, "/api/user?limit=100").await;
    assert_eq!(pages.iter().map(Vec::len).collect::<Vec<_>>(), [100, 100, 50]);
    assert_eq!(pages.concat(), all);
    assert_eq!(walk(&api, "/api/user/?").await.len(), 3, "a hundred is the default");
    assert_eq!(walk(&api, "/api/user?limit=1000").await.concat(), all);
    assert_eq!(walk(&api, "/api/user?limit=250").await.len(), 1, "no empty page at the end");
    let one = walk(&api, "/api/user?limit=1").await;
    assert!(one.len() == 250 && one.concat() == all);

    let user = api.bare("GET", &format!("/api/user/{}", all[0])).await;
    let first = api.bare("GET", "/api/user?limit=1").await;
    let cursor = first.json()["next_cursor"].clone();
    let expected = format!(
        "{{\"items\":[{}],\"next_cursor\":{cursor}}}",
        std::str::from_utf8(&user.body).expect("UTF-8")
    );
    assert_eq!(std::str::from_utf8(&first.body).expect("UTF-8"), expected, "the same documents");
}

#[tokio::test]
async fn an_empty_cursor_or_email_is_none() {
    let api = Api::new();
    let all = create(&api, 5).await;
    for path in ["/api/user?cursor=", "/api/user?email=", "/api/user?email=&cursor&limit=9"] {
        assert_eq!(ids(&api.bare("GET", path).await), all, "{path}");
    }
    for path in ["/api/user?limit=", "/api/user?group=", "/api/user/count?group="] {
        api.bare("GET", path).await.problem(400, "malformed-query");
    }
}

#[tokio::test]
async fn an_empty_store_has_an_empty_page() {
    let api = Api::new();
    let page = api.bare("GET", "/api/user").await;
    assert_eq!(page.json(), json!({"items": [], "next_cursor": null}));
    assert_eq!(api.bare("GET", "/api/user/count/").await.json(), json!({"count": 0}));
}

#[tokio::test]
async fn filters_are_kept_from_page_to_page() {
    let api = Api::new();
    create(&api, 100).await;
    let pages = walk(&api, "/api/user?limit=4&group=7").await;
    assert_eq!(pages.iter().map(Vec::len).collect::<Vec<_>>(), [4, 4, 2]);
    let both = walk(&api, "/api/user?limit=1&email=ADA%2B5@EXAMPLE.org").await;
    assert_eq!(both.len(), 2, "an address is compared without regard to case");
    let one = walk(&api, "/api/user?group=7&email=ada+5@example.org").await;
    assert_eq!(one.concat().len(), 1, "a plus sign stands for itself");
    assert!(walk(&api, "/api/user?email=nobody@example.org").await.concat().is_empty());

    let cursor = api.bare("GET", "/api/user?limit=4&group=7").await.json()["next_cursor"].clone();
    let cursor = cursor.as_str().expect("there is more");
    let other = api.bare("GET", &format!("/api/user?group=0&cursor={cursor}")).await;
    let detail = other.problem(400, "malformed-query")["detail"].clone();
    assert!(detail.as_str().is_some_and(|detail| detail.contains("cursor")), "{detail}");
    let more = api.bare("GET", &format!("/api/user?limit=9&group=7&cursor={cursor}")).await;
    assert_eq!(ids(&more).len(), 6, "another limit is no other list");
}

#[tokio::test]
async fn a_count_is_exact_and_may_be_of_one_group() {
    let api = Api::new();
    let all = create(&api, 100).await;
    assert_eq!(api.bare("GET", "/api/user/count").await.json(), json!({"count": 100}));
    assert_eq!(api.bare("GET", "/api/user/count?group=7").await.json(), json!({"count": 10}));
    assert_eq!(api.bare("GET", "/api/user/count?group=-7").await.json(), json!({"count": 0}));
    api.bare("DELETE", &format!("/api/user/{}", all[3])).await;
    assert_eq!(api.bare("GET", "/api/user/count").await.json(), json!({"count": 99}));
    assert!(!walk(&api, "/api/user").await.concat().contains(&all[3]));
}

#[tokio::test]
async fn what_is_wrong_with_a_query_is_named() {
    let api = Api::new();
    for (path, named) in [
        ("/api/user?limit=0", "limit"),
        ("/api/user?limit=1001", "limit"),
        ("/api/user?limit=", "limit"),
        ("/api/user?limit=%2B5", "limit"),
        ("/api/user?limit=ten", "limit"),
        ("/api/user?limit=1&limit=1", "limit"),
        ("/api/user?group=1.5", "group"),
        ("/api/user?group=2147483648", "group"),
        ("/api/user?email=ada", "email"),
        ("/api/user?email=%FF", "email"),
        ("/api/user?cursor=abc", "cursor"),
        ("/api/user?sort=name", "sort"),
        ("/api/user/count?group=x", "group"),
        ("/api/user/count?limit=1", "limit"),
    ] {
        let detail = api.bare("GET", path).await.problem(400, "malformed-query")["detail"].clone();
        assert!(detail.as_str().is_some_and(|detail| detail.contains(named)), "{path}: {detail}");
    }
}

#[tokio::test]
async fn a_list_and_a_count_need_every_partition() {
    let api = Api::new();
    api.set(Mood::Failing(Unserved::Unavailable {
        partition: 1,
        waiting_for: "db-1 has to come back".to_owned(),
    }));
    for path in ["/api/user", "/api/user/count"] {
        let answer = api.bare("GET", path).await;
        assert_eq!(answer.problem(503, "partition-unavailable")["partition"], Value::from(1));
        assert_eq!(answer.header("retry-after"), "1");
    }
    let api = Api::impatient();
    api.set(Mood::Silent);
    for path in ["/api/user", "/api/user/count"] {
        api.bare("GET", path).await.problem(504, "no-answer");
    }
}
