//! From the bytes of a body to valid fields, or to everything that is wrong with them.
//!
//! A value stays raw until its name is known. So one pass finds everything that is unknown, repeated, of the
//! wrong type or not allowed (then 422 with all of it), and only what is no JSON at all is a 400.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::fmt;

use protocol::{Change, UserId};
use serde::Deserialize;
use serde::de::{Deserializer, MapAccess, Visitor};
use serde_json::value::RawValue;

use super::id::Id;
use super::rules;
use crate::http::kind::Kind;
use crate::http::problem::{InvalidField, Problem};

/// Some programs begin a text with it; it says nothing.
const BYTE_ORDER_MARK: &[u8] = b"\xef\xbb\xbf";

/// The fields of a new user, all set; the id where the caller chose one.
pub(crate) fn create(body: &[u8]) -> Result<(Option<UserId>, Change), Problem> {
    let mut fields = Fields::default();
    let mut object = Object::read(body, |name, value| fields.read(name, value))?;
    fields.settle_nulls(&mut object, true);
    object.require(&Fields::OF_NEW_USER);
    object.finish()?;
    Ok((fields.id.map(|id| id.0), fields.into_create()))
}

/// The fields of a new user whose id the caller has to choose: in the path or in the body, and where in both,
/// the same.
pub(crate) fn create_as(body: &[u8], in_path: Option<Id>) -> Result<(UserId, Change), Problem> {
    let (id, fields) = identified(body, in_path, true)?;
    Ok((id, fields.into_create()))
}

/// The fields to set of an existing user, whose id is in the path or in the body, and where in both, the
/// same.
pub(crate) fn update(body: &[u8], in_path: Option<Id>) -> Result<(UserId, Change), Problem> {
    let (id, fields) = identified(body, in_path, false)?;
    Ok((id, fields.into_update()))
}

fn identified(body: &[u8], in_path: Option<Id>, creates: bool) -> Result<(UserId, Fields), Problem> {
    let mut fields = Fields::default();
    let mut object = Object::read(body, |name, value| fields.read(name, value))?;
    fields.settle_nulls(&mut object, creates);
    if in_path.is_none() {
        object.require(&["id"]);
    } else if fields.id.is_some() && fields.id != in_path {
        object.add_error("id", "must agree with the id in the path");
    }
    if creates {
        object.require(&Fields::OF_NEW_USER);
    }
    object.finish()?;
    let id = in_path.or(fields.id).expect("without an id in the path, one in the body is required");
    Ok((id.0, fields))
}

/// The fields of a user as far as they were given and are valid, in their normal form.
#[derive(Debug, Default, PartialEq)]
pub(crate) struct Fields {
    pub(crate) id: Option<Id>,
    name: Option<String>,
    email: Option<String>,
    group: Option<i32>,
    /// Fields that may be left out, and were null.
    nulls: Vec<&'static str>,
}

impl Fields {
    /// What a new user has to have.
    pub(crate) const OF_NEW_USER: [&str; 2] = ["name", "email"];

    /// Takes a field, or says what is wrong with it; `None` where a user has no field of that name.
    pub(crate) fn read(&mut self, name: &str, value: &RawValue) -> Option<Result<(), &'static str>> {
        Some(match name {
            "id" | "group" if value.get() == "null" => {
                self.nulls.push(if name == "id" { "id" } else { "group" });
                Ok(())
            }
            "id" => id(value).map(|id| self.id = Some(id)),
            "name" => text(value).and_then(rules::name).map(|name| self.name = Some(name)),
            "email" => text(value).and_then(rules::email).map(|email| self.email = Some(email)),
            "group" => rules::whole(value.get())
                .ok_or("must be a whole number from -2147483648 to 2147483647")
                .map(|group| self.group = Some(group)),
            _ => return None,
        })
    }

    /// To a create, a field that is null and may be left out is left out.
    pub(crate) fn settle_nulls(&self, object: &mut Object<'_>, creates: bool) {
        for name in &self.nulls {
            if creates {
                object.names.remove(*name);
            } else {
                object.add_error(name, "must not be null: a field cannot be removed");
            }
        }
    }

    pub(crate) fn into_create(self) -> Change {
        let Self { name, email, group, .. } = self;
        Change { alive: Some(true), name, email, group: Some(group.unwrap_or(0)), ..Change::default() }
    }

    pub(crate) fn into_update(self) -> Change {
        let Self { name, email, group, .. } = self;
        Change { name, email, group, ..Change::default() }
    }
}

