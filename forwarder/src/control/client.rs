//! The other end of the socket, for the command line: one request, one answer, no runtime.
//!
//! Requests are HTTP/1.0, so an answer ends where the connection does, and neither chunks nor keep-alive have to
//! be understood.

use std::fmt::Write as _;
use std::io::{self, BufRead, BufReader, Read, Write};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde::de::DeserializeOwned;
use serde_json::Value;
use thiserror::Error;

use super::problem::Problem;

/// The daemon answers within this time, also while it writes many names.
const PATIENCE: Duration = Duration::from_secs(60);

const HOW_TO_START: &str = "`systemctl start forwarder` or `forwarder run` starts one (with the same --bpffs and --run-dir)";

fn who_may() -> String {
    format!("be root, or a member of the group `{}`", super::peer::GROUP)
}

/// Why there is no answer.
#[derive(Debug, Error)]
pub enum ClientError {
    /// Nobody listens.
    #[error("no daemon answers at {}; {}", path.display(), HOW_TO_START)]
    Absent {
        /// The socket.
        path: PathBuf,
    },
    /// The socket is not for this user.
    #[error("no permission to use {}; {}", path.display(), who_may())]
    Forbidden {
        /// The socket.
        path: PathBuf,
    },
    /// The connection failed.
    #[error("cannot talk to the daemon at {}", path.display())]
    Io {
        /// The socket.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// The answer is not what was asked for.
    #[error("the daemon's answer cannot be understood; is it of another version?")]
    Unintelligible(#[source] Option<serde_json::Error>),
    /// The daemon says no.
    #[error("{}", said(.0))]
    Refused(Box<Problem>),
}

impl ClientError {
    /// What to do about it, where that is known.
    pub fn fix(&self) -> Option<String> {
        match self {
            Self::Absent { .. } => Some(HOW_TO_START.to_owned()),
            Self::Forbidden { .. } => Some(who_may()),
            Self::Refused(problem) => problem.fix.clone(),
            Self::Io { .. } | Self::Unintelligible(_) => None,
        }
    }
}

fn said(problem: &Problem) -> String {
    let mut text = problem.message.clone();
    if let Some(fix) = &problem.fix {
        let _ = write!(text, "; {fix}");
    }
    text
}

/// A socket to ask.
#[derive(Clone, Debug)]
pub struct Client {
    path: PathBuf,
}

impl Client {
    /// The daemon that listens at `path`.
    pub fn new(path: &Path) -> Self {
        Self {
            path: path.to_owned(),
        }
    }

    /// Asks and reads the whole answer.
    pub fn ask<T: DeserializeOwned>(
        &self,
        method: &str,
        target: &str,
        body: Option<&Value>,
    ) -> Result<T, ClientError> {
        let mut answer = self.open(method, target, body, Some(PATIENCE))?;
        let mut text = Vec::new();
        answer.read_to_end(&mut text).map_err(|e| self.io(e))?;
        serde_json::from_slice(&text).map_err(|error| ClientError::Unintelligible(Some(error)))
    }

    /// Asks for events and calls `each` with the data of each until it says that it is enough, or the daemon ends.
    /// Says whether it was the daemon.
    pub fn follow(
        &self,
        target: &str,
        mut each: impl FnMut(&str) -> io::Result<bool>,
    ) -> Result<bool, ClientError> {
        let mut answer = self.open("GET", target, None, None)?;
        let mut line = String::new();
        loop {
            line.clear();
            match answer.read_line(&mut line) {
                Ok(0) => return Ok(true),
                // A daemon that was killed says no farewell.
                Err(error) if error.kind() == io::ErrorKind::ConnectionReset => return Ok(true),
                read => read.map_err(|e| self.io(e))?,
            };
            if let Some(data) = line.trim_end().strip_prefix("data:")
                && !each(data.trim_start()).map_err(|e| self.io(e))?
            {
                return Ok(false);
            }
        }
    }

    fn open(
        &self,
        method: &str,
        target: &str,
        body: Option<&Value>,
        patience: Option<Duration>,
    ) -> Result<BufReader<UnixStream>, ClientError> {
        let mut stream = UnixStream::connect(&self.path).map_err(|error| self.io(error))?;
        let body = body.map(Value::to_string).unwrap_or_default();
        let request = format!(
            "{method} {target} HTTP/1.0\r\nHost: forwarder\r\nContent-Type: application/json\r\nContent-Length: {}\r\n\r\n{body}",
            body.len()
        );
        let send = |stream: &mut UnixStream| {
            stream.set_read_timeout(patience)?;
            stream.write_all(request.as_bytes())
        };
        send(&mut stream).map_err(|error| self.io(error))?;
        let mut answer = BufReader::new(stream);
        let status = head(&mut answer).map_err(|error| self.io(error))?;
        let status = status.ok_or(ClientError::Unintelligible(None))?;
        if (200..300).contains(&status) {
            return Ok(answer);
        }
        let mut text = Vec::new();
        answer.read_to_end(&mut text).map_err(|e| self.io(e))?;
        let mut problem: Value = serde_json::from_slice(&text)
            .map_err(|error| ClientError::Unintelligible(Some(error)))?;
        let problem = serde_json::from_value(problem["error"].take())
            .map_err(|error| ClientError::Unintelligible(Some(error)))?;
        Err(ClientError::Refused(Box::new(problem)))
    }

    fn io(&self, source: io::Error) -> ClientError {
        let path = self.path.clone();
        match source.kind() {
            io::ErrorKind::NotFound | io::ErrorKind::ConnectionRefused => {
                ClientError::Absent { path }
            }
            io::ErrorKind::PermissionDenied => ClientError::Forbidden { path },
            _ => ClientError::Io { path, source },
        }
    }
}

/// Reads status line and headers; returns the status.
fn head(answer: &mut impl BufRead) -> io::Result<Option<u16>> {
    let mut line = String::new();
    answer.read_line(&mut line)?;
    let mut words = line.split(' ');
    let is_http = words.next().is_some_and(|word| word.starts_with("HTTP/1."));
    let status = words.next().and_then(|word| word.trim().parse().ok());
    loop {
        line.clear();
        if answer.read_line(&mut line)? == 0 || line.trim_end().is_empty() {
            return Ok(status.filter(|_| is_http));
        }
    }
}

/// A target with a query: parameters without a value are left out, the others are percent-encoded.
pub fn target(path: &str, parameters: &[(&str, Option<&str>)]) -> String {
    let mut target = path.to_owned();
    let given = parameters
        .iter()
        .filter_map(|(key, value)| Some((key, (*value)?)));
    for (at, (key, value)) in given.enumerate() {
        target.push(if at == 0 { '?' } else { '&' });
        target.push_str(key);
        target.push('=');
        target.push_str(&encoded(value));
    }
    target
}

/// Everything but unreserved characters (RFC 3986, section 2.3) as `%xx`.
pub fn encoded(text: &str) -> String {
    let mut out = String::new();
    for byte in text.bytes() {
        if byte.is_ascii_alphanumeric() || b"-._~".contains(&byte) {
            out.push(char::from(byte));
        } else {
            let _ = write!(out, "%{byte:02X}");
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn targets_are_encoded() {
        let parameters = [
            ("name", Some("*.a b")),
            ("node", None),
            ("from", Some("2001:db8::7")),
        ];
        assert_eq!(
            target("/v1/x", &parameters),
            "/v1/x?name=%2A.a%20b&from=2001%3Adb8%3A%3A7"
        );
    }

    #[test]
    fn heads_are_read_to_their_end() {
        let mut answer = &b"HTTP/1.1 404 Not Found\r\nA: b\r\n\r\nbody"[..];
        assert_eq!(head(&mut answer).unwrap(), Some(404));
        assert_eq!(answer, b"body");
        assert_eq!(head(&mut &b"SSH-2.0\r\n\r\n"[..]).unwrap(), None);
    }

    #[test]
    fn no_daemon_is_a_clear_word() {
        let client = Client::new(Path::new("/nonexistent/control.sock"));
        let error = client.ask::<Value>("GET", "/v1/status", None).unwrap_err();
        assert!(error.to_string().contains("forwarder run"), "{error}");
    }
}
