//! What the standard library leaves out about sockets.

use std::io;
use std::net::TcpStream;
use std::os::fd::{AsRawFd, RawFd};
use std::time::Duration;

/// Sets a socket option, whose value must be of the type that the option wants.
pub(crate) fn set_option<T>(socket: RawFd, level: i32, name: i32, value: &T) -> io::Result<()> {
    let length = size_of::<T>() as libc::socklen_t;
    // SAFETY: the pointer and the length are those of `value`.
    let result = unsafe {
        libc::setsockopt(
            socket,
            level,
            name,
            std::ptr::from_ref(value).cast(),
            length,
        )
    };
    if result < 0 {
        Err(io::Error::last_os_error())
    } else {
        Ok(())
    }
}

/// Sends probes once nothing has come for a while, and then as often again.
pub(crate) fn keep_alive(socket: &TcpStream, after: Duration) -> io::Result<()> {
    let seconds = i32::try_from(after.as_secs().max(1)).unwrap_or(i32::MAX);
    let socket = socket.as_raw_fd();
    set_option(socket, libc::SOL_SOCKET, libc::SO_KEEPALIVE, &1_i32)?;
    set_option(socket, libc::IPPROTO_TCP, libc::TCP_KEEPIDLE, &seconds)?;
    set_option(socket, libc::IPPROTO_TCP, libc::TCP_KEEPINTVL, &seconds)
}

/// Closes a connection with a reset instead of a FIN.
pub(crate) fn close_with_reset(socket: &TcpStream) -> io::Result<()> {
    let linger = libc::linger {
        l_onoff: 1,
        l_linger: 0,
    };
    set_option(
        socket.as_raw_fd(),
        libc::SOL_SOCKET,
        libc::SO_LINGER,
        &linger,
    )?;
    // Disconnecting (AF_UNSPEC) resets at once, whoever else still holds the socket.
    // SAFETY: all-zero is a valid sockaddr, of family AF_UNSPEC.
    let nobody: libc::sockaddr = unsafe { std::mem::zeroed() };
    // SAFETY: the pointer and the length are those of a local.
    let result = unsafe {
        libc::connect(
            socket.as_raw_fd(),
            &raw const nobody,
            size_of_val(&nobody) as libc::socklen_t,
        )
    };
    if result < 0 {
        Err(io::Error::last_os_error())
    } else {
        Ok(())
    }
}
