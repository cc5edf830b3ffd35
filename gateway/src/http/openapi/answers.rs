//! What goes well.

use std::collections::BTreeMap;

use serde_json::json;
use utoipa::IntoResponses;
use utoipa::openapi::content::ContentBuilder;
use utoipa::openapi::header::{Header, HeaderBuilder};
use utoipa::openapi::link::LinkBuilder;
use utoipa::openapi::response::{Response, ResponseBuilder};
use utoipa::openapi::{Ref, RefOr};

use super::schemas;

/// 200 or 304, with the user.
pub(in crate::http) struct TheUser;

/// 201, with the user and where it is.
pub(in crate::http) struct Created;

/// 200, with a page of users.
pub(in crate::http) struct APage;

/// 204.
pub(in crate::http) struct Deleted;

/// 200, a stream of lines.
pub(in crate::http) struct Lines;

/// 200, a stream of events.
pub(in crate::http) struct Events;

/// 200, plain text.
pub(in crate::http) struct Text;

type Responses = BTreeMap<String, RefOr<Response>>;

fn only(status: &str, response: ResponseBuilder) -> Responses {
    BTreeMap::from([(status.to_owned(), response.into())])
}

fn header(description: &str, pattern: &str, example: &str) -> Header {
    HeaderBuilder::new()
        .schema(Some(schemas::pattern(pattern)))
        .description(Some(description))
        .example(Some(json!(example)))
        .build()
}

pub(super) fn etag() -> Header {
    header("The version of the user.", "^\"[0-9a-f]{16}\"$", "\"0190a5b27c3d0000\"")
}

fn user() -> ContentBuilder {
    ContentBuilder::new()
        .schema(Some(RefOr::Ref(Ref::from_schema_name("User"))))
        .example(Some(schemas::example_user()))
}

impl IntoResponses for TheUser {
    fn responses() -> Responses {
        let response = ResponseBuilder::new()
            .description("The user.")
            .header("ETag", etag())
            .content("application/json", user().build());
        only("200", response)
    }
}

impl IntoResponses for Created {
    fn responses() -> Responses {
        let location = header(
            "Where the user is.",
            "^/api/user/[0-9a-f-]{36}$",
            "/api/user/0190a5b2-7c3d-7e4f-8a1b-2c3d4e5f6071",
        );
        let mut response = ResponseBuilder::new()
            .description("The user is created, and on disk.")
            .header("ETag", etag())
            .header("Location", location)
            .content("application/json", user().build());
        for (name, operation) in
            [("read", "getUser"), ("update", "updateUser"), ("patch", "patchUser"), ("delete", "deleteUser")]
        {
            let link = LinkBuilder::new().operation_id(operation).parameter("id", "$response.body#/id");
            response = response.link(name, link.build());
        }
        let named_in_body = LinkBuilder::new()
            .operation_id("updateUserNamedInBody")
            .request_body(Some(json!({"id": "$response.body#/id", "group": 2})));
        only("201", response.link("update_named_in_body", named_in_body.build()))
    }
}

impl IntoResponses for APage {
    fn responses() -> Responses {
        let content = ContentBuilder::new().schema(Some(RefOr::Ref(Ref::from_schema_name("UserPage"))));
        let link = HeaderBuilder::new()
            .schema(Some(schemas::any_text()))
            .description(Some("The next page, `rel=\"next\"`; absent on the last one."))
            .build();
        let response = ResponseBuilder::new()
            .description("A page of users.")
            .header("Link", link)
            .content("application/json", content.build());
        let next =
            LinkBuilder::new().operation_id("listUsers").parameter("cursor", "$response.body#/next_cursor");
        let first = LinkBuilder::new().operation_id("getUser").parameter("id", "$response.body#/items/0/id");
        only("200", response.link("next", next.build()).link("read", first.build()))
    }
}

impl IntoResponses for Deleted {
    fn responses() -> Responses {
        only("204", ResponseBuilder::new().description("The user is deleted."))
    }
}

impl IntoResponses for Lines {
    fn responses() -> Responses {
        let content = ContentBuilder::new().schema(Some(schemas::any_text())).build();
        let response = ResponseBuilder::new().description("A result for each line.");
        only("200", response.content("application/x-ndjson", content))
    }
}

impl IntoResponses for Events {
    fn responses() -> Responses {
        let content = ContentBuilder::new().schema(Some(schemas::any_text())).build();
        let response =
            ResponseBuilder::new().description("Events, as they happen. It does not end by itself.");
        only("200", response.content("text/event-stream", content))
    }
}

impl IntoResponses for Text {
    fn responses() -> Responses {
        let content = ContentBuilder::new().schema(Some(schemas::any_text())).build();
        only("200", ResponseBuilder::new().description("The figures.").content("text/plain", content))
    }
}
