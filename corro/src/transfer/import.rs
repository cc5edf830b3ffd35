//! Bulk requests, one after the other, until every row has its result.

use std::collections::VecDeque;
use std::fs::File;
use std::io::{BufRead, BufReader, BufWriter, Read, Write, stdin};
use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context, bail};
use clap::{Args, ValueEnum};
use hyper::{Method, StatusCode};
use indicatif::ProgressBar;
use serde::Deserialize;
use serde_json::{Map, Value, json};
use tokio::sync::mpsc::error::TryRecvError;
use tokio::sync::mpsc::{Receiver, channel};
use tokio::time::{Instant, sleep};
use unicode_normalization::UnicodeNormalization;

use super::rows::{CREATE, ReadRow, Row, Rows, UPDATE, Unusable};
use super::{Format, Gateway, PAUSE, at, file, progress, show};
use crate::client::{Client, NDJSON, RequestError};

/// Rows of one request: so many that the time between two requests does not matter.
const REQUEST: usize = 16_384;

/// So many rows that failed are printed where there is no file for them.
const PRINTED: u64 = 10;

/// `corro import`.
#[derive(Args, Debug)]
pub(crate) struct ImportArgs {
    /// The file; - for standard input
    file: PathBuf,
    /// Its format; by the end of its name, where that says so
    #[arg(long)]
    format: Option<Format>,
    /// What to do with users who exist
    #[arg(long, default_value = "skip")]
    on_conflict: OnConflict,
    /// Where rows go that were not imported, with the reason: one JSON object a line
    #[arg(long, value_name = "FILE")]
    errors: Option<PathBuf>,
    /// Rows without an id get one that follows from this name and from their content
    #[arg(long, default_value = "", value_name = "TEXT")]
    name: String,
    #[command(flatten)]
    gateway: Gateway,
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
    r#type: Option<String>,
    detail: Option<String>,
    errors: Option<Value>,
}

/// Imports a file. Returns whether every row was imported or skipped.
pub(crate) async fn import(args: ImportArgs) -> anyhow::Result<bool> {
    let path = file(&args.file);
    let format = Format::of(args.format, path.as_deref())?;
    let (reader, size): (Box<dyn Read + Send>, _) = match &path {
        None => (Box::new(stdin()), None),
        Some(path) => {
            let file = at(File::open(path), path)?;
            let size = file.metadata().ok().map(|metadata| metadata.len());
            (Box::new(file), size)
        }
    };
    let progress = progress("imported", size);
    let reader = BufReader::new(progress.wrap_read(reader));
    let rows = Rows::new(reader, format, args.name)?;
    let errors = match &args.errors {
        Some(path) => Some(BufWriter::new(at(File::create(path), path)?)),
        None => None,
    };
    let mut import = Import {
        client: args.gateway.client()?,
        patience: args.gateway.patience(),
        on_conflict: args.on_conflict,
        summary: Summary::default(),
        errors,
        progress,
    };
    let started = Instant::now();
    let outcome = import.run(reading(rows)).await;
    import.progress.finish_and_clear();
    if let Some(errors) = &mut import.errors {
        errors.flush().context("the file of errors")?;
    }
    let (summary, took) = (import.summary, started.elapsed().as_secs_f64());
    println!(
        "{} created, {} updated, {} skipped, {} failed in {took:.1} s ({:.0} users/s)",
        summary.created,
        summary.updated,
        summary.skipped,
        summary.failed,
        summary.total() as f64 / took.max(0.001)
    );
    outcome.context("the import is not complete; run it again, which does no row twice")?;
    Ok(summary.failed == 0)
}

/// Reads rows on a thread of its own: a pipe may have nothing for a while, and two threads are faster than
/// one.
fn reading<R: BufRead + Send + 'static>(mut rows: Rows<R>) -> Receiver<anyhow::Result<ReadRow>> {
    let (sender, receiver) = channel(REQUEST);
    std::thread::spawn(move || {
        while let Some(row) = rows.next().transpose() {
            let is_last = row.is_err();
            // If the import has ended, there is no more to do.
            if sender.blocking_send(row).is_err() || is_last {
                return;
            }
        }
    });
    receiver
}

struct Import {
    client: Client,
    patience: Duration,
    on_conflict: OnConflict,
    summary: Summary,
    errors: Option<BufWriter<File>>,
    /// Over the bytes of the file.
    progress: ProgressBar,
}

impl Import {
    async fn run(&mut self, mut rows: Receiver<anyhow::Result<ReadRow>>) -> anyhow::Result<()> {
        // Without a result. They are sent again, in the same order and before anything else.
        let mut due = Vec::new();
        let mut progressed = Instant::now();
        loop {
            while due.len() < REQUEST {
                // What the file has by now; it is waited for only if there is nothing else to send.
                let row = match rows.try_recv() {
                    Ok(row) => row,
                    Err(TryRecvError::Empty) if due.is_empty() => {
                        let Some(row) = rows.recv().await else { break };
                        progressed = Instant::now();
                        row
                    }
                    Err(_) => break,
                };
                match row? {
                    Ok(row) => due.push(row),
                    Err(Unusable { number, text, why }) => {
                        self.failed(json!({"row": number, "detail": why, "text": text}))?;
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
            }
            show(&self.progress, self.summary.total());
            if let Some(reason) = interrupted {
                if progressed.elapsed() > self.patience {
                    bail!("no progress for {} s: {reason}", self.patience.as_secs());
                }
                sleep(PAUSE).await;
            }
        }
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
                interrupted = Some(result.detail.unwrap_or_default());
                break;
            };
            let row = rows.pop_front().filter(|_| of == number);
            let row = row.with_context(|| format!("line {of} has a result, and line {number} is next"))?;
            if matches!(result.status, 503 | 504) {
                interrupted.get_or_insert_with(|| result.detail.clone().unwrap_or_default());
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
            status => {
                let LineResult { r#type, detail, errors, .. } = result;
                self.failed(json!({
                    "row": row.number, "status": status, "type": r#type, "detail": detail, "errors": errors,
                    "user": row.user()
                }))?;
            }
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

    /// A row that is not imported. All of them go to the file, or else the first ones to the terminal.
    fn failed(&mut self, why: Value) -> anyhow::Result<()> {
        self.summary.failed += 1;
        if let Some(errors) = &mut self.errors {
            writeln!(errors, "{why}").context("the file of errors")?;
        } else if self.summary.failed <= PRINTED {
            let detail = why["detail"].as_str().unwrap_or_default();
            self.progress.suspend(|| eprintln!("row {}: {detail}", why["row"]));
        }
        Ok(())
    }
}

/// Rows that were sent, and may have been done.
fn sent(rows: impl IntoIterator<Item = Row>) -> Vec<Row> {
    rows.into_iter().map(|row| Row { again: true, ..row }).collect()
}
