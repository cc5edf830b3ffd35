//! `corro users`: the calls of the API on users, one at a time.

use std::io::{Write, stdout};

use anyhow::{Context, bail};
use clap::{Args, Subcommand};
use reqwest::{Method, StatusCode};
use serde_json::{Map, Value};
use uuid::Uuid;

use crate::client::Answer;
use crate::target::GatewayArgs;
use crate::terminal::complain;
use crate::transfer::Pages;

/// `corro users`.
#[derive(Args, Debug)]
pub(crate) struct UsersArgs {
    #[command(subcommand)]
    call: Call,
    #[command(flatten)]
    gateway: GatewayArgs,
}

#[derive(Subcommand, Debug)]
enum Call {
    /// Print a user, as JSON
    Get {
        /// Its id
        #[arg(value_parser = id)]
        id: Uuid,
    },
    /// Print users in the order of their ids, as JSON, one a line
    List {
        /// Only users of this group
        #[arg(long, allow_negative_numbers = true)]
        group: Option<i32>,
        /// Only users with this address
        #[arg(long)]
        email: Option<String>,
        /// So many at most
        #[arg(long, default_value_t = 100, value_name = "N")]
        limit: usize,
    },
    /// Print how many users there are
    Count {
        /// Of this group
        #[arg(long, allow_negative_numbers = true)]
        group: Option<i32>,
    },
    /// Create a user, and print it
    Create {
        /// Its id [default: the gateway makes one]
        #[arg(long, value_parser = id)]
        id: Option<Uuid>,
        #[arg(long, required = true)]
        name: String,
        #[arg(long, required = true)]
        email: String,
        /// [default: 0]
        #[arg(long, allow_negative_numbers = true)]
        group: Option<i32>,
    },
    /// Set the fields of a user that are given, and print it
    Update {
        /// Its id
        #[arg(value_parser = id)]
        id: Uuid,
        #[arg(long)]
        name: Option<String>,
        #[arg(long)]
        email: Option<String>,
        #[arg(long, allow_negative_numbers = true)]
        group: Option<i32>,
    },
    /// Delete a user
    Delete {
        /// Its id
        #[arg(value_parser = id)]
        id: Uuid,
    },
}

fn id(text: &str) -> Result<Uuid, String> {
    text.parse().map_err(|_| "allowed: a UUID, such as 0190a5b2-7c3d-7e4f-8a1b-2c3d4e5f6071".to_owned())
}

/// Does one call. Returns whether the ring has done it: it may refuse, for there is no such user.
///
/// # Errors
/// Where there is no answer, or the result cannot be printed.
pub(crate) async fn run(UsersArgs { call, gateway }: UsersArgs) -> anyhow::Result<bool> {
    let client = gateway.client().await?;
    let (method, path, body) = match call {
        Call::List { group, email, limit } => {
            list(Pages::new(&gateway, group, email.as_deref()).await?, limit).await?;
            return Ok(true);
        }
        Call::Count { group } => {
            print(&Pages::new(&gateway, group, None).await?.count().await?.to_string())?;
            return Ok(true);
        }
        Call::Get { id } => (Method::GET, format!("/api/user/{id}"), None),
        Call::Delete { id } => (Method::DELETE, format!("/api/user/{id}"), None),
        Call::Create { id, name, email, group } => {
            let body = fields(id, Some(name), Some(email), group);
            (Method::POST, "/api/user".to_owned(), Some(body))
        }
        Call::Update { id, name, email, group } => {
            (Method::PATCH, format!("/api/user/{id}"), Some(fields(None, name, email, group)))
        }
    };
    let answer = client.send(method, &path, body).await?;
    match answer.status {
        StatusCode::NO_CONTENT => Ok(true),
        status if status.is_success() => {
            print(std::str::from_utf8(&answer.body).context("the answer is not text")?.trim_end())?;
            Ok(true)
        }
        _ => refused(&answer),
    }
}

/// What is about the user is a result, and the rest an error.
fn refused(answer: &Answer) -> anyhow::Result<bool> {
    use StatusCode as Status;
    if [Status::NOT_FOUND, Status::CONFLICT, Status::UNPROCESSABLE_ENTITY].contains(&answer.status) {
        complain(&answer.reason());
        return Ok(false);
    }
    bail!(answer.reason())
}

async fn list(mut pages: Pages<'_>, limit: usize) -> anyhow::Result<()> {
    let mut left = limit;
    while left > 0
        && let Some(page) = pages.next(left.min(1_000)).await?
    {
        page.iter().try_for_each(|user| print(user.get()))?;
        left -= page.len().min(left);
    }
    if left == 0 && pages.has_more() {
        complain(&format!("There are more than {limit}; --limit N prints more of them."));
    }
    Ok(())
}

/// The fields that are given, as JSON.
fn fields(id: Option<Uuid>, name: Option<String>, email: Option<String>, group: Option<i32>) -> String {
    let text = |text: Option<String>| text.map(Value::from);
    let id = id.map(|id| Value::from(id.to_string()));
    let fields =
        [("id", id), ("name", text(name)), ("email", text(email)), ("group", group.map(Value::from))];
    let given = fields.into_iter().filter_map(|(name, value)| Some((name.to_owned(), value?)));
    Value::Object(Map::from_iter(given)).to_string()
}

/// A result that cannot be printed is none.
fn print(line: &str) -> anyhow::Result<()> {
    writeln!(stdout(), "{line}").context("standard output")
}
