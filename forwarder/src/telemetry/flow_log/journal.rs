//! The systemd journal, by its native protocol: each field its own, the JSON line as the message.
//!
//! `tracing-journald`, which writes the daemon's own log, says nothing when a line could not be sent; here
//! such lines are counted. <https://systemd.io/JOURNAL_NATIVE_PROTOCOL/>

use std::io;
use std::os::unix::net::UnixDatagram;
use std::path::PathBuf;

use serde_json::Value;

use super::lines::Unwritten;

/// Where journald listens.
pub const SOCKET: &str = "/run/systemd/journal/socket";

/// The journal.
#[derive(Debug)]
pub struct Journal {
    path: PathBuf,
    socket: Option<UnixDatagram>,
}

impl Journal {
    /// The one that listens at `path`.
    pub fn new(path: PathBuf) -> Self {
        Self { path, socket: None }
    }

    /// Sends whole lines of JSON.
    pub fn write(&mut self, text: &[u8]) -> Result<(), Unwritten> {
        let mut rest = text;
        while let Some(end) = rest.iter().position(|byte| *byte == b'\n') {
            let (line, behind) = rest.split_at(end);
            if let Err(source) = self.send(line) {
                self.socket = None;
                return Err(Unwritten::all(rest, source));
            }
            rest = behind.get(1..).unwrap_or_default();
        }
        Ok(())
    }

    fn send(&mut self, line: &[u8]) -> io::Result<()> {
        let socket = match self.socket.take() {
            Some(socket) => socket,
            None => {
                let socket = UnixDatagram::unbound()?;
                socket.connect(&self.path)?;
                socket
            }
        };
        let message = message(line)?;
        let sent = match socket.send(&message) {
            // journald was started anew, and listens at another socket of the same name.
            Err(_) => UnixDatagram::unbound()?
                .send_to(&message, &self.path)
                .map(|_| None),
            Ok(_) => Ok(Some(socket)),
        };
        self.socket = sent?;
        Ok(())
    }
}

/// A datagram for a line: `MESSAGE` and the fields, each with `F_` before its name in capitals.
fn message(line: &[u8]) -> io::Result<Vec<u8>> {
    let mut out = Vec::with_capacity(2 * line.len() + 256);
    field(&mut out, "MESSAGE", line);
    field(&mut out, "PRIORITY", b"6");
    field(&mut out, "SYSLOG_IDENTIFIER", b"forwarder");
    let Value::Object(keys) = serde_json::from_slice(line)? else {
        return Ok(out);
    };
    for (key, value) in keys {
        let name = format!("F_{}", key.to_ascii_uppercase());
        match value {
            Value::Null => {}
            Value::String(text) => field(&mut out, &name, text.as_bytes()),
            other => field(&mut out, &name, other.to_string().as_bytes()),
        }
    }
    Ok(out)
}

fn field(out: &mut Vec<u8>, name: &str, value: &[u8]) {
    out.extend_from_slice(name.as_bytes());
    if value.contains(&b'\n') {
        out.push(b'\n');
        out.extend_from_slice(&(value.len() as u64).to_le_bytes());
    } else {
        out.push(b'=');
    }
    out.extend_from_slice(value);
    out.push(b'\n');
}

#[cfg(test)]
mod tests {
    use super::*;

    fn receive(socket: &UnixDatagram) -> String {
        let mut buffer = [0; 4_096];
        let length = socket.recv(&mut buffer).unwrap();
        String::from_utf8_lossy(&buffer[..length]).into_owned()
    }

    #[test]
    fn each_line_is_an_entry_and_each_key_a_field() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("socket");
        let listener = UnixDatagram::bind(&path).unwrap();
        let mut journal = Journal::new(path.clone());
        journal
            .write(b"{\"event\":\"closed\",\"port\":7,\"name\":null}\n{\"event\":\"x\\ny\"}\n")
            .unwrap();
        assert_eq!(
            receive(&listener),
            "MESSAGE={\"event\":\"closed\",\"port\":7,\"name\":null}\nPRIORITY=6\nSYSLOG_IDENTIFIER=forwarder\nF_EVENT=closed\nF_PORT=7\n"
        );
        let second = receive(&listener);
        assert!(
            second.ends_with("F_EVENT\n\u{3}\0\0\0\0\0\0\0x\ny\n"),
            "{second:?}"
        );
        // Another one under the same name.
        drop(listener);
        std::fs::remove_file(&path).unwrap();
        assert_eq!(journal.write(b"{}\n{}\n").unwrap_err().lines, 2);
        let listener = UnixDatagram::bind(&path).unwrap();
        journal.write(b"{}\n").unwrap();
        assert!(receive(&listener).starts_with("MESSAGE={}\n"));
    }
}