fn id(value: &RawValue) -> Result<Id, &'static str> {
    Id::parse(&text(value)?).ok_or("must be a UUID")
}

/// A value that is a string.
pub(crate) fn text(value: &RawValue) -> Result<String, &'static str> {
    serde_json::from_str(value.get()).map_err(|_| match value.get() {
        // The grammar of JSON takes half a surrogate pair, Unicode does not.
        quoted if quoted.starts_with('"') => "must be valid Unicode: half a surrogate pair stands alone",
        "null" => "must be a string; null is not one, and a field cannot be removed",
        _ => "must be a string",
    })
}

/// A JSON object that was read: the names that were given, and what is wrong so far.
pub(crate) struct Object<'a> {
    /// How often each was given.
    names: BTreeMap<Cow<'a, str>, usize>,
    errors: Vec<InvalidField>,
}

impl<'a> Object<'a> {
    /// Reads an object. Each field goes to `read`, which says what is wrong with its value; `None` where
    /// there is no such field.
    ///
    /// # Errors
    /// Where it is no object in JSON.
    pub(crate) fn read(
        body: &'a [u8],
        read: impl FnMut(&str, &'a RawValue) -> Option<Result<(), &'static str>>,
    ) -> Result<Self, Problem> {
        let malformed = |detail| Problem::new(Kind::MalformedBody, detail);
        let body = body.strip_prefix(BYTE_ORDER_MARK).unwrap_or(body);
        let text = std::str::from_utf8(body).map_err(|_| malformed("The body is not UTF-8.".to_owned()))?;
        let object = Self { names: BTreeMap::new(), errors: Vec::new() };
        let mut json = serde_json::Deserializer::from_str(text);
        let read = json.deserialize_map(Reader { object, read });
        // Raw values are skipped over without recursion, so depth is no danger.
        read.and_then(|object| json.end().map(|()| object)).map_err(|error| {
            match serde_json::from_str::<&RawValue>(text) {
                Err(error) => malformed(format!("The body is not JSON: {error}.")),
                Ok(whole) if whole.get().starts_with('{') => {
                    malformed(format!("A field name cannot be read: {error}."))
                }
                Ok(whole) => {
                    let detail = match whole.get().starts_with('[') {
                        true => "must be an object; POST /api/user/bulk takes many, one a line",
                        false => "must be an object",
                    };
                    let pointer = String::new();
                    Problem::invalid(vec![InvalidField { pointer, detail }])
                }
            }
        })
    }

    /// Whether a field was given, valid or not.
    pub(crate) fn has(&self, name: &str) -> bool {
        self.names.contains_key(name)
    }

    /// These fields have to be there, valid or not.
    pub(crate) fn require(&mut self, names: &[&str]) {
        for name in names {
            if !self.has(name) {
                self.add_error(name, "is required");
            }
        }
    }

    pub(crate) fn add_error(&mut self, name: &str, detail: &'static str) {
        let escaped = name.replace('~', "~0").replace('/', "~1");
        self.errors.push(InvalidField { pointer: format!("/{escaped}"), detail });
    }

    /// # Errors
    /// 422 with everything that is wrong.
    pub(crate) fn finish(self) -> Result<(), Problem> {
        if self.errors.is_empty() { Ok(()) } else { Err(Problem::invalid(self.errors)) }
    }
}

/// Fills an [`Object`].
struct Reader<'a, R> {
    object: Object<'a>,
    read: R,
}

/// A name that is copied only if it has escapes.
#[derive(Deserialize)]
struct Name<'a>(#[serde(borrow)] Cow<'a, str>);

