//! Ends of connections that vanish without a word, so that what is in between keeps an idle connection of
//! which neither end takes memory or a descriptor any more.
//!
//! A socket in repair mode (`TCP_REPAIR`, made for moving containers) is closed without any packet. Nothing
//! may be on its way then: whoever sent it would send it again, and draw a reset.

use std::io;
use std::os::fd::AsRawFd;
use std::time::Duration;

use tokio::net::TcpStream;

use crate::socket::set_option;

const TCP_REPAIR: i32 = 19;
const TCP_QUICKACK: i32 = 12;
const POLL: Duration = Duration::from_millis(20);
/// What has not been acknowledged by then never will be.
const LIMIT: u32 = 250;

/// Acknowledges what has been read at once, not a little later with some data.
pub fn acknowledge(socket: &TcpStream) -> io::Result<()> {
    set_option(socket.as_raw_fd(), libc::IPPROTO_TCP, TCP_QUICKACK, &1_i32)
}

/// Closes this end; the other one does not learn of it.
pub fn now(socket: TcpStream) -> io::Result<()> {
    set_option(socket.as_raw_fd(), libc::IPPROTO_TCP, TCP_REPAIR, &1_i32)?;
    drop(socket);
    Ok(())
}

/// The same as soon as everything that was sent has been acknowledged.
pub async fn when_acknowledged(socket: TcpStream) -> io::Result<()> {
    for _ in 0..LIMIT {
        tokio::time::sleep(POLL).await;
        let mut unacknowledged = 0_i32;
        // SAFETY: TIOCOUTQ (SIOCOUTQ of tcp(7)) writes one int, and the pointer is to a local one.
        let result =
            unsafe { libc::ioctl(socket.as_raw_fd(), libc::TIOCOUTQ, &raw mut unacknowledged) };
        if result < 0 {
            return Err(io::Error::last_os_error());
        }
        if unacknowledged == 0 {
            return now(socket);
        }
    }
    Err(io::ErrorKind::TimedOut.into())
}
