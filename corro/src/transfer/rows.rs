//! From a file to rows.

use std::collections::BTreeMap;
use std::io::BufRead;

use anyhow::{Context, bail, ensure};
use serde_json::{Map, Value};
use uuid::Uuid;

use super::Format;
use super::identity::Identity;

/// How the line of a row begins when it is to be created, or updated.
pub(super) const CREATE: &str = r#"{"op":"create","#;
pub(super) const UPDATE: &str = r#"{"op":"update","#;

/// A row that can be sent.
#[derive(Debug, Clone)]
pub(super) struct Row {
    /// Its place in the file, from 1; a header does not count.
    pub(super) number: u64,
    pub(super) id: Uuid,
    /// An operation of a bulk request, with its end.
    pub(super) line: String,
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
    pub(super) number: u64,
    /// As it was found.
    pub(super) text: String,
    pub(super) why: String,
}

/// A row as it is read.
pub(super) type ReadRow = Result<Row, Unusable>;

/// Reads rows one after the other.
pub(super) struct Rows<R> {
    source: Source<R>,
    identity: Identity,
    number: u64,
}

enum Source<R> {
    Ndjson(R),
    Csv { reader: csv::Reader<R>, columns: Vec<String> },
}

impl<R: BufRead> Rows<R> {
    /// # Errors
    /// Where the header names a column that a user does not have, or lacks one.
    pub(super) fn new(reader: R, format: Format, name: String) -> anyhow::Result<Self> {
        let source = match format {
            Format::Ndjson => Source::Ndjson(reader),
            Format::Csv => {
                let mut reader = csv::ReaderBuilder::new().flexible(true).from_reader(reader);
                let header = reader.headers().context("the header cannot be read")?;
                let columns: Vec<String> = header.iter().map(|column| column.trim().to_owned()).collect();
                for (index, column) in columns.iter().enumerate() {
                    if !["id", "name", "email", "group"].contains(&column.as_str()) {
                        bail!("the header has a column {column:?}; known are id, name, email and group");
                    }
                    ensure!(!columns[..index].contains(column), "the header has {column:?} twice");
                }
                for column in ["name", "email"] {
                    ensure!(columns.iter().any(|known| known == column), "the header has no {column:?}");
                }
                Source::Csv { reader, columns }
            }
        };
        Ok(Self { source, identity: Identity::new(name), number: 0 })
    }

    /// The next row; `None` at the end.
    ///
    /// # Errors
    /// Where the file cannot be read.
    pub(super) fn next(&mut self) -> anyhow::Result<Option<ReadRow>> {
        let (text, fields) = match &mut self.source {
            Source::Ndjson(reader) => {
                let mut line = Vec::new();
                if reader.read_until(b'\n', &mut line)? == 0 {
                    return Ok(None);
                }
                self.number += 1;
                let text = String::from_utf8_lossy(&line).trim().to_owned();
                if text.is_empty() {
                    return self.next();
                }
                let fields = match serde_json::from_slice::<Value>(&line) {
                    Ok(Value::Object(fields)) => Ok(fields),
                    Ok(_) => Err("it is no JSON object".to_owned()),
                    Err(error) => Err(format!("it is not JSON: {error}")),
                };
                (text, fields)
            }
            Source::Csv { reader, columns } => {
                let mut record = csv::StringRecord::new();
                match reader.read_record(&mut record) {
                    Ok(false) => return Ok(None),
                    Ok(true) => {
                        self.number += 1;
                        (record.iter().collect::<Vec<_>>().join(","), of_record(&record, columns))
                    }
                    Err(error) if error.is_io_error() => return Err(error.into()),
                    Err(error) => {
                        self.number += 1;
                        (String::new(), Err(error.to_string()))
                    }
                }
            }
        };
        let number = self.number;
        let row = fields.and_then(|fields| self.row(fields));
        Ok(Some(row.map_err(|why| Unusable { number, text, why })))
    }

