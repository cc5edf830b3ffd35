//! From records to rows: the operations of a bulk request.

use std::collections::BTreeMap;
use std::fmt;
use std::io::BufRead;

use anyhow::{Context, bail, ensure};
use clap::Args;
use serde::Deserialize;
use serde::de::{Deserializer, Error, MapAccess, Visitor};
use serde_json::error::Category;
use serde_json::{Map, Value};
use uuid::Uuid;

use super::Format;
use super::identity::Identity;
use super::records::{ARRAY, Csv, Lines, Long, Record, starting};

/// How the line of a row begins when it is to be created, or updated.
pub(super) const CREATE: &str = r#"{"op":"create","#;
pub(super) const UPDATE: &str = r#"{"op":"update","#;

/// The fields of a user.
const FIELDS: [&str; 4] = ["id", "name", "email", "group"];

// How a file is to be read. Not a doc comment: it would be shown as the help of the command.
#[derive(Args, Debug, Clone)]
pub(super) struct Reading {
    /// Between the columns of CSV: one character, or tab
    #[arg(long, default_value = ",", value_name = "CHARACTER", value_parser = delimiter)]
    pub(super) delimiter: u8,
    /// Another name of a field, in any case: --map Mail=email; may be repeated
    #[arg(long, value_name = "COLUMN=FIELD", value_parser = mapping)]
    pub(super) map: Vec<(String, &'static str)>,
    /// Leave out columns that no user has
    #[arg(long)]
    pub(super) ignore_unknown: bool,
    /// Rows without an id get one that follows from this name and from their content
    #[arg(long, default_value = "", value_name = "TEXT")]
    pub(super) name: String,
}

impl Reading {
    /// The field that a column or a name stands for, where it is mapped. As for the names of fields, upper
    /// and lower case are alike.
    fn mapped(&self, column: &str) -> Option<&'static str> {
        let mapped = self.map.iter().find(|(name, _)| name.eq_ignore_ascii_case(column));
        mapped.map(|(_, field)| *field)
    }
}

fn delimiter(text: &str) -> Result<u8, String> {
    match text.as_bytes() {
        b"tab" | b"\\t" => Ok(b'\t'),
        [one] if one.is_ascii() && !b"\"\r\n".contains(one) => Ok(*one),
        _ => Err("allowed: one ASCII character, or tab".to_owned()),
    }
}

fn mapping(text: &str) -> Result<(String, &'static str), String> {
    let (column, field) = text.rsplit_once('=').unwrap_or_default();
    let field = FIELDS.into_iter().find(|known| *known == field);
    field
        .map(|field| (column.to_owned(), field))
        .ok_or_else(|| "allowed: COLUMN=id, =name, =email, =group".into())
}

/// Where a row is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Place {
    /// From 1; neither a header nor blank lines count.
    pub(super) row: u64,
    /// The line of the file on which it begins, from 1.
    pub(super) line: u64,
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "row {} (line {})", self.row, self.line)
    }
}

/// A row that can be sent.
#[derive(Debug, Clone)]
pub(super) struct Row {
    pub(super) place: Place,
    pub(super) id: Uuid,
    /// An operation of a bulk request, with its end.
    pub(super) line: String,
    /// As it is in the file.
    pub(super) raw: Vec<u8>,
    /// It was sent before, and its result is not known.
    pub(super) again: bool,
}

impl Row {
    /// The user as it is to be.
    pub(super) fn user(&self) -> Map<String, Value> {
        let mut user: Map<String, Value> =
            serde_json::from_str(&self.line).expect("a row is written as an object");
        user.remove("op");
        user
    }
}

/// A row that cannot.
#[derive(Debug)]
pub(super) struct Unusable {
    pub(super) place: Place,
    /// As it is in the file; empty where it is too long, and was handed on in pieces.
    pub(super) raw: Vec<u8>,
    pub(super) why: String,
}

/// A row as it is read.
pub(super) type ReadRow = Result<Row, Unusable>;

/// Reads rows one after the other.
pub(super) struct Rows {
    source: Source,
    reading: Reading,
    identity: Identity,
    row: u64,
    /// What is left is not read.
    ended: bool,
}

