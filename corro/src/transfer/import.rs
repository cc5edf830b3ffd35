//! As many bulk requests as it takes until every row has its result.

use std::collections::VecDeque;
use std::fs::File;
use std::io::{BufRead, BufReader, BufWriter, Read, Write, stdin};
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use anyhow::{Context, bail};
use clap::{Args, ValueEnum};
use hyper::body::Bytes;
use hyper::{Method, StatusCode};
use serde_json::{Map, Value, json};
use tokio::sync::mpsc::{Receiver, channel};
use tokio::time::{Instant, sleep, timeout};
use unicode_normalization::UnicodeNormalization;

use super::progress::Progress;
use super::rows::{CREATE, Row, Rows, UPDATE, Unusable};
use super::stream::{LineResult, NotOpened, Stream};
use super::{Format, Gateway, PAUSE, at, file};
use crate::load::client::{Client, Endpoint};

/// Rows that may be without a result: enough that the ring never waits for this side.
const IN_FLIGHT: usize = 8_192;

/// Rows sent as one piece.
const PIECE: usize = 256;

/// `corro import`.
#[derive(Args, Debug)]
pub(crate) struct ImportArgs {
    /// The file; - for standard input
    file: PathBuf,
    /// How the users stand in it; by the end of its name, where that says so
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
#[derive(Debug, Default)]
struct Summary {
    created: u64,
    updated: u64,
    skipped: u64,
    failed: u64,
}

impl Summary {
    fn total(&self) -> u64 {
        self.created + self.updated + self.skipped + self.failed
    }
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
    let read = Arc::new(AtomicU64::new(0));
    let reader = BufReader::new(Counted { reader, read: Arc::clone(&read) });
    let rows = Rows::new(reader, format, args.name)?;
    let errors = match &args.errors {
        Some(path) => Some(BufWriter::new(at(File::create(path), path)?)),
        None => None,
    };
    let endpoint = args.gateway.endpoint()?;
    let mut import = Import {
        client: Client::new(endpoint.clone()),
        endpoint,
        patience: args.gateway.patience(),
        on_conflict: args.on_conflict,
        rows: reading(rows),
        first: VecDeque::new(),
        exhausted: false,
        sent: VecDeque::new(),
        next_line: 1,
        summary: Summary::default(),
        errors,
        complaints: 0,
        moved: Instant::now(),
        progress: Progress::new("imported"),
        part: Box::new(move || size.map(|size| read.load(Ordering::Relaxed) as f64 / size.max(1) as f64)),
    };
    let outcome = import.run().await;
    if let Some(errors) = &mut import.errors {
        errors.flush().context("the file of errors")?;
    }
    let (summary, took) = (import.summary, import.progress.end());
    println!(
        "{} created, {} updated, {} skipped, {} failed in {:.1} s ({:.0} users/s)",
        summary.created,
        summary.updated,
        summary.skipped,
        summary.failed,
        took.as_secs_f64(),
        summary.total() as f64 / took.as_secs_f64().max(0.001)
    );
    outcome.context("the import is not complete; run it again, which does no row twice")?;
    Ok(summary.failed == 0)
}

/// Counts the bytes that are read.
struct Counted {
    reader: Box<dyn Read + Send>,
    read: Arc<AtomicU64>,
}

impl Read for Counted {
    fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
        let count = self.reader.read(buffer)?;
        self.read.fetch_add(count as u64, Ordering::Relaxed);
        Ok(count)
    }
}

type Piece = Vec<Result<Row, Unusable>>;

/// Reads rows on a thread of its own: a pipe may have nothing for a while, and two threads are faster than
/// one.
fn reading<R: BufRead + Send + 'static>(mut rows: Rows<R>) -> Receiver<anyhow::Result<Piece>> {
    let (sender, receiver) = channel(8);
    std::thread::spawn(move || {
        loop {
            let mut piece = Vec::with_capacity(PIECE);
            let mut end = Ok(());
            while piece.len() < PIECE {
                match rows.next() {
                    Ok(Some(row)) => piece.push(row),
                    Ok(None) => break,
                    Err(error) => {
                        end = Err(error);
                        break;
                    }
                }
            }
            // Nobody is left to read for when the import has ended.
            let last = piece.len() < PIECE;
            if sender.blocking_send(Ok(piece)).is_err() {
                return;
            }
            if let Err(error) = end {
                let _ = sender.blocking_send(Err(error));
            }
            if last {
                return;
            }
        }
    });
    receiver
}

