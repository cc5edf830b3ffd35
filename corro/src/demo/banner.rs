//! What is printed once the ring is ready: where it is, and lines to paste.

use std::time::Duration;

use protocol::UserId;
use protocol::placement::{partition_of, replica_of};
use uuid::Uuid;

use super::children::Ring;

/// All of it. `command` is what the user has typed for this executable.
pub(crate) fn banner(ring: &Ring, took: Duration, command: &str) -> String {
    let Ring { layout, rest_port, size, .. } = ring;
    let user = format!("http://localhost:{rest_port}/api/user/");
    let place = 1 % size;
    let id = user_of(place, *size);
    let holders = match replica_of(place, *size) {
        Some(replica) => {
            format!("db-{place} and db-{replica} hold this user, and the drill is with db-{place}")
        }
        None => "a ring of one keeps no second copy: while its process is away, its users are".to_owned(),
    };
    let json = "-H 'content-type: application/json' -d";
    format!(
        r#"
The ring is ready after {took:.2} s: a gateway and {size} db-process{es}, all of them on this machine.

  API    {user}
  ring   http://localhost:{rest_port}/   (a page; as JSON: /api/cluster)
  users  http://localhost:{rest_port}/users
  docs   http://localhost:{rest_port}/docs
  data   {data}   (kept; remove {folder} to start afresh)
  logs   {logs}

Calls, ready to paste ({holders}):

  curl -i {user} {json} '{{"id":"{id}","name":"Ada Lovelace","email":"ada@example.com","group":1}}'
  curl -i {user}{id}
  curl -i '{user}?limit=10'
  curl -i -X PUT {user} {json} '{{"id":"{id}","group":2}}'
  curl -i -X PATCH {user}{id} {json} '{{"name":"Ada King"}}'
  curl -i -X DELETE {user}{id}
  curl http://localhost:{rest_port}/api/cluster

The drill, from a second terminal in this folder:

  {command} demo kill db-{place}       # as kill -9 does; ask for the user again
  {command} demo restart db-{place}
  {command} demo status

Ctrl-C stops all of it.
"#,
        took = took.as_secs_f64(),
        es = if *size == 1 { "" } else { "es" },
        data = layout.data.display(),
        folder = layout.folder.display(),
        logs = layout.logs.display(),
    )
}

/// A fixed id of a user whose primary copy is at that place.
fn user_of(place: u16, size: u16) -> UserId {
    const FIRST: u128 = 0x0192_4000_0000_7000_8000_0000_0000_0001;
    (FIRST..)
        .map(Uuid::from_u128)
        .find(|id| partition_of(id, size) == place)
        .expect("every partition of a ring has users")
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::super::layout::Layout;
    use super::*;

    fn shown(size: u16) -> String {
        let layout = Layout::of(Path::new(".corro"));
        let ring = Ring { layout, rest_port: 4001, socket_port: 4002, size };
        banner(&ring, Duration::from_millis(1234), "target/release/corro")
    }

    #[test]
    fn has_a_line_for_each_call_and_for_the_drill() {
        let banner = shown(3);
        let id = user_of(1, 3);
        for line in [
            "ready after 1.23 s: a gateway and 3 db-processes,".to_owned(),
            "curl -i http://localhost:4001/api/user/ -H 'content-type: application/json' -d '{\"id\":\""
                .to_owned(),
            format!("curl -i http://localhost:4001/api/user/{id}\n"),
            "curl -i -X PUT http://localhost:4001/api/user/ ".to_owned(),
            format!("curl -i -X PATCH http://localhost:4001/api/user/{id} "),
            format!("curl -i -X DELETE http://localhost:4001/api/user/{id}\n"),
            "curl http://localhost:4001/api/cluster\n".to_owned(),
            "target/release/corro demo kill db-1 ".to_owned(),
            "target/release/corro demo restart db-1\n".to_owned(),
            "db-1 and db-2 hold this user".to_owned(),
        ] {
            assert!(banner.contains(&line), "{line} is missing in {banner}");
        }
        assert!(!banner.contains("sesame"));
    }

    #[test]
    fn suits_a_ring_of_one() {
        let banner = shown(1);
        assert!(
            banner.contains("1 db-process,")
                && banner.contains("kill db-0")
                && banner.contains("no second copy")
        );
    }

    #[test]
    fn the_user_of_the_drill_is_where_the_banner_says() {
        for size in 1..=9 {
            for place in 0..size {
                assert_eq!(partition_of(&user_of(place, size), size), place);
            }
        }
    }
}
