//! What is printed once the ring is ready: where it is, and lines to paste.

use std::time::Duration;

use protocol::UserId;
use protocol::placement::{partition_of, replica_of};
use uuid::Uuid;

use super::DEFAULT_FOLDER;
use super::children::Ring;

/// All of it. `command` is what the user has typed for this executable.
pub(crate) fn banner(ring: &Ring, took: Duration, command: &str) -> String {
    let Ring { layout, rest_port, size, token, .. } = ring;
    let user = format!("http://localhost:{rest_port}/api/user/");
    let place = 1 % size;
    let id = user_of(place, *size);
    let holders = match replica_of(place, *size) {
        Some(replica) => {
            format!("db-{place} and db-{replica} hold this user, and the drill is with db-{place}")
        }
        None => "a ring of one keeps no second copy: while its process is away, its users are".to_owned(),
    };
    let auth = quoted(&format!("@{}", layout.header.display()));
    let json = "-H 'content-type: application/json' -d";
    // Where it is needed: the orders look into `.corro` of the folder that they are given in.
    let in_folder = match layout.folder.to_string_lossy() {
        default if default == DEFAULT_FOLDER => String::new(),
        folder => format!(" --folder {}", quoted(&folder)),
    };
    format!(
        r#"
The ring is ready after {took:.2} s: a gateway and {size} db-process{es}, all of them on this machine.

  API    {user}
  ring   http://localhost:{rest_port}/#token={token}
  users  http://localhost:{rest_port}/users#token={token}
  docs   http://localhost:{rest_port}/docs
  data   {data}   (kept; remove {folder} to start afresh)
  logs   {logs}
  token  {token_file}   (every call needs it; the links above have it)

Calls, ready to paste ({holders}):

  curl -H {auth} -i {user} {json} '{{"id":"{id}","name":"Ada Lovelace","email":"ada@example.com","group":1}}'
  curl -H {auth} -i {user}{id}
  curl -H {auth} -i '{user}?limit=10'
  curl -H {auth} -i -X PUT {user} {json} '{{"id":"{id}","group":2}}'
  curl -H {auth} -i -X PATCH {user}{id} {json} '{{"name":"Ada King"}}'
  curl -H {auth} -i -X DELETE {user}{id}
  curl -H {auth} http://localhost:{rest_port}/api/cluster

The drill, from a second terminal in this folder:

  {command} demo kill db-{place}{in_folder}       # as kill -9 does; ask for the user again
  {command} demo restart db-{place}{in_folder}
  {command} demo status{in_folder}

Ctrl-C stops all of it.
"#,
        took = took.as_secs_f64(),
        es = if *size == 1 { "" } else { "es" },
        data = layout.data.display(),
        folder = layout.folder.display(),
        logs = layout.logs.display(),
        token_file = layout.token.display(),
    )
}

/// As a shell takes it.
fn quoted(text: &str) -> String {
    let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || b"/._-+@:,".contains(&byte);
    if !text.is_empty() && text.bytes().all(is_plain) {
        return text.to_owned();
    }
    format!("'{}'", text.replace('\'', r"'\''"))
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
        shown_in(".corro", size)
    }

    fn shown_in(folder: &str, size: u16) -> String {
        let layout = Layout::of(Path::new(folder));
        let ring = Ring { layout, rest_port: 4001, socket_port: 4002, size, token: "barley".to_owned() };
        banner(&ring, Duration::from_millis(1234), "target/release/corro")
    }

    #[test]
    fn has_a_line_for_each_call_and_for_the_drill() {
        let banner = shown(3);
        let id = user_of(1, 3);
        for line in [
            "ready after 1.23 s: a gateway and 3 db-processes,".to_owned(),
            "curl -H @.corro/auth -i http://localhost:4001/api/user/ -H 'content-type: application/json' \
             -d '{\"id\":\""
                .to_owned(),
            format!("curl -H @.corro/auth -i http://localhost:4001/api/user/{id}\n"),
            "curl -H @.corro/auth -i -X PUT http://localhost:4001/api/user/ ".to_owned(),
            format!("curl -H @.corro/auth -i -X PATCH http://localhost:4001/api/user/{id} "),
            format!("curl -H @.corro/auth -i -X DELETE http://localhost:4001/api/user/{id}\n"),
            "curl -H @.corro/auth http://localhost:4001/api/cluster\n".to_owned(),
            "target/release/corro demo kill db-1 ".to_owned(),
            "target/release/corro demo restart db-1\n".to_owned(),
            "db-1 and db-2 hold this user".to_owned(),
        ] {
            assert!(banner.contains(&line), "{line} is missing in {banner}");
        }
        assert!(!banner.contains("sesame"));
        assert!(banner.contains("http://localhost:4001/users#token=barley\n"), "{banner}");
    }

    #[test]
    fn orders_name_the_folder_where_it_is_another_one() {
        assert!(!shown(3).contains("--folder"));
        for (folder, named) in [("/srv/ring", "/srv/ring"), ("my ring's", r"'my ring'\''s'")] {
            let banner = shown_in(folder, 3);
            for order in ["kill db-1", "restart db-1", "status"] {
                let line = format!("target/release/corro demo {order} --folder {named}");
                assert!(banner.contains(&line), "{line} is missing in {banner}");
            }
        }
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
