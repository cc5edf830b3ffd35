//! From bytes to records: the lines of NDJSON, the rows of CSV. A record keeps the bytes that it has in the
//! file, so that one that is rejected can be written as it was.
//!
//! Memory is bounded: of a record that is too long nothing is kept; its bytes are handed on in pieces.

use std::io::{self, BufRead, Cursor, Read};

use anyhow::{Context, bail};
use csv_core::{ReadFieldResult, Reader, ReaderBuilder};

/// The longest record: the longest line that a gateway takes.
const LONGEST: usize = 64 << 10;

/// What to do about a file that is one JSON array.
pub(super) const ARRAY: &str =
    "it is a JSON array: `jq -c '.[]' FILE | corro import -` makes a line of each user";

/// Where bytes come from.
pub(super) type Bytes = Box<dyn BufRead + Send>;

/// Takes the bytes of a record that is too long, as they come, from its beginning to its line end.
pub(super) type Long<'a> = &'a mut dyn FnMut(&[u8]);

/// A row of the file, whatever is in it.
#[derive(Debug, Default)]
pub(super) struct Record {
    /// The line on which it begins, from 1.
    pub(super) line: u64,
    /// Without its line end; empty where it is too long.
    pub(super) raw: Vec<u8>,
    /// Of CSV.
    pub(super) fields: Vec<Vec<u8>>,
    /// Why it cannot be read.
    pub(super) wrong: Option<String>,
}

/// The bytes after a byte order mark.
///
/// # Errors
/// Where the text is UTF-16.
pub(super) fn starting(mut bytes: Bytes) -> anyhow::Result<Bytes> {
    let mut first = Vec::new();
    bytes.by_ref().take(3).read_to_end(&mut first)?;
    if matches!(first.as_slice(), [0xff, 0xfe, ..] | [0xfe, 0xff, ..] | [0, ..] | [_, 0, ..]) {
        bail!("the file is UTF-16: `iconv -f UTF-16 -t UTF-8 FILE` makes one in UTF-8");
    }
    if first == b"\xef\xbb\xbf" {
        first.clear();
    }
    Ok(Box::new(Cursor::new(first).chain(bytes)))
}

/// The lines of NDJSON.
pub(super) struct Lines {
    bytes: Bytes,
    line: u64,
}

impl Lines {
    pub(super) fn new(bytes: Bytes) -> Self {
        Self { bytes, line: 0 }
    }

    /// The next line that is not blank.
    pub(super) fn next(&mut self, long: Long) -> io::Result<Option<Record>> {
        let mut raw = Vec::new();
        loop {
            raw.clear();
            let length = self.bytes.by_ref().take(LONGEST as u64 + 2).read_until(b'\n', &mut raw)?;
            if length == 0 {
                return Ok(None);
            }
            self.line += 1;
            let is_cut = length > LONGEST && !raw.ends_with(b"\n");
            let text = raw.trim_ascii();
            if is_cut || text.len() > LONGEST {
                long(&raw);
                if is_cut {
                    self.hand_on_line(long)?;
                }
                let mut record = Record { line: self.line, ..Record::default() };
                too_long(&mut record, text.starts_with(b"[").then(|| ARRAY.to_owned()));
                return Ok(Some(record));
            }
            if !text.is_empty() {
                return Ok(Some(Record { line: self.line, raw: text.to_vec(), ..Record::default() }));
            }
        }
    }

    /// The rest of a line.
    fn hand_on_line(&mut self, long: Long) -> io::Result<()> {
        loop {
            let piece = self.bytes.fill_buf()?;
            let end = piece.iter().position(|byte| *byte == b'\n').map(|end| end + 1);
            let length = end.unwrap_or(piece.len());
            long(&piece[..length]);
            self.bytes.consume(length);
            if end.is_some() || length == 0 {
                return Ok(());
            }
        }
    }
}

/// The rows of CSV.
pub(super) struct Csv {
    bytes: Bytes,
    parser: Reader,
    /// Line ends so far.
    lines: u64,
}

