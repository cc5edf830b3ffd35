//! Bulk requests, one after the other, until every row has its result.

use std::collections::VecDeque;
use std::fs::{File, Metadata};
use std::io::{BufReader, Read, Write, stdin};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, bail, ensure};
use clap::{Args, ValueEnum};
use indicatif::ProgressBar;
use reqwest::{Method, StatusCode};
use serde::Deserialize;
use serde_json::{Map, Value, json};
use tokio::sync::mpsc::{Receiver, Sender, channel, error::TryRecvError};
use tokio::time::{Instant, sleep, timeout};
use unicode_normalization::UnicodeNormalization;

use super::destination::create;
use super::rows::{CREATE, Place, ReadRow, Reading, Row, Rows, UPDATE, Unusable};
use super::{Format, PAUSE, at, file, progress, show};
use crate::client::{Client, NDJSON, Problem, RequestError};
use crate::target::GatewayArgs;
use crate::terminal::{REMINDER, Reminder, complain, say, trying_again};

/// Rows of one request: so many that the time between two requests does not matter.
const REQUEST: usize = 16_384;

/// Bytes of one request, about: many a proxy takes no more than 1 MiB, and reads all of it before it hands on
/// any of it.
const REQUEST_BYTES: usize = 900 << 10;

/// So many rows that failed are printed.
const PRINTED: u64 = 10;

/// Pieces of a row that is too long, between the thread that reads and the file of rejected rows.
const PIECES: usize = 8;

