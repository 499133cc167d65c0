//! The forwarder's control socket (`docs/control.md`), by hand: one connection, request after request.

use std::io::{self, Read, Write};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::Duration;

/// A connection to the control socket.
#[derive(Debug)]
pub struct Control(UnixStream);

impl Control {
    /// Connects.
    pub fn open(socket: &Path) -> io::Result<Self> {
        let stream = UnixStream::connect(socket)?;
        stream.set_read_timeout(Some(Duration::from_secs(120)))?;
        Ok(Self(stream))
    }

    /// Sends a request and waits for its answer; any status but success is an error with its words.
    pub fn request(&mut self, method: &str, path: &str, body: &str) -> io::Result<String> {
        let head = format!(
            "{method} {path} HTTP/1.1\r\nHost: forwarder\r\nContent-Type: application/json\r\n\
             Content-Length: {}\r\n\r\n{body}",
            body.len()
        );
        self.0.write_all(head.as_bytes())?;
        let mut bytes = Vec::new();
        let mut buffer = [0; 64 << 10];
        // A long answer is not looked through again with each piece of it.
        let mut expected = 0;
        loop {
            let length = self.0.read(&mut buffer)?;
            if length == 0 {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
            bytes.extend_from_slice(&buffer[..length]);
            if bytes.len() < expected {
                continue;
            }
            expected = end(&bytes).unwrap_or_default();
            if let Some((status, text)) = answer(&bytes) {
                return if (200..300).contains(&status) {
                    Ok(text)
                } else {
                    Err(io::Error::other(format!(
                        "{method} {path}: {status} {text}"
                    )))
                };
            }
        }
    }
}

/// Where an answer ends that says so.
fn end(bytes: &[u8]) -> Option<usize> {
    let head = bytes.windows(4).position(|own| own == b"\r\n\r\n")? + 4;
    let text = String::from_utf8_lossy(&bytes[..head]).to_ascii_lowercase();
    let line = text
        .lines()
        .find_map(|line| line.strip_prefix("content-length:"))?;
    Some(head + line.trim().parse::<usize>().ok()?)
}

/// A whole answer's status and body.
fn answer(bytes: &[u8]) -> Option<(u16, String)> {
    let text = String::from_utf8_lossy(bytes);
    let (head, body) = text.split_once("\r\n\r\n")?;
    let head = head.to_ascii_lowercase();
    let status = head.split(' ').nth(1)?.parse().ok()?;
    let field = |name: &str| {
        let line = head.lines().find_map(|line| line.strip_prefix(name))?;
        Some(line.trim().to_owned())
    };
    let whole = match field("content-length:") {
        Some(length) => body.len() >= length.parse().ok()?,
        None => body.ends_with("0\r\n\r\n"),
    };
    whole.then(|| (status, body.to_owned()))
}

#[cfg(test)]
mod tests {
    use super::{answer, end};

    #[test]
    fn an_answer_is_whole_when_its_body_is() {
        let text = b"HTTP/1.1 404 Not Found\r\nContent-Length: 4\r\n\r\nnope";
        assert_eq!(answer(text), Some((404, "nope".to_owned())));
        assert_eq!(answer(&text[..text.len() - 1]), None);
        assert_eq!(answer(&text[..20]), None);
        assert_eq!(
            (end(&text[..20]), end(&text[..45])),
            (None, Some(text.len()))
        );
    }
}
