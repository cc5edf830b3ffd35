//! Page after page, from the first id to the last.

use std::io::{BufWriter, IntoInnerError, Write};
use std::path::PathBuf;

use anyhow::{Context, anyhow, bail};
use clap::Args;
use protocol::User;
use reqwest::Method;
use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::value::RawValue;
use tokio::time::{Instant, sleep};
use url::form_urlencoded;

use super::destination::Destination;
use super::{Format, PAUSE, file, progress, show};
use crate::client::{Client, Count};
use crate::target::GatewayArgs;
use crate::terminal::{Reminder, complain, trying_again};

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
    gateway: GatewayArgs,
}

#[derive(Deserialize)]
struct Page {
    items: Vec<Box<RawValue>>,
    next_cursor: Option<String>,
}

/// Exports all users, or those of a group.
pub(crate) async fn export(args: ExportArgs) -> anyhow::Result<()> {
    let path = file(&args.output);
    let format = Format::of(args.format, path.as_deref())?;
    let destination = Destination::of(path.as_deref())?;
    // A signal would leave a file that is not complete. What blocks on a pipe is to be ended by one.
    let interrupted = match &destination {
        Destination::File(..) => Some(process::shutdown_on_signal()),
        Destination::Stream(_) => None,
    };
    let exported = write(&args, Output::new(format, destination)?);
    let users = match interrupted {
        None => exported.await?,
        Some(interrupted) => tokio::select! {
            users = exported => users?,
            () = interrupted.cancelled() => bail!("interrupted"),
        },
    };
    if let Some(path) = path {
        complain(&format!("{users} users in {}", path.display()));
    }
    Ok(())
}

async fn write(args: &ExportArgs, mut output: Output) -> anyhow::Result<u64> {
    let mut pages = Pages::new(&args.gateway, args.group, None).await?;
    let progress = progress("exported", Some(pages.count().await?));
    let mut users = 0;
    while let Some(page) = pages.next(PAGE).await? {
        page.iter().try_for_each(|user| output.user(user))?;
        users += page.len() as u64;
        progress.set_position(users);
        show(&progress, users);
    }
    output.end()?;
    progress.finish_and_clear();
    Ok(users)
}

/// The list of users, page after page. Each is asked for as long as it may come.
pub(crate) struct Pages<'a> {
    gateway: &'a GatewayArgs,
    client: Client,
    group: Option<i32>,
    /// Of the list: group and email.
    filter: String,
    /// Of the next page; `None` at the end.
    cursor: Option<String>,
}

impl<'a> Pages<'a> {
    pub(crate) async fn new(
        gateway: &'a GatewayArgs,
        group: Option<i32>,
        email: Option<&str>,
    ) -> anyhow::Result<Self> {
        let mut filter = form_urlencoded::Serializer::new(String::new());
        let group_text = group.map(|group| group.to_string());
        for (name, value) in [("group", group_text.as_deref()), ("email", email)] {
            if let Some(value) = value {
                filter.append_pair(name, value);
            }
        }
        let filter = Some(filter.finish()).filter(|filter| !filter.is_empty());
        let filter = filter.map_or(String::new(), |filter| format!("&{filter}"));
        Ok(Self { gateway, client: gateway.client().await?, group, filter, cursor: Some(String::new()) })
    }

    /// How many users there are, of the group where there is one.
    ///
    /// # Errors
    /// Where there is no answer.
    pub(crate) async fn count(&self) -> anyhow::Result<u64> {
        let group = self.group.map_or(String::new(), |group| format!("?group={group}"));
        self.ask(&format!("/api/user/count{group}")).await.map(|Count { count }| count)
    }

    /// The next page of so many users; `None` after the last one.
    ///
    /// # Errors
    /// Where there is no answer.
    pub(crate) async fn next(&mut self, limit: usize) -> anyhow::Result<Option<Vec<Box<RawValue>>>> {
        let Some(cursor) = &self.cursor else { return Ok(None) };
        let path = format!("/api/user?limit={limit}{}{cursor}", self.filter);
        let Page { items, next_cursor } = self.ask(&path).await?;
        self.cursor = next_cursor.map(|cursor| format!("&cursor={cursor}"));
        Ok(Some(items))
    }

    /// Whether there is another page.
    pub(crate) fn has_more(&self) -> bool {
        self.cursor.is_some()
    }

    async fn ask<T: DeserializeOwned>(&self, path: &str) -> anyhow::Result<T> {
        let (start, patience) = (Instant::now(), self.gateway.patience());
        let mut retrying = Reminder::default();
        loop {
            let reason = match self.client.send(Method::GET, path, None).await {
                Ok(answer) if answer.status.is_server_error() => answer.reason(),
                Ok(answer) => return answer.json(),
                Err(error) => error.to_string(),
            };
            if start.elapsed() > patience {
                return Err(anyhow!("no page for {} s: {reason}", patience.as_secs()));
            }
            if retrying.is_due() {
                complain(&trying_again(&reason, start.elapsed(), patience));
            }
            sleep(PAUSE).await;
        }
    }
}

enum Output {
    Ndjson(BufWriter<Destination>),
    Csv(Box<csv::Writer<Destination>>),
}

impl Output {
    fn new(format: Format, destination: Destination) -> anyhow::Result<Self> {
        match format {
            Format::Ndjson => Ok(Self::Ndjson(BufWriter::new(destination))),
            Format::Csv => {
                let mut writer = csv::Writer::from_writer(destination);
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
            Self::Ndjson(writer) => writer.into_inner().map_err(IntoInnerError::into_error)?.finish(),
            Self::Csv(writer) => writer.into_inner().map_err(|error| anyhow!("{}", error.error()))?.finish(),
        }
    }
}