/// `corro import`.
#[derive(Args, Debug)]
pub(crate) struct ImportArgs {
    /// The file; - for standard input
    file: PathBuf,
    /// Its format; by the end of its name, where that says so
    #[arg(long)]
    format: Option<Format>,
    #[command(flatten)]
    reading: Reading,
    /// What to do with users who exist
    #[arg(long, default_value = "skip")]
    on_conflict: OnConflict,
    /// Where rows go that were not imported, as they are in the file: correct them, and import that file
    #[arg(long, value_name = "FILE")]
    rejected: Option<PathBuf>,
    /// Where the reasons go why rows were not imported: one JSON object a line
    #[arg(long, value_name = "FILE")]
    errors: Option<PathBuf>,
    #[command(flatten)]
    gateway: GatewayArgs,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum OnConflict {
    /// Leave them as they are
    Skip,
    /// Set the fields that the row has
    Update,
    /// Count the row as failed
    Fail,
}

/// What became of the rows.
#[derive(Debug, Default, Clone, Copy)]
struct Summary {
    created: u64,
    updated: u64,
    skipped: u64,
    failed: u64,
}

impl Summary {
    fn total(self) -> u64 {
        self.created + self.updated + self.skipped + self.failed
    }
}

/// A line of an answer.
#[derive(Debug, Deserialize)]
struct LineResult {
    /// `None` in the line that says that there will be no more.
    line: Option<u64>,
    status: u16,
    /// Where it was not done.
    #[serde(flatten)]
    problem: Option<Problem>,
}

impl LineResult {
    fn reason(&self) -> String {
        self.problem.as_ref().map_or_else(|| self.status.to_string(), ToString::to_string)
    }
}

/// What the file has.
enum FromFile {
    /// All that is before the rows.
    Header(Vec<u8>),
    /// The pieces of a row that is too long, which comes next, without them.
    Long(Receiver<Vec<u8>>),
    Row(ReadRow),
}

/// Imports a file. Returns whether every row was imported or skipped.
pub(crate) async fn import(args: ImportArgs) -> anyhow::Result<bool> {
    let path = file(&args.file);
    let format = Format::of(args.format, path.as_deref())?;
    let progress = progress("imported", None);
    // Before anything is written: the file of rejected rows of an earlier import may be the only one.
    // It is not opened yet: the writer of a named pipe would see it closed.
    let input = match &path {
        Some(path) => Some(path.metadata().with_context(|| format!("{} cannot be read", path.display()))?),
        None => Path::new("/dev/stdin").metadata().ok(),
    };
    let output = |output: &Option<PathBuf>| {
        let Some(output) = output else { return anyhow::Ok(None) };
        let place = |metadata: Metadata| (metadata.dev(), metadata.ino());
        let read = input.clone().filter(Metadata::is_file).map(place);
        let same = read.is_some() && output.metadata().ok().map(place) == read;
        ensure!(!same, "{} is the file to read", output.display());
        create(output).map(Some)
    };
    let same = args.rejected.is_some() && args.rejected == args.errors;
    ensure!(!same, "--rejected and --errors are the same file");
    let mut import = Import {
        client: args.gateway.client().await?,
        patience: args.gateway.patience(),
        on_conflict: args.on_conflict,
        summary: Summary::default(),
        header: Vec::new(),
        rejected: output(&args.rejected)?,
        errors: output(&args.errors)?,
        progress: progress.clone(),
        input: path.as_ref().map_or("standard input".to_owned(), |path| path.display().to_string()),
        retrying: Reminder::default(),
    };
    let (sender, rows) = channel(REQUEST);
    // A thread of its own: a pipe may have nothing for a while, and two threads are faster than one.
    std::thread::spawn(move || {
        if let Err(error) = read(path.as_deref(), format, args.reading, progress, &sender) {
            let _ = sender.blocking_send(Err(error));
        }
    });
    let started = Instant::now();
    let outcome = import.run(rows).await;
    import.progress.finish_and_clear();
    let (summary, took) = (import.summary, started.elapsed().as_secs_f64());
    if outcome.is_ok() || summary.total() > 0 {
        say(&format!(
            "{} created, {} updated, {} skipped, {} failed in {took:.1} s ({:.0} users/s)",
            summary.created,
            summary.updated,
            summary.skipped,
            summary.failed,
            summary.total() as f64 / took.max(0.001)
        ));
    }
    if summary.total() == 0 {
        outcome?;
    } else {
        outcome.context("the import is not complete; run it again, which does no row twice")?;
    }
    if summary.failed > 0 && args.rejected.is_none() {
        complain("--rejected FILE writes the rows that failed, to be corrected and imported again");
    }
    Ok(summary.failed == 0)
}

/// Hands on what a file has, until its end or until the import has ended.
fn read(
    path: Option<&Path>,
    format: Format,
    reading: Reading,
    progress: ProgressBar,
    sender: &Sender<anyhow::Result<FromFile>>,
) -> anyhow::Result<()> {
    let bytes: Box<dyn Read + Send> = match path {
        None => Box::new(stdin()),
        Some(path) => {
            let file = at(File::open(path), path)?;
            progress.set_length(file.metadata().map_or(0, |metadata| metadata.len()));
            Box::new(file)
        }
    };
    let context = || path.map_or("standard input".to_owned(), |path| path.display().to_string());
    let reader = BufReader::new(progress.wrap_read(bytes));
    let (mut rows, header) = Rows::new(reader, format, reading).with_context(context)?;
    let mut next = Some(FromFile::Header(header));
    while let Some(read) = next {
        // If the import has ended, there is no more to do.
        if sender.blocking_send(Ok(read)).is_err() {
            break;
        }
        let mut pieces: Option<Sender<Vec<u8>>> = None;
        let mut long = |piece: &[u8]| {
            let pieces = pieces.get_or_insert_with(|| {
                let (pieces, received) = channel(PIECES);
                let _ = sender.blocking_send(Ok(FromFile::Long(received)));
                pieces
            });
            let _ = pieces.blocking_send(piece.to_vec());
        };
        next = rows.next(&mut long).with_context(context)?.map(FromFile::Row);
    }
    Ok(())
}

struct Import {
    client: Client,
    patience: Duration,
    on_conflict: OnConflict,
    summary: Summary,
    header: Vec<u8>,
    rejected: Option<File>,
    errors: Option<File>,
    /// Over the bytes of the file.
    progress: ProgressBar,
    /// Its name, for people.
    input: String,
    /// Of what keeps the ring from taking rows.
    retrying: Reminder,
}

impl Import {
    async fn run(&mut self, mut rows: Receiver<anyhow::Result<FromFile>>) -> anyhow::Result<()> {
        // Without a result. They are sent again, in the same order and before anything else.
        let mut due = Vec::new();
        let mut progressed = Instant::now();
        loop {
            let mut bytes: usize = due.iter().map(|row: &Row| row.line.len()).sum();
            while due.len() < REQUEST && bytes < REQUEST_BYTES {
                // What the file has by now; it is waited for only if there is nothing else to send.
                let read = match rows.try_recv() {
                    Ok(read) => read,
                    Err(TryRecvError::Empty) if due.is_empty() => {
                        let Some(read) = self.wait_for(&mut rows).await else { break };
                        progressed = Instant::now();
                        read
                    }
                    Err(_) => break,
                };
                match read? {
                    FromFile::Header(header) => self.header = header,
                    FromFile::Long(pieces) => self.copy_rejected(pieces).await?,
                    FromFile::Row(Ok(row)) => {
                        bytes += row.line.len();
                        due.push(row);
                    }
                    FromFile::Row(Err(Unusable { place, raw, why })) => {
                        self.failed(place, &raw, None, &why)?;
                    }
                }
            }
            if due.is_empty() {
                return Ok(());
            }
            let before = self.summary.total();
            let (left, interrupted) = self.send(due).await?;
            due = left;
            if self.summary.total() > before {
                progressed = Instant::now();
                self.retrying = Reminder::default();
            }
            show(&self.progress, self.summary.total());
            if let Some(reason) = interrupted {
                let waited = progressed.elapsed();
                if waited > self.patience {
                    bail!("no row was taken for {} s: {reason}", self.patience.as_secs());
                }
                if self.retrying.is_due() {
                    self.progress.suspend(|| complain(&trying_again(&reason, waited, self.patience)));
                }
                sleep(PAUSE).await;
            }
        }
    }