impl Csv {
    /// Reads the header, too: the names of the columns, and the bytes before the first row. A first line
    /// `sep=;`, as spreadsheets write it, says what is between the columns.
    ///
    /// # Errors
    /// Where there is no header, or it is not text.
    pub(super) fn new(bytes: Bytes, delimiter: u8) -> anyhow::Result<(Self, Vec<String>, Vec<u8>)> {
        let parser = |delimiter| ReaderBuilder::new().delimiter(delimiter).build();
        let mut csv = Self { bytes, parser: parser(delimiter), lines: 0 };
        let no_header = "the file is empty: a header such as id,name,email,group is missing";
        // Of a header that is too long nothing is imported, so nothing is kept.
        let mut header = csv.next(&mut |_| {})?.context(no_header)?;
        let mut raw = Vec::new();
        if let [b's', b'e', b'p', b'=', delimiter] = header.raw[..] {
            raw = [&header.raw, b"\n".as_slice()].concat();
            csv.parser = parser(delimiter);
            header = csv.next(&mut |_| {})?.context(no_header)?;
        }
        if let Some(wrong) = header.wrong {
            bail!("the header cannot be read: {wrong}");
        }
        let name = |name| String::from_utf8(name).map(|name| name.trim().to_owned());
        let names = header.fields.into_iter().map(name).collect::<Result<_, _>>();
        raw.extend(header.raw);
        Ok((csv, names.context("the header is not UTF-8")?, raw))
    }

    /// The next row of which any column has something.
    pub(super) fn next(&mut self, long: Long) -> io::Result<Option<Record>> {
        loop {
            match self.record(long)? {
                Some(Record { wrong: None, fields, .. })
                    if fields.iter().all(|field| field.trim_ascii().is_empty()) => {}
                record => return Ok(record),
            }
        }
    }

    fn record(&mut self, long: Long) -> io::Result<Option<Record>> {
        let mut record = Record::default();
        let (mut field, mut output) = (Vec::new(), [0; 1024]);
        // Where the field begins, among the bytes of the record.
        let mut start = 0;
        // At its end the file gets another line end: a row that goes on beyond it has an open quote.
        let mut past_end = false;
        let is_whole = loop {
            let input = self.bytes.fill_buf()?;
            let at_end = input.is_empty();
            let text = match (at_end, past_end) {
                (false, _) => input,
                (true, false) => b"\n",
                (true, true) => b"",
            };
            let (result, read, written) = self.parser.read_field(text, &mut output);
            if !at_end {
                let text = &text[..read];
                let is_end = |byte: &&u8| matches!(byte, b'\r' | b'\n');
                let blank = if record.line == 0 { text.iter().take_while(is_end).count() } else { 0 };
                self.lines += line_ends(&text[..blank]);
                if record.line == 0 && blank < text.len() {
                    record.line = self.lines + 1;
                }
                self.lines += line_ends(&text[blank..]);
                if record.raw.len() > LONGEST {
                    long(&text[blank..]);
                } else {
                    record.raw.extend_from_slice(&text[blank..]);
                    field.extend_from_slice(&output[..written]);
                    if record.raw.len() > LONGEST {
                        long(&record.raw);
                    }
                }
                self.bytes.consume(read);
            }
            match result {
                ReadFieldResult::InputEmpty => past_end |= at_end,
                ReadFieldResult::OutputFull => {}
                ReadFieldResult::Field { record_end } => {
                    if record_end && at_end && past_end {
                        break false;
                    }
                    // An empty field more costs memory, too.
                    if record.raw.len() <= LONGEST {
                        start = record.raw.len();
                        record.fields.push(std::mem::take(&mut field));
                    }
                    if record_end {
                        break true;
                    }
                }
                ReadFieldResult::End => return Ok(None),
            }
        };
        let opens = || {
            let before = &record.raw[..start];
            let column = before.iter().rev().take_while(|byte| **byte != b'\n').count() + 1;
            format!("the quote on line {}, column {column}", record.line + line_ends(before))
        };
        if record.raw.len() > LONGEST {
            let quote = record.raw.get(start) == Some(&b'"');
            let quote = quote.then(|| format!("{} may not be closed", opens()));
            too_long(&mut record, quote);
        } else if !is_whole {
            record.wrong = Some(format!("{} is not closed: all after it would be one field", opens()));
        }
        while matches!(record.raw.last(), Some(b'\r' | b'\n')) {
            record.raw.pop();
        }
        Ok(Some(record))
    }
}

fn line_ends(bytes: &[u8]) -> u64 {
    bytes.iter().filter(|byte| **byte == b'\n').count() as u64
}

fn too_long(record: &mut Record, perhaps: Option<String>) {
    record.raw = Vec::new();
    let perhaps = perhaps.map_or(String::new(), |perhaps| format!(": {perhaps}"));
    record.wrong = Some(format!("it is longer than 64 KiB{perhaps}"));
}