struct Import {
    client: Client,
    endpoint: Endpoint,
    patience: Duration,
    on_conflict: OnConflict,
    /// From the file.
    rows: Receiver<anyhow::Result<Piece>>,
    /// To be sent before those: once more, or as an update.
    first: VecDeque<Row>,
    /// The file is read to its end.
    exhausted: bool,
    /// Without a result, in the order of their lines.
    sent: VecDeque<Row>,
    /// Number of the line whose result is next.
    next_line: u64,
    summary: Summary,
    errors: Option<BufWriter<File>>,
    complaints: u64,
    /// When a row last got its final result.
    moved: Instant,
    progress: Progress,
    /// How much of the file is read.
    part: Box<dyn Fn() -> Option<f64>>,
}

/// Why a request has ended.
enum Ended {
    AllDone,
    /// Not all rows have their result.
    Early(String),
}

impl Import {
    async fn run(&mut self) -> anyhow::Result<()> {
        loop {
            let reason = match Stream::open(&self.endpoint).await {
                Ok(stream) => match self.send(stream).await? {
                    Ended::AllDone => return Ok(()),
                    Ended::Early(reason) => reason,
                },
                Err(NotOpened::Later(reason)) => reason,
                Err(NotOpened::Never(error)) => return Err(error),
            };
            if self.sent.is_empty() && self.first.is_empty() {
                // It was the file that was slow.
                self.moved = Instant::now();
            }
            // Whatever has no result is sent again, in the same order and before anything else.
            for row in std::mem::take(&mut self.sent).into_iter().rev() {
                self.first.push_front(Row { again: true, ..row });
            }
            if self.moved.elapsed() > self.patience {
                bail!("nothing has gone on for {} s: {reason}", self.patience.as_secs());
            }
            sleep(PAUSE).await;
        }
    }

    /// One request, until all rows have their result or it breaks.
    async fn send(&mut self, mut stream: Stream) -> anyhow::Result<Ended> {
        self.next_line = 1;
        // A partition that is down is not asked again and again.
        let mut rest_until: Option<Instant> = None;
        loop {
            if self.is_done() {
                stream.end();
            }
            let lines = stream.lines();
            // Where nothing is owed, it is the file that is slow.
            let patience = if self.sent.is_empty() { Duration::MAX } else { self.patience };
            let resting = rest_until.is_some_and(|until| Instant::now() < until);
            let may_send = lines.is_some() && self.sent.len() < IN_FLIGHT && !resting;
            let again = may_send && !self.first.is_empty();
            let fresh = may_send && self.first.is_empty() && !self.exhausted;
            tokio::select! {
                biased;
                results = timeout(patience, stream.results()) => match results {
                    Err(_) => return Ok(Ended::Early("no result came".to_owned())),
                    Ok(Err(error)) => return Ok(Ended::Early(error.to_string())),
                    Ok(Ok(None)) if self.is_done() => return Ok(Ended::AllDone),
                    Ok(Ok(None)) => return Ok(Ended::Early("the answer has ended early".to_owned())),
                    Ok(Ok(Some(results))) => {
                        for result in results {
                            if result.line.is_none() {
                                return Ok(Ended::Early(result.detail.unwrap_or_default()));
                            }
                            if self.result(result).await? {
                                rest_until = Some(Instant::now() + PAUSE);
                            }
                        }
                        self.progress.draw(self.summary.total(), (self.part)());
                        if rest_until.is_some() && self.moved.elapsed() > self.patience {
                            return Ok(Ended::Early("partitions are down".to_owned()));
                        }
                    }
                },
                permit = async { lines.as_ref().expect("checked by the condition").reserve().await }, if again => {
                    let Ok(permit) = permit else { return Ok(Ended::Early("no more is taken".to_owned())) };
                    let count = self.first.len().min(PIECE);
                    let rows: Vec<Row> = self.first.drain(..count).collect();
                    permit.send(self.write(rows));
                }
                (permit, piece) = async {
                    let permit = lines.as_ref().expect("checked by the condition").reserve().await;
                    (permit, self.rows.recv().await)
                }, if fresh => {
                    let rows = self.sort_out(piece)?;
                    match permit {
                        Ok(permit) if !rows.is_empty() => permit.send(self.write(rows)),
                        Ok(_) => {}
                        Err(_) => {
                            self.first.extend(rows);
                            return Ok(Ended::Early("no more is taken".to_owned()));
                        }
                    }
                }
                () = sleep(PAUSE), if resting => {}
            }
        }
    }