    /// The next row of a file that has none now. How long that takes is for the other end of a pipe to say,
    /// so there is no deadline, and no request is open meanwhile; what is waited for is said now and then.
    async fn wait_for<T>(&self, rows: &mut Receiver<T>) -> Option<T> {
        let (begun, every) = (Instant::now(), self.patience.min(REMINDER));
        loop {
            if let Ok(read) = timeout(every, rows.recv()).await {
                return read;
            }
            let waited = begun.elapsed().as_secs();
            let text = format!("Waiting for more of {} for {waited} s: it has not ended.", self.input);
            self.progress.suspend(|| complain(&text));
        }
    }

    /// Copies a row that is too long, as it comes, into the file of rejected rows.
    async fn copy_rejected(&mut self, mut pieces: Receiver<Vec<u8>>) -> anyhow::Result<()> {
        let mut last = None;
        while let Some(piece) = self.wait_for(&mut pieces).await {
            last = piece.last().copied().or(last);
            self.write_rejected(&piece)?;
        }
        // The last row of a file may lack its line end.
        if last != Some(b'\n') { self.write_rejected(b"\n") } else { Ok(()) }
    }

    /// Adds to the file of rejected rows; the header comes first.
    fn write_rejected(&mut self, bytes: &[u8]) -> anyhow::Result<()> {
        let Some(rejected) = &mut self.rejected else { return Ok(()) };
        let mut header = std::mem::take(&mut self.header);
        if !header.is_empty() {
            header.push(b'\n');
        }
        let written = rejected.write_all(&header).and_then(|()| rejected.write_all(bytes));
        written.context("the file of rejected rows")
    }

    /// One request. Returns the rows that have no final result, and why, if the ring cannot give it now.
    async fn send(&mut self, rows: Vec<Row>) -> anyhow::Result<(Vec<Row>, Option<String>)> {
        let body = rows.iter().map(|row| row.line.as_str()).collect();
        let answer = self.client.send_for_part(Method::POST, "/api/user/bulk", &[NDJSON], body).await;
        let (answer, end) = match answer {
            Ok((answer, end)) if answer.status == StatusCode::OK => (answer, end),
            Ok((answer, _)) if answer.status.is_server_error() => return Ok((rows, Some(answer.reason()))),
            Ok((answer, _)) => bail!(answer.reason()),
            Err(error @ RequestError::Refused(_)) => return Ok((rows, Some(error.to_string()))),
            Err(error) => return Ok((sent(rows), Some(error.to_string()))),
        };
        let mut interrupted = end.err().map(|error| error.to_string());
        let (mut rows, mut left) = (VecDeque::from(rows), Vec::new());
        let whole = answer.body.iter().rposition(|&byte| byte == b'\n').map_or(0, |end| end + 1);
        let lines = answer.body[..whole].split(|&byte| byte == b'\n').filter(|line| !line.is_empty());
        for (number, line) in (1..).zip(lines) {
            let result: LineResult = serde_json::from_slice(line).context("a result is not understood")?;
            let Some(of) = result.line else {
                interrupted = Some(result.reason());
                break;
            };
            let row = rows.pop_front().filter(|_| of == number);
            let row = row.with_context(|| format!("line {of} has a result, and line {number} is next"))?;
            if matches!(result.status, 503 | 504) {
                interrupted.get_or_insert_with(|| result.reason());
            }
            left.extend(self.result(row, result).await?);
        }
        if !rows.is_empty() {
            interrupted.get_or_insert_with(|| "the answer has ended early".to_owned());
        }
        // In the order of the file: what the answer did not reach comes later.
        left.extend(sent(rows));
        Ok((left, interrupted))
    }

