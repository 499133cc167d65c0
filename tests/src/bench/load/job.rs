//! What a client wants of the raw server, hidden in the session id of a ClientHello.
//!
//! The hello is a real one that every contender can read; only its session id, which is random
//! otherwise, says what is to be sent back. So the server needs no TLS, and endpoints cost little beside
//! what is measured.
//!
//! ```text
//! record header 5 | handshake header 4 | version 2 | random 32 | 1 | session id 32
//!                                                                    "fwbench" kind size(8, big endian) …
//! ```

use crate::hello::Hello;

/// Where the session id stands in a record with a ClientHello.
const AT: usize = 5 + 4 + 2 + 32 + 1;
const MARK: &[u8; 7] = b"fwbench";
const RECORD_HEADER: usize = 5;
const PROXY_HEADER: usize = 16;

/// The length of a request on a kept connection.
pub const REQUEST: usize = 64;

/// What the server is to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Job {
    /// Answer with so many bytes, then wait for the client's end.
    Reply(u64),
    /// Answer so, and again to each request of [`REQUEST`] bytes.
    Requests(u64),
    /// Send without end.
    Download,
    /// Answer with one byte and, once that has been acknowledged, vanish ([`super::vanish`]).
    Vanish,
    /// Receive to the end, then answer with the count (8 bytes, big endian).
    Upload,
}

impl Job {
    fn number(self) -> (u8, u64) {
        match self {
            Self::Reply(size) => (0, size),
            Self::Requests(size) => (1, size),
            Self::Download => (2, 0),
            Self::Upload => (3, 0),
            Self::Vanish => (4, 0),
        }
    }

    /// A hello for a name that asks for this.
    #[must_use]
    pub fn hello(self, mut hello: Hello) -> Vec<u8> {
        let (kind, size) = self.number();
        hello.session = [&MARK[..], &[kind], &size.to_be_bytes(), &[0x5a; 16]].concat();
        hello.record()
    }

    fn read(record: &[u8]) -> Option<Self> {
        let session = record.get(AT..)?.strip_prefix(MARK)?;
        let size = u64::from_be_bytes(session.get(1..9)?.try_into().ok()?);
        match session.first()? {
            0 => Some(Self::Reply(size)),
            1 => Some(Self::Requests(size)),
            2 => Some(Self::Download),
            3 => Some(Self::Upload),
            4 => Some(Self::Vanish),
            _ => None,
        }
    }
}

/// What the beginning of a connection amounts to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Opening {
    /// More bytes are needed.
    Incomplete,
    /// A job; the hello ends after so many bytes.
    Complete(Job, usize),
    /// Not from our client.
    Foreign,
}

/// Reads the beginning of a connection, after a PROXY v2 header if there must be one.
#[must_use]
pub fn opening(bytes: &[u8], proxied: bool) -> Opening {
    let mut at = 0;
    if proxied {
        let Some(header) = bytes.get(..PROXY_HEADER) else {
            return Opening::Incomplete;
        };
        if !header.starts_with(b"\r\n\r\n\0\r\nQUIT\n") {
            return Opening::Foreign;
        }
        at = PROXY_HEADER + usize::from(u16::from_be_bytes([header[14], header[15]]));
    }
    let Some(record) = bytes.get(at..).filter(|rest| rest.len() >= RECORD_HEADER) else {
        return Opening::Incomplete;
    };
    let end = RECORD_HEADER + usize::from(u16::from_be_bytes([record[3], record[4]]));
    if record[0] != 22 {
        return Opening::Foreign;
    }
    match record.get(..end).map(Job::read) {
        None => Opening::Incomplete,
        Some(None) => Opening::Foreign,
        Some(Some(job)) => Opening::Complete(job, at + end),
    }
}

#[cfg(test)]
mod tests {
    use super::{Job, Opening, opening};
    use crate::hello::Hello;

    #[test]
    fn jobs_survive_the_hello_whole_or_cut() {
        for job in [
            Job::Reply(1),
            Job::Requests(256),
            Job::Download,
            Job::Upload,
        ] {
            for hello in [
                Hello::small("a.example.org"),
                Hello::browser("a.example.org", 7),
            ] {
                let record = job.hello(hello);
                assert_eq!(
                    opening(&record, false),
                    Opening::Complete(job, record.len())
                );
                for cut in 0..record.len() {
                    assert_eq!(opening(&record[..cut], false), Opening::Incomplete);
                }
                let mut proxied = b"\r\n\r\n\0\r\nQUIT\n\x21\x11\x00\x0c".to_vec();
                proxied.extend([0; 12]);
                assert_eq!(opening(&record, true), Opening::Foreign);
                proxied.extend(&record);
                assert_eq!(
                    opening(&proxied, true),
                    Opening::Complete(job, proxied.len())
                );
            }
        }
        let stranger = Hello::small("a.example.org").record();
        assert_eq!(opening(&stranger, false), Opening::Foreign);
    }
}
