//! What a line has.

use std::net::IpAddr;
use std::time::{SystemTime, UNIX_EPOCH};

use protocol::placement::Partition;
use protocol::{UserId, Version};
use serde::Serialize;

/// What came of a request, or of a line of one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Outcome {
    /// It is about to be asked of the ring.
    Begun,
    /// It is done.
    Done,
    /// It was refused: nothing is done.
    Refused,
    /// It may be done: the ring did not say so in time, or only a part of it is done.
    Unknown,
}

/// The result that the caller got.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Answer {
    /// In short.
    pub outcome: Outcome,
    /// Of HTTP; `None` where the caller did not wait for it.
    pub status: Option<u16>,
    /// The last part of the `type` of a problem.
    pub problem: Option<&'static str>,
}

/// A line. Fields that it does not have are left out.
#[derive(Debug, Default, Serialize)]
pub(super) struct Line<'a> {
    pub(super) time: String,
    pub(super) request_id: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) token: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) address: Option<IpAddr>,
    pub(super) method: &'a str,
    pub(super) route: &'a str,
    /// Of a bulk request: which of its lines.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) line: Option<u64>,
    /// Of such a line: `create`, `update` or `delete`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) op: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) user: Option<UserId>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) partition: Option<Partition>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) outcome: Option<Outcome>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) status: Option<u16>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) problem: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) version: Option<String>,
    /// Of a bulk request, at its end: how many lines have a line here.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) lines: Option<u64>,
}

impl Line<'_> {
    pub(super) fn write(&self, text: &mut Vec<u8>) {
        serde_json::to_writer(&mut *text, self).expect("strings and numbers always serialize");
        text.push(b'\n');
    }
}

pub(super) fn version(version: Version) -> Option<String> {
    (version > Version::ZERO).then(|| version.to_string())
}

/// Now, as RFC 3339 has it, in UTC.
pub(super) fn now() -> String {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    rfc3339(since.as_millis().try_into().unwrap_or(u64::MAX))
}

/// Milliseconds since 1970. The date is found as in Howard Hinnant's "chrono-compatible low-level date
/// algorithms": years begin in March, so that the day of a leap year is the last one.
fn rfc3339(millis: u64) -> String {
    let (seconds, millis) = (millis / 1_000, millis % 1_000);
    let (days, second) = (seconds / 86_400 + 719_468, seconds % 86_400);
    let (era, day) = (days / 146_097, days % 146_097);
    let year = (day - day / 1_460 + day / 36_524 - day / 146_096) / 365;
    let day = day - (365 * year + year / 4 - year / 100);
    let month = (5 * day + 2) / 153;
    let date = day - (153 * month + 2) / 5 + 1;
    let (month, later) = if month < 10 { (month + 3, 0) } else { (month - 9, 1) };
    let year = era * 400 + year + later;
    let (hour, minute, second) = (second / 3_600, second / 60 % 60, second % 60);
    format!("{year:04}-{month:02}-{date:02}T{hour:02}:{minute:02}:{second:02}.{millis:03}Z")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times() {
        // As `date -u -d @…` says.
        for (seconds, time) in [
            (0, "1970-01-01T00:00:00"),
            (951_782_399, "2000-02-28T23:59:59"),
            (951_782_400, "2000-02-29T00:00:00"),
            (951_868_800, "2000-03-01T00:00:00"),
            (1_798_761_599, "2026-12-31T23:59:59"),
            (1_798_761_600, "2027-01-01T00:00:00"),
            (4_107_542_400, "2100-03-01T00:00:00"),
        ] {
            assert_eq!(rfc3339(seconds * 1_000 + 7), format!("{time}.007Z"));
        }
    }

    #[test]
    fn a_line_has_what_is_known_and_nothing_else() {
        let mut text = Vec::new();
        let line = Line { time: "now".to_owned(), method: "PUT", request_id: "1", ..Line::default() };
        line.write(&mut text);
        assert_eq!(text, b"{\"time\":\"now\",\"request_id\":\"1\",\"method\":\"PUT\",\"route\":\"\"}\n");
    }
}
