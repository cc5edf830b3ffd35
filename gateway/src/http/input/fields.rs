//! From the bytes of a body to valid fields, or to everything that is wrong with them.
//!
//! A good body is parsed once, strictly, into exactly what is needed. Only when that fails is the body looked
//! at again, thoroughly: is it JSON at all (then 400), and which of its fields are unknown, repeated,
//! missing, of the wrong type or not allowed (then 422 with all of them at once)? The thorough way has the
//! last word; the strict one is an abbreviation that never takes what the other refuses.

use std::collections::BTreeSet;
use std::fmt;

use protocol::{Change, UserId};
use serde::Deserialize;
use serde::de::{Deserializer, MapAccess, Visitor};
use serde_json::value::RawValue;

use super::id::Id;
use super::rules;
use crate::http::kind::Kind;
use crate::http::problem::{InvalidField, Problem};

/// The fields of a new user, all set; the id where the caller chose one.
pub(in crate::http) fn create(body: &[u8]) -> Result<(Option<UserId>, Change), Problem> {
    let fields = parse(body, Purpose::Create)?;
    Ok((fields.id.map(|id| id.0), whole(fields)))
}

/// The fields of a new user whose id the caller has to choose: in the path or in the body, and where in both,
/// the same.
pub(in crate::http) fn create_as(body: &[u8], in_path: Option<Id>) -> Result<(UserId, Change), Problem> {
    let fields = parse(body, Purpose::CreateAs { in_path })?;
    let id = in_path.or(fields.id).expect("a create without any id is refused");
    Ok((id.0, whole(fields)))
}

fn whole(Fields { name, email, group, .. }: Fields) -> Change {
    Change { alive: Some(true), name, email, group: Some(group.unwrap_or(0)), ..Change::default() }
}

/// The fields to set of an existing user. An id in the path wins nothing over one in the body: they have to
/// agree.
pub(in crate::http) fn update(body: &[u8], in_path: Option<Id>) -> Result<(UserId, Change), Problem> {
    let fields = parse(body, Purpose::Update { in_path })?;
    let id = in_path.or(fields.id).expect("an update without any id is refused");
    let Fields { name, email, group, .. } = fields;
    let change = Change { name, email, group, ..Change::default() };
    Ok((id.0, change))
}

/// What the fields are for decides which of them have to be there.
#[derive(Debug, Clone, Copy)]
enum Purpose {
    Create,
    CreateAs { in_path: Option<Id> },
    Update { in_path: Option<Id> },
}

impl Purpose {
    fn required(self) -> &'static [&'static str] {
        match self {
            Self::CreateAs { in_path: None } => &["id", "name", "email"],
            Self::Create | Self::CreateAs { .. } => &["name", "email"],
            Self::Update { in_path: None } => &["id"],
            Self::Update { .. } => &[],
        }
    }

    fn in_path(self) -> Option<Id> {
        match self {
            Self::Create => None,
            Self::CreateAs { in_path } | Self::Update { in_path } => in_path,
        }
    }
}

/// The fields that were given. There is no way to give nothing: a null is a value of the wrong type.
#[derive(Debug, Default, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub(in crate::http) struct Fields {
    #[serde(default, deserialize_with = "given")]
    pub(in crate::http) id: Option<Id>,
    #[serde(default, deserialize_with = "given")]
    pub(in crate::http) name: Option<String>,
    #[serde(default, deserialize_with = "given")]
    pub(in crate::http) email: Option<String>,
    #[serde(default, deserialize_with = "given")]
    pub(in crate::http) group: Option<i32>,
}

impl Fields {
    /// The fields in their normal form, if they are valid.
    pub(in crate::http) fn checked(mut self) -> Option<Self> {
        self.name = self.name.map(rules::name).transpose().ok()?;
        self.email = self.email.map(rules::email).transpose().ok()?;
        Some(self)
    }
}

/// Unlike that of `Option`, it does not take null for absent.
pub(in crate::http) fn given<'de, D: Deserializer<'de>, T: Deserialize<'de>>(
    deserializer: D,
) -> Result<Option<T>, D::Error> {
    T::deserialize(deserializer).map(Some)
}