impl<'a, R> Visitor<'a> for Reader<'a, R>
where
    R: FnMut(&str, &'a RawValue) -> Option<Result<(), &'static str>>,
{
    type Value = Object<'a>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object")
    }

    fn visit_map<A: MapAccess<'a>>(mut self, mut map: A) -> Result<Object<'a>, A::Error> {
        let object = &mut self.object;
        while let Some((Name(name), value)) = map.next_entry::<Name<'a>, &'a RawValue>()? {
            match object.names.get_mut(&name) {
                Some(count) => {
                    *count += 1;
                    if *count == 2 {
                        object.add_error(&name, "is given more than once");
                    }
                    continue;
                }
                None => match (self.read)(&name, value) {
                    Some(Ok(())) => {}
                    Some(Err(detail)) => object.add_error(&name, detail),
                    None => object.add_error(&name, "is not a field of a user"),
                },
            }
            object.names.insert(name, 1);
        }
        Ok(self.object)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pointers_are_escaped() {
        let problem = update(br#"{"a/b~c":1}"#, Id::parse("")).expect_err("unknown");
        assert!(format!("{problem:?}").contains("/a~1b~0c"), "{problem:?}");
    }

    #[test]
    fn what_is_valid_is_kept_in_its_normal_form() {
        let body = br#" {"id":"0190A5B27C3D7E4F8A1B2C3D4E5F6071","na\u006de":"e\u0301",
            "email":"ada@example.org","group":-0} "#;
        let (id, change) = create(body).expect("valid");
        assert_eq!(id, Some("0190a5b2-7c3d-7e4f-8a1b-2c3d4e5f6071".parse().expect("an id")));
        let text = |text: &str| Some(text.to_owned());
        let (alive, name, email) = (Some(true), text("\u{e9}"), text("ada@example.org"));
        assert_eq!(change, Change { alive, name, email, group: Some(0), ..Change::default() });
    }

    #[test]
    fn nothing_is_valid_beside_an_error() {
        let id = Id::parse("0190a5b2-7c3d-7e4f-8a1b-2c3d4e5f6071");
        let values = [
            "\"0190A5B27C3D7E4F8A1B2C3D4E5F6071\"",
            "\"e\\u0301\"",
            "\"ada@example.org\"",
            "null",
            "true",
            "0",
            "-0",
            "1.0",
            "1e2",
            "-2147483648",
            "2147483648",
            "[]",
            "{}",
        ];
        let names = ["id", "name", "email", "group", "other", "na\\u006de"];
        let good = |name: &str, value: &str| match name {
            "id" => value.starts_with("\"0190"),
            "name" | "na\\u006de" => value.starts_with('"'),
            "email" => value.contains('@'),
            "group" => ["0", "-0", "1.0", "1e2", "-2147483648"].contains(&value),
            _ => false,
        };
        let plain = |name: &str| name.replace("\\u006d", "m");
        for (first, second) in names.iter().flat_map(|a| names.iter().map(move |b| (a, b))) {
            for (one, two) in values.iter().flat_map(|a| values.iter().map(move |b| (a, b))) {
                let body = format!(" {{\"{first}\" : {one},\n\"{second}\":{two}}} ");
                let fits = good(first, one) && good(second, two) && plain(first) != plain(second);
                assert_eq!(update(body.as_bytes(), id).is_ok(), fits, "{body}");
                let named = fits && (*first == "id" || *second == "id");
                assert_eq!(update(body.as_bytes(), None).is_ok(), named, "{body}");
                let given = [plain(first), plain(second)];
                let new = fits && Fields::OF_NEW_USER.iter().all(|name| given.contains(&(*name).to_owned()));
                assert_eq!(create(body.as_bytes()).is_ok(), new, "{body}");
                assert_eq!(create_as(body.as_bytes(), id).is_ok(), new, "{body}");
                for cut in [&body[1..body.len() - 2], &format!("[{one},{two}]"), &format!("{body}x")] {
                    assert!(update(cut.as_bytes(), id).is_err(), "{cut}");
                }
            }
        }
    }
}
