//! The answers that have a user.

use serde_json::{Value, json};
use utoipa::{IntoResponses, ToSchema};

use super::schemas::User;

/// What can be done with a user that was created.
pub(crate) fn links() -> Value {
    let link = |operation| json!({"operationId": operation, "parameters": {"id": "$response.body#/id"}});
    json!({
        "read": link("getUser"),
        "update": link("updateUser"),
        "patch": link("patchUser"),
        "delete": link("deleteUser"),
        "update_named_in_body": {
            "operationId": "updateUserNamedInBody",
            "parameters": {},
            "requestBody": {"id": "$response.body#/id", "group": 2},
        },
    })
}

/// The user.
#[derive(IntoResponses)]
#[response(status = 200, headers(("ETag" = inline(ETag), description = "The version of the user.")))]
pub(crate) struct TheUser(User);

/// The user is created, and on disk.
#[derive(IntoResponses)]
#[response(
    status = 201,
    headers(
        ("ETag" = inline(ETag), description = "The version of the user."),
        ("Location" = inline(Location), description = "Where the user is."),
    )
)]
pub(crate) struct Created(User);

#[derive(ToSchema)]
#[schema(pattern = "^\"[0-9a-f]{16}\"$", example = "\"0190a5b27c3d0000\"")]
#[expect(dead_code, reason = "it stands for a header")]
struct ETag(String);

#[derive(ToSchema)]
#[schema(pattern = "^(/[A-Za-z0-9._~/-]+)?/api/user/[0-9a-f-]{36}$")]
#[schema(example = "/api/user/0190a5b2-7c3d-7e4f-8a1b-2c3d4e5f6071")]
#[expect(dead_code, reason = "it stands for a header")]
struct Location(String);