fn parse(body: &[u8], purpose: Purpose) -> Result<Fields, Problem> {
    match strictly(body, purpose) {
        Some(fields) => Ok(fields),
        None => thoroughly(body, purpose),
    }
}

fn strictly(body: &[u8], purpose: Purpose) -> Option<Fields> {
    // serde would take an array of the values in order, too.
    if body.trim_ascii_start().first() != Some(&b'{') {
        return None;
    }
    let fields = serde_json::from_slice::<Fields>(body).ok()?.checked()?;
    let is_there = |name: &&str| match *name {
        "id" => fields.id.is_some(),
        "name" => fields.name.is_some(),
        _ => fields.email.is_some(),
    };
    let agrees = purpose.in_path().is_none_or(|in_path| fields.id.is_none_or(|id| id == in_path));
    (agrees && purpose.required().iter().all(is_there)).then_some(fields)
}

fn thoroughly(body: &[u8], purpose: Purpose) -> Result<Fields, Problem> {
    let mut examined = Examined::of(body, &[])?;
    examined.require(purpose.required());
    if let Some(in_path) = purpose.in_path()
        && examined.fields.id.is_some_and(|id| id != in_path)
    {
        examined.errors.add("id", "must agree with the id in the path");
    }
    examined.finish()
}

/// A body looked at thoroughly: its valid fields, and what is wrong with the others.
pub(in crate::http) struct Examined<'a> {
    pub(in crate::http) fields: Fields,
    pub(in crate::http) errors: Errors,
    /// The fields beside those of a user that are taken here, unread.
    others: Vec<(&'static str, &'a RawValue)>,
    seen: BTreeSet<String>,
}

impl<'a> Examined<'a> {
    /// Looks at a body that may have the fields of a user and some others.
    ///
    /// # Errors
    /// Where it is no object in JSON.
    pub(in crate::http) fn of(body: &'a [u8], others: &[&'static str]) -> Result<Self, Problem> {
        let malformed = |detail| Problem::new(Kind::MalformedBody, detail);
        let text = std::str::from_utf8(body).map_err(|_| malformed("The body is not UTF-8.".to_owned()))?;
        // A raw value is skipped over without recursion: depth is no danger, and says nothing about being
        // JSON.
        let whole = serde_json::from_str::<&RawValue>(text)
            .map_err(|error| malformed(format!("The body is not JSON: {error}.")))?;
        if !whole.get().starts_with('{') {
            return Err(Problem::invalid(vec![InvalidField {
                pointer: String::new(),
                detail: "must be an object",
            }]));
        }
        let Members(members) = serde_json::from_str(text)
            .map_err(|error| malformed(format!("A field name cannot be read: {error}.")))?;

        let (fields, errors) = (Fields::default(), Errors::default());
        let mut examined = Self { fields, errors, others: Vec::new(), seen: BTreeSet::new() };
        let mut repeated = BTreeSet::new();
        for (name, value) in members {
            if examined.seen.contains(&name) {
                if repeated.insert(name.clone()) {
                    examined.errors.add(&name, "is given more than once");
                }
                continue;
            }
            let Self { fields, errors, .. } = &mut examined;
            match name.as_str() {
                "id" => fields.id = errors.keep(&name, id(value)),
                "name" => fields.name = errors.keep(&name, text_of(value).and_then(rules::name)),
                "email" => fields.email = errors.keep(&name, text_of(value).and_then(rules::email)),
                "group" => fields.group = errors.keep(&name, group(value)),
                other => match others.iter().find(|known| **known == other) {
                    Some(known) => examined.others.push((known, value)),
                    None => errors.add(&name, "is not a field of a user"),
                },
            }
            examined.seen.insert(name);
        }
        Ok(examined)
    }

    /// The value of one of the other fields.
    pub(in crate::http) fn other(&self, name: &str) -> Option<&'a RawValue> {
        self.others.iter().find(|(known, _)| *known == name).map(|(_, value)| *value)
    }

    /// These have to be there, valid or not.
    pub(in crate::http) fn require(&mut self, names: &[&str]) {
        for name in names.iter().filter(|name| !self.seen.contains(**name)) {
            self.errors.add(name, "is required");
        }
    }

    /// The fields, if nothing is wrong.
    ///
    /// # Errors
    /// With everything that is.
    pub(in crate::http) fn finish(self) -> Result<Fields, Problem> {
        if self.errors.0.is_empty() { Ok(self.fields) } else { Err(Problem::invalid(self.errors.0)) }
    }
}