    fn is_done(&self) -> bool {
        self.exhausted && self.first.is_empty() && self.sent.is_empty()
    }

    /// The rows that can be sent.
    fn sort_out(&mut self, piece: Option<anyhow::Result<Piece>>) -> anyhow::Result<Vec<Row>> {
        let Some(piece) = piece else {
            self.exhausted = true;
            return Ok(Vec::new());
        };
        let mut rows = Vec::new();
        for row in piece? {
            match row {
                Ok(row) => rows.push(row),
                Err(Unusable { number, text, why }) => {
                    self.failed(json!({"row": number, "detail": why, "text": text}))?;
                }
            }
        }
        Ok(rows)
    }

    /// The rows as lines; from now on they are without a result.
    fn write(&mut self, rows: Vec<Row>) -> Bytes {
        let mut text = String::with_capacity(rows.iter().map(|row| row.line.len()).sum());
        for row in rows {
            text.push_str(&row.line);
            self.sent.push_back(row);
        }
        Bytes::from(text)
    }

    /// Takes the result of the oldest row. Returns whether its partition is down now.
    async fn result(&mut self, result: LineResult) -> anyhow::Result<bool> {
        let Some(mut row) = self.sent.pop_front().filter(|_| result.line == Some(self.next_line)) else {
            bail!("line {:?} has a result, and line {} is next", result.line, self.next_line);
        };
        self.next_line += 1;
        match result.status {
            201 => self.summary.created += 1,
            200 => self.summary.updated += 1,
            // It is not done, or perhaps: either way it can be sent again.
            503 | 504 => {
                row.again |= result.status == 504;
                self.first.push_back(row);
                return Ok(true);
            }
            409 if row.again && self.exists_as(&row).await? => self.summary.created += 1,
            409 if self.on_conflict == OnConflict::Skip => self.summary.skipped += 1,
            409 if self.on_conflict == OnConflict::Update => {
                row.line = row.line.replacen(CREATE, UPDATE, 1);
                self.first.push_back(row);
                return Ok(false);
            }
            // It was deleted since it was found to exist.
            404 if row.line.starts_with(UPDATE) => {
                row.line = row.line.replacen(UPDATE, CREATE, 1);
                self.first.push_back(row);
                return Ok(false);
            }
            status => {
                let LineResult { r#type, detail, errors, .. } = result;
                self.failed(json!({
                    "row": row.number, "status": status, "type": r#type, "detail": detail, "errors": errors,
                    "user": row.user()
                }))?;
            }
        }
        self.moved = Instant::now();
        Ok(false)
    }

    /// Whether the user is what the row says: then it was this import that made it, or might as well have
    /// been.
    async fn exists_as(&mut self, row: &Row) -> anyhow::Result<bool> {
        let path = format!("/api/user/{}", row.id);
        let answer = match self.client.send(Method::GET, &path, None).await {
            Ok(answer) if answer.status == StatusCode::OK => answer,
            // It cannot be told now; the row counts as one that existed.
            _ => return Ok(false),
        };
        let found: Map<String, Value> =
            serde_json::from_slice(&answer.body).context("the gateway answered with what is no user")?;
        let mut wanted = row.user();
        if let Some(Value::String(name)) = wanted.get_mut("name") {
            *name = name.nfc().collect();
        }
        wanted.entry("group").or_insert_with(|| Value::from(0));
        Ok(found == wanted)
    }

    /// A row that is not imported. The first few are told, all go to the file.
    fn failed(&mut self, why: Value) -> anyhow::Result<()> {
        self.summary.failed += 1;
        self.moved = Instant::now();
        if let Some(errors) = &mut self.errors {
            writeln!(errors, "{why}").context("the file of errors")?;
        } else if self.complaints < 10 {
            self.complaints += 1;
            eprintln!("row {}: {}", why["row"], why["detail"].as_str().unwrap_or_default());
        }
        Ok(())
    }
}
