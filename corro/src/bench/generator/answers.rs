//! Where an answer ends.

use anyhow::{Context, bail};

/// No answer to what is asked here has more headers.
const MAX_HEADERS: usize = 32;

/// The status of the answer at the beginning of `bytes` and its whole length; `None` where it is not all
/// there yet.
///
/// # Errors
/// Where it is not HTTP, or of a length that only the end of the connection would tell.
pub(super) fn whole(bytes: &[u8]) -> anyhow::Result<Option<(u16, usize)>> {
    let mut headers = [httparse::EMPTY_HEADER; MAX_HEADERS];
    let mut answer = httparse::Response::new(&mut headers);
    let head = match answer.parse(bytes).context("the answer is not HTTP")? {
        httparse::Status::Complete(head) => head,
        httparse::Status::Partial => return Ok(None),
    };
    let status = answer.code.context("an answer has a status")?;
    let length = answer.headers.iter().find(|header| header.name.eq_ignore_ascii_case("content-length"));
    let length = match length {
        Some(header) => std::str::from_utf8(header.value)?.parse().context("the length of a body")?,
        None if matches!(status, 204 | 304) => 0,
        None => bail!("an answer {status} of unknown length"),
    };
    let whole = head + length;
    Ok((bytes.len() >= whole).then_some((status, whole)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_is_whole_at_its_last_byte() {
        let text = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nx: y\r\n\r\nhi";
        for end in 0..text.len() {
            assert_eq!(whole(&text[..end]).unwrap(), None, "{end}");
        }
        assert_eq!(whole(text).unwrap(), Some((200, text.len())));
        assert_eq!(whole(b"HTTP/1.1 204 No Content\r\n\r\n").unwrap(), Some((204, 27)));
    }

    #[test]
    fn what_cannot_be_understood_is_an_error() {
        for bad in
            ["SSH-2.0\r\n\r\n", "HTTP/1.1 200 OK\r\n\r\n", "HTTP/1.1 200 OK\r\ncontent-length: x\r\n\r\n"]
        {
            assert!(whole(bad.as_bytes()).is_err(), "{bad}");
        }
    }
}
