//! Runs the reader over a byte string that arrives piece by piece.

use forwarder_common::hello::{Bytes, Progress, Reader};
use forwarder_common::verdict::DropReason;

/// What the reader makes of a stream.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// It ends at `end` and names this server.
    Named {
        name: String,
        alpn: Vec<u8>,
        end: usize,
    },
    /// It will not be forwarded.
    Refused(DropReason),
    /// It is not complete.
    Incomplete,
}

impl Outcome {
    /// The server name, if there is one.
    pub fn name(&self) -> Option<&str> {
        match self {
            Self::Named { name, .. } => Some(name),
            _ => None,
        }
    }
}

/// A stream of which a part has arrived. What lies beyond is garbage, as it is
/// in a reused buffer, so that a reader that looks there is found out.
struct Arrived<'a> {
    stream: &'a [u8],
    stored: usize,
    garbage: u8,
    name: [u8; 253],
    alpn: [u8; 32],
}

impl Bytes for Arrived<'_> {
    fn byte(&self, at: u32) -> u8 {
        match self.stream.get(at as usize) {
            Some(byte) if (at as usize) < self.stored => *byte,
            _ => self.garbage,
        }
    }

    fn word(&self, at: u32) -> u32 {
        u32::from_be_bytes([0, 1, 2, 3].map(|offset| self.byte(at + offset)))
    }

    fn put_name(&mut self, index: u32, byte: u8) {
        self.name[index as usize] = byte;
    }

    fn put_alpn(&mut self, index: u32, byte: u8) {
        self.alpn[index as usize] = byte;
    }
}

/// Reads a stream that is there at once.
pub fn read(stream: &[u8]) -> Outcome {
    read_arriving(stream, [stream.len()])
}

/// Reads a stream of which ever more bytes are there, as `stored` counts them;
/// stops at the first verdict.
pub fn read_arriving(stream: &[u8], stored: impl IntoIterator<Item = usize> + Clone) -> Outcome {
    let outcome = read_with_garbage(stream, stored.clone(), 0x16);
    for garbage in [0x00, 0xff] {
        let other = read_with_garbage(stream, stored.clone(), garbage);
        assert_eq!(outcome, other, "the reader looks beyond what is stored");
    }
    outcome
}

fn read_with_garbage(
    stream: &[u8],
    stored: impl IntoIterator<Item = usize>,
    garbage: u8,
) -> Outcome {
    let mut bytes = Arrived {
        stream,
        stored: 0,
        garbage,
        name: [0; 253],
        alpn: [0; 32],
    };
    let mut reader = Reader::START;
    for stored in stored {
        assert!(bytes.stored <= stored && stored <= stream.len());
        bytes.stored = stored;
        // Every step takes a byte or moves to a phase that will.
        for _ in 0..=2 * stream.len() + 64 {
            match reader.step(&mut bytes, stored as u32) {
                Progress::Continue => assert!(reader.position() as usize <= stored),
                Progress::More => break,
                Progress::Refused(reason) => return Outcome::Refused(reason),
                Progress::Complete => {
                    let name = bytes.name[..reader.name_len() as usize].to_vec();
                    return Outcome::Named {
                        name: String::from_utf8(name).expect("names are ASCII"),
                        alpn: bytes.alpn[..reader.alpn_len() as usize].to_vec(),
                        end: reader.position() as usize,
                    };
                }
            }
        }
    }
    Outcome::Incomplete
}