enum Source {
    Lines(Lines),
    /// With the field that each column is; `None` for those that are left out.
    Csv(Box<Csv>, Vec<Option<&'static str>>),
}

impl Rows {
    /// Also returns what is before the rows: the header.
    ///
    /// # Errors
    /// Where the file is in another encoding, or its header names a column that a user does not have, or
    /// lacks one.
    pub(super) fn new(
        reader: impl BufRead + Send + 'static,
        format: Format,
        reading: Reading,
    ) -> anyhow::Result<(Self, Vec<u8>)> {
        let reader = starting(Box::new(reader))?;
        let (source, header) = match format {
            Format::Ndjson => (Source::Lines(Lines::new(reader)), Vec::new()),
            Format::Csv => {
                let (csv, names, header) = Csv::new(reader, reading.delimiter)?;
                let columns = columns(&names, &reading)?;
                (Source::Csv(Box::new(csv), columns), header)
            }
        };
        let identity = Identity::new(reading.name.clone());
        Ok((Self { source, reading, identity, row: 0, ended: false }, header))
    }

    /// The next row; `None` at the end. The bytes of one that is too long go to `long`.
    ///
    /// # Errors
    /// Where the file cannot be read.
    pub(super) fn next(&mut self, long: Long) -> anyhow::Result<Option<ReadRow>> {
        if self.ended {
            return Ok(None);
        }
        let record = match &mut self.source {
            Source::Lines(lines) => lines.next(long)?,
            Source::Csv(csv, _) => csv.next(long)?,
        };
        let Some(record) = record else { return Ok(None) };
        self.row += 1;
        let place = Place { row: self.row, line: record.line };
        let row = self.fields(&record).and_then(|fields| self.row(fields));
        Ok(Some(match row {
            Ok((id, line)) => Ok(Row { place, id, line, raw: record.raw, again: false }),
            Err(why) => Err(Unusable { place, raw: record.raw, why }),
        }))
    }

    fn fields(&mut self, record: &Record) -> Result<Map<String, Value>, String> {
        if self.row == 1 && matches!(self.source, Source::Lines(_)) && record.raw.starts_with(b"[") {
            self.ended = true;
            return Err(format!("{ARRAY}; nothing more of it is read"));
        }
        if let Some(wrong) = &record.wrong {
            return Err(wrong.clone());
        }
        if let Err(error) = std::str::from_utf8(&record.raw) {
            let place = error.valid_up_to();
            return Err(format!(
                "it is not UTF-8: byte {} is 0x{:02x}; of a file in Latin-1, `iconv -f LATIN1 -t UTF-8 FILE` \
                 makes one",
                place + 1,
                record.raw[place]
            ));
        }
        match &self.source {
            Source::Csv(_, columns) => of_columns(&record.fields, columns),
            Source::Lines(_) => of_object(&record.raw, &self.reading),
        }
    }

    fn row(&mut self, mut fields: Map<String, Value>) -> Result<(Uuid, String), String> {
        if fields.contains_key("op") || fields.contains_key("if_match") {
            return Err("a user has neither op nor if_match".to_owned());
        }
        // As the API reads them: null is none, and a whole number is one however it is written.
        fields.retain(|name, value| !(value.is_null() && ["id", "group"].contains(&name.as_str())));
        if let Some(group) = fields.get_mut("group")
            && let Some(whole) = group.as_f64().and_then(whole)
        {
            *group = Value::from(whole);
        }
        let id = match fields.get("id") {
            None => {
                // In the order of their names, whatever order they had.
                let sorted: BTreeMap<_, _> = fields.iter().collect();
                let content = serde_json::to_vec(&sorted).expect("JSON can be written");
                self.identity.next(&content)
            }
            Some(id) => id.as_str().and_then(|id| id.parse().ok()).ok_or("/id must be a UUID")?,
        };
        fields.insert("id".to_owned(), Value::String(id.to_string()));
        let object = serde_json::to_string(&fields).expect("JSON can be written");
        Ok((id, format!("{CREATE}{}\n", &object[1..])))
    }
}

/// The number as an integer, where it is one that a double has exactly.
fn whole(number: f64) -> Option<i64> {
    (number.fract() == 0.0 && number.abs() < 2_f64.powi(53)).then_some(number as i64)
}

/// The field that each column is.
fn columns(names: &[String], reading: &Reading) -> anyhow::Result<Vec<Option<&'static str>>> {
    if let [one] = names
        && let Some(other) = [';', '\t', '|', ','].into_iter().find(|other| one.contains(*other))
    {
        let shown = if other == '\t' { "tab".to_owned() } else { format!("{other:?}") };
        bail!(
            "the header is one column, {one:?}: for columns between which is {shown}, say --delimiter {shown}"
        );
    }
    let has = |field: &str| names.iter().any(|name| name.eq_ignore_ascii_case(field));
    for (column, field) in &reading.map {
        ensure!(
            has(column),
            "--map {:?}: the header has no such column; it has {}",
            format!("{column}={field}"),
            names.join(", ")
        );
    }
    let mut columns = Vec::new();
    for name in names {
        let field = reading
            .mapped(name)
            .or_else(|| FIELDS.into_iter().find(|field| name.eq_ignore_ascii_case(field)));
        if field.is_none() && !reading.ignore_unknown {
            bail!(
                "the header has a column {name:?}; known are id, name, email and group: --map {:?} says \
                 which of them it is, --ignore-unknown leaves it out",
                format!(
                    "{name}={}",
                    ["email", "name", "group"].into_iter().find(|field| !has(field)).unwrap_or("id")
                )
            );
        }
        let twice = field.filter(|_| columns.contains(&field));
        ensure!(twice.is_none(), "two columns are {:?}, one of them {name:?}", twice.unwrap_or_default());
        columns.push(field);
    }
    for field in ["name", "email"] {
        let context =
            || format!("the header has no {field:?}: --map {:?} names the column", format!("COLUMN={field}"));
        columns.contains(&Some(field)).then_some(()).with_context(context)?;
    }
    Ok(columns)
}