    /// Takes the result of a row. Returns the row if it has to be sent again.
    async fn result(&mut self, mut row: Row, result: LineResult) -> anyhow::Result<Option<Row>> {
        match result.status {
            201 => self.summary.created += 1,
            200 => self.summary.updated += 1,
            // It was not done, or perhaps: either way it can be sent again.
            503 | 504 => {
                row.again |= result.status == 504;
                return Ok(Some(row));
            }
            409 if row.again && self.exists_as(&row).await? => self.summary.created += 1,
            409 if self.on_conflict == OnConflict::Skip => self.summary.skipped += 1,
            409 if self.on_conflict == OnConflict::Update => {
                row.line = row.line.replacen(CREATE, UPDATE, 1);
                return Ok(Some(row));
            }
            // It was deleted since it was found to exist.
            404 if row.line.starts_with(UPDATE) => {
                row.line = row.line.replacen(UPDATE, CREATE, 1);
                return Ok(Some(row));
            }
            _ => self.failed(row.place, &row.raw, Some((&result, &row)), &result.reason())?,
        }
        Ok(None)
    }

    /// Whether the user is what the row says: then it was this import that made it, or might as well have
    /// been.
    async fn exists_as(&mut self, row: &Row) -> anyhow::Result<bool> {
        let answer = match self.client.send(Method::GET, &format!("/api/user/{}", row.id), None).await {
            Ok(answer) if answer.status == StatusCode::OK => answer,
            // It cannot be found out now; the row counts as one that existed.
            _ => return Ok(false),
        };
        let found: Map<String, Value> = answer.json()?;
        let mut wanted = row.user();
        if let Some(Value::String(name)) = wanted.get_mut("name") {
            *name = name.nfc().collect();
        }
        wanted.entry("group").or_insert_with(|| Value::from(0));
        Ok(found == wanted)
    }

    /// A row that is not imported.
    fn failed(
        &mut self,
        place: Place,
        raw: &[u8],
        result: Option<(&LineResult, &Row)>,
        why: &str,
    ) -> anyhow::Result<()> {
        self.summary.failed += 1;
        if self.summary.failed <= PRINTED {
            self.progress.suspend(|| complain(&format!("{place}: {why}")));
        } else if self.summary.failed == PRINTED + 1 {
            self.progress.suspend(|| complain("more rows failed; --errors FILE has the reasons of all"));
        }
        if !raw.is_empty() {
            self.write_rejected(&[raw, b"\n"].concat())?;
        }
        if let Some(errors) = &mut self.errors {
            let problem = result.and_then(|(result, _)| result.problem.as_ref());
            let line = json!({
                "row": place.row, "line": place.line, "status": result.map(|(result, _)| result.status),
                "type": problem.and_then(|problem| problem.r#type.as_ref()), "detail": why,
                "errors": problem.map(|problem| &problem.errors), "user": result.map(|(_, row)| row.user()),
                "text": String::from_utf8_lossy(raw),
            });
            writeln!(errors, "{line}").context("the file of errors")?;
        }
        Ok(())
    }
}

/// Rows that were sent, and may have been done.
fn sent(rows: impl IntoIterator<Item = Row>) -> Vec<Row> {
    rows.into_iter().map(|row| Row { again: true, ..row }).collect()
}
