//! Bodies: what a user looks like in each place, and what a problem looks like.

use serde_json::{Value, json};
use utoipa::openapi::schema::{
    AdditionalProperties, ArrayBuilder, KnownFormat, ObjectBuilder, Schema, SchemaFormat, SchemaType, Type,
};
use utoipa::openapi::{Object, Ref, RefOr};
use utoipa::{PartialSchema, ToSchema};

/// Names a schema.
macro_rules! schemas {
    ($($(#[$doc:meta])* $name:ident: $schema:expr;)+) => {$(
        $(#[$doc])*
        pub(in crate::http) struct $name;

        impl PartialSchema for $name {
            fn schema() -> RefOr<Schema> {
                $schema.into()
            }
        }

        impl ToSchema for $name {}
    )+};
}

schemas! {
    /// A user as it is answered.
    User: fields("A user.", &["id", "name", "email", "group"]).examples([example_user()]);
    /// The body of a POST.
    NewUser: fields("A user to create. Without an `id` one is made, a UUIDv7; without a `group` it is 0.",
        &["name", "email"])
        .examples([json!({"name": "Ada Lovelace", "email": "ada@example.org", "group": 1})]);
    /// The body of a PUT that names the user itself.
    Put: fields("The fields given are set, the others stay as they are.", &["id"])
        .examples([json!({"id": "0190a5b2-7c3d-7e4f-8a1b-2c3d4e5f6071", "group": 2})]);
    /// The body of a PUT or a PATCH whose path names the user.
    Patch: without_id("The fields given are set, the others stay as they are. An `id` is allowed if it is \
                       that of the path.")
        .examples([json!({"name": "Ada King"})]);
    /// A page of a list.
    UserPage: ObjectBuilder::new()
        .description(Some("Users in the order of their ids."))
        .property("items", ArrayBuilder::new().items(Ref::from_schema_name("User")))
        .property("next_cursor", ObjectBuilder::new()
            .schema_type(SchemaType::from_iter([Type::String, Type::Null]))
            .description(Some("For the next page; null where there is none.")))
        .required("items")
        .required("next_cursor");
    /// A number of users.
    UserCount: ObjectBuilder::new()
        .property("count", ObjectBuilder::new().schema_type(Type::Integer).minimum(Some(0)))
        .required("count");
    /// What an error says.
    Problem: problem();
    /// What a health route says when all is well.
    Health: ObjectBuilder::new()
        .description(Some("All is well."))
        .property("status", ObjectBuilder::new()
            .schema_type(Type::String)
            .enum_values(Some(["live", "ready"])))
        .required("status");
}

pub(super) fn example_user() -> Value {
    json!({
        "id": "0190a5b2-7c3d-7e4f-8a1b-2c3d4e5f6071",
        "name": "Ada Lovelace",
        "email": "ada@example.org",
        "group": 1,
    })
}

/// A mailbox of RFC 5321: a dot-string or a quoted string, and a domain or an address literal. The least that
/// all of them have in common, and so that nothing which this describes is refused, the common form alone.
const EMAIL: &str = "^[A-Za-z0-9_+-]{1,30}(\\.[A-Za-z0-9_+-]{1,30})?@[A-Za-z0-9]{1,30}(-[A-Za-z0-9]{1,30})?(\\.[A-Za-z0-9]{1,30}){0,3}$";

pub(super) fn uuid() -> ObjectBuilder {
    ObjectBuilder::new().schema_type(Type::String).format(Some(SchemaFormat::Custom("uuid".to_owned())))
}

pub(super) fn any_text() -> Object {
    ObjectBuilder::new().schema_type(Type::String).build()
}

/// Whether or not.
pub(super) fn yes_or_no() -> Object {
    ObjectBuilder::new().schema_type(Type::Boolean).build()
}

pub(in crate::http) fn text(shortest: usize, longest: usize) -> Object {
    ObjectBuilder::new()
        .schema_type(Type::String)
        .min_length(Some(shortest))
        .max_length(Some(longest))
        .build()
}

pub(super) fn pattern(pattern: &str) -> Object {
    ObjectBuilder::new().schema_type(Type::String).pattern(Some(pattern)).build()
}

pub(super) fn email() -> ObjectBuilder {
    ObjectBuilder::new()
        .schema_type(Type::String)
        .min_length(Some(3))
        .max_length(Some(254))
        .pattern(Some(EMAIL))
}

fn without_id(description: &str) -> ObjectBuilder {
    fields(description, &[])
}

/// An object with the fields of a user, and no others.
fn fields(description: &str, required: &[&str]) -> ObjectBuilder {
    let name = ObjectBuilder::new()
        .schema_type(Type::String)
        .min_length(Some(1))
        .max_length(Some(256))
        .pattern(Some("^[^\\u0000-\\u001f\\u007f-\\u009f]+$"))
        .description(Some("Counted in characters, and kept, in normal form C. No control characters."));
    let email = email().description(Some(
        "An address by RFC 5321; the pattern shows its common form, and others are taken too.",
    ));
    let group = ObjectBuilder::new()
        .schema_type(Type::Integer)
        .format(Some(SchemaFormat::KnownFormat(KnownFormat::Int32)))
        .minimum(Some(i32::MIN))
        .maximum(Some(i32::MAX))
        .description(Some("Without fraction or exponent."));
    let object = ObjectBuilder::new()
        .description(Some(description))
        .property("id", uuid())
        .property("name", name)
        .property("email", email)
        .property("group", group)
        .additional_properties(Some(AdditionalProperties::FreeForm(false)));
    required.iter().fold(object, |object, field| object.required(*field))
}

fn problem() -> ObjectBuilder {
    let text =
        |description: &str| ObjectBuilder::new().schema_type(Type::String).description(Some(description));
    let error = ObjectBuilder::new()
        .property("pointer", text("JSON Pointer to the field; empty for the whole body."))
        .property("detail", text("What is wrong with it."))
        .required("pointer")
        .required("detail");
    ObjectBuilder::new()
        .description(Some("What went wrong (RFC 9457)."))
        .property("type", text("Stable: programs branch on it. `urn:corro:problem:` and a name."))
        .property("title", text("The kind of problem."))
        .property(
            "status",
            ObjectBuilder::new().schema_type(Type::Integer).minimum(Some(400)).maximum(Some(599)),
        )
        .property("detail", text("What happened this time."))
        .property("instance", text("The request id."))
        .property("partition", ObjectBuilder::new().schema_type(Type::Integer).minimum(Some(0)))
        .property("errors", ArrayBuilder::new().items(error))
        .required("type")
        .required("title")
        .required("status")
        .required("detail")
        .required("instance")
}
