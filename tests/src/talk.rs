//! Conversations: connections on which numbered records go both ways, each of which the other end checks
//! byte for byte. Many of them at once show that nothing is lost, repeated or mixed up, whatever happens
//! to the forwarder meanwhile.
//!
//! ```text
//! client: ClientHello,           record 0, …       record: conversation (4), number (4), noise (56)
//! server:              greeting, record 0, …       the noise follows from the rest and from the side
//! ```
//!
//! As in TLS the server speaks next after the hello: a record of the conversation [`NOBODY`]. It answers
//! a record that is right with its own record of the same number; at anything else it closes the connection
//! and keeps the reason.

pub mod client;
pub mod server;

use std::io;

use crate::pattern::Pattern;

pub use client::{Conversation, Crowd, Newcomers};
pub use server::Answerer;

/// Bytes of a record.
pub const RECORD: usize = 64;

/// The conversation of a greeting: the server does not know yet which one it is.
pub const NOBODY: u32 = u32::MAX;

/// Who made a record.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Side {
    Client,
    Server,
}

fn record(side: Side, conversation: u32, number: u32) -> [u8; RECORD] {
    let mut record = [0; RECORD];
    record[..4].copy_from_slice(&conversation.to_be_bytes());
    record[4..8].copy_from_slice(&number.to_be_bytes());
    let seed = u64::from(conversation) << 33 | u64::from(number) << 1;
    Pattern::new(seed | u64::from(side == Side::Server)).fill(&mut record[8..]);
    record
}

/// Compares a record with the one that is due.
fn check(got: &[u8; RECORD], side: Side, conversation: u32, number: u32) -> io::Result<()> {
    if *got == record(side, conversation, number) {
        return Ok(());
    }
    let field = |at: usize| u32::from_be_bytes([got[at], got[at + 1], got[at + 2], got[at + 3]]);
    Err(io::Error::new(
        io::ErrorKind::InvalidData,
        format!(
            "record {number} of conversation {conversation} is due, and this says {} of {}: {got:02x?}",
            field(4),
            field(0)
        ),
    ))
}

/// Lets this process open as many files as the kernel grants it: a socket for each end.
///
/// # Errors
/// The kernel's.
pub fn raise_file_limit() -> io::Result<()> {
    let mut limit = libc::rlimit {
        rlim_cur: 0,
        rlim_max: 0,
    };
    // SAFETY: the pointer is to a local of the right type.
    if unsafe { libc::getrlimit(libc::RLIMIT_NOFILE, &raw mut limit) } != 0 {
        return Err(io::Error::last_os_error());
    }
    limit.rlim_cur = limit.rlim_max;
    // SAFETY: as above.
    if unsafe { libc::setrlimit(libc::RLIMIT_NOFILE, &raw const limit) } != 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_record_that_is_not_due_is_told() {
        let due = record(Side::Client, 7, 3);
        assert!(check(&due, Side::Client, 7, 3).is_ok());
        let error = check(&due, Side::Client, 7, 4).unwrap_err().to_string();
        assert!(error.contains("3 of 7"), "{error}");
        assert!(check(&due, Side::Server, 7, 3).is_err());
        let mut wrong = due;
        wrong[RECORD - 1] ^= 1;
        assert!(check(&wrong, Side::Client, 7, 3).is_err());
    }
}