/// An empty id or group is none. Spaces around what cannot contain any are left out.
fn of_columns(record: &[Vec<u8>], columns: &[Option<&str>]) -> Result<Map<String, Value>, String> {
    if record.len() != columns.len() {
        return Err(format!("it has {} fields, and the header has {}", record.len(), columns.len()));
    }
    let mut fields = Map::new();
    for (column, text) in columns.iter().zip(record) {
        let Some(field) = *column else { continue };
        let text = String::from_utf8_lossy(text); // it is UTF-8
        let trimmed = text.trim();
        let value = match field {
            "id" | "group" if trimmed.is_empty() => continue,
            // What is no number is refused by the API, in the words that it has for all callers.
            "group" => trimmed.parse().map_or_else(
                |_| trimmed.parse().ok().and_then(whole).map_or_else(|| Value::from(trimmed), Value::from),
                |group: i64| Value::from(group),
            ),
            "name" => Value::from(&*text),
            _ => Value::from(trimmed),
        };
        fields.insert(field.to_owned(), value);
    }
    Ok(fields)
}

fn of_object(raw: &[u8], reading: &Reading) -> Result<Map<String, Value>, String> {
    let fields: Object = serde_json::from_slice(raw).map_err(|error| match error.classify() {
        Category::Data => error.to_string(),
        _ => format!("it is not JSON: {error}"),
    })?;
    let mut renamed = Map::new();
    for (name, value) in fields.0 {
        let name = reading.mapped(&name).map_or(name, str::to_owned);
        if reading.ignore_unknown && !FIELDS.contains(&name.as_str()) {
            continue;
        }
        if renamed.insert(name.clone(), value).is_some() {
            return Err(format!("/{name} is given more than once"));
        }
    }
    Ok(renamed)
}

/// A JSON object in which no name is repeated.
struct Object(Map<String, Value>);

impl<'de> Deserialize<'de> for Object {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Fields;
        impl<'de> Visitor<'de> for Fields {
            type Value = Object;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a JSON object")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Object, A::Error> {
                let mut fields = Map::new();
                while let Some((name, value)) = map.next_entry::<String, Value>()? {
                    if fields.contains_key(&name) {
                        return Err(A::Error::custom(format!("/{name} is given more than once")));
                    }
                    fields.insert(name, value);
                }
                Ok(Object(fields))
            }
        }
        deserializer.deserialize_map(Fields)
    }
}

#[cfg(test)]
mod tests {
    use std::io::{BufReader, Cursor};

    use super::*;

    fn reading() -> Reading {
        Reading { delimiter: b',', map: Vec::new(), ignore_unknown: false, name: String::new() }
    }

    fn read(text: &[u8], format: Format, reading: Reading) -> anyhow::Result<Vec<ReadRow>> {
        let (mut rows, _) = Rows::new(Cursor::new(text.to_vec()), format, reading)?;
        std::iter::from_fn(|| rows.next(&mut |_| {}).transpose()).collect()
    }

