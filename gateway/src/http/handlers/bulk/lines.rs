//! From chunks of bytes to lines, of which none may be longer than [`MAX_LINE`].

use bytes::{Buf, Bytes, BytesMut};

/// The longest line, without its end.
pub(super) const MAX_LINE: usize = 64 << 10;

/// One line, without its end.
#[derive(Debug, PartialEq)]
pub(super) enum Line {
    Text(Bytes),
    /// Longer than [`MAX_LINE`]; its bytes are gone.
    TooLong,
}

/// The lines of what was pushed. A line that is not whole yet waits for the next chunk.
#[derive(Debug, Default)]
pub(super) struct Lines {
    chunk: Bytes,
    /// Of the line that began in a chunk before.
    begun: BytesMut,
    /// The line that began before is too long already.
    too_long: bool,
    /// Number of the last line handed out, from 1; lines without anything in them count.
    number: u64,
}

impl Lines {
    /// Adds what came. The lines of the chunk before have to be taken first.
    pub(super) fn push(&mut self, chunk: Bytes) {
        assert!(self.chunk.is_empty(), "a chunk is pushed when the one before is used up");
        self.chunk = chunk;
    }

    /// The next line with its number. `None` when what is left is no whole line.
    pub(super) fn next(&mut self) -> Option<(u64, Line)> {
        loop {
            let Some(length) = memchr::memchr(b'\n', &self.chunk) else {
                self.begin();
                return None;
            };
            let piece = self.chunk.split_to(length);
            self.chunk.advance(1);
            if let Some(line) = self.complete(piece) {
                return Some((self.number, line));
            }
        }
    }

    /// The last line, where it has no end.
    pub(super) fn end(&mut self) -> Option<(u64, Line)> {
        if self.begun.is_empty() && !self.too_long {
            return None;
        }
        let line = self.complete(Bytes::new())?;
        Some((self.number, line))
    }

    /// Number of the last line that was handed out or skipped.
    pub(super) fn number(&self) -> u64 {
        self.number
    }

    /// Keeps the rest of the chunk as the beginning of a line.
    fn begin(&mut self) {
        let rest = std::mem::take(&mut self.chunk);
        self.too_long |= self.begun.len() + rest.len() > MAX_LINE;
        if self.too_long {
            self.begun = BytesMut::new();
        } else {
            self.begun.extend_from_slice(&rest);
        }
    }

    /// Ends a line; `None` where there is nothing in it.
    fn complete(&mut self, piece: Bytes) -> Option<Line> {
        self.number += 1;
        let too_long = std::mem::take(&mut self.too_long) || self.begun.len() + piece.len() > MAX_LINE;
        let mut begun = std::mem::take(&mut self.begun);
        if too_long {
            return Some(Line::TooLong);
        }
        let whole = if begun.is_empty() {
            piece
        } else {
            begun.extend_from_slice(&piece);
            begun.freeze()
        };
        (!whole.trim_ascii().is_empty()).then_some(Line::Text(whole))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// All lines of the text, when it comes in chunks of that size.
    fn lines(text: &[u8], size: usize) -> (Vec<(u64, Line)>, u64) {
        let mut lines = Lines::default();
        let mut found = Vec::new();
        for chunk in text.chunks(size) {
            lines.push(Bytes::copy_from_slice(chunk));
            found.extend(std::iter::from_fn(|| lines.next()));
        }
        found.extend(lines.end());
        (found, lines.number())
    }

    #[test]
    fn lines_are_the_same_however_they_come() {
        let text = b"one\n\n  \t\r\ntwo\r\n\nthree";
        let line = |number, text: &'static str| (number, Line::Text(Bytes::from_static(text.as_bytes())));
        let expected = vec![line(1, "one"), line(4, "two\r"), line(6, "three")];
        for size in 1..=text.len() {
            assert_eq!(lines(text, size).0, expected, "in chunks of {size}");
        }
        assert_eq!(lines(b"", 1).0, []);
        assert_eq!(lines(b"\n\n", 1).0, []);
        assert_eq!(lines(b"a\nb\n", 3).0, [line(1, "a"), line(2, "b")]);
    }

    #[test]
    fn a_line_that_is_too_long_is_one_line_and_takes_no_room() {
        let mut text = vec![b'x'; MAX_LINE];
        text.push(b'\n');
        text.extend(vec![b'y'; 3 * MAX_LINE]);
        text.extend(b"\nshort\n");
        text.extend(vec![b'z'; MAX_LINE + 1]);
        for size in [1_000, MAX_LINE - 1, MAX_LINE, MAX_LINE + 1, text.len()] {
            let (found, last) = lines(&text, size);
            let lengths: Vec<_> = found
                .iter()
                .map(|(number, line)| match line {
                    Line::Text(text) => (*number, text.len()),
                    Line::TooLong => (*number, usize::MAX),
                })
                .collect();
            assert_eq!(lengths, [(1, MAX_LINE), (2, usize::MAX), (3, 5), (4, usize::MAX)], "{size}");
            assert_eq!(last, 4);
        }
    }
}
