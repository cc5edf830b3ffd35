//! One bulk request: lines go out while results come in.

use std::convert::Infallible;
use std::pin::Pin;
use std::task::{Context, Poll};

use anyhow::bail;
use http_body_util::{BodyExt, Collected};
use hyper::body::{Body, Bytes, Frame, Incoming};
use hyper::header::CONTENT_TYPE;
use hyper::{Method, StatusCode};
use serde::Deserialize;
use tokio::sync::mpsc::{Receiver, Sender, channel};

use crate::load::client::{Endpoint, Trouble, in_full};

/// Pieces of the body that may wait to be sent.
const PIECES: usize = 4;

/// A line of the answer.
#[derive(Debug, Deserialize)]
pub(super) struct LineResult {
    /// `None` in the line that says that there will be no more.
    pub(super) line: Option<u64>,
    pub(super) status: u16,
    pub(super) r#type: Option<String>,
    pub(super) detail: Option<String>,
    pub(super) errors: Option<serde_json::Value>,
}

/// Why there is no stream.
#[derive(Debug)]
pub(super) enum NotOpened {
    /// There may be one later.
    Later(String),
    /// There will be none.
    Never(anyhow::Error),
}

impl From<Trouble> for NotOpened {
    fn from(trouble: Trouble) -> Self {
        Self::Later(trouble.to_string())
    }
}

/// An open request.
pub(super) struct Stream {
    /// `None` once all lines are sent.
    lines: Option<Sender<Bytes>>,
    body: Incoming,
    /// What came and was not looked at.
    text: Vec<u8>,
}

impl Stream {
    pub(super) async fn open(endpoint: &Endpoint) -> Result<Self, NotOpened> {
        let never = |error: hyper::http::Error| NotOpened::Never(error.into());
        let (lines, pieces) = channel(PIECES);
        let request = endpoint
            .request(Method::POST, "/api/user/bulk")
            .header(CONTENT_TYPE, "application/x-ndjson")
            .body(Pieces(pieces))
            .map_err(never)?;
        let mut sender = endpoint.connect().await?;
        let answer = sender.send_request(request).await;
        let answer = answer.map_err(|error| NotOpened::Later(in_full(&error)))?;
        let (head, body) = answer.into_parts();
        if head.status == StatusCode::OK {
            return Ok(Self { lines: Some(lines), body, text: Vec::new() });
        }
        let body = body.collect().await.map(Collected::to_bytes).unwrap_or_default();
        let text = format!("{}: {}", head.status, String::from_utf8_lossy(&body));
        Err(if head.status.is_server_error() {
            NotOpened::Later(text)
        } else {
            NotOpened::Never(anyhow::anyhow!(text))
        })
    }

    /// Where lines go; `None` where no more are taken.
    pub(super) fn lines(&self) -> Option<Sender<Bytes>> {
        self.lines.clone()
    }

    /// All lines are sent.
    pub(super) fn end(&mut self) {
        self.lines = None;
    }

    /// The next results, at least one; `None` at the end. It can be given up and called again.
    ///
    /// # Errors
    /// Where the connection broke, or what came is no result.
    pub(super) async fn results(&mut self) -> anyhow::Result<Option<Vec<LineResult>>> {
        loop {
            if let Some(end) = self.text.iter().rposition(|&byte| byte == b'\n') {
                let rest = self.text.split_off(end + 1);
                let text = std::mem::replace(&mut self.text, rest);
                let lines = text.split(|&byte| byte == b'\n').filter(|line| !line.is_empty());
                return Ok(Some(lines.map(serde_json::from_slice).collect::<Result<_, _>>()?));
            }
            match self.body.frame().await {
                Some(Ok(frame)) => {
                    if let Ok(data) = frame.into_data() {
                        self.text.extend_from_slice(&data);
                    }
                }
                Some(Err(error)) => bail!(in_full(&error)),
                None => return Ok(None),
            }
        }
    }
}

/// A body in pieces.
struct Pieces(Receiver<Bytes>);

impl Body for Pieces {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        self.0.poll_recv(context).map(|piece| piece.map(|piece| Ok(Frame::data(piece))))
    }
}