/// What is wrong so far.
#[derive(Default)]
pub(in crate::http) struct Errors(Vec<InvalidField>);

impl Errors {
    pub(in crate::http) fn add(&mut self, name: &str, detail: &'static str) {
        let escaped = name.replace('~', "~0").replace('/', "~1");
        self.0.push(InvalidField { pointer: format!("/{escaped}"), detail });
    }

    pub(in crate::http) fn keep<T>(&mut self, name: &str, value: Result<T, &'static str>) -> Option<T> {
        value.map_err(|detail| self.add(name, detail)).ok()
    }
}

fn id(value: &RawValue) -> Result<Id, &'static str> {
    Id::parse(&text_of(value)?).ok_or("must be a UUID")
}

fn text_of(value: &RawValue) -> Result<String, &'static str> {
    match (serde_json::from_str(value.get()), value.get()) {
        (Ok(text), _) => Ok(text),
        // The grammar of JSON takes half a surrogate pair, Unicode does not.
        (Err(_), quoted) if quoted.starts_with('"') => {
            Err("must be valid Unicode: half a surrogate pair stands alone")
        }
        (Err(_), "null") => Err("must be a string; null is not one, and a field cannot be removed"),
        _ => Err("must be a string"),
    }
}

fn group(value: &RawValue) -> Result<i32, &'static str> {
    let detail = "must be a whole number from -2147483648 to 2147483647, without fraction or exponent";
    value.get().parse().map_err(|_| detail)
}

/// The members of an object in their order, with repetitions and with their values unread.
struct Members<'a>(Vec<(String, &'a RawValue)>);

impl<'de> Deserialize<'de> for Members<'de> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Object;

        impl<'de> Visitor<'de> for Object {
            type Value = Members<'de>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
                let mut members = Vec::new();
                while let Some(member) = map.next_entry()? {
                    members.push(member);
                }
                Ok(Members(members))
            }
        }

        deserializer.deserialize_map(Object)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The strict way is only an abbreviation: whatever it takes, the thorough way takes with the same
    /// result.
    #[test]
    fn both_ways_agree() {
        let id = Id::parse("0190a5b2-7c3d-7e4f-8a1b-2c3d4e5f6071");
        let values = [
            "\"0190A5B27C3D7E4F8A1B2C3D4E5F6071\"",
            "\"e\\u0301\"",
            "\"ada@example.org\"",
            "\"\\ud800\"",
            "\"\"",
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
        let mut taken = 0;
        for purpose in [
            Purpose::Create,
            Purpose::CreateAs { in_path: None },
            Purpose::CreateAs { in_path: id },
            Purpose::Update { in_path: None },
            Purpose::Update { in_path: id },
        ] {
            for (first, second) in names.iter().flat_map(|a| names.iter().map(move |b| (a, b))) {
                for (one, two) in values.iter().flat_map(|a| values.iter().map(move |b| (a, b))) {
                    let rest = r#""email":"b@c""#;
                    for body in [
                        format!("{{\"{first}\":{one},\"{second}\":{two}}}"),
                        format!(" {{\"{first}\" : {one},\n{rest},\"{second}\":{two}}} "),
                        format!("[{one},{two},{rest:?},0]"),
                        format!("{{\"{first}\":{one},\"{second}\":{two}"),
                    ] {
                        let strict = strictly(body.as_bytes(), purpose);
                        let thorough = thoroughly(body.as_bytes(), purpose);
                        if let Some(strict) = strict {
                            taken += 1;
                            assert_eq!(strict, thorough.expect("what the strict way takes"), "{body}");
                        }
                    }
                }
            }
        }
        assert!(taken > 100, "the strict way took {taken}");
    }

    #[test]
    fn pointers_are_escaped() {
        let problem =
            thoroughly(br#"{"a/b~c":1}"#, Purpose::Update { in_path: Id::parse("") }).expect_err("unknown");
        assert!(format!("{problem:?}").contains("/a~1b~0c"), "{problem:?}");
    }
}
