//! Records and op-log entries as bytes, in a database (`db-process/src/store/encoding`) and on the way from
//! one copy to the other ([`crate::message::packed`]).
//!
//! The first byte of every value is the number of its format, so that a later program can change the format
//! and still read what an earlier one wrote. Numbers are big endian.
//!
//! | value | bytes after the format number |
//! |---|---|
//! | record | flags; version of *alive*; of name, email, group if they differ; group; request; name; email |
//! | op-log entry | flags; version; id; the registers that it sets, or up to where it forgets them |
//!
//! A request is two hashes and its version. The sequence of an op-log entry is not in its value.
//!
//! A text is its length (LEB128) and its UTF-8 bytes. A record that one create wrote, the usual case, costs
//! 16 bytes more than its texts.
//!
//! What it does not do: it finds no flipped bits inside a text. The checksums of RocksDB and of TCP do that.

use thiserror::Error;
use uuid::Uuid;

use crate::{Fingerprint, UserId, Version};

mod record;

pub use record::{log_entry, read_log_entry, read_record, record};

/// Format of everything that this program writes.
pub const FORMAT: u8 = 1;

/// Why bytes are not a value. They come from a newer program, or they are damaged.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum DecodeError {
    /// The first byte is none that this program knows.
    #[error("format {0} is unknown to this program")]
    UnknownFormat(u8),
    /// A flag is set that the format does not have.
    #[error("flags {0:#010b} are unknown to this program")]
    UnknownFlags(u8),
    /// The value goes on after the last byte.
    #[error("the value is cut short")]
    Truncated,
    /// The bytes go on after the value.
    #[error("{0} bytes are left over")]
    LeftOver(usize),
    /// A text is not UTF-8.
    #[error("a text is not UTF-8")]
    NotText,
}

/// That flag, where it is set.
pub fn flag(set: bool, flag: u8) -> u8 {
    if set { flag } else { 0 }
}

fn put_request(bytes: &mut Vec<u8>, request: &Fingerprint) {
    bytes.extend(request.key.to_be_bytes());
    bytes.extend(request.body.to_be_bytes());
}

/// Length as LEB128, then the bytes.
fn put_text(bytes: &mut Vec<u8>, text: &str) {
    let mut length = text.len();
    while length >= 0x80 {
        bytes.push(length as u8 | 0x80);
        length >>= 7;
    }
    bytes.push(length as u8);
    bytes.extend(text.as_bytes());
}

/// What is left of a value. Every step checks that there is enough of it.
#[derive(Debug)]
pub struct Reader<'a>(&'a [u8]);

impl<'a> Reader<'a> {
    /// Checks the format and the flags, which it returns.
    ///
    /// # Errors
    /// If one of them is unknown.
    pub fn open(bytes: &'a [u8], known: u8) -> Result<(u8, Self), DecodeError> {
        let mut reader = Self(bytes);
        match reader.take()? {
            [FORMAT] => {}
            [other] => return Err(DecodeError::UnknownFormat(other)),
        }
        let [flags] = reader.take()?;
        if flags & !known != 0 {
            return Err(DecodeError::UnknownFlags(flags));
        }
        Ok((flags, reader))
    }

    /// Whatever is in these bytes, which begin with no format.
    pub fn over(bytes: &'a [u8]) -> Self {
        Self(bytes)
    }

    /// How many bytes are left.
    pub fn left(&self) -> usize {
        self.0.len()
    }

    /// A length in four bytes, and as many bytes behind it.
    ///
    /// # Errors
    /// If the value ends before that.
    pub fn sized(&mut self) -> Result<&'a [u8], DecodeError> {
        let length = u32::from_be_bytes(self.take()?) as usize;
        let (bytes, rest) = self.0.split_at_checked(length).ok_or(DecodeError::Truncated)?;
        self.0 = rest;
        Ok(bytes)
    }

    /// The next `N` bytes.
    ///
    /// # Errors
    /// If the value ends before that.
    pub fn take<const N: usize>(&mut self) -> Result<[u8; N], DecodeError> {
        let (taken, rest) = self.0.split_first_chunk().ok_or(DecodeError::Truncated)?;
        self.0 = rest;
        Ok(*taken)
    }

    /// The next eight bytes as a number.
    ///
    /// # Errors
    /// If the value ends before that.
    pub fn u64(&mut self) -> Result<u64, DecodeError> {
        self.take().map(u64::from_be_bytes)
    }

    /// The next byte.
    ///
    /// # Errors
    /// If there is none.
    pub fn u8(&mut self) -> Result<u8, DecodeError> {
        self.take().map(u8::from_be_bytes)
    }

    /// The next eight bytes as a version.
    ///
    /// # Errors
    /// If the value ends before that.
    pub fn version(&mut self) -> Result<Version, DecodeError> {
        self.u64().map(Version)
    }

    /// The next sixteen bytes as what is remembered of a request.
    ///
    /// # Errors
    /// If the value ends before that.
    pub fn request(&mut self) -> Result<Fingerprint, DecodeError> {
        Ok(Fingerprint { key: self.u64()?, body: self.u64()? })
    }

    /// The next sixteen bytes as an id.
    ///
    /// # Errors
    /// If the value ends before that.
    pub fn id(&mut self) -> Result<UserId, DecodeError> {
        self.take().map(Uuid::from_bytes)
    }

    /// The next text.
    ///
    /// # Errors
    /// If it is none.
    pub fn text(&mut self) -> Result<String, DecodeError> {
        let mut length = 0_usize;
        // Four groups of seven bits: 256 MiB is more than any text here.
        for shift in [0, 7, 14, 21] {
            let [byte] = self.take()?;
            length |= usize::from(byte & 0x7f) << shift;
            if byte & 0x80 == 0 {
                let (text, rest) = self.0.split_at_checked(length).ok_or(DecodeError::Truncated)?;
                self.0 = rest;
                return std::str::from_utf8(text).map(str::to_owned).map_err(|_| DecodeError::NotText);
            }
        }
        Err(DecodeError::Truncated)
    }

    /// Nothing may be left over.
    ///
    /// # Errors
    /// If something is.
    pub fn close(self) -> Result<(), DecodeError> {
        if self.0.is_empty() { Ok(()) } else { Err(DecodeError::LeftOver(self.0.len())) }
    }
}
