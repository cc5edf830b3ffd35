//! Page after page, from the first id to the last.

use std::fs::File;
use std::io::{BufWriter, Write, stdout};
use std::path::PathBuf;

use anyhow::{Context, bail};
use clap::Args;
use hyper::Method;
use protocol::User;
use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::value::RawValue;
use tokio::time::{Instant, sleep};

use super::{Format, Gateway, PAUSE, at, file, progress, show};
use crate::client::Client;

/// Users on a page: as many as there may be.
const PAGE: usize = 1_000;

/// `corro export`.
#[derive(Args, Debug)]
pub(crate) struct ExportArgs {
    /// Where the users go; standard output where it is not given
    #[arg(long, default_value = "-", value_name = "FILE", hide_default_value = true)]
    output: PathBuf,
    /// How they stand there; by the end of the file's name, where that says so
    #[arg(long)]
    format: Option<Format>,
    /// Only users of this group
    #[arg(long, allow_negative_numbers = true)]
    group: Option<i32>,
    #[command(flatten)]
    gateway: Gateway,
}

#[derive(Deserialize)]
struct Count {
    count: u64,
}

#[derive(Deserialize)]
struct Page {
    items: Vec<Box<RawValue>>,
    next_cursor: Option<String>,
}

/// Exports all users, or those of a group. A file has its name only when it is complete.
pub(crate) async fn export(args: ExportArgs) -> anyhow::Result<()> {
    let path = file(&args.output);
    let format = Format::of(args.format, path.as_deref())?;
    let Some(path) = path else {
        return pages(&args, Output::new(format, stdout().lock())?).await.map(drop);
    };
    let mut name = path.clone().into_os_string();
    name.push(".part");
    let unfinished = PathBuf::from(name);
    let output = Output::new(format, at(File::create(&unfinished), &unfinished)?)?;
    let users = pages(&args, output).await?;
    at(std::fs::rename(&unfinished, &path), &path)?;
    eprintln!("{users} users in {}", path.display());
    Ok(())
}

async fn pages(args: &ExportArgs, mut output: Output<impl Write>) -> anyhow::Result<u64> {
    let mut client = args.gateway.client()?;
    let only = |before: &str| args.group.map_or(String::new(), |group| format!("{before}group={group}"));
    let Count { count } = ask(&mut client, args, &format!("/api/user/count{}", only("?"))).await?;
    let (mut users, mut cursor) = (0, String::new());
    let progress = progress("exported", Some(count));
    loop {
        let path = format!("/api/user?limit={PAGE}{}{cursor}", only("&"));
        let page: Page = ask(&mut client, args, &path).await?;
        page.items.iter().try_for_each(|user| output.user(user))?;
        users += page.items.len() as u64;
        progress.set_position(users);
        show(&progress, users);
        match page.next_cursor {
            Some(next) => cursor = format!("&cursor={next}"),
            None => break,
        }
    }
    output.end()?;
    progress.finish_and_clear();
    Ok(users)
}

/// Asks until there is an answer, as long as that may come.
async fn ask<T: DeserializeOwned>(client: &mut Client, args: &ExportArgs, path: &str) -> anyhow::Result<T> {
    let start = Instant::now();
    loop {
        let reason = match client.send(Method::GET, path, None).await {
            Ok(answer) if answer.status.is_server_error() => answer.reason(),
            Ok(answer) => return answer.json(),
            Err(error) => error.to_string(),
        };
        if start.elapsed() > args.gateway.patience() {
            bail!("no answer for {} s: {reason}", args.gateway.patience);
        }
        sleep(PAUSE).await;
    }
}

enum Output<W: Write> {
    Ndjson(BufWriter<W>),
    Csv(Box<csv::Writer<W>>),
}

impl<W: Write> Output<W> {
    fn new(format: Format, writer: W) -> anyhow::Result<Self> {
        match format {
            Format::Ndjson => Ok(Self::Ndjson(BufWriter::new(writer))),
            Format::Csv => {
                let mut writer = csv::Writer::from_writer(writer);
                writer.write_record(["id", "name", "email", "group"])?;
                Ok(Self::Csv(Box::new(writer)))
            }
        }
    }

    fn user(&mut self, document: &RawValue) -> anyhow::Result<()> {
        match self {
            Self::Ndjson(writer) => Ok(writeln!(writer, "{}", document.get())?),
            Self::Csv(writer) => {
                let User { id, name, email, group } =
                    serde_json::from_str(document.get()).context("a user was expected")?;
                Ok(writer.write_record([&id.to_string(), &name, &email, &group.to_string()])?)
            }
        }
    }

    fn end(self) -> anyhow::Result<()> {
        match self {
            Self::Ndjson(mut writer) => Ok(writer.flush()?),
            Self::Csv(mut writer) => Ok(writer.flush()?),
        }
    }
}
