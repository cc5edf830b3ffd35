//! From chunks of bytes to lines, of which none may be longer than [`MAX_LINE`].

use std::mem;

use bytes::BytesMut;

/// The longest line, without its end.
pub(super) const MAX_LINE: usize = 64 << 10;

/// A line without its end; `None` where it is longer than [`MAX_LINE`], and its bytes are gone.
pub(super) type Line = Option<BytesMut>;

/// The lines of what was pushed. A line that is not whole yet waits for the next chunk.
#[derive(Debug, Default)]
pub(super) struct Lines {
    buffer: BytesMut,
    /// In so much of the buffer no line ends.
    searched: usize,
    /// The line that has begun is too long already.
    too_long: bool,
    /// Number of the last line handed out, from 1; lines without anything in them count.
    number: u64,
}

impl Lines {
    pub(super) fn push(&mut self, chunk: &[u8]) {
        self.buffer.extend_from_slice(chunk);
    }

    /// The next line with its number. `None` when what is left is no whole line.
    pub(super) fn next(&mut self) -> Option<(u64, Line)> {
        while let Some(length) = memchr::memchr(b'\n', &self.buffer[self.searched..]) {
            let mut line = self.buffer.split_to(self.searched + length + 1);
            line.truncate(line.len() - 1);
            self.searched = 0;
            if let Some(line) = self.complete(line) {
                return Some((self.number, line));
            }
        }
        self.searched = self.buffer.len();
        if self.searched > MAX_LINE {
            self.too_long = true;
            self.buffer.clear();
            self.searched = 0;
        }
        None
    }

    /// The last line, where it has no end.
    pub(super) fn end(&mut self) -> Option<(u64, Line)> {
        if self.buffer.is_empty() && !self.too_long {
            return None;
        }
        self.searched = 0;
        let rest = mem::take(&mut self.buffer);
        let line = self.complete(rest)?;
        Some((self.number, line))
    }

    /// Number of the last line that was handed out or skipped.
    pub(super) fn number(&self) -> u64 {
        self.number
    }

    /// Ends a line; `None` where there is nothing in it.
    fn complete(&mut self, line: BytesMut) -> Option<Line> {
        self.number += 1;
        if mem::take(&mut self.too_long) || line.len() > MAX_LINE {
            return Some(None);
        }
        (!line.trim_ascii().is_empty()).then_some(Some(line))
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
            lines.push(chunk);
            found.extend(std::iter::from_fn(|| lines.next()));
        }
        found.extend(lines.end());
        (found, lines.number())
    }

    #[test]
    fn lines_are_the_same_however_they_come() {
        let text = b"one\n\n  \t\r\ntwo\r\n\nthree";
        let line = |number, text: &'static str| (number, Some(BytesMut::from(text)));
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
                .map(|(number, line)| (*number, line.as_ref().map_or(usize::MAX, BytesMut::len)))
                .collect();
            assert_eq!(lengths, [(1, MAX_LINE), (2, usize::MAX), (3, 5), (4, usize::MAX)], "{size}");
            assert_eq!(last, 4);
        }
    }
}