    /// The places of rows and their lines, or why there is none.
    fn rows(text: impl AsRef<[u8]>, format: Format) -> Vec<Result<String, String>> {
        let rows = read(text.as_ref(), format, reading()).expect("a header").into_iter();
        rows.map(|row| {
            row.map(|row| format!("{} {}", row.place, row.line))
                .map_err(|bad| format!("{}: {}", bad.place, bad.why))
        })
        .collect()
    }

    fn names(text: &str, format: Format, reading: Reading) -> Vec<String> {
        let rows = read(text.as_bytes(), format, reading).expect("a header").into_iter();
        rows.map(|row| row.expect("a row").user()["name"].as_str().expect("a name").to_owned()).collect()
    }

    /// Why the only row cannot be sent.
    fn why(text: impl AsRef<[u8]>, format: Format) -> String {
        let mut rows = rows(text, format);
        assert_eq!(rows.len(), 1, "{rows:?}");
        rows.remove(0).expect_err("no row")
    }

    const ID: &str = "0190a5b2-7c3d-7e4f-8a1b-2c3d4e5f6071";

    #[test]
    fn both_formats_give_the_same_rows() {
        let line = |place: &str, name: &str| {
            Ok(format!("{place} {CREATE}\"email\":\"a@b\",\"group\":2,\"id\":\"{ID}\",\"name\":{name}}}\n"))
        };
        let csv = format!("name,id,group,email\n\"a,\"\"b\"\"\",{ID},2,a@b\nonly,two\ne\u{301},{ID},2,a@b\n");
        let few = "row 2 (line 3): it has 2 fields, and the header has 4";
        assert_eq!(
            rows(csv, Format::Csv),
            [
                line("row 1 (line 2)", r#""a,\"b\"""#),
                Err(few.to_owned()),
                line("row 3 (line 4)", "\"e\u{301}\"")
            ]
        );
        let ndjson = format!(
            "{{\"id\":\"{ID}\",\"name\":\"n\",\"email\":\"a@b\",\"group\":2}}\n\n[]\n{{\"op\":1}}\nx"
        );
        let found = rows(ndjson, Format::Ndjson);
        assert_eq!(found[0], line("row 1 (line 1)", "\"n\""));
        for (found, place) in found[1..].iter().zip(["row 2 (line 3)", "row 3 (line 4)", "row 4 (line 5)"]) {
            assert!(found.as_ref().is_err_and(|why| why.starts_with(place)), "{found:?}");
        }
    }

    #[test]
    fn a_row_without_an_id_gets_the_same_one_again_in_either_format() {
        let csv = rows("id,group,name,email\n,,n,a@b\n", Format::Csv);
        let ndjson = rows("\n{\"email\":\"a@b\",\"name\":\"n\",\"group\":null}", Format::Ndjson);
        assert!(csv[0].is_ok() && csv == ndjson, "{csv:?} {ndjson:?}");
    }

    #[test]
    fn numbers_are_read_as_the_api_reads_them() {
        for (text, group) in
            [("1.0", "1"), ("1e2", "100"), ("-0", "0"), ("7", "7"), ("-2147483648", "-2147483648")]
        {
            let ndjson =
                rows(format!("{{\"name\":\"n\",\"email\":\"a@b\",\"group\":{text}}}"), Format::Ndjson);
            let csv = rows(format!("name,email,group\nn,a@b, {text} \n"), Format::Csv);
            for row in [&ndjson[0], &csv[0]] {
                assert!(
                    row.as_ref().is_ok_and(|row| row.contains(&format!("\"group\":{group},"))),
                    "{row:?}"
                );
            }
        }
        // What is no whole number is for the API to refuse, under the name of the field.
        for text in ["1.5", "1e99", "x", "inf"] {
            let csv = rows(format!("name,email,group\nn,a@b,{text}\n"), Format::Csv);
            assert!(
                csv[0].as_ref().is_ok_and(|row| row.contains(&format!("\"group\":\"{text}\""))),
                "{csv:?}"
            );
        }
    }

    #[test]
    fn files_of_spreadsheets_are_read_as_they_are() {
        let with = |delimiter| Reading { delimiter, ..reading() };
        for text in [
            "\u{feff}name,email\nAna,a@b\n",
            "name, email\nAna, a@b\n",
            "Name,EMAIL,Id\r\nAna,a@b,\r\n",
            "name,email\rAna,a@b\r",
            "sep=;\nname;email\nAna;a@b",
            "\n\nname,email\n\n\r\n,,\nAna,a@b\n,\n\n",
            "\"name\",\"email\"\n\"Ana\",\"a@b\"",
        ] {
            let text = text.replace(",,\n", ",\n");
            assert_eq!(names(&text, Format::Csv, with(b',')), ["Ana"], "{text:?}");
        }
        assert_eq!(names("name\temail\nAna\ta@b\n", Format::Csv, with(b'\t')), ["Ana"]);
        assert_eq!(names("name,email\n\" A \",a@b\n", Format::Csv, with(b',')), [" A "], "it may be meant");
        assert_eq!(
            names("\u{feff}{\"name\":\"Ana\",\"email\":\"a@b\"}", Format::Ndjson, with(b',')),
            ["Ana"]
        );
    }

    #[test]
    fn other_names_of_columns_are_mapped_or_left_out() {
        let reading =
            || Reading { map: vec![("Full=Name".to_owned(), "name")], ignore_unknown: true, ..reading() };
        assert_eq!(mapping("Full=Name=name"), Ok(("Full=Name".to_owned(), "name")));
        assert!(mapping("x").is_err() && mapping("x=age").is_err());
        assert_eq!(names("full=name,age,email\nAna,7,a@b\n", Format::Csv, reading()), ["Ana"]);
        let Err(error) = read(b"name,email\n", Format::Csv, reading()) else { panic!("no such column") };
        assert!(error.to_string().contains("has no such column; it has name, email"), "{error}");
        let json = r#"{"Full=Name":"Ana","age":7,"email":"a@b"}"#;
        assert_eq!(names(json, Format::Ndjson, reading()), ["Ana"]);
        let both = read(br#"{"Full=Name":"Ana","name":"B"}"#, Format::Ndjson, reading()).unwrap();
        assert!(both[0].as_ref().is_err_and(|bad| bad.why.contains("/name is given more than once")));
    }

    #[test]
    fn a_header_or_a_text_that_is_not_understood_is_refused_with_what_to_do() {
        for (bad, part) in [
            (&b"name\n"[..], "no \"email\""),
            (b"name,email,age\n", "--ignore-unknown"),
            (b"name,email,name\n", "two columns are"),
            (b"", "empty"),
            (b"\n\n", "empty"),
            (b"\xef\xbb\xbf", "empty"),
            (b"id;name;email\n", "--delimiter ';'"),
            (b"id\tname\temail\n", "--delimiter tab"),
            (b"\"name,email\nAna,a@b\n", "line 1, column 1 is not closed"),
            (b"\xff\xfen\0a\0m\0e\0", "iconv -f UTF-16"),
            (b"n\0a\0m\0e\0", "iconv -f UTF-16"),
            (b"n\xe9me,email\n", "not UTF-8"),
        ] {
            let Err(error) = read(bad, Format::Csv, reading()) else { panic!("{bad:?}") };
            assert!(format!("{error:#}").contains(part), "{bad:?}: {error:#}");
        }
    }

    #[test]
    fn a_row_that_is_wrong_says_where_and_what_to_do() {
        let why = |text: &[u8], format| why(text, format);
        let csv = |row: &[u8]| why(&[b"name,email\n", row].concat(), Format::Csv);
        assert!(csv(b"Jos\xe9,a@b").contains("byte 4 is 0xe9; of a file in Latin-1, `iconv"));
        assert!(csv(b"a\"b").starts_with("row 1 (line 2): it has 1 fields"), "no quote opens within a field");
        let open = csv(b"Ana,\"c\nd,\"\"e\nf,g\n");
        assert!(open.starts_with("row 1 (line 2): the quote on line 2, column 5 is not closed"), "{open}");
        let json = |row: &[u8]| why(row, Format::Ndjson);
        assert!(json(br#"{"name":"a","name":"b"}"#).contains("/name is given more than once"));
        assert!(json(br#"{"name":"a""#).contains("it is not JSON: "));
        assert!(json(br#"{"name":"a","id":7}"#).contains("/id must be a UUID"));
        assert!(json(b"[\n{\"name\":\"a\"},\n{}]").contains("jq -c"), "the rest is not read");
    }

    #[test]
    fn blank_lines_and_long_ones_take_neither_stack_nor_memory() {
        let good = "{\"name\":\"n\",\"email\":\"a@b\"}\n";
        let blank = "\n".repeat(100_000);
        let found = rows(format!("{blank}{good}{blank}{good}"), Format::Ndjson);
        assert!(
            found[0].is_ok() && found[1].as_ref().is_ok_and(|row| row.starts_with("row 2 (line 200002)"))
        );
        let found = rows(format!("name,email\n{blank}n,a@b\n{blank}"), Format::Csv);
        assert!(
            found.len() == 1 && found[0].as_ref().is_ok_and(|row| row.starts_with("row 1 (line 100002)"))
        );
        let long = "x".repeat(1 << 20);
        let found = rows(format!("{long}\n{good}{long}"), Format::Ndjson);
        assert!(found[0].is_err() && found[1].is_ok() && found[2].is_err() && found.len() == 3);
        let spaces = " ".repeat(100_000);
        let found = rows(format!("{good}{spaces}\n{spaces}{good}{good}"), Format::Ndjson);
        let well: Vec<bool> = found.iter().map(Result::is_ok).collect();
        assert_eq!(well, [true, false, false, true], "nothing is left out without a word");
        let found = rows(format!("name,email\n{long},a@b\nn,a@b\n\"{long}\n{long}"), Format::Csv);
        assert!(found[0].as_ref().is_err_and(|why| why.ends_with("it is longer than 64 KiB")), "{found:?}");
        assert!(found[1].is_ok() && found.len() == 3);
        assert!(found[2].as_ref().is_err_and(|why| why.contains("line 4, column 1 may not be closed")));
        // Whatever the size of the pieces in which a file comes.
        for length in 0..300 {
            let text = format!("name,email\r\n\"{}\n\"\"b\",a@b\r\nn,a@b", "x".repeat(900 + length));
            assert!(rows(text, Format::Csv).iter().all(Result::is_ok), "{length}");
        }
    }

    #[test]
    fn a_row_that_is_too_long_is_handed_on_as_it_is_in_pieces() {
        let long = |text: &[u8], format| {
            let file = BufReader::new(Cursor::new(text.to_vec()));
            let (mut rows, _) = Rows::new(file, format, reading()).unwrap();
            let (mut all, mut largest) = (Vec::new(), 0);
            let mut piece = |bytes: &[u8]| {
                largest = largest.max(bytes.len());
                all.extend_from_slice(bytes);
            };
            while rows.next(&mut piece).unwrap().is_some() {}
            assert!(largest < 80 << 10, "a piece of {largest} bytes");
            all
        };
        let many = [b"\xe9\r\n\"\"".repeat(50_000), b"x".repeat(50_000)].concat();
        let row = [b"\"", &many[..], b"\",a@b\r"].concat();
        let csv = [b"name,email\r\nn,a@b\r\n", &row[..], b"\nn,a@b"].concat();
        assert!(long(&csv, Format::Csv) == row);
        let without_line_ends: Vec<u8> = many.iter().copied().filter(|byte| *byte != b'\n').collect();
        let line = [b" {\"name\":\"", &without_line_ends[..], b"\"}\r\n"].concat();
        let lines = [b"{}\n", &line[..], b"{}\n"].concat();
        assert!(long(&lines, Format::Ndjson) == line);
        assert!(long(&line[..line.len() - 2], Format::Ndjson) == line[..line.len() - 2]);
    }

    #[test]
    fn a_rejected_row_keeps_its_bytes() {
        let raw = |text: &[u8], format| {
            let rows = read(text, format, reading()).unwrap().into_iter();
            rows.map(|row| row.map_or_else(|bad| bad.raw, |row| row.raw)).collect::<Vec<_>>()
        };
        let text = b"name,email\r\n\"Jos\xe9,\"\"\",\"x\ny\"\r\n\n \"a\" , b\n";
        assert_eq!(raw(text, Format::Csv), [&b"\"Jos\xe9,\"\"\",\"x\ny\""[..], b" \"a\" , b"]);
        assert_eq!(raw(b"{\"a\":\"\xe9\"}\r\n{}", Format::Ndjson), [&b"{\"a\":\"\xe9\"}"[..], b"{}"]);
    }
}