    fn row(&mut self, mut fields: Map<String, Value>) -> Result<Row, String> {
        if fields.contains_key("op") || fields.contains_key("if_match") {
            return Err("a user has neither op nor if_match".to_owned());
        }
        let id = match fields.get("id") {
            None => {
                // In the order of their names, whatever order they had.
                let sorted: BTreeMap<_, _> = fields.iter().collect();
                let content = serde_json::to_vec(&sorted).expect("JSON can be written");
                self.identity.next(&content)
            }
            Some(Value::String(id)) => id.parse().map_err(|_| "its id is no UUID".to_owned())?,
            Some(_) => return Err("its id is no UUID".to_owned()),
        };
        fields.insert("id".to_owned(), Value::String(id.to_string()));
        let object = serde_json::to_string(&fields).expect("JSON can be written");
        Ok(Row { number: self.number, id, line: format!("{CREATE}{}\n", &object[1..]), again: false })
    }
}

/// An empty id or group is none.
fn of_record(record: &csv::StringRecord, columns: &[String]) -> Result<Map<String, Value>, String> {
    if record.len() != columns.len() {
        return Err(format!("it has {} fields, and the header has {}", record.len(), columns.len()));
    }
    let mut fields = Map::new();
    for (column, text) in columns.iter().zip(record) {
        let value = match column.as_str() {
            "id" | "group" if text.is_empty() => continue,
            "group" => {
                Value::from(text.parse::<i64>().map_err(|_| "its group is no whole number".to_owned())?)
            }
            _ => Value::from(text),
        };
        fields.insert(column.clone(), value);
    }
    Ok(fields)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rows(text: &str, format: Format) -> Vec<Result<String, String>> {
        let mut rows = Rows::new(text.as_bytes(), format, String::new()).expect("a header");
        std::iter::from_fn(|| rows.next().expect("a text"))
            .map(|row| {
                row.map(|row| format!("{} {}", row.number, row.line)).map_err(|bad| {
                    assert!(!bad.why.is_empty());
                    format!("{}", bad.number)
                })
            })
            .collect()
    }

    const ID: &str = "0190a5b2-7c3d-7e4f-8a1b-2c3d4e5f6071";

    #[test]
    fn both_formats_give_the_same_rows() {
        let line = |number, name: &str| {
            Ok(format!("{number} {CREATE}\"email\":\"a@b\",\"group\":2,\"id\":\"{ID}\",\"name\":{name}}}\n"))
        };
        let csv = format!("name,id,group,email\n\"a,\"\"b\"\"\",{ID},2,a@b\nonly,two\ne\u{301},{ID},2,a@b\n");
        assert_eq!(
            rows(&csv, Format::Csv),
            [line(1, r#""a,\"b\"""#), Err("2".to_owned()), line(3, "\"e\u{301}\"")]
        );
        let ndjson = format!(
            "{{\"id\":\"{ID}\",\"name\":\"n\",\"email\":\"a@b\",\"group\":2}}\n\n[]\n{{\"op\":1}}\nx"
        );
        let expected = [line(1, "\"n\""), Err("3".to_owned()), Err("4".to_owned()), Err("5".to_owned())];
        assert_eq!(rows(&ndjson, Format::Ndjson), expected);
    }

    #[test]
    fn a_row_without_an_id_gets_the_same_one_again_in_either_format() {
        let csv = rows("id,group,name,email\n,,n,a@b\n", Format::Csv);
        let ndjson = rows("{\"email\":\"a@b\",\"name\":\"n\"}", Format::Ndjson);
        assert!(csv[0].is_ok() && csv == ndjson, "{csv:?} {ndjson:?}");
    }

    #[test]
    fn a_header_that_is_not_understood_is_refused() {
        for bad in ["name\n", "name,email,age\n", "name,email,name\n", ""] {
            assert!(Rows::new(bad.as_bytes(), Format::Csv, String::new()).is_err(), "{bad:?}");
        }
    }
}
